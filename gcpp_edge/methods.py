"""From activations and gradients to a map: the methods, and how peers compute the same ones.

One table, METHODS, holds the paper's methods; the fused kernels compute them. A, the activations of a channel k, has
h x w positions ij; g = dS/dA is the gradient of the raw class score S; w_k weighs channel k.

Two reference modes reproduce what others compute, exactly and in NumPy: `pytorch-grad-cam` and `authors`. Equations
are those of Chattopadhyay et al. 2018; docs/method.md derives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import MAP, SOFTMAX_WEIGHTS, Contract
from gcpp_edge.errors import MethodError
from gcpp_edge.geometry import stretch_axis
from gcpp_edge.kernels import table

Array = NDArray[np.float32]

PAPER = "paper"
PYTORCH_GRAD_CAM = "pytorch-grad-cam"
AUTHORS = "authors"
MODES = (PAPER, PYTORCH_GRAD_CAM, AUTHORS)


@dataclass(frozen=True)
class Method:
    """One way to weigh the channels: `rule` and `relu` are what the `cam` kernel takes.

    `needs_constant`: defined only where the gradients are proven constant over space. `needs_weights`: the kernel is
    given the file's own `softmax_weights`, one a channel, in place of gradients.
    """

    name: str
    rule: str
    relu: bool
    needs_constant: bool
    equation: str
    source: str
    needs_weights: bool = False


METHODS = {
    method.name: method
    for method in (
        Method(
            "gradcam",
            rule="gradcam",
            relu=True,
            needs_constant=False,
            equation="w_k = mean_ij g_ij;  L = relu(sum_k w_k A_k)",
            source="Eq. 3 (Selvaraju et al. 2017)",
        ),
        Method(
            "gradcam++",
            rule="gradcam++",
            relu=True,
            needs_constant=False,
            equation="w_k = sum_ij relu(g_ij) / (2 + max(sum A_k, 0) g_ij);  L = relu(sum_k w_k A_k)",
            source="Eq. 5, 11, 19, 20, divided through by g²; the clamp of sum A is ours",
        ),
        Method(
            "gradcam++-signed",
            rule="gradcam++-signed",
            relu=True,
            needs_constant=False,
            equation="w_k = sum_ij g_ij / (2 + max(sum A_k, 0) g_ij), 0 at poles;  L = relu(sum_k w_k A_k)",
            source="Eq. 29, 30 (section 7.1)",
        ),
        Method(
            "gradcam++-softmax",
            rule="gradcam",
            relu=True,
            needs_constant=False,
            equation="w_k = sum_ij alpha_ij relu(dY/dA_ij), Y = softmax(S), 0 at poles;  L = relu(sum_k w_k A_k)",
            source="Eq. 5, 10, 21-24, up to the factor Y (1 - Y); computed in the file",
            needs_weights=True,
        ),
        Method(
            "cam",
            rule="gradcam",
            relu=False,
            needs_constant=True,
            equation="w_k = g_k;  L = sum_k w_k A_k, where the head is pooling + linear",
            source="Eq. 1, 2 (Zhou et al. 2016), up to the factor 1 / (h w)",
        ),
    )
}


class Range(NamedTuple):
    """The raw values of a map that are shown as 0 and 1. Where not high > low, all of it is shown as 0."""

    low: float
    high: float


def choose_method(name: str, contract: Contract, mode: str = PAPER) -> Method:
    """The method of this name, if this model and this mode have it; MethodError otherwise."""
    if name not in METHODS:
        raise MethodError(f"Unknown method {name!r}. Known: {', '.join(METHODS)}.")
    if mode not in MODES:
        raise MethodError(f"Unknown mode {mode!r}. Known: {', '.join(MODES)}.")
    if mode != PAPER and (mode, name) not in _REFERENCE_WEIGHTS:
        known = ", ".join(method for other, method in _REFERENCE_WEIGHTS if other == mode)
        raise MethodError(f"Mode {mode!r} has no method {name!r}. It has: {known}. Leave the mode out for {name!r}.")
    if mode != PAPER and contract.preprocessing.frames:
        raise MethodError(f"Mode {mode!r} is for pictures; this model explains clips. Leave the mode out.")
    method = METHODS[name]
    for layer in contract.layers:
        if method.needs_constant and not layer.constant:
            raise MethodError(
                f"Method {name!r} needs a head of pooling + linear layers behind {layer.name!r}; the gradients "
                "there depend on the position. Use 'gradcam', which needs no such head."
            )
    if method.needs_weights and not holds_softmax_weights(contract):
        raise MethodError(
            f"Method {name!r} needs a file that computes its weights. Export the network again with --softmax, or use "
            "'gradcam++'."
        )
    return method


def holds_softmax_weights(contract: Contract) -> bool:
    """Whether the file computes the weights of gradcam++-softmax."""
    return MAP in contract.levels and SOFTMAX_WEIGHTS in contract.levels[MAP].outputs


def reference_maps(
    mode: str, method: Method, activations: Array, gradients: Array, gradient_scale: float = 1.0
) -> Array:
    """Raw maps of a batch as a peer computes them.

    activations: (N, C, h, w) of any float dtype; gradients the same, or (N, C, 1, 1), stored times gradient_scale.
    Returns (N, h, w) float32.
    """
    A = activations.astype(np.float32, copy=False)
    g = np.broadcast_to(gradients.astype(np.float32, copy=False) / np.float32(gradient_scale), A.shape)
    weights = _REFERENCE_WEIGHTS[mode, method.name](A, g)
    maps: Array = np.maximum((weights[:, :, None, None] * A).sum(axis=1), 0).astype(np.float32, copy=False)
    return maps


def display_range(mode: str, raw_map: Array, height: int, width: int) -> Range:
    """The raw values that a mode shows as 0 and 1. raw_map: (h, w) float32; the input has (height, width) pixels."""
    return _RANGES[mode](raw_map, height, width)


def single_range(mode: str, raw_map: Array) -> Range:
    """The same of a map that is not resized in two steps: a layer's among several, or their mean."""
    low = 0.0 if mode == AUTHORS else float(raw_map.min())
    return Range(low, float(raw_map.max()) + (1e-7 if mode == PYTORCH_GRAD_CAM else 0.0))


def _mean_weights(A: Array, g: Array) -> Array:
    """w_k = mean_ij g_ij, (N, C). Source: Eq. 3, which all peers agree on."""
    weights: Array = g.mean(axis=(2, 3))
    return weights


def _pytorch_grad_cam_weights(A: Array, g: Array) -> Array:
    """w_k = sum_ij relu(g) alpha, alpha = g² / (2g² + sum A g³ + 1e-6), and 0 where g is 0. (N, C).

    Source: pytorch-grad-cam 1.5.7, grad_cam_plusplus.py. In float32 and in its order of operations, since near a pole
    (sum A < 0) the rounding is visible in the result.
    """
    squares = g**2
    sums = A.sum(axis=(2, 3), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = squares / (2 * squares + sums * (squares * g) + np.float32(1e-6))
    weights: Array = (np.maximum(g, 0) * np.where(g != 0, alpha, 0)).sum(axis=(2, 3))
    return weights


def _authors_weights(A: Array, g: Array) -> Array:
    """w_k = sum_ij relu(g) alpha / sum_{g > 0} alpha, with alpha of Eq. 19 and no clamp of sum A. (N, C).

    Source: github.com/adityac94/Grad_CAM_plus_plus, misc/utils.py. Its factor exp(S) cancels when the map is divided
    by its maximum and is left out. A denominator or a sum of zero is taken as 1 there, and here.
    """
    squares = g.astype(np.float64) ** 2
    denominator = 2 * squares + A.sum(axis=(2, 3), keepdims=True, dtype=np.float64) * squares * g
    alpha = squares / np.where(denominator != 0, denominator, 1)
    total = np.where(g > 0, alpha, 0).sum(axis=(2, 3), keepdims=True)
    weights: Array = (np.maximum(g, 0) * alpha / np.where(total != 0, total, 1)).sum(axis=(2, 3)).astype(np.float32)
    return weights


_REFERENCE_WEIGHTS: dict[tuple[str, str], Callable[[Array, Array], Array]] = {
    (PYTORCH_GRAD_CAM, "gradcam"): _mean_weights,
    (PYTORCH_GRAD_CAM, "gradcam++"): _pytorch_grad_cam_weights,
    (AUTHORS, "gradcam"): _mean_weights,
    (AUTHORS, "gradcam++"): _authors_weights,
}


def _paper_range(raw_map: Array, height: int, width: int) -> Range:
    """Minimum to maximum of the map."""
    return Range(float(raw_map.min()), float(raw_map.max()))


def _authors_range(raw_map: Array, height: int, width: int) -> Range:
    """Zero to the maximum: the authors divide by it."""
    return Range(0.0, float(raw_map.max()))


def _pytorch_grad_cam_range(raw_map: Array, height: int, width: int) -> Range:
    """What its two min-max steps amount to: before the resize to the input's size, and after it, each with 1e-7.

    Bilinear resizing commutes with scaling, so the two steps are one range of the raw map.
    Source: pytorch-grad-cam 1.5.7, utils/image.py, scale_cam_image.
    """
    floor = raw_map.min()
    unit = np.float32(1e-7) + (raw_map - floor).max()
    resized = np.empty((height, width), np.float32)
    rows, columns = stretch_axis(height, raw_map.shape[0]), stretch_axis(width, raw_map.shape[1])
    table("numpy").heatmap((raw_map - floor) / unit, rows, columns, 0.0, 1.0, resized)
    lowest, highest = float(resized.min()), float(resized.max())
    low = float(floor) + lowest * float(unit)
    return Range(low, low + (1e-7 + highest - lowest) * float(unit))


_RANGES: dict[str, Callable[[Array, int, int], Range]] = {
    PAPER: _paper_range,
    PYTORCH_GRAD_CAM: _pytorch_grad_cam_range,
    AUTHORS: _authors_range,
}
