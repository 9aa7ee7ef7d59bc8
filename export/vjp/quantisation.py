"""The rule of quantisation to integers and back, which recognise.py joins into one node."""

from __future__ import annotations

import numpy as np

from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import INTERNAL, Call, Results, numpy_dtype, rule


@rule("FakeQuantize", domain=INTERNAL, compact=True)
def fake_quantize(call: Call, gradient: Value) -> Results:
    """Straight through inside the range, nothing where it saturates.

    The mask is taken from the dequantised side: a reader of the float input would break the fusion of the integers'
    producer.
    """
    low, high = _range(call)
    emit = call.emit
    inside = emit.both(emit.greater(call.y, emit.constant(low)), emit.less(call.y, emit.constant(high)))
    return [emit.keep_where(inside, gradient), *call.none()[1:]]


def _range(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """The floats that the least and the largest integer stand for, broadcastable to the tensor."""
    scale = call.need(1, "scales")
    given = len(call.inputs) > 2 and call.inputs[2] is not None
    zero = call.need(2, "zero points") if given else np.zeros(scale.shape, np.uint8)
    limits = np.iinfo(zero.dtype)
    shape = [-1 if scale.ndim and axis == call.axis(default=1) else 1 for axis in range(len(call.x.shape))]
    bounds = [(bound - zero.astype(np.float64)) * scale for bound in (limits.min, limits.max)]
    low, high = (bound.astype(numpy_dtype(call.y.dtype)).reshape(shape if scale.ndim else ()) for bound in bounds)
    return low, high
