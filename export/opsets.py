"""Brings a model to the opset that explained models use, from any that onnx knows.

Upwards by onnx's converter, with what it gets wrong put right. Downwards, where the converter has no way, a node is
relabelled: most operators mean the same in both, and one that does not is decomposed (decompose.py) or refused by name.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, version_converter

from gcpp_edge.contract import MAX_IR, MAX_OPSET
from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.decompose import decompose_newer, inline_schema_functions

ROUNDS_ONLY = ("stash_type", "round_mode", "precision")  # of an inner sum: of no matter to float32
NEWEST_TYPE = TensorProto.FLOAT8E5M2FNUZ  # of our opset; packed types came later


def to_opset(model: ModelProto) -> ModelProto:
    """The model at the opset and IR version that explained models use."""
    _refuse_foreign(model)
    version = _version(model)
    if version > defs.onnx_opset_version():
        raise UnsupportedGraphError(
            f"The model has opset {version}; the installed onnx knows opsets up to {defs.onnx_opset_version()}. "
            f"Update onnx, or export the model at opset {MAX_OPSET}."
        )
    del model.graph.value_info[:]  # of the old opset, and inferred again later
    if version < MAX_OPSET:
        model = _raised(model, version)
    elif version > MAX_OPSET:
        model = _lowered(model, version)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", MAX_OPSET))
    model.ir_version = MAX_IR
    return model


def _version(model: ModelProto) -> int:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    return int(versions.get("", versions.get("ai.onnx", 0)))


def _refuse_foreign(model: ModelProto) -> None:
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign:
        node = next(node for node in model.graph.node if node.domain == foreign[0])
        raise UnsupportedGraphError(
            f'Node "{node.name}" is {foreign[0]}.{node.op_type}, an operator outside the ONNX standard. '
            "Export the network with standard operators only."
        )


# upwards


def _raised(model: ModelProto, version: int) -> ModelProto:
    _refuse_old(model, version)
    model.ir_version = max(model.ir_version, 4)  # before 4, initializers had to be inputs too
    try:
        result = version_converter.convert_version(model, MAX_OPSET)
    except Exception as error:  # the converter raises bare RuntimeError and ConvertError alike
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedGraphError(
            f"The model's opset {version} could not be converted to {MAX_OPSET}: {reason}. "
            f"Export it at opset {MAX_OPSET}."
        ) from error
    if version < 11:
        for node in result.graph.node:
            if node.op_type == "Resize":
                _as_before_11(node)
    return result


def _refuse_old(model: ModelProto, version: int) -> None:
    for node in model.graph.node:
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type == "BatchNormalization" and version < 9 and attributes.get("spatial", 1) == 0:
            raise UnsupportedGraphError(
                f'BatchNormalization at node "{node.name}" normalises each position alone (spatial = 0), which later '
                "opsets cannot say. Export the network again."
            )


def _as_before_11(node: NodeProto) -> None:
    """Resize and Upsample knew one geometry before opset 11, which the converter forgets to write."""
    kept = [entry for entry in node.attribute if entry.name == "mode"]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    node.attribute.append(helper.make_attribute("nearest_mode", "floor"))


# downwards


def _lowered(model: ModelProto, version: int) -> ModelProto:
    model = decompose_newer(model)
    newer = {node.op_type for node in model.graph.node if _known(node.op_type, MAX_OPSET) is None}
    model = inline_schema_functions(model, newer)
    for node in model.graph.node:
        _relabel(node, version)
    for tensor in model.graph.initializer:
        if tensor.data_type > NEWEST_TYPE:
            name = TensorProto.DataType.Name(tensor.data_type).lower()
            raise UnsupportedGraphError(
                f'Constant "{tensor.name}" holds {name}, which opset {MAX_OPSET} does not know. '
                "Export the network with weights of 8 bits or more."
            )
    return model


def _known(operator: str, version: int) -> defs.OpSchema | None:
    try:
        return defs.get_schema(operator, version, "")
    except defs.SchemaError:
        return None


def _relabel(node: NodeProto, version: int) -> None:
    """Drops attributes that an older schema lacks and that say what it means anyway; refuses all else."""
    old, new = _known(node.op_type, MAX_OPSET), _known(node.op_type, version)
    if old is None:
        raise UnsupportedGraphError(
            f'Node "{node.name or node.output[0]}" is {node.op_type}, an operator of opset {version} that opset '
            f"{MAX_OPSET} cannot express. Export the network at opset {MAX_OPSET}."
        )
    kept = []
    for entry in node.attribute:
        if entry.name in old.attributes:
            kept.append(entry)
        elif new is None or not _is_default(entry, new):
            raise UnsupportedGraphError(
                f'{node.op_type} at node "{node.name or node.output[0]}" has {entry.name} = '
                f"{helper.get_attribute_value(entry)}, which opset {MAX_OPSET} cannot express. "
                f"Export the network at opset {MAX_OPSET}."
            )
    copies = [onnx.AttributeProto.FromString(entry.SerializeToString()) for entry in kept]
    del node.attribute[:]
    node.attribute.extend(copies)


def _is_default(entry: onnx.AttributeProto, schema: defs.OpSchema) -> bool:
    if entry.name in ROUNDS_ONLY:
        return True
    if entry.name not in schema.attributes:
        return False
    default = schema.attributes[entry.name].default_value
    return bool(helper.get_attribute_value(entry) == (helper.get_attribute_value(default) if default.name else None))
