"""A half-precision model as a float32 one that rounds: what it will give on a runtime that keeps to its types.

ONNX Runtime's CPU has no float16 arithmetic: it computes runs of float16 nodes in float32 and leaves the casts between
them out, so that 300 * 300 / 1000 is 90 there and infinite elsewhere. Of bfloat16 it runs next to nothing. Here each
node computes in float32, as accelerators accumulate, and its result is rounded to its type and back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from onnx import ModelProto, NodeProto, TensorProto, helper

from gcpp_edge.contract import MAX_OPSET, METADATA_KEY, contract_from_json
from gcpp_edge.export.graph import infer_values
from gcpp_edge.export.precision import HALVES, to_float32

# These give out what they were given, or zero: nothing is left to round.
EXACT = frozenset(
    [
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "MaxPool",
        "Neg",
    ]
    + ["Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"]
)


def as_rounded(model: ModelProto) -> ModelProto:
    """The model in float32 with its halves rounded after every node; inputs keep their types, outputs are float32.

    An explained model stays one: the levels in its contract are counted anew.
    """
    dtypes = {name: value.dtype for name, value in infer_values(model).items()}
    result = to_float32(model)
    nodes, counts = [], [0]
    for value, before in zip(result.graph.input, model.graph.input, strict=True):
        if before.type.tensor_type.elem_type in HALVES:
            nodes.append(_cast(f"{value.name}/given", value.name, TensorProto.FLOAT))
    renamed = {node.output[0]: node.input[0] for node in nodes}
    for node in result.graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            dtype = dtypes.get(name, TensorProto.UNDEFINED)
            if dtype in HALVES and node.op_type not in EXACT:
                node.output[index] = f"{name}/exact"
                nodes.append(_cast(f"{name}/exact", f"{name}/rounded", dtype))
                nodes.append(_cast(f"{name}/rounded", name, TensorProto.FLOAT))
        counts.append(len(nodes))
    _replace(result, nodes)
    _keep_inputs(result, model, renamed)
    _recount(result, counts)
    if result.opset_import[0].version > MAX_OPSET:  # which only halves had asked for
        result.opset_import[0].version = MAX_OPSET
    return result


def _cast(source: str, result: str, dtype: int) -> NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}/rounding", to=dtype)


def _replace(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _keep_inputs(model: ModelProto, source: ModelProto, renamed: dict[str, str]) -> None:
    """An input keeps its name and type: what was put behind it takes another name."""
    inner = {name: f"{name}/wide" for name in renamed}
    outer = {given: name for name, given in renamed.items()}
    for node in model.graph.node:
        node.input[:] = [outer.get(name, inner.get(name, name)) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    for value, before in zip(model.graph.input, source.graph.input, strict=True):
        value.type.tensor_type.elem_type = before.type.tensor_type.elem_type


def _recount(model: ModelProto, counts: list[int]) -> None:
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            contract = contract_from_json(entry.value)
            levels = {name: replace(level, nodes=counts[level.nodes]) for name, level in contract.levels.items()}
            entry.value = replace(contract, levels=levels).to_json()
