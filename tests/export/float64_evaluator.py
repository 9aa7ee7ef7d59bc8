"""Runs an explained graph in float64, so that kinks do not flip and errors mean errors.

ONNX Runtime's CPU has no float64 convolution, and onnx's ReferenceEvaluator is slow at sliding windows and lacks some
operators: those are computed by PyTorch and NumPy, the rest by the ReferenceEvaluator.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from gcpp_edge.export.weights import filled


def _padded(x, pads, fill=0.0):
    """PyTorch pads symmetrically only, so pads are applied beforehand."""
    rank = len(pads) // 2
    flat = [n for i in reversed(range(rank)) for n in (pads[i], pads[rank + i])]
    return F.pad(torch.from_numpy(np.ascontiguousarray(x)), flat, value=fill)


class Conv(OpRun):
    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=1, kernel_shape=None, pads=None, strides=None):
        bias = None if b is None else torch.from_numpy(np.array(b))
        rank = w.ndim - 2
        one = [1] * rank
        x = _padded(x, pads or [0] * (2 * rank))
        function = (torch.conv1d, torch.conv2d, torch.conv3d)[rank - 1]
        result = function(x, torch.from_numpy(w.copy()), bias, strides or one, 0, dilations or one, group or 1)
        return (result.numpy(),)


class ConvTranspose(OpRun):
    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=1, kernel_shape=None, output_padding=None,
             output_shape=None, pads=None, strides=None):  # fmt: skip
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[w.ndim - 3]
        full = function(
            torch.from_numpy(np.array(x)), torch.from_numpy(np.array(w)), None, strides, 0, 0, group or 1, dilations
        )
        rank = w.ndim - 2
        grown = F.pad(full, [n for extra in reversed(output_padding or [0] * rank) for n in (0, extra)])
        cut = tuple(slice(pads[i], grown.shape[2 + i] - pads[rank + i]) for i in range(rank))
        return (grown[(slice(None), slice(None), *cut)].numpy(),)


class MaxPool(OpRun):
    def _run(
        self,
        x,
        auto_pad=None,
        ceil_mode=0,
        dilations=None,
        kernel_shape=None,
        pads=None,
        storage_order=None,
        strides=None,
    ):
        rank = len(kernel_shape)
        pads, strides = list(pads or [0] * (2 * rank)), strides or [1] * rank
        for i in range(rank):  # ceil_mode: as far as the last window reaches
            extra = -(x.shape[2 + i] + pads[i] + pads[rank + i] - kernel_shape[i]) % strides[i] if ceil_mode else 0
            pads[rank + i] += extra
        function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
        return (function(_padded(x, pads, float("-inf")), kernel_shape, strides, 0, dilations or 1).numpy(),)


class Pad(OpRun):
    """Negative pads too, which onnx's own does not take."""

    def _run(self, x, pads, constant_value=None, axes=None, mode="constant"):
        rank = x.ndim
        axes = range(rank) if axes is None else axes
        full = [0] * (2 * rank)
        for i, axis in enumerate(axes):
            full[axis], full[rank + axis] = int(pads[i]), int(pads[len(pads) // 2 + i])
        if mode != "constant":
            grown = np.pad(x, [(max(full[i], 0), max(full[rank + i], 0)) for i in range(rank)], mode=mode)
            cut = (slice(max(-full[i], 0), grown.shape[i] - max(-full[rank + i], 0)) for i in range(rank))
            return (grown[tuple(cut)],)
        return (_padded(x, full, 0.0 if constant_value is None else np.asarray(constant_value).item()).numpy(),)


class HardSigmoid(OpRun):
    def _run(self, x, alpha=0.2, beta=0.5):
        alpha = (
            1 / 6 if np.float32(alpha) == np.float32(1 / 6) else alpha
        )  # the attribute is float32, the network's is not
        return (np.clip(alpha * x + beta, 0, 1),)


class HardSwish(OpRun):
    def _run(self, x):
        return (F.hardswish(torch.from_numpy(np.array(x))).numpy(),)


class Gelu(OpRun):
    def _run(self, x, approximate="none"):
        return (F.gelu(torch.from_numpy(np.array(x)), approximate=approximate).numpy(),)


class Erf(OpRun):
    def _run(self, x):
        return (torch.erf(torch.from_numpy(np.asarray(x))).numpy(),)


class LpPool(OpRun):
    """onnx's own takes the mean over a window that ceil_mode lets hang over for one over a full window."""

    def _run(self, x, auto_pad=None, ceil_mode=0, dilations=None, kernel_shape=None, p=2, pads=None, strides=None):
        rank = len(kernel_shape)
        pads, strides = list(pads or [0] * (2 * rank)), strides or [1] * rank
        for i in range(rank):
            extra = -(x.shape[2 + i] + pads[i] + pads[rank + i] - kernel_shape[i]) % strides[i] if ceil_mode else 0
            pads[rank + i] += extra
        padded = _padded(np.abs(x) ** p, pads).numpy()
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel_shape, tuple(range(2, 2 + rank)))
        taken = windows[(slice(None), slice(None), *(slice(None, None, s) for s in strides))]
        return (taken.sum(tuple(range(-rank, 0))) ** (1 / p),)


class GlobalLpPool(OpRun):
    def _run(self, x, p=2):
        axes = tuple(range(2, x.ndim))
        return ((np.abs(x) ** p).sum(axes, keepdims=True) ** (1 / p),)


class MeanVarianceNormalization(OpRun):
    """onnx's own is a function with constants in float32."""

    def _run(self, x, axes=None):
        axes = tuple((0, 2, 3) if axes is None else axes)
        return ((x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9),)


class GatherElements(OpRun):
    """Fewer indices than elements too, which onnx's own does not take."""

    def _run(self, x, indices, axis=0):
        places = list(np.indices(indices.shape))
        places[axis] = indices
        return (x[tuple(places)],)


OPERATORS = [
    Conv,
    ConvTranspose,
    MaxPool,
    Pad,
    HardSigmoid,
    HardSwish,
    Gelu,
    Erf,
    LpPool,
    GlobalLpPool,
    MeanVarianceNormalization,
    GatherElements,
]


def run_float64(model: ModelProto, feeds):
    """Outputs by name of a model exported in float64."""
    evaluator = ReferenceEvaluator(filled(model), new_ops=OPERATORS)
    return dict(zip([output.name for output in model.graph.output], evaluator.run(None, feeds), strict=True))
