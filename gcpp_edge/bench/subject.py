"""An explained model's levels as runs to be timed: from the same frame to scores, to an overlay, to a guided image.

Every level is a network of its own, so in one process they share nothing but the frame and the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gcpp_edge
from gcpp_edge.backends import AUTO
from gcpp_edge.contract import GUIDED, MAP, PLAIN, SEED, Contract
from gcpp_edge.errors import InputError
from gcpp_edge.frames import frame_shape
from gcpp_edge.made import OVERLAY

PREPROCESS, NETWORK, CAM, COPY_IN, COPY_OUT, REST = "preprocess", "network", "cam", "copy in", "copy out", "rest"
STAGES = (COPY_IN, PREPROCESS, NETWORK, CAM, OVERLAY, GUIDED, COPY_OUT, REST)  # in the order of a frame
DEFAULT_FRAME = (640, 480)
Stages = dict[str, float]


class Settings(NamedTuple):
    """What is measured. frame: (width, height) of one that is made up, None for 640 x 480 or what the file takes."""

    backend: str = AUTO
    method: str | None = None
    guided: bool = False
    batch: int = 1
    threads: int = 0
    spin: bool = False
    recorded: bool = True  # on a GPU: as a CUDA graph
    frame: tuple[int, int] | None = None


class Subject:
    """An explained model that is open, and a batch of frames for it. A context manager.

    picture: (H, W, 3) uint8 BGR, in place of a frame that is made up.
    Raises InputError for a file whose inputs nobody can make up, and what gcpp_edge.load raises.
    """

    def __init__(self, path: Any, settings: Settings, picture: NDArray[np.uint8] | None = None) -> None:
        self.settings = settings
        self.explainer = gcpp_edge.load(
            path,
            device=settings.backend,
            level=GUIDED if settings.guided else MAP,
            method=settings.method,
            threads=settings.threads,
            spin=settings.spin,
            max_batch=settings.batch,
        )
        try:
            contract = self.explainer.contract
            refuse_unknown_inputs(path, contract)
            self.on_gpu = not self.explainer._device.synchronous
            if self.on_gpu and not settings.recorded:
                self.explainer._device.perform(self._stop_recording)
            self.format = contract.frame.format if contract.frame.height else "bgr"
            self.frames = [one_frame(contract, settings.frame, picture)] * settings.batch
        except BaseException:
            self.explainer.close()
            raise
        self.seed = np.ones(contract.target.shape, np.float32) if contract.target.kind == SEED else None
        self._found: dict[bool, list[gcpp_edge.Explanation]] = {}  # by guided: filled again, as a pipeline does
        self._overlays: list[NDArray[Any]] = []

    def runs(self) -> dict[str, Callable[[], Stages]]:
        """By level; each returns how long its stages took, as far as the host can tell."""
        found: dict[str, Callable[[], Stages]] = {PLAIN: self.plain, MAP: self.map}
        return found | ({GUIDED: self.guided} if self.settings.guided else {})

    def plain(self) -> Stages:
        """The network alone, by the same way as the others."""
        clock = self.explainer._inference.scores_ms
        before = dict(clock)
        self.explainer.scores(self.frames, self.format)
        return {name: until - before.get(name, 0.0) for name, until in clock.items()}

    def map(self) -> Stages:
        """To finished overlays."""
        return self._explained(guided=False)

    def guided(self) -> Stages:
        """To finished overlays and guided images."""
        return self._explained(guided=True)

    def _explained(self, guided: bool) -> Stages:
        make = OVERLAY if self.on_gpu else ()  # there it is drawn beside the map
        found = self._found[guided] = self.explainer(
            self.frames, seed=self.seed, guided=guided, make=make, format=self.format, out=self._found.get(guided)
        )
        stages: Stages = {}
        if not self.on_gpu:
            for name in found[0].timings_ms:
                stages[name] = sum(one.timings_ms[name] for one in found)
            stages[OVERLAY] = timed_ms(lambda: self._draw(found))
        if guided:
            took_ms = timed_ms(lambda: [one.guided() for one in found])
            stages |= {} if self.on_gpu else {GUIDED: took_ms}
        return stages

    def _draw(self, found: list[gcpp_edge.Explanation]) -> None:
        """Into buffers that are kept, as who draws every frame does."""
        if not self._overlays:
            self._overlays = [one.overlay() for one in found]
        for one, out in zip(found, self._overlays, strict=True):
            one.overlay(out=out)

    def _stop_recording(self) -> None:
        self.explainer._device.stop_recording("it was asked for call by call")  # type: ignore[attr-defined]

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self.explainer.close()


def timed_ms(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = perf_counter()
    work()
    return 1e3 * (perf_counter() - began)


def refuse_unknown_inputs(path: Any, contract: Contract) -> None:
    """Raises InputError for further inputs, whose values only the caller knows."""
    if contract.extra_inputs:
        names = ", ".join(entry.name for entry in contract.extra_inputs)
        raise InputError(f"{path}: also needs {names}, which cannot be made up. Measure it from Python.")


def one_frame(contract: Contract, size: tuple[int, int] | None, picture: NDArray[np.uint8] | None) -> Any:
    """A frame as the file takes them; of a network for clips, a clip of it. size: (width, height) of noise."""
    taken = contract.frame
    if picture is not None:
        frame = _as_format(picture, taken.format if taken.height else "bgr")
    else:
        width, height = size or ((taken.width, taken.height) if taken.height else DEFAULT_FRAME)
        shape: Sequence[int] = frame_shape(taken)[2:] if taken.height else (3,)
        frame = np.random.default_rng(0).integers(0, 256, (height, width, *shape), np.uint8)
    clip = contract.preprocessing.frames
    return np.stack([frame] * clip) if clip else frame


def _as_format(picture: NDArray[np.uint8], format: str) -> NDArray[np.uint8]:
    if format not in ("bgr", "rgb"):
        raise InputError(f"--frame: this file takes {format} frames, which a picture is not. Leave it out.")
    return np.ascontiguousarray(picture[:, :, ::-1]) if format == "rgb" else picture
