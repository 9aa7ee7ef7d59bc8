from typing import Any

from numpy.typing import NDArray

from gcpp_edge.kernels.axis import Axis

def available() -> tuple[str, ...]: ...

class Kernels:
    def __init__(self, isa: str, threads: int = 1) -> None: ...
    def cam(
        self,
        activations: NDArray[Any],
        gradients: NDArray[Any],
        rule: str,
        relu: bool,
        out: NDArray[Any],
        weights: NDArray[Any] | None = None,
        gradient_scale: float = 1.0,
        poles: NDArray[Any] | None = None,
    ) -> None: ...
    def range(self, map: NDArray[Any], zero_low: bool, out: NDArray[Any]) -> None: ...
    def heatmap(
        self,
        map: NDArray[Any],
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        out: NDArray[Any],
        limits: NDArray[Any] | None = None,
    ) -> None: ...
    def overlay(
        self,
        frame: NDArray[Any],
        map: NDArray[Any],
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        palette: NDArray[Any],
        alpha: float,
        dim: float,
        out: NDArray[Any],
        limits: NDArray[Any] | None = None,
    ) -> None: ...
    def guided(
        self,
        map: NDArray[Any],
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        image: NDArray[Any],
        out: NDArray[Any],
        limits: NDArray[Any] | None = None,
    ) -> None: ...
    def preprocess(
        self,
        frame: NDArray[Any],
        format: str,
        rows: Axis,
        columns: Axis,
        color: str,
        scale: NDArray[Any],
        bias: NDArray[Any],
        fill: NDArray[Any],
        out: NDArray[Any],
    ) -> None: ...
