"""A small view of an ONNX graph: shapes, dtypes, producers, consumers, constants and fresh names.

A shape is a tuple of int, or of str where a dimension is symbolic. After normalisation only the batch is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.weights import array_of, initializer_maker, without_large_constants

Dimension = (
    Any  # int, or str where symbolic: the type says no more, since after normalisation all but the batch are int
)
Shape = tuple[Dimension, ...]
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: name, shape and TensorProto dtype.

    A gradient's shape may hold 1 where its tensor is larger: it is then constant along that axis.
    """

    name: str
    shape: Shape
    dtype: int


class Graph:
    """A view of a model whose nodes stand in topological order. Built once, extended by what is emitted."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.tensor = initializer_maker(model)
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input if value.name not in self.initializers]
        self.outputs = [value.name for value in model.graph.output]
        self.image = next((name for name in self.inputs if _rank(model, name) >= 4), next(iter(self.inputs), ""))
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.values = infer_values(model)
        self._names = set(self.values) | set(self.producers) | set(self.initializers)
        self._names |= {node.name for node in self.nodes}
        self._counts: dict[str, int] = {}
        self._constants: dict[str, np.ndarray] = {}

    def value(self, name: str) -> Value:
        """The tensor of that name; UnsupportedGraphError where its shape is unknown."""
        if name not in self.values:
            raise UnsupportedGraphError(f'Shape of tensor "{name}" is unknown. Fix the input size with --input-size.')
        return self.values[name]

    def constant(self, name: str) -> np.ndarray | None:
        """The array behind an initializer, also one that is stored as integers; None for anything computed."""
        if name not in self._constants:
            array = self._stored(name) if name in self.initializers else self._dequantised(name)
            if array is None:
                return None
            self._constants[name] = array
        return self._constants[name]

    def _stored(self, name: str) -> np.ndarray:
        return array_of(self.initializers[name])

    def _dequantised(self, name: str) -> np.ndarray | None:
        """The floats of a DequantizeLinear over constants: the file keeps the integers, rules want numbers."""
        node = self.producers.get(name)
        names = [n for n in node.input if n] if node is not None and node.op_type == "DequantizeLinear" else []
        if node is None or not names or not all(n in self.initializers for n in names):
            return None
        quantised, scale, *zero = (self._stored(n) for n in names)
        axis = attribute(node, "axis", 1) % max(quantised.ndim, 1)
        shape = [-1 if scale.ndim and i == axis else 1 for i in range(quantised.ndim)]
        centred = quantised.astype(np.float64) - (zero[0].astype(np.float64).reshape(shape) if zero else 0)
        return np.asarray((centred * scale.astype(np.float64).reshape(shape)).astype(scale.dtype))

    def fresh(self, stem: str) -> str:
        """A name that the graph does not hold yet, and holds from now on."""
        name, count = stem, self._counts.get(stem, 0)
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._counts[stem] = count  # those below are taken
        self._names.add(name)
        return name

    def reachable_from(self, sources: Iterable[str], nodes: Iterable[NodeProto] | None = None) -> set[str]:
        """All tensors that depend on `sources`, themselves included."""
        reached = set(sources)
        for node in self.nodes if nodes is None else nodes:
            if reached.intersection(node.input):
                reached.update(node.output)
        return reached - {""}

    def needed_for(self, sinks: Iterable[str], nodes: Iterable[NodeProto] | None = None) -> set[str]:
        """All tensors that `sinks` depend on, themselves included."""
        needed = set(sinks)
        for node in reversed(list(self.nodes if nodes is None else nodes)):
            if needed.intersection(node.output):
                needed.update(node.input)
        return needed - {""}


def _rank(model: ModelProto, name: str) -> int:
    return next(len(value.type.tensor_type.shape.dim) for value in model.graph.input if value.name == name)


def infer_values(model: ModelProto) -> dict[str, Value]:
    """Shape and dtype of every tensor of a model, as far as ONNX can infer them."""
    inferred = shape_inference.infer_shapes(without_large_constants(model), data_prop=True)
    values = {}
    for info in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = info.type.tensor_type
        if tensor.HasField("shape"):
            values[info.name] = Value(info.name, _shape(info.name, tensor.shape), tensor.elem_type)
    for constant in model.graph.initializer:
        values[constant.name] = Value(constant.name, tuple(constant.dims), constant.data_type)
    return values


def _shape(name: str, shape: onnx.TensorShapeProto) -> Shape:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{name}.{axis}"
        for axis, dim in enumerate(shape.dim)
    )


def elements(shape: Iterable[Dimension]) -> int:
    """How many elements a shape has, with every symbolic dimension counted as one."""
    count = 1
    for dimension in shape:
        count *= dimension if isinstance(dimension, int) else 1
    return count


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """A node's attribute as a Python value (bytes decoded), or `default`."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def numpy_dtype(dtype: int) -> np.dtype:
    """The NumPy dtype of a TensorProto dtype."""
    found: np.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(dtype))
    return found


FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
