"""What TensorRT 10 takes, a check of what the exporter emits, and notes on what of a network it would refuse.

Sources, named at each limit:
  TABLE  the operator table of onnx-tensorrt for TensorRT 10.6, without what its changelog adds after 10.3, the version
         on JetPack 6.1 and 6.2
  FOUND  TensorRT for RTX 1.7.1 refused it: tests/export/test_tensorrt_rtx.py builds each, and its neighbour
  OURS   taken by a parser, but not emitted
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import FLOATS, Graph, attribute

F = frozenset(FLOATS)  # float64 too: the parser computes it in float32, which `concerns` tells
I = frozenset([TensorProto.INT32, TensorProto.INT64])  # noqa: E741
B = frozenset([TensorProto.BOOL])
Q = frozenset([TensorProto.INT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN])
U = frozenset([TensorProto.UINT8])

# TABLE: what the first input of an operator may hold; but IsNaN was FOUND to refuse integers. uint8 is a type of inputs
# and outputs, which Cast, CastLike and Identity alone read (TABLE, FOUND).
_TABLE = (
    (
        F,
        """
        Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh
        CumSum DeformConv Dropout Einsum Elu Erf Exp Floor GRU Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
        GridSample GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf IsNaN LRN LSTM
        LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization Mish
        NonMaxSuppression NonZero PRelu Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform
        RandomUniformLike Reciprocal Resize RoiAlign Round Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan
        Tanh ThresholdedRelu Upsample
        """,
    ),
    (
        F | I,
        """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Neg
        Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK
        """,
    ),
    (
        F | I | B,
        """
        ConstantOfShape Concat Expand EyeLike Flatten Gather GatherElements GatherND If Loop OneHot Reshape
        ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where
        """,
    ),
    (B, "And Not Or Xor"),
    (Q, "DequantizeLinear"),
    (F | I | B | Q, "Constant"),
    (F | I | B | Q | U, "Cast CastLike Identity"),
)
TYPES = {operator: types for types, operators in _TABLE for operator in operators.split()}
# OURS: control flow keeps a graph from being captured; the others are plugins in some versions, or random.
BARRED = {
    *("DeformConv", "If", "Loop", "NonMaxSuppression", "NonZero", "RandomNormal", "RandomNormalLike", "RandomUniform"),
    *("RandomUniformLike", "RoiAlign", "Scan", "Scatter", "ScatterElements", "ScatterND"),
}
OPERATORS = frozenset(TYPES) - BARRED  # what may be emitted

TOPK_LIMIT = 3840
LRN_SIZES = range(1, 16, 2)
RESIZE_MODES = {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}


@dataclass(frozen=True)
class Limit:
    """A form of some operators that is refused: `broken` tells whether a node has it."""

    operators: str
    reason: str
    source: str
    broken: Callable[[Graph, NodeProto], bool]


LIMITS = (
    Limit("Conv ConvTranspose", "pads below 0", "FOUND", lambda _, node: _any_in(node, "pads", lambda pad: pad < 0)),
    Limit(
        "ConvTranspose",
        "strides and dilations at once",
        "FOUND",
        lambda _, node: _above_one(node, "strides") and _above_one(node, "dilations"),
    ),
    Limit(
        "Conv ConvTranspose MaxPool AveragePool LpPool",
        "more than three axes of space",
        "TABLE, FOUND",
        lambda graph, node: _rank(graph, node) > 5,
    ),
    Limit("MaxPool AveragePool LpPool", "dilations", "TABLE, FOUND", lambda _, node: _above_one(node, "dilations")),
    Limit("LpPool", "norms but 1 and 2", "FOUND", lambda _, node: attribute(node, "p", 2) not in (1, 2)),
    Limit(
        "MatMul",
        "a vector times a stack of matrices",
        "FOUND",
        lambda graph, node: _rank(graph, node) == 1 and _rank(graph, node, 1) > 2,
    ),
    Limit("MaxPool", "the indices of the maxima", "TABLE, FOUND", lambda _, node: _gives(node, 1)),
    Limit("LayerNormalization", "mean and deviation as outputs", "TABLE", lambda _, node: _gives(node, 1)),
    Limit("LRN", "sizes that are even or above 15", "FOUND", lambda _, node: attribute(node, "size") not in LRN_SIZES),
    Limit(
        "TopK", f"more than {TOPK_LIMIT} values", "TABLE, FOUND", lambda graph, node: _count(graph, node) > TOPK_LIMIT
    ),
    Limit("TopK", "values in no order", "TABLE", lambda _, node: attribute(node, "sorted", 1) != 1),
    Limit(
        "Resize",
        "coordinates by symmetry or from a crop",
        "TABLE, FOUND",
        lambda _, node: attribute(node, "coordinate_transformation_mode", "half_pixel") not in RESIZE_MODES,
    ),
    Limit(
        "Resize",
        "an aspect ratio that is kept",
        "TABLE, FOUND",
        lambda _, node: attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch",
    ),
    Limit("Resize", "sizes of some axes beside an open batch", "FOUND", lambda graph, node: _sizes_beside(graph, node)),
    Limit("Resize", "antialiasing", "TABLE, FOUND", lambda _, node: attribute(node, "antialias", 0) != 0),
    Limit(
        "QuantizeLinear DequantizeLinear",
        "zero points that are not 0",
        "TABLE, FOUND",
        lambda graph, node: _computed(graph, node, 2) or _holds(graph, node, 2, lambda point: point != 0),
    ),
    Limit(
        "QuantizeLinear DequantizeLinear",
        "scales that are not above 0",
        "FOUND",
        lambda graph, node: _holds(graph, node, 1, lambda scale: scale <= 0),
    ),
    Limit(
        "CumSum OneHot ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
        "ReduceSum ReduceSumSquare Squeeze Unsqueeze",
        "an axis or a depth that is computed",
        "TABLE, FOUND",
        lambda graph, node: _computed(graph, node, 1),
    ),
    Limit(
        "ScatterElements ScatterND",
        "a reduction",
        "TABLE, FOUND",
        lambda _, node: attribute(node, "reduction", "none") != "none",
    ),
    Limit("GridSample", "other than two axes of space", "TABLE", lambda graph, node: _rank(graph, node) != 4),
    Limit("LSTM", "coupled gates", "TABLE", lambda _, node: attribute(node, "input_forget", 0) != 0),
    Limit("LSTM", "the batch first", "TABLE", lambda _, node: attribute(node, "layout", 0) != 0),
)
OWN_LIMITS = (
    Limit(
        "Pad",
        "pads that are computed or below 0",
        "OURS",
        lambda graph, node: _computed(graph, node, 1) or _holds(graph, node, 1, lambda pad: pad < 0),
    ),
    Limit("TopK", "a count that is computed", "OURS", lambda graph, node: _computed(graph, node, 1)),
)
CONTROL_FLOW = {"If", "Loop", "Scan"}


def require_accepted(graph: Graph, nodes: Iterable[NodeProto]) -> None:
    """Raises UnsupportedGraphError for the first emitted node that TensorRT would refuse."""
    for node in nodes:
        for reason in _reasons(graph, node, OPERATORS, LIMITS + OWN_LIMITS):
            raise UnsupportedGraphError(
                f'Node "{node.name}" ({node.op_type}) would not load in TensorRT: {reason}. '
                "Choose a later layer with --layer."
            )


def concerns(graph: Graph, nodes: Iterable[NodeProto]) -> list[str]:
    """What TensorRT would refuse or change among the nodes of a normalised network, a line each; mostly none.

    A line stands for all nodes of an operator with the same trouble, and names the first.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        refusals = ((node.op_type, reason) for reason in _reasons(graph, node, TYPES, LIMITS))
        for concern in (*refusals, *_changes(graph, node)):
            found.setdefault(concern, []).append(node.name)
    return [f"TensorRT, {what}: {reason} {_where(names)}." for (what, reason), names in found.items()]


def _where(names: list[str]) -> str:
    return f'(node "{names[0]}")' if len(names) == 1 else f'({len(names)} nodes, the first is "{names[0]}")'


def _reasons(graph: Graph, node: NodeProto, operators: Iterable[str], limits: Iterable[Limit]) -> Iterator[str]:
    """Why TensorRT would refuse a node; nothing where it takes it."""
    if node.op_type not in operators:
        yield "the operator is not in its list"
        return
    dtype = _dtype(graph, node, 0)
    if dtype is not None and dtype not in TYPES[node.op_type]:
        yield f"it does not take {TensorProto.DataType.Name(dtype).lower()} here"
    for limit in limits:
        if node.op_type in limit.operators.split() and limit.broken(graph, node):
            yield f"it does not take {limit.reason}"


def _changes(graph: Graph, node: NodeProto) -> Iterator[tuple[str, str]]:
    """What TensorRT does otherwise with a node that it takes, and what that is about."""
    if _dtype(graph, node, 0) == TensorProto.DOUBLE:
        yield "float64", "it is computed in float32"
    if node.op_type in CONTROL_FLOW:
        yield node.op_type, "control flow keeps the graph from being captured"


# what a node holds


def _dtype(graph: Graph, node: NodeProto, place: int) -> int | None:
    value = graph.values.get(node.input[place]) if len(node.input) > place else None
    return value.dtype if value and value.dtype != TensorProto.UNDEFINED else None


def _rank(graph: Graph, node: NodeProto, place: int = 0) -> int:
    """Rank of the input at that place; 4 where it is unknown."""
    value = graph.values.get(node.input[place])
    return len(value.shape) if value else 4


def _computed(graph: Graph, node: NodeProto, place: int) -> bool:
    """Whether the input at that place is given, and no constant."""
    return len(node.input) > place and node.input[place] != "" and graph.constant(node.input[place]) is None


def _holds(graph: Graph, node: NodeProto, place: int, test: Callable[..., object]) -> bool:
    """Whether any element of the constant at that place is such."""
    array = graph.constant(node.input[place]) if len(node.input) > place else None
    return array is not None and any(test(number) for number in array.ravel().tolist())


def _count(graph: Graph, node: NodeProto) -> int:
    """The constant k of a TopK; 0 where it is computed."""
    count = graph.constant(node.input[1])
    return 0 if count is None else int(count.item())


def _sizes_beside(graph: Graph, node: NodeProto) -> bool:
    """Whether constant sizes are given for some axes, and the input has an axis of no fixed size."""
    value, constant = graph.values.get(node.input[0]), len(node.input) > 3 and not _computed(graph, node, 3)
    open_axis = value is not None and any(not isinstance(size, int) for size in value.shape)
    return constant and open_axis and attribute(node, "axes") is not None


def _gives(node: NodeProto, place: int) -> bool:
    return any(node.output[place:])


def _above_one(node: NodeProto, name: str) -> bool:
    return _any_in(node, name, lambda number: number > 1)


def _any_in(node: NodeProto, name: str, test: Callable[[int], bool]) -> bool:
    return any(test(number) for number in attribute(node, name) or [])
