"""Rules of operators that are linear along an axis: Slice, Pad, Resize.

What is not a mere crop or a border of zeros is a product with a constant matrix an axis: small, exact, and without
scatter.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

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


@rule("CumSum")
def cumulative_sum(call: Call, gradient: Value) -> Results:
    """A product with a triangle of ones."""
    axis = int(call.need(1, "axis").reshape(-1)[0]) % len(call.x.shape)
    size = call.x.shape[axis]
    if not isinstance(size, int):
        raise call.refuse("sums along the batch")
    triangle = np.tri(size, k=-1 if call.attribute("exclusive", 0) else 0)
    return [back_along(call, gradient, axis, triangle.T if call.attribute("reverse", 0) else triangle), None]


@rule("Trilu")
def triangle(call: Call, gradient: Value) -> Results:
    """A product with the triangle of ones that was kept."""
    rows, columns = call.x.shape[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise call.refuse("cuts the batch")
    offset = int(call.need(1, "diagonal").reshape(-1)[0]) if len(call.inputs) > 1 and call.inputs[1] else 0
    ones = np.ones((rows, columns), numpy_dtype(gradient.dtype))
    mask = np.triu(ones, offset) if call.attribute("upper", 1) else np.tril(ones, offset)
    return [call.emit.multiply(gradient, call.emit.constant(mask)), *call.none()[1:]]


@rule("Slice")
def slice_(call: Call, gradient: Value) -> Results:
    """Zeros around what was taken; a step of more than one by its matrix."""
    starts, ends = call.need(1, "bounds"), call.need(2, "bounds")
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
        raise call.refuse("cuts the batch")
    if taken.step < 0 and taken.stop <= -size - 1:
        taken = slice(taken.start, None, taken.step)  # ONNX writes "to the first" as a very negative end
    positions = range(*taken.indices(size))
    if not positions:
        raise call.refuse("takes nothing")
    if positions.step == 1:
        return call.emit.pad(gradient, [axis], [positions.start], [size - positions.stop])
    return back_along(call, gradient, axis, np.eye(size)[list(positions)])


@rule("Pad")
def pad(call: Call, gradient: Value) -> Results:
    """Constant mode: what was padded is cut off, what was cut off becomes zero. Other modes by their matrices."""
    mode, pads, given = call.attribute("mode", "constant"), call.need(1, "pads").tolist(), call.constant(3)
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
        if size != found or _moves(call, axis):
            gradient = back_along(call, gradient, axis, _resize_matrix(call, axis))
    return [gradient, *call.none()[1:]]


def _moves(call: Call, axis: int) -> bool:
    """Whether an axis is resampled although it keeps its size: by a scale that rounds, or a crop."""
    scale, crop = _along_axis(call, 2, axis), _along_axis(call, 1, axis)
    cropped = call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize" and crop != [0.0, 1.0]
    return (scale is not None and scale != [1.0]) or cropped


def _resize_matrix(call: Call, axis: int) -> np.ndarray:
    """[out, in] of one axis, by onnx's reference of the operator, which sees the axis behind one of unit vectors."""
    if call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("keeps the aspect ratio by a policy")
    size, found = call.x.shape[axis], call.y.shape[axis]
    if not isinstance(size, int):
        raise call.refuse("changes the batch")
    names = ("axes", "keep_aspect_ratio_policy", "extrapolation_value")  # what lies outside adds a constant
    node = helper.make_node("Resize", ["x", "roi", "scales", "sizes"], ["y"])
    node.attribute.extend(entry for entry in call.node.attribute if entry.name not in names)
    node.attribute.append(helper.make_attribute("extrapolation_value", 0.0))
    scale, crop = _along_axis(call, 2, axis), _along_axis(call, 1, axis)
    crop = [0.0, 1.0] if crop is None else crop
    feeds = {"x": np.eye(size)[:, None, :], "roi": np.array([0, 0, crop[0], 1, 1, crop[1]], np.float64)}
    if scale is None:
        node.input[2], feeds["sizes"] = "", np.array([size, 1, found], np.int64)
    else:
        del node.input[3]
        feeds["scales"] = np.array([1, 1, scale[0]], np.float32)
    inputs = [onnx.ValueInfoProto(name=name) for name in feeds]
    graph = helper.make_graph([node], "resize", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    resized = np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])
    return np.asarray(resized[:, 0, :].T)


def _along_axis(call: Call, index: int, axis: int) -> list[float] | None:
    """What `scales` (one number) or `roi` (start and end) say of an axis; None where they are not given."""
    array = call.constant(index)
    if array is None or not array.size:
        return None
    axes = [a % len(call.x.shape) for a in call.attribute("axes") or range(len(call.x.shape))]
    return [float(number) for number in array.reshape(-1, len(axes))[:, axes.index(axis)]] if axis in axes else None
