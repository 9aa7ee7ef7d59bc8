"""What TensorRT 10 takes of the operators that the exporter may emit, and a check that names the node that breaks it.

Sources: the operator table of onnx-tensorrt for TensorRT 10 and what TensorRT for RTX 1.7 was found to refuse.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import Graph, attribute

OPERATORS = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Concat",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "Cos",
        "Div",
        "Einsum",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Gather",
        "GatherElements",
        "GatherND",
        "Gemm",
        "Greater",
        "HardSigmoid",
        "Identity",
        "Less",
        "Log",
        "MatMul",
        "Max",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pad",
        "Pow",
        "ReduceMax",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Slice",
        "Softmax",
        "Softplus",
        "Sqrt",
        "Sub",
        "Tanh",
        "TopK",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
TOPK_LIMIT = 3840


def require_accepted(graph: Graph, nodes: Iterable[NodeProto]) -> None:
    """Raises UnsupportedGraphError for the first emitted node that TensorRT would refuse."""
    for node in nodes:
        reason = _refusal(graph, node)
        if reason:
            raise UnsupportedGraphError(
                f'Node "{node.name}" ({node.op_type}) would not load in TensorRT: {reason}. '
                "Choose a later layer with --layer."
            )


def _refusal(graph: Graph, node: NodeProto) -> str | None:
    if node.op_type not in OPERATORS:
        return "the operator is not in its list"
    if node.op_type == "ConvTranspose" and _above_one(node, "strides") and _above_one(node, "dilations"):
        return "it does not build a transposed convolution that is both strided and dilated"
    if node.op_type == "Pad":
        pads = graph.constant(node.input[1])
        return "pads must be constant and not negative" if pads is None or (pads < 0).any() else None
    if node.op_type == "TopK":
        count = graph.constant(node.input[1])
        return f"k must be constant and at most {TOPK_LIMIT}" if count is None or count.item() > TOPK_LIMIT else None
    return None


def _above_one(node: NodeProto, name: str) -> bool:
    return any(number > 1 for number in attribute(node, name) or [])
