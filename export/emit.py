"""Emits ONNX nodes and knows the shape of each: one method an operator.

Only standard operators that TensorRT's parser takes are here, so a rule cannot emit anything else. Equal nodes are
emitted once: the forward graph's nodes count, and so do those of an earlier walk, which is how the guided level shares
the map level's work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from gcpp_edge.export.graph import Graph, Shape, Value, numpy_dtype
from gcpp_edge.export.lowering import Lowerings

Key = tuple[Any, ...]
STEEP = 2.0**100  # slope of a step; what lies within 1e-30 of the bound is taken in part


class Emitter:
    """Appends nodes and constants to a graph; `nodes` holds what was emitted, in order.

    lowerings: which form rules choose where several are right.
    """

    def __init__(self, graph: Graph, prefix: str = "gcpp", lowerings: Lowerings = Lowerings()) -> None:
        self.graph = graph
        self.lowerings = lowerings
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.blocked: dict[str, bool] = {}  # which tensors lie in the blocked layout, as far as blocked.py has looked
        self._producers: dict[str, NodeProto] = {}
        self._known: dict[Key, Value] = {}
        self._constants: dict[Key, Value] = {}
        for node in graph.nodes:
            self._remember(node)

    def _remember(self, node: NodeProto) -> None:
        if len(node.output) == 1 and node.output[0] in self.graph.values:
            attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute if entry.name}
            key = _key(node.op_type, node.input, attributes)
            self._known.setdefault(key, self.graph.values[node.output[0]])

    def node(
        self, operator: str, inputs: Sequence[Value], shape: Shape, dtype: int | None = None, **attributes: Any
    ) -> Value:
        """One node with one output of the given shape; its dtype is the first input's unless given."""
        names = [value.name for value in inputs]
        key = _key(operator, names, attributes)
        if key not in self._known:
            name = self.graph.fresh(f"{self.prefix}/{operator}")
            value = Value(name, tuple(shape), inputs[0].dtype if dtype is None else dtype)
            self.append(helper.make_node(operator, names, [name], name=name, **attributes))
            self.graph.values[name] = self._known[key] = value
        return self._known[key]

    def producer(self, value: Value) -> NodeProto | None:
        """The emitted node that makes a value, or None for one of the forward graph."""
        return self._producers.get(value.name)

    def append(self, node: NodeProto) -> None:
        """Adds a node that was made elsewhere; the graph's values of its outputs are the caller's to set."""
        self.nodes.append(node)
        self._producers.update(dict.fromkeys(node.output, node))

    def constant(self, array: np.ndarray) -> Value:
        """A constant tensor; equal ones are stored once."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, hashlib.sha256(array.view(np.uint8).data).digest())
        if key not in self._constants:
            name = self.graph.fresh(f"{self.prefix}/constant")
            tensor = self.graph.tensor(array, name)
            self.initializers.append(tensor)
            self.graph.initializers[name] = tensor
            self.graph.values[name] = self._constants[key] = Value(name, array.shape, tensor.data_type)
        return self._constants[key]

    def scalar(self, number: float, like: Value) -> Value:
        """A constant of shape () in the dtype of `like`."""
        return self.constant(np.array(number, numpy_dtype(like.dtype)))

    def integers(self, numbers: Sequence[int]) -> Value:
        return self.constant(np.array(numbers, np.int64))

    # elementwise

    def _binary(self, operator: str, left: Value, right: Value, dtype: int | None = None) -> Value:
        return self.node(operator, (left, right), broadcast(left.shape, right.shape), dtype)

    def add(self, left: Value, right: Value) -> Value:
        return self._binary("Add", left, right)

    def subtract(self, left: Value, right: Value) -> Value:
        return self._binary("Sub", left, right)

    def multiply(self, left: Value, right: Value) -> Value:
        return self._binary("Mul", left, right)

    def divide(self, left: Value, right: Value) -> Value:
        return self._binary("Div", left, right)

    def power(self, base: Value, exponent: float) -> Value:
        return self._binary("Pow", base, self.scalar(exponent, base))

    def shift(self, value: Value, number: float) -> Value:
        return value if number == 0 else self.add(value, self.scalar(number, value))

    def scale(self, value: Value, number: float) -> Value:
        """`value` times a number; a constant is folded at once."""
        array = self.graph.constant(value.name)
        if array is not None:
            return self.constant((array * number).astype(array.dtype))
        return value if number == 1 else self.multiply(value, self.scalar(number, value))

    def greater(self, left: Value, right: Value) -> Value:
        return self._binary("Greater", left, right, TensorProto.BOOL)

    def less(self, left: Value, right: Value) -> Value:
        return self._binary("Less", left, right, TensorProto.BOOL)

    def equal(self, left: Value, right: Value) -> Value:
        return self._binary("Equal", left, right, TensorProto.BOOL)

    def both(self, left: Value, right: Value) -> Value:
        return self._binary("And", left, right)

    def where(self, condition: Value, yes: Value, no: Value) -> Value:
        shape = broadcast(broadcast(condition.shape, yes.shape), no.shape)
        return self.node("Where", (condition, yes, no), shape, yes.dtype)

    def keep_where(self, condition: Value, value: Value) -> Value:
        """`value` where the condition holds, else 0."""
        return self.where(condition, value, self.scalar(0, value))

    def one_for_zero(self, value: Value) -> Value:
        """`value` with ones where it is zero: a divisor that is safe."""
        return self.where(self.equal(value, self.scalar(0, value)), self.scalar(1, value), value)

    def apply(self, operator: str, value: Value, **attributes: Any) -> Value:
        """An operator of one input and the same shape: Relu, Sigmoid, Exp, Neg, Sqrt, ..."""
        array = self.graph.constant(value.name)
        if operator == "Relu" and array is not None:  # of a seed: no runtime need compute it
            return self.constant(np.maximum(array, 0))
        return self.node(operator, (value,), value.shape, **attributes)

    def cast(self, value: Value, dtype: int) -> Value:
        """`value` in that dtype; a constant is converted at once."""
        if value.dtype == dtype:
            return value
        array = self.graph.constant(value.name)
        if array is not None:
            return self.constant(array.astype(numpy_dtype(dtype)))
        return self.node("Cast", (value,), value.shape, dtype, to=dtype)

    # masks

    def keep_above(self, bound: float, tested: Value, value: Value) -> Value:
        """`value` where tested > bound, else 0."""
        return self._masked(tested, bound, 1, value)

    def keep_below(self, bound: float, tested: Value, value: Value) -> Value:
        """`value` where tested < bound, else 0."""
        return self._masked(tested, bound, -1, value)

    def _masked(self, tested: Value, bound: float, sign: int, value: Value) -> Value:
        """A product with a step: HardSigmoid of slope 2^100, exact at the bound since the slope is a power of two.

        ONNX Runtime keeps both nodes in its blocked layout, where Greater and Where cost a reorder each. float16 has no
        such slope, bfloat16 no such operator in every runtime, and attributes are float32: they cannot hold every bound
        of a float64.
        """
        halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
        if tested.dtype in halves or (tested.dtype == TensorProto.DOUBLE and np.float32(bound) != bound):
            limit = self.scalar(bound, tested)
            return self.keep_where(self.greater(tested, limit) if sign > 0 else self.less(tested, limit), value)
        step = self.apply("HardSigmoid", tested, alpha=sign * STEEP, beta=-sign * bound * STEEP)
        return self.multiply(value, step)

    # shape

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same elements in another shape; a symbolic dimension is copied, or inferred where it moves."""
        if tuple(shape) == value.shape:
            return value
        indices = self._indices(value)
        if indices is not None and all(isinstance(size, int) for size in shape):
            return self.constant(indices.reshape(shape))
        numbers = [
            size if isinstance(size, int) else 0 if axis < len(value.shape) and value.shape[axis] == size else -1
            for axis, size in enumerate(shape)
        ]
        return self.node("Reshape", (value, self.integers(numbers)), shape)

    def unsqueezed(self, value: Value) -> Value:
        """`value` with an axis of size 1 behind."""
        indices = self._indices(value)
        if indices is not None:
            return self.constant(indices[..., None])
        return self.node("Unsqueeze", (value, self.integers([-1])), (*value.shape, 1))

    def transpose(self, value: Value, axes: Sequence[int]) -> Value:
        if list(axes) == list(range(len(axes))):
            return value
        indices = self._indices(value)
        if indices is not None:
            return self.constant(indices.transpose(axes))
        return self.node("Transpose", (value,), tuple(value.shape[axis] for axis in axes), perm=list(axes))

    def _indices(self, value: Value) -> np.ndarray | None:
        """The array of constant integers: they are moved at once. Weights are not: the file would hold them twice."""
        array = self.graph.constant(value.name)
        return array if array is not None and array.dtype.kind in "iu" else None

    def dense(self, value: Value, shape: Shape) -> Value:
        """`value` expanded to the full shape."""
        if value.shape == tuple(shape):
            return value
        numbers = [size if isinstance(size, int) else 1 for size in shape]  # 1 keeps the batch as it comes
        return self.node("Expand", (value, self.integers(numbers)), shape)

    def slice(
        self,
        value: Value,
        axes: Sequence[int],
        starts: Sequence[int],
        ends: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> Value:
        """Elements starts..ends (exclusive, in bounds) along the axes."""
        steps = [1] * len(axes) if steps is None else list(steps)
        shape = list(value.shape)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            shape[axis] = -(-(end - start) // step)
        if tuple(shape) == value.shape:
            return value
        inputs = [value, *(self.integers(list(numbers)) for numbers in (starts, ends, axes, steps))]
        return self.node("Slice", inputs, tuple(shape))

    def pad(
        self, value: Value, axes: Sequence[int], before: Sequence[int], after: Sequence[int], fill: float = 0
    ) -> Value:
        """`value` padded with `fill`; negative amounts crop, by a Slice, since TensorRT refuses negative pads."""
        value = self._crop(value, axes, before, after)
        before, after = [max(n, 0) for n in before], [max(n, 0) for n in after]
        if not any(before) and not any(after):
            return value
        rank = len(value.shape)
        pads, shape = [0] * (2 * rank), list(value.shape)
        for axis, first, last in zip(axes, before, after, strict=True):
            pads[axis], pads[rank + axis] = first, last
            shape[axis] += first + last
        return self.node("Pad", (value, self.integers(pads), self.scalar(fill, value)), tuple(shape))

    def _crop(self, value: Value, axes: Sequence[int], before: Sequence[int], after: Sequence[int]) -> Value:
        cropped = [i for i in range(len(axes)) if before[i] < 0 or after[i] < 0]
        starts = [max(-before[i], 0) for i in cropped]
        ends = [value.shape[axes[i]] - max(-after[i], 0) for i in cropped]
        return self.slice(value, [axes[i] for i in cropped], starts, ends) if cropped else value

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        if len(values) == 1:
            return values[0]
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return self.node("Concat", values, tuple(shape), axis=axis)

    def depth_to_space(self, value: Value, block: int, mode: str) -> Value:
        batch, channels, height, width = value.shape
        shape = (batch, channels // block**2, height * block, width * block)
        return self.node("DepthToSpace", (value,), shape, blocksize=block, mode=mode)

    # reductions, products

    def reduce(self, operator: str, value: Value, axes: Sequence[int], keepdims: bool = True) -> Value:
        """ReduceSum, ReduceMean, ReduceMax or ReduceProd over the axes (non-negative)."""
        if not axes:
            return value
        shape = tuple(
            1 if axis in axes else size for axis, size in enumerate(value.shape) if keepdims or axis not in axes
        )
        return self.node(operator, (value, self.integers(sorted(axes))), shape, keepdims=int(keepdims))

    def matmul(self, left: Value, right: Value) -> Value:
        shape = (*broadcast(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
        return self.node("MatMul", (left, right), shape)

    def gemm(self, left: Value, right: Value, trans_b: bool = False) -> Value:
        """[M,K] times [K,J], or times [J,K] transposed."""
        return self.node("Gemm", (left, right), (left.shape[0], right.shape[0 if trans_b else 1]), transB=int(trans_b))

    def gather(self, value: Value, indices: Value, axis: int) -> Value:
        shape = (*value.shape[:axis], *indices.shape, *value.shape[axis + 1 :])
        return self.node("Gather", (value, indices), shape, axis=axis)

    def gather_batch(self, value: Value, indices: Value) -> Value:
        """value [N,K,*S], indices int64 [N,1] -> [N,*S]: one entry of axis 1 for each of the batch."""
        return self.node("GatherND", (value, indices), (value.shape[0], *value.shape[2:]), batch_dims=1)

    def top(self, value: Value, count: int) -> tuple[Value, Value]:
        """The greatest `count` values of each row of [N,K], and their indices, int64: [N,count], the greatest first."""
        values, indices = self.graph.fresh(f"{self.prefix}/TopK"), self.graph.fresh(f"{self.prefix}/TopK/indices")
        inputs = [value.name, self.integers([count]).name]
        self.append(helper.make_node("TopK", inputs, [values, indices], name=values, axis=1, largest=1, sorted=1))
        shape = (value.shape[0], count)
        for name, dtype in ((values, value.dtype), (indices, TensorProto.INT64)):
            self.graph.values[name] = Value(name, shape, dtype)
        return self.graph.values[values], self.graph.values[indices]

    def conv(self, value: Value, weights: Value, shape: Shape, **attributes: Any) -> Value:
        return self.node("Conv", (value, weights), shape, **attributes)

    def conv_transpose(self, value: Value, weights: Value, shape: Shape, **attributes: Any) -> Value:
        return self.node("ConvTranspose", (value, weights), shape, **attributes)


def broadcast(left: Shape, right: Shape) -> Shape:
    """The shape of an elementwise operation on two shapes."""
    rank = max(len(left), len(right))
    pairs = zip((1,) * (rank - len(left)) + tuple(left), (1,) * (rank - len(right)) + tuple(right), strict=True)
    return tuple(b if a == 1 else a for a, b in pairs)


def _key(operator: str, inputs: Sequence[str], attributes: dict[str, Any]) -> Key:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode()
        return tuple(value) if isinstance(value, (list, tuple)) else str(value)

    return (operator, tuple(inputs), tuple(sorted((name, plain(value)) for name, value in attributes.items())))
