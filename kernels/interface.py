"""What a table of kernels offers, and the one place where arguments are checked before an implementation runs.

An implementation (reference.py, _cpu.pyx, cuda_table.py) writes only the raw functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.kernels import arguments
from gcpp_edge.kernels.axis import Axis

Array = NDArray[Any]


class Implementation(Protocol):
    """The raw kernels, on checked arguments: a module or an object that has them."""

    @property
    def cam(self) -> Callable[..., None]: ...

    @property
    def range(self) -> Callable[..., None]: ...

    @property
    def heatmap(self) -> Callable[..., None]: ...

    @property
    def overlay(self) -> Callable[..., None]: ...

    @property
    def guided(self) -> Callable[..., None]: ...

    @property
    def preprocess(self) -> Callable[..., None]: ...


@dataclass(frozen=True)
class KernelTable:
    """The kernels for one instruction set. Every one checks its arguments and is done when it returns.

    All raise ShapeError for arrays that do not fit; the C ones release the GIL. Empty arrays are fine. NaN and
    infinities never crash: cam carries NaN through to the map, and a map that is NaN shows as 0.
    """

    isa: str
    implementation: Implementation

    def cam(
        self,
        activations: Array,
        gradients: Array,
        rule: str,
        relu: bool,
        out: Array,
        weights: Array | None = None,
        gradient_scale: float = 1.0,
        poles: Array | None = None,
    ) -> None:
        """Class activation maps, Σ_k w_k A_k, into `out`.

        activations: (N, C, *S), S of one to three axes, float32 or float16. gradients: the same shape, or
        (N, C, 1, ..) where they are constant over space; float32 or float16. out: (N, *S) float32, through a ReLU
        if `relu`. weights: (N, C) float32, takes w. poles: (N,) int64, takes how many positions of each picture were
        poles. K targets with the same activations: gradients (N, K, C, ..), out (N, K, *S), weights (N, K, C), poles
        (N, K). All C-contiguous. gradient_scale: g is gradients / gradient_scale; a power of two costs no accuracy.
        rule: "gradcam" (w is the mean of g), "gradcam++" (ΣA clamped at 0), "gradcam++-signed" (no ReLU on g; α is 0
        where |2 + max(ΣA, 0)·g| < 1e-3, and the position is counted). Sums are float32.
        Raises ShapeError, MethodError, InputError. Source: Eq. 1, 3, 5, 19, 20, 29 (docs/method.md).
        """
        arguments.check_cam(activations, gradients, rule, out, weights, gradient_scale, poles)
        self.implementation.cam(activations, gradients, rule, bool(relu), out, weights, float(gradient_scale), poles)

    def range(self, map: Array, zero_low: bool, out: Array) -> None:
        """The range of the numbers in a map, for heatmap, overlay and guided: on a GPU nothing waits for it.

        map: float32 of any shape. out: (2,) float32, takes the minimum, or 0 if `zero_low`, and the maximum; or (N, 2),
        takes those of each of the N maps in `map`. NaN is passed over; where there is no number both are 0.
        Raises ShapeError.
        """
        arguments.check_range(map, out)
        self.implementation.range(map, bool(zero_low), out)

    def heatmap(
        self,
        map: Array,
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        out: Array,
        limits: Array | None = None,
    ) -> None:
        """The map at the pixels of `out`, normalised to [0, 1].

        map: (h, w) float32. rows, columns: from pixels of `out` to the map. out: (H, W) float32, or uint8 as
        round(255 v). v = clip((bilinear(map) - low) / (high - low), 0, 1); all 0 if not high > low; unseen is 0.
        limits: (2,) float32, low and high as `range` writes them, in place of the two numbers.
        Raises ShapeError.
        """
        arguments.check_heatmap(map, rows, columns, out, limits)
        self.implementation.heatmap(map, rows, columns, float(low), float(high), out, limits)

    def overlay(
        self,
        frame: Array,
        map: Array,
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        palette: Array,
        alpha: float,
        dim: float,
        out: Array,
        limits: Array | None = None,
    ) -> None:
        """The coloured map blended over a frame; no full-size float map is made.

        frame: (H, W, 3 or 4) uint8, rows may lie apart. palette: (256, 3) uint8 in the frame's channel order.
        alpha, dim: in [0, 1]. out: like the frame, may be the frame. Seen pixels are
        round(frame·(1 - alpha) + palette[round(255 v)]·alpha), unseen ones round(frame·dim); a fourth channel is
        copied. The rest is as for heatmap.
        Raises ShapeError, InputError.
        """
        arguments.check_overlay(frame, map, rows, columns, palette, alpha, dim, out, limits)
        self.implementation.overlay(
            frame, map, rows, columns, float(low), float(high), palette, float(alpha), float(dim), out, limits
        )

    def guided(
        self,
        map: Array,
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        image: Array,
        out: Array,
        limits: Array | None = None,
    ) -> None:
        """A pixel-space backward image times the map at each pixel (Guided Grad-CAM++, §3.3).

        image: (C, H, W) float32 or float16. out: (C, H, W) float32, may be the image. The rest is as for heatmap.
        Raises ShapeError.
        """
        arguments.check_guided(map, rows, columns, image, out, limits)
        self.implementation.guided(map, rows, columns, float(low), float(high), image, out, limits)

    def preprocess(
        self,
        frame: Array,
        format: str,
        rows: Axis,
        columns: Axis,
        color: str,
        scale: Array,
        bias: Array,
        fill: Array,
        out: Array,
    ) -> None:
        """A frame as the network's input: resized, in its colour order, pixel·scale + bias, planar.

        frame, by `format`: "bgr", "rgb" (H, W, 3), "bgra", "rgba" (H, W, 4), "gray" (H, W) uint8, "gray16" (H, W)
        uint16 (divided by 257), "nv12" (H·3/2, W) uint8 (BT.601, limited range). Rows may lie apart. rows, columns:
        from pixels of `out` to the frame. color: the network's order, "rgb", "bgr", "gray", "rgba", "bgra"; grey
        from colour is 0.299 R + 0.587 G + 0.114 B, colour from grey is replicated, a missing alpha is 255.
        scale, bias, fill: (C,) each; pixels are 0 to 255, and where there is no source the pixel is `fill`.
        out: (C, H, W) float32 or float16.
        Raises ShapeError, InputError.
        """
        scale, bias, fill = (np.ascontiguousarray(values, np.float32) for values in (scale, bias, fill))
        arguments.check_preprocess(frame, format, rows, columns, color, scale, bias, fill, out)
        self.implementation.preprocess(frame, format, rows, columns, color, scale, bias, fill, out)
