"""Brings any model to one form before it is differentiated.

Functions inlined, opset 20, constants as initializers, fixed spatial size, symbolic batch, Dropout and Identity gone,
BatchNorm folded into its convolution, pads explicit, unused metadata stripped. What is computed stays the same.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, inliner, numpy_helper

from gcpp_edge.contract import BATCH, RESERVED
from gcpp_edge.errors import SourceError, UnsupportedGraphError
from gcpp_edge.export.decompose import decompose
from gcpp_edge.export.fold import fold
from gcpp_edge.export.graph import FLOATS, WINDOWED, Graph, Shape, attribute, infer_values
from gcpp_edge.export.opsets import to_opset
from gcpp_edge.export.recurrent import unroll
from gcpp_edge.export.weights import put_back, without_large_constants

SCOPES = "pkg.torch.onnx.name_scopes"


def normalise(model: ModelProto, input_size: tuple[int, int] | None = None) -> ModelProto:
    """The same network in normal form; `model` is not changed.

    input_size: height and width for inputs that leave them open. Raises UnsupportedGraphError, SourceError.
    """
    light = without_large_constants(model)
    light = to_opset(inliner.inline_local_functions(light) if light.functions else light)
    result = decompose(put_back(light, model))
    _refuse_control_flow(result)
    _constants_to_initializers(result)
    _fix_input(result, input_size)
    _refuse_training(result)
    _remove_pass_through(result)
    _explicit_pads(result)
    _fold_batch_norm(result)
    _complete_resizes(result)
    _drop_unused(result)
    _free_reserved_names(result)
    return result


def _refuse_control_flow(model: ModelProto) -> None:
    for node in model.graph.node:
        if any(entry.HasField("g") for entry in node.attribute):
            raise UnsupportedGraphError(
                f'Node "{node.name}" is {node.op_type}, control flow with a graph of its own. '
                "Export the network without it (fixed sizes, no data-dependent branches)."
            )


def _constants_to_initializers(model: ModelProto) -> None:
    graph, kept = model.graph, []
    for node in graph.node:
        if node.op_type == "Constant":
            array = _constant_array(node)
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), node.output[0]))
        else:
            kept.append(node)
    _replace_nodes(model, kept)
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)


def _constant_array(node: NodeProto) -> np.ndarray:
    entry = node.attribute[0]
    value = helper.get_attribute_value(entry)
    if entry.name == "value":
        return np.asarray(numpy_helper.to_array(value))
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if entry.name not in dtypes:
        raise UnsupportedGraphError(f'Constant "{node.output[0]}" holds {entry.name}; expected a tensor or numbers.')
    return np.array(value, dtypes[entry.name])


def _replace_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _fix_input(model: ModelProto, input_size: tuple[int, int] | None) -> None:
    """Sizes as numbers, and the batch symbolic wherever the graph allows it."""
    image = image_input(model)
    dims = image.type.tensor_type.shape.dim
    if input_size is not None:
        dims[-2].dim_value, dims[-1].dim_value = input_size
    given = [dims[0].dim_param, dims[0].dim_value]
    fixed = dims[0].dim_value or 1
    for value in graph_inputs(model):
        _fix_sizes(value, given)
    fold(model, fixed)
    if unroll(model):  # its sizes had to be known, and its own are to be
        fold(model, fixed)


def _fix_sizes(value: onnx.ValueInfoProto, batch: list[str | int]) -> None:
    """The batch, which is the picture's [name, size], becomes symbolic; every other axis must have a size."""
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if axis == 0 and [dim.dim_param, dim.dim_value] == batch:
            dim.Clear()
            dim.dim_param = BATCH
        elif not dim.dim_value > 0:
            raise SourceError(
                f'Input "{value.name}" leaves axis {axis} open ({dim.dim_param or "unknown"}). Give --input-size HxW.'
            )


def graph_inputs(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller feeds: not those that an initializer fills."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def image_input(model: ModelProto) -> onnx.ValueInfoProto:
    """The picture [N,C,H,W] or clip [N,C,T,H,W] among a network's inputs: the one of rank 4 or 5."""
    inputs = graph_inputs(model)
    images = [value for value in inputs if len(value.type.tensor_type.shape.dim) in (4, 5)]
    if len(images) != 1:
        names = ", ".join(f"{value.name} (rank {len(value.type.tensor_type.shape.dim)})" for value in inputs)
        raise UnsupportedGraphError(
            f"Expected one image input [N,C,H,W], or a clip [N,C,T,H,W], found {names or 'none'}."
        )
    element = images[0].type.tensor_type.elem_type
    if element not in FLOATS:
        raise UnsupportedGraphError(
            f'Input "{images[0].name}" takes {onnx.TensorProto.DataType.Name(element).lower()}; expected a float one. '
            "Export the network without its conversion of pixels, and say it with --mean and --std."
        )
    return images[0]


def _complete_resizes(model: ModelProto) -> None:
    """A Resize to sizes of some axes says those of all, the others read off its input: TensorRT wants no open axis."""
    values, tensors = infer_values(model), {tensor.name: tensor for tensor in model.graph.initializer}
    kept: list[NodeProto] = []
    for node in model.graph.node:
        value, axes = values.get(node.input[0]) if node.input else None, attribute(node, "axes")
        stretches = node.op_type == "Resize" and attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
        sizes = tensors.get(node.input[3]) if stretches and len(node.input) > 3 else None
        if sizes is not None and value is not None and axes == list(range(2, len(value.shape))):
            lead, whole = f"{node.output[0]}/lead", f"{node.output[0]}/sizes"
            kept.append(helper.make_node("Shape", [node.input[0]], [lead], name=lead, start=0, end=2))
            kept.append(helper.make_node("Concat", [lead, node.input[3]], [whole], name=whole, axis=0))
            node.input[3] = whole
            others = [entry for entry in node.attribute if entry.name != "axes"]
            del node.attribute[:]
            node.attribute.extend(others)
        kept.append(node)
    _replace_nodes(model, kept)


def _remove_pass_through(model: ModelProto) -> None:
    """Identity and Dropout go, unless they make a graph output straight from a graph input or another output."""
    outputs = {value.name for value in model.graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.op_type in ("Identity", "Dropout") and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    _replace_nodes(model, kept)


def _refuse_training(model: ModelProto) -> None:
    """What behaves otherwise in training; what it did to constants alone has been folded."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        training = node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0)
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            mode = constants.get(node.input[2])
            training = mode is None or bool(numpy_helper.to_array(mode).any())
        if training:
            raise UnsupportedGraphError(
                f'{node.op_type} at node "{node.name}" is in training mode. Export the network in evaluation mode.'
            )


def _explicit_pads(model: ModelProto) -> None:
    """auto_pad, output_shape and an implied kernel_shape written out; ceil_mode needs nothing, the sizes tell."""
    values = infer_values(model)
    for node in model.graph.node:
        if node.op_type not in WINDOWED:
            continue
        if node.op_type in ("Conv", "ConvTranspose") and attribute(node, "kernel_shape") is None:
            node.attribute.append(helper.make_attribute("kernel_shape", list(values[node.input[1]].shape[2:])))
        mode = attribute(node, "auto_pad", "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER", "VALID") or attribute(node, "output_shape"):
            pads = _automatic_pads(node, values[node.input[0]].shape[2:], mode)
            kept = [entry for entry in node.attribute if entry.name not in ("auto_pad", "pads", "output_shape")]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("pads", pads)])


def _automatic_pads(node: NodeProto, sizes: Shape, mode: str) -> list[int]:
    kernel = attribute(node, "kernel_shape")
    ones = [1] * len(kernel)
    strides, dilations = attribute(node, "strides") or ones, attribute(node, "dilations") or ones
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    if node.op_type == "ConvTranspose":
        totals = _transposed_totals(node, sizes, strides, extents, mode)
    elif mode == "VALID":
        totals = [0] * len(kernel)
    else:
        zipped = zip(sizes, extents, strides, strict=True)
        totals = [max((math.ceil(size / s) - 1) * s + extent - size, 0) for size, extent, s in zipped]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*less, *more] if mode == "SAME_UPPER" else [*more, *less]


def _transposed_totals(node: NodeProto, sizes: Shape, strides: list[int], extents: list[int], mode: str) -> list[int]:
    """What a transposed convolution cuts off its full result, both ends together."""
    behind = attribute(node, "output_padding") or [0] * len(extents)
    full = [s * (n - 1) + p + e for s, n, p, e in zip(strides, sizes, behind, extents, strict=True)]
    same = [n * s for n, s in zip(sizes, strides, strict=True)]
    wanted = attribute(node, "output_shape") or (full if mode == "VALID" else same)
    totals = [whole - part for whole, part in zip(full, wanted[-len(full) :], strict=True)]
    if min(totals) < 0:
        raise UnsupportedGraphError(
            f'ConvTranspose at node "{node.name}" wants {list(wanted)} of the {full} that its window reaches. '
            "Export it with output_padding instead."
        )
    return totals


def _fold_batch_norm(model: ModelProto) -> None:
    """Conv -> BatchNorm becomes one Conv, where nothing else reads the Conv."""
    graph = Graph(model)
    outputs = set(graph.outputs)
    folded: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        conv = graph.producers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is not None and _foldable(graph, conv, node, outputs):
            _fold(model, graph, conv, node)
            folded[node.output[0]] = conv.output[0]
        else:
            kept.append(node)
    for node in kept:
        for index, name in enumerate(node.output):
            node.output[index] = next((new for new, old in folded.items() if old == name), name)
    _replace_nodes(model, kept)


def _foldable(graph: Graph, conv: NodeProto, norm: NodeProto, outputs: set[str]) -> bool:
    constants = [*conv.input[1:], *norm.input[1:]]
    return (
        conv.op_type == "Conv"
        and len(graph.consumers.get(conv.output[0], [])) == 1
        and conv.output[0] not in outputs
        and all(not name or graph.constant(name) is not None for name in constants)
    )


def _fold(model: ModelProto, graph: Graph, conv: NodeProto, norm: NodeProto) -> None:
    weights = graph.constant(conv.input[1])
    assert weights is not None
    scale, bias, mean, variance = (np.asarray(graph.constant(name), np.float64) for name in norm.input[1:5])
    factor = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    old = graph.constant(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else None
    shift = bias + ((0 if old is None else np.asarray(old, np.float64)) - mean) * factor
    scaled = weights.astype(np.float64) * factor.reshape(-1, *(1,) * (weights.ndim - 1))
    names = [graph.fresh(f"{conv.input[1]}/folded"), graph.fresh(f"{norm.input[2]}/folded")]
    for name, array in zip(names, (scaled, shift), strict=True):
        model.graph.initializer.append(graph.tensor(array.astype(weights.dtype), name))
    del conv.input[1:]
    conv.input.extend(names)


def _drop_unused(model: ModelProto) -> None:
    """Nodes, initializers and notes that nothing needs: local paths and stack traces above all."""
    graph = Graph(model)
    needed = graph.needed_for(graph.outputs)
    _replace_nodes(model, [node for node in model.graph.node if needed.intersection(node.output)])
    for node in model.graph.node:
        node.doc_string = ""
        scopes = [entry for entry in node.metadata_props if entry.key == SCOPES]
        notes = [(entry.key, entry.value) for entry in scopes]
        del node.metadata_props[:]
        for key, value in notes:
            node.metadata_props.add(key=key, value=value)
    used = {name for node in model.graph.node for name in node.input} | set(graph.outputs)
    for index in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[index].name not in used:
            del model.graph.initializer[index]
    made = {name for node in model.graph.node for name in node.output}
    shapes = [value for value in model.graph.value_info if value.name in made]
    del model.graph.value_info[:]
    model.graph.value_info.extend(shapes)
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    del model.graph.metadata_props[:], model.metadata_props[:]


def _free_reserved_names(model: ModelProto) -> None:
    """Inner tensors that have the names of our outputs get others."""
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    renamed = {name: f"source/{name}" for name in RESERVED if name not in ends}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for tensor in (*model.graph.initializer, *model.graph.value_info):
        tensor.name = renamed.get(tensor.name, tensor.name)


def strip_scopes(model: ModelProto) -> None:
    """Removes the module names, once layers have been looked up."""
    for node in model.graph.node:
        del node.metadata_props[:]
