"""Rules of operators that are linear along an axis: Slice, Pad, Resize.

What is not a mere crop or a border of zeros is a product with a constant matrix an axis: small, exact, and without
scatter.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, Results, numpy_dtype, rule


def back_along(call: Call, gradient: Value, axis: int, matrix: np.ndarray) -> Value:
    """The gradient of x where y = matrix x along an axis. matrix: [out, in]."""
    emit, last = call.emit, len(gradient.shape) - 1
    matrix = matrix.astype(numpy_dtype(gradient.dtype))
    if axis == last - 1:
        return emit.matmul(emit.constant(matrix.T), gradient)
    order = [*(i for i in range(last + 1) if i != axis), axis]
    product = emit.matmul(emit.transpose(gradient, order), emit.constant(matrix))
    return emit.transpose(product, [int(i) for i in np.argsort(order)])


def _known(call: Call, index: int, what: str) -> np.ndarray:
    array = call.constant(index)
    if array is None:
        raise UnsupportedGraphError(
            f'{call.node.op_type} at node "{call.node.name}" has computed {what}; expected constants. '
            "Choose a later layer with --layer."
        )
    return array


@rule("Slice")
def slice_(call: Call, gradient: Value) -> Results:
    """Zeros around what was taken; a step of more than one by its matrix."""
    starts, ends = _known(call, 1, "bounds"), _known(call, 2, "bounds")
    axes, steps = call.constant(3), call.constant(4)
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    for axis, start, end, step in zip(axes.tolist(), starts.tolist(), ends.tolist(), steps.tolist(), strict=True):
        gradient = _unslice(call, gradient, axis % len(call.x.shape), slice(start, end, step))
    return [gradient, *call.none()[1:]]


def _unslice(call: Call, gradient: Value, axis: int, taken: slice) -> Value:
    size = call.x.shape[axis]
    if not isinstance(size, int):
        if gradient.shape[axis] == size:
            return gradient
        raise UnsupportedGraphError(f'Slice at node "{call.node.name}" cuts the batch, which has no VJP rule.')
    if taken.step < 0 and taken.stop <= -size - 1:
        taken = slice(taken.start, None, taken.step)  # ONNX writes "to the first" as a very negative end
    positions = range(*taken.indices(size))
    if not positions:
        raise UnsupportedGraphError(f'Slice at node "{call.node.name}" takes nothing.')
    if positions.step == 1:
        return call.emit.pad(gradient, [axis], [positions.start], [size - positions.stop])
    return back_along(call, gradient, axis, np.eye(size)[list(positions)])


@rule("Pad")
def pad(call: Call, gradient: Value) -> Results:
    """Constant mode: what was padded is cut off, what was cut off becomes zero. Other modes by their matrices."""
    mode, pads, given = call.attribute("mode", "constant"), _known(call, 1, "pads").tolist(), call.constant(3)
    rank = len(call.x.shape)
    axes = list(range(rank)) if given is None else [int(axis) % rank for axis in given]
    moved = [(axis, pads[i], pads[len(axes) + i]) for i, axis in enumerate(axes) if pads[i] or pads[len(axes) + i]]
    if mode == "constant":
        names, before, after = ([entry[i] for entry in moved] for i in range(3))
        return [call.emit.pad(gradient, names, [-n for n in before], [-n for n in after]), *call.none()[1:]]
    for axis, before, after in moved:
        gradient = back_along(call, gradient, axis, _pad_matrix(call.x.shape[axis], before, after, mode))
    return [gradient, *call.none()[1:]]


def _pad_matrix(size: int, before: int, after: int, mode: str) -> np.ndarray:
    """[before + size + after, size]: which element each padded position repeats. Negative pads crop."""
    positions = np.pad(np.arange(size), (max(before, 0), max(after, 0)), mode=mode)  # type: ignore[call-overload]
    return np.asarray(np.eye(size)[positions[max(-before, 0) : len(positions) - max(-after, 0)]])


@rule("Resize")
def resize(call: Call, gradient: Value) -> Results:
    """Every mode of Resize is separable: one matrix an axis, read off by resizing the unit vectors."""
    for axis, (size, found) in enumerate(zip(call.x.shape, call.y.shape, strict=True)):
        if size != found:
            gradient = back_along(call, gradient, axis, _resize_matrix(call, axis))
    return [gradient, *call.none()[1:]]


def _resize_matrix(call: Call, axis: int) -> np.ndarray:
    """[out, in] of one axis, by onnx's reference of the operator."""
    if call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise UnsupportedGraphError(f'Resize at node "{call.node.name}" crops, which has no VJP rule.')
    size, found = call.x.shape[axis], call.y.shape[axis]
    scales = call.constant(2)
    given = [entry for entry in call.node.attribute if entry.name not in ("axes", "keep_aspect_ratio_policy")]
    scaled = scales is not None and scales.size > 0
    node = helper.make_node("Resize", ["x", "", "factor" if scaled else "", "" if scaled else "factor"], ["y"])
    node.attribute.extend(given)
    kind = TensorProto.FLOAT if scaled else TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.DOUBLE, [size, 1, size]),
        helper.make_tensor_value_info("factor", kind, [3]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)
    model = helper.make_model(
        helper.make_graph([node], "resize", inputs, [output]), opset_imports=[helper.make_opsetid("", 20)]
    )
    if scaled:
        assert scales is not None
        axes = call.attribute("axes") or range(len(call.x.shape))
        factor = np.array([1, 1, scales[[a % len(call.x.shape) for a in axes].index(axis)]], np.float32)
    else:
        factor = np.array([size, 1, found], np.int64)
    units = np.eye(size)[:, None, :]
    resized = np.asarray(ReferenceEvaluator(model).run(None, {"x": units, "factor": factor})[0])
    return np.asarray(resized[:, 0, :].T)
