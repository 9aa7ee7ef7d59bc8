"""Writes composite operators in terms of simpler ones: what is newer than our opset, or hidden from shape inference.

A decomposition takes a node and a `Writer` and writes nodes whose last one makes the node's output. Sizes that it needs
are computed in the graph (Shape, Gather) and folded with all else (fold.py). Operators without a decomposition here
that onnx defines as functions are inlined from its own definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import FLOATS, Value, attribute, infer_values
from gcpp_edge.export.weights import without_large_constants

INLINED = ("CenterCropPad",)  # by onnx's definition, at any opset


class Writer:
    """Nodes and constants that replace one node. values: what is known of shapes and dtypes before."""

    def __init__(self, node: NodeProto, values: dict[str, Value]) -> None:
        self.values = values
        self.stem = f"{node.output[0]}/{node.op_type}"
        self.scopes = list(node.metadata_props)
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node; returns its output, which has that name or a fresh one."""
        output = output or f"{self.stem}/{operator}_{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        node.metadata_props.extend(self.scopes)
        self.nodes.append(node)
        return output

    def split(self, name: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Adds a Split; returns its parts."""
        parts = [f"{self.stem}/Split_{len(self.nodes)}.{part}" for part in range(len(sizes))]
        node = helper.make_node("Split", [name, self.integers(*sizes)], parts, name=parts[0], axis=axis)
        node.metadata_props.extend(self.scopes)
        self.nodes.append(node)
        return parts

    def constant(self, array: Any) -> str:
        name = f"{self.stem}/constant_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def number(self, value: float, like: str) -> str:
        """A number in the dtype of another tensor."""
        return self.node("CastLike", self.constant(np.float32(value)), like)

    def integers(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))


Decomposition = Callable[[NodeProto, Writer], None]


def decompose(model: ModelProto) -> ModelProto:
    """At our own opset: what onnx's shape inference does not see through."""
    return inline_schema_functions(replaced(model, AT_OUR_OPSET), INLINED)


def decompose_newer(model: ModelProto) -> ModelProto:
    """Operators that came, or changed, after our opset; the model still has its own."""
    return replaced(model, {**NEWER, **AT_OUR_OPSET})


def inline_schema_functions(model: ModelProto, operators: Iterable[str]) -> ModelProto:
    """The operators' nodes replaced by the function bodies that onnx defines them with, where it does."""
    present = {node.op_type for node in model.graph.node}.intersection(operators)
    if not present:
        return model
    light = without_large_constants(model)
    for tensor in light.graph.initializer:  # the inliner wants to know the type of each input
        light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    inlined = inliner.inline_selected_functions(light, [("", name) for name in sorted(present)], False, True)
    del model.graph.node[:]
    model.graph.node.extend(inlined.graph.node)
    return model


def replaced(model: ModelProto, table: dict[str, Decomposition]) -> ModelProto:
    """The model with the operators of a table written in terms of others."""
    if not any(node.op_type in table for node in model.graph.node):
        return model
    nodes: list[NodeProto] = []
    values = infer_values(model)
    for node in model.graph.node:
        if node.op_type not in table:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
            continue
        writer = Writer(node, values)
        table[node.op_type](node, writer)
        if not writer.nodes:  # left to onnx's own definition
            nodes.append(NodeProto.FromString(node.SerializeToString()))
        nodes.extend(writer.nodes)
        model.graph.initializer.extend(writer.tensors)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _refuse(node: NodeProto, what: str) -> UnsupportedGraphError:
    return UnsupportedGraphError(
        f'{node.op_type} at node "{node.name or node.output[0]}" {what}. Export the network without it, '
        "or choose another one."
    )


def given(node: NodeProto, index: int) -> str:
    """The name of a node's input, "" where it has none."""
    return node.input[index] if index < len(node.input) else ""


# normalisation


def group_normalization(node: NodeProto, write: Writer) -> None:
    """Groups side by side are instances: Reshape, InstanceNormalization, Reshape, then scale and bias a channel.

    Opset 18 had a scale a group, opset 21 one a channel.
    """
    x, scale, bias = node.input
    groups = attribute(node, "num_groups")
    grouped = write.node("Reshape", x, write.integers(0, groups, -1))
    ones, zeros = (write.node("CastLike", write.constant(np.full(groups, n, np.float32)), x) for n in (1, 0))
    epsilon = attribute(node, "epsilon", 1e-5)
    normal = write.node("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    shape = write.node("Shape", x)
    normal = write.node("Reshape", normal, shape)
    scale, bias = (_per_channel(write, name, x, shape, groups) for name in (scale, bias))
    write.node("Add", write.node("Mul", normal, scale), bias, output=node.output[0])


def _per_channel(write: Writer, name: str, x: str, shape: str, groups: int) -> str:
    """[C] or [groups] -> [C,1,..]: repeated to C channels if there are fewer."""
    channels = write.node("Slice", shape, write.integers(1), write.integers(2))
    given = write.node("Reshape", name, write.integers(-1, 1))
    count = write.node("Slice", write.node("Shape", given), write.integers(0), write.integers(1))
    repeats = write.node("Concat", count, write.node("Div", channels, count), axis=0)
    full = write.node("Expand", given, repeats)
    rank = write.node("Sub", write.node("Shape", shape), write.integers(2))
    ones = write.node("Expand", write.integers(1), rank)
    return write.node("Reshape", full, write.node("Concat", write.integers(-1), ones, axis=0))


def mean_variance_normalization(node: NodeProto, write: Writer) -> None:
    """(x - mean) / (deviation + 1e-9), over the batch too unless `axes` says otherwise."""
    axes = write.integers(*(attribute(node, "axes") or (0, 2, 3)))
    x = node.input[0]
    centred = write.node("Sub", x, write.node("ReduceMean", x, axes))
    variance = write.node("ReduceMean", write.node("Mul", centred, centred), axes)
    deviation = write.node("Add", write.node("Sqrt", variance), write.number(1e-9, x))
    write.node("Div", centred, deviation, output=node.output[0])


def rms_normalization(node: NodeProto, write: Writer) -> None:
    """x / sqrt(mean(x^2) + eps) * scale, over the axes from `axis` on."""
    x, scale = node.input
    first = attribute(node, "axis", -1)
    if first >= 0:  # the rank is known once the input is
        rank = write.node("Squeeze", write.node("Shape", write.node("Shape", x)))
        axes = write.node("Range", write.constant(np.int64(first)), rank, write.constant(np.int64(1)))
    else:
        axes = write.integers(*range(first, 0))
    mean = write.node("ReduceMean", write.node("Mul", x, x), axes)
    root = write.node("Sqrt", write.node("Add", mean, write.number(attribute(node, "epsilon", 1e-5), x)))
    write.node("Mul", write.node("Div", x, root), scale, output=node.output[0])


# activations


def swish(node: NodeProto, write: Writer) -> None:
    """x s(alpha x): with alpha = 1 it is SiLU, which recognise.py knows."""
    x, alpha = node.input[0], attribute(node, "alpha", 1.0)
    inner = x if alpha == 1 else write.node("Mul", x, write.number(alpha, x))
    write.node("Mul", x, write.node("Sigmoid", inner), output=node.output[0])


def swiglu(node: NodeProto, write: Writer) -> None:
    """The swish of one input times the other."""
    gate, value = node.input
    alpha = attribute(node, "alpha", 1.0)
    inner = gate if alpha == 1 else write.node("Mul", gate, write.number(alpha, gate))
    activated = write.node("Mul", gate, write.node("Sigmoid", inner))
    write.node("Mul", activated, value, output=node.output[0])


# attention


def attention(node: NodeProto, write: Writer) -> None:
    """softmax(q k^T / sqrt(d) + mask) v, with as many key heads as query heads.

    What else the operator can do is left to onnx's own definition.
    """
    heads = _plain_heads(node, write)
    if heads is None:
        return
    query, key, value = (_heads(write, name, heads) for name in node.input[:3])
    scale = attribute(node, "scale")
    if scale is None:
        width = write.node("Slice", write.node("Shape", query), write.integers(3), write.integers(4))
        factor = write.node("Sqrt", write.node("CastLike", write.node("Squeeze", width), query))
        query = write.node("Div", query, factor)
    else:
        query = write.node("Mul", query, write.number(scale, query))
    products = write.node("MatMul", query, write.node("Transpose", key, perm=[0, 1, 3, 2]))
    if given(node, 3):
        products = write.node("Add", products, node.input[3])
    shares = write.node("Softmax", products, axis=-1)
    if not heads:
        write.node("MatMul", shares, value, output=node.output[0])
        return
    joined = write.node("Transpose", write.node("MatMul", shares, value), perm=[0, 2, 1, 3])
    write.node("Reshape", joined, write.integers(0, 0, -1), output=node.output[0])


def _plain_heads(node: NodeProto, write: Writer) -> int | None:
    """The number of heads, 0 where they have an axis already; None for what is not plain attention."""
    windows = [attribute(node, name, -1) for name in ("left_window_size", "right_window_size")]
    special = [attribute(node, name, 0) for name in ("softcap", "is_causal")]
    cached = any(given(node, index) for index in (4, 5, 6)) or any(node.output[1:])
    mask = write.values.get(given(node, 3))
    masked = bool(given(node, 3)) and (mask is None or mask.dtype not in FLOATS)
    if cached or masked or any(special) or any(size >= 0 for size in windows):
        return None
    heads = attribute(node, "q_num_heads")
    if heads is not None:
        return int(heads) if heads == attribute(node, "kv_num_heads") else None
    shapes = [write.values[name].shape for name in node.input[:2] if name in write.values]
    same = len(shapes) == 2 and all(len(shape) == 4 for shape in shapes) and shapes[0][1] == shapes[1][1]
    return 0 if same else None


def _heads(write: Writer, name: str, count: int) -> str:
    """[N,L,heads d] -> [N,heads,L,d], where it is not so already."""
    if not count:
        return name
    split = write.node("Reshape", name, write.integers(0, 0, count, -1))
    return write.node("Transpose", split, perm=[0, 2, 1, 3])


AT_OUR_OPSET: dict[str, Decomposition] = {
    "GroupNormalization": group_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
}
NEWER: dict[str, Decomposition] = {
    "Attention": attention,
    "RMSNormalization": rms_normalization,
    "SwiGLU": swiglu,
    "Swish": swish,
}
