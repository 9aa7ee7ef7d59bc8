"""Every rule against float64 finite differences, away from kinks; then kinks, ties, padding and broadcasts by value.

A case builds a graph of one input "x" and one output "y". The rule's gradient of sum(seed * y) along a random direction
must equal the central difference.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch", reason="PyTorch computes float64 convolutions for the evaluator")

from float64_evaluator import run_float64  # noqa: E402

from gcpp_edge.errors import MissingRuleError, UnsupportedGraphError  # noqa: E402
from gcpp_edge.export.differentiate import differentiate  # noqa: E402
from gcpp_edge.export.emit import Emitter  # noqa: E402
from gcpp_edge.export.graph import Graph, Value, infer_values  # noqa: E402
from gcpp_edge.export.recognise import recognise_activations  # noqa: E402
from gcpp_edge.export.tensorrt_policy import require_accepted  # noqa: E402
from gcpp_edge.export.vjp import RULES, WITHOUT_GRADIENT  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A graph: nodes as (operator, inputs, outputs, attributes), constants by name, and the shape of x."""

    name: str
    shape: tuple
    nodes: tuple
    constants: dict = field(default_factory=dict)
    low: float = -2.0
    high: float = 2.0


def one(name, operator, shape, constants=(), low=-2.0, high=2.0, inputs=None, **attributes):
    """A case of a single node y = operator(x, *constants)."""
    named = {f"c{i}": np.asarray(array) for i, array in enumerate(constants)}
    names = inputs or ["x", *named]
    return Case(name, shape, ((operator, names, ["y"], attributes),), named, low, high)


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


IMAGE = (2, 4, 7, 6)
CASES = [
    one("relu", "Relu", IMAGE),
    one("clip to 0..1 is a rectifier", "Clip", IMAGE, [np.array(0.0), np.array(1.0)]),
    one("clip below only", "Clip", IMAGE, [np.array(-0.5)]),
    one("clip above only", "Clip", IMAGE, [np.array(0.5)], inputs=["x", "", "c0"]),
    one("leaky relu", "LeakyRelu", IMAGE, alpha=0.25),
    one("prelu with a slope per channel", "PRelu", IMAGE, [weights(4, 1, 1)]),
    one("elu", "Elu", IMAGE, alpha=0.5),
    one("sigmoid", "Sigmoid", IMAGE),
    one("tanh", "Tanh", IMAGE),
    one("hard sigmoid", "HardSigmoid", IMAGE, low=-4.0, high=4.0, alpha=0.25, beta=0.5),
    one("hard swish", "HardSwish", IMAGE, low=-5.0, high=5.0),
    one("softplus", "Softplus", IMAGE),
    one("erf", "Erf", IMAGE),
    one("gelu", "Gelu", IMAGE),
    one("gelu, tanh form", "Gelu", IMAGE, approximate="tanh"),
    Case(
        "silu, spelled out",
        IMAGE,
        (("Sigmoid", ["x"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})),
    ),
    Case(
        "hard swish, spelled out",
        IMAGE,
        (("HardSigmoid", ["x"], ["s"], {"alpha": 1 / 6, "beta": 0.5}), ("Mul", ["s", "x"], ["y"], {})),
        low=-5.0,
        high=5.0,
    ),
    Case(
        "gelu, spelled out",
        IMAGE,
        (
            ("Div", ["x", "root"], ["a"], {}),
            ("Erf", ["a"], ["b"], {}),
            ("Add", ["b", "one"], ["c"], {}),
            ("Mul", ["x", "c"], ["d"], {}),
            ("Mul", ["d", "half"], ["y"], {}),
        ),
        {"root": np.array(2**0.5), "one": np.array(1.0), "half": np.array(0.5)},
    ),
    one("identity", "Identity", IMAGE),
    one("neg", "Neg", IMAGE),
    one("abs", "Abs", IMAGE),
    one("exp", "Exp", IMAGE),
    one("log", "Log", IMAGE, low=0.5),
    one("sqrt", "Sqrt", IMAGE, low=0.5),
    one("reciprocal", "Reciprocal", IMAGE, low=0.5),
    one("pow by a number", "Pow", IMAGE, [np.array(3.0)], low=0.5),
    one("square", "Pow", IMAGE, [np.array(2.0)]),
    one("add a bias per channel", "Add", IMAGE, [weights(4, 1, 1)]),
    one("subtract from a constant", "Sub", IMAGE, [weights(4, 1, 1)], inputs=["c0", "x"]),
    one("multiply by a scale per channel", "Mul", IMAGE, [weights(4, 1, 1)]),
    one("divide by a constant", "Div", IMAGE, [2 + np.abs(weights(4, 1, 1))]),
    one("divide a constant", "Div", IMAGE, [weights(4, 1, 1)], low=0.5, inputs=["c0", "x"]),
    one("sum of two", "Sum", IMAGE, inputs=["x", "x"]),
    Case("x times itself", IMAGE, (("Mul", ["x", "x"], ["y"], {}),)),
    Case(
        "x minus its spatial mean, which broadcasts",
        IMAGE,
        (("GlobalAveragePool", ["x"], ["m"], {}), ("Sub", ["x", "m"], ["y"], {})),
    ),
    Case(
        "x over its spatial mean, which broadcasts",
        IMAGE,
        (("GlobalAveragePool", ["x"], ["m"], {}), ("Div", ["x", "m"], ["y"], {})),
        low=0.5,
    ),
    Case(
        "a squeeze-and-excitation gate",
        IMAGE,
        (
            ("GlobalAveragePool", ["x"], ["m"], {}),
            ("Conv", ["m", "w"], ["z"], {"kernel_shape": [1, 1]}),
            ("Sigmoid", ["z"], ["s"], {}),
            ("Mul", ["x", "s"], ["y"], {}),
        ),
        {"w": weights(4, 4, 1, 1)},
    ),
    one("conv 3x3", "Conv", IMAGE, [weights(6, 4, 3, 3)], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    one("conv 1x1", "Conv", IMAGE, [weights(6, 4, 1, 1)], kernel_shape=[1, 1]),
    one("conv 1x1 that is padded", "Conv", IMAGE, [weights(6, 4, 1, 1)], kernel_shape=[1, 1], pads=[1, 0, 2, 1]),
    one("conv with asymmetric pads", "Conv", IMAGE, [weights(6, 4, 3, 2)], kernel_shape=[3, 2], pads=[0, 1, 2, 0]),
    one("conv with bias", "Conv", IMAGE, [weights(6, 4, 3, 3), weights(6)], kernel_shape=[3, 3]),
    one("conv in groups", "Conv", IMAGE, [weights(6, 2, 3, 3)], kernel_shape=[3, 3], group=2),
    one("conv depthwise", "Conv", IMAGE, [weights(4, 1, 3, 3)], kernel_shape=[3, 3], group=4, pads=[1] * 4),
    one("conv dilated", "Conv", IMAGE, [weights(5, 4, 3, 2)], kernel_shape=[3, 2], dilations=[2, 3], pads=[2, 1, 2, 1]),
    one(
        "conv stride 2, odd size",
        "Conv",
        IMAGE,
        [weights(6, 4, 3, 3)],
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1] * 4,
    ),
    one("conv stride 2 by 3", "Conv", IMAGE, [weights(6, 4, 3, 3)], kernel_shape=[3, 3], strides=[2, 3]),
    one("conv 1x1 stride 2", "Conv", IMAGE, [weights(6, 4, 1, 1)], kernel_shape=[1, 1], strides=[2, 2]),
    one("conv stride above kernel", "Conv", IMAGE, [weights(6, 4, 2, 2)], kernel_shape=[2, 2], strides=[3, 3]),
    one(
        "conv stem 7x7 stride 2",
        "Conv",
        (1, 3, 15, 14),
        [weights(4, 3, 7, 7)],
        kernel_shape=[7, 7],
        strides=[2, 2],
        pads=[3] * 4,
    ),
    one("conv patch 4x4 stride 4", "Conv", (1, 3, 12, 13), [weights(4, 3, 4, 4)], kernel_shape=[4, 4], strides=[4, 4]),
    one(
        "conv 6x6 stride 4",
        "Conv",
        (1, 3, 14, 13),
        [weights(4, 3, 6, 6)],
        kernel_shape=[6, 6],
        strides=[4, 4],
        pads=[2] * 4,
    ),
    one(
        "conv depthwise stride 2",
        "Conv",
        IMAGE,
        [weights(4, 1, 3, 3)],
        kernel_shape=[3, 3],
        group=4,
        strides=[2, 2],
        pads=[1] * 4,
    ),
    one(
        "conv depthwise 5x5 stride 2, asymmetric",
        "Conv",
        IMAGE,
        [weights(4, 1, 5, 5)],
        kernel_shape=[5, 5],
        group=4,
        strides=[2, 2],
        pads=[1, 2, 2, 1],
    ),
    one(
        "conv groups stride 2",
        "Conv",
        IMAGE,
        [weights(6, 2, 3, 3)],
        kernel_shape=[3, 3],
        group=2,
        strides=[2, 2],
        pads=[1, 0, 0, 1],
    ),
    one(
        "conv strided and dilated",
        "Conv",
        IMAGE,
        [weights(6, 4, 3, 3)],
        kernel_shape=[3, 3],
        strides=[2, 2],
        dilations=[2, 2],
        pads=[2] * 4,
    ),
    one("conv 1-D stride 2", "Conv", (2, 4, 9), [weights(6, 4, 3)], kernel_shape=[3], strides=[2], pads=[1, 1]),
    one("conv 3-D", "Conv", (1, 2, 4, 5, 6), [weights(3, 2, 3, 3, 3)], kernel_shape=[3, 3, 3], pads=[1] * 6),
    one(
        "transposed conv stride 2",
        "ConvTranspose",
        IMAGE,
        [weights(4, 3, 3, 3)],
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1] * 4,
        dilations=[1, 1],
    ),
    one("max pool 2x2", "MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
    one("max pool 3x3 stride 2, overlapping", "MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    one("max pool 3x3 stride 1", "MaxPool", IMAGE, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4),
    one("max pool with ceil_mode", "MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    one("max pool stride 2 by 3", "MaxPool", IMAGE, kernel_shape=[2, 3], strides=[2, 3]),
    one("max pool stride above kernel", "MaxPool", IMAGE, kernel_shape=[1, 1], strides=[2, 2]),
    one("max pool 1-D", "MaxPool", (2, 3, 9), kernel_shape=[3], strides=[2]),
    one("max pool 3-D", "MaxPool", (1, 2, 4, 4, 6), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    one("average pool 2x2", "AveragePool", IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
    one(
        "average pool padded, pads not counted", "AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    ),
    one(
        "average pool padded, pads counted",
        "AveragePool",
        IMAGE,
        kernel_shape=[3, 3],
        strides=[1, 1],
        pads=[1] * 4,
        count_include_pad=1,
    ),
    one("average pool 1x1", "AveragePool", IMAGE, kernel_shape=[1, 1], strides=[1, 1]),
    one("global average pool", "GlobalAveragePool", IMAGE),
    one("global max pool", "GlobalMaxPool", IMAGE),
    one("reduce mean over space", "ReduceMean", IMAGE, [np.array([2, 3])], keepdims=1),
    one("reduce mean over space, axes gone", "ReduceMean", IMAGE, [np.array([-1, -2])], keepdims=0),
    one("reduce sum over channels", "ReduceSum", IMAGE, [np.array([1])], keepdims=1),
    one("gemm with a row per class", "Gemm", (3, 5), [weights(4, 5), weights(4)], transB=1),
    one("gemm with a column per class", "Gemm", (3, 5), [weights(5, 4)], alpha=0.5),
    one("matmul by a constant", "MatMul", (2, 3, 4, 5), [weights(5, 6)]),
    one("matmul of a constant", "MatMul", (5, 6), [weights(2, 4, 5)], inputs=["c0", "x"]),
    Case("matmul of x by itself", (2, 4, 4), (("MatMul", ["x", "x"], ["y"], {}),)),
    one("batch norm", "BatchNormalization", IMAGE, [weights(4), weights(4), weights(4), np.abs(weights(4)) + 0.5]),
    one("layer norm over the last axis", "LayerNormalization", (2, 3, 8), [weights(8), weights(8)], axis=-1),
    one("layer norm over two axes", "LayerNormalization", (2, 3, 4), [weights(3, 4), weights(3, 4)], axis=1),
    one("softmax over classes", "Softmax", (3, 5), axis=1),
    one("log softmax", "LogSoftmax", (3, 5), axis=-1),
    one("reshape", "Reshape", IMAGE, [np.array([0, -1])]),
    one("flatten", "Flatten", IMAGE),
    one("squeeze", "Squeeze", (2, 3, 1, 1), [np.array([2, 3])]),
    one("unsqueeze", "Unsqueeze", (2, 3), [np.array([2, 3])]),
    one("transpose", "Transpose", IMAGE, perm=[0, 2, 3, 1]),
    one("concat with a constant", "Concat", (2, 3, 4), [weights(2, 2, 4)], axis=1),
    one("concat of x twice", "Concat", (2, 3, 4), inputs=["x", "x"], axis=1),
    one("slice", "Slice", IMAGE, [np.array([1, 2]), np.array([3, 100]), np.array([1, 3])]),
    one("slice with steps", "Slice", IMAGE, [np.array([1]), np.array([7]), np.array([2]), np.array([3])]),
    one("slice from the end", "Slice", IMAGE, [np.array([-4]), np.array([-1]), np.array([-1])]),
    one("gather of one index", "Gather", IMAGE, [np.array(2)], axis=1),
    one("gather keeping the axis", "Gather", IMAGE, [np.array([-1])], axis=1),
    one("pad", "Pad", IMAGE, [np.array([0, 0, 1, 2, 0, 0, 3, 0])]),
    one("pad that crops", "Pad", IMAGE, [np.array([0, 0, -1, 2, 0, 0, 1, -2])]),
    one("expand", "Expand", (2, 3, 1, 1), [np.array([2, 3, 4, 5])]),
    Case(
        "split, one piece unused",
        (2, 6, 3),
        (("Split", ["x", "parts"], ["a", "y"], {"axis": 1}),),
        {"parts": np.array([2, 4])},
    ),
    Case(
        "split, both pieces used",
        (2, 6, 3),
        (("Split", ["x", "parts"], ["a", "b"], {"axis": 1}), ("Mul", ["a", "b"], ["y"], {})),
        {"parts": np.array([3, 3])},
    ),
    Case("cast", (2, 3), (("Cast", ["x"], ["y"], {"to": TensorProto.DOUBLE}),)),
    Case(
        "dropout at inference",
        (2, 3),
        (("Dropout", ["x"], ["y"], {}),),
    ),
    one("selu", "Selu", IMAGE),
    one("mish", "Mish", IMAGE),
    one("thresholded relu", "ThresholdedRelu", IMAGE, alpha=0.5),
    one("softsign", "Softsign", IMAGE),
    one("sine", "Sin", IMAGE),
    one("cosine", "Cos", IMAGE),
    one("mean of two, one broadcast", "Mean", IMAGE, [weights(4, 1, 1)]),
    one("where", "Where", IMAGE, [weights(2, 4, 7, 6) > 0, weights(4, 1, 1)], inputs=["c0", "x", "c1"]),
    one("where, the other branch", "Where", IMAGE, [weights(7, 1) > 0, weights(4, 1, 1)], inputs=["c0", "c1", "x"]),
    one("max with a constant", "Max", IMAGE, [weights(4, 1, 1)]),
    one("min of two", "Min", IMAGE, [weights(2, 4, 7, 6), weights(1)]),
    one("reduce max over space", "ReduceMax", IMAGE, [np.array([2, 3])]),
    one("reduce min over channels, axis gone", "ReduceMin", IMAGE, [np.array([1])], keepdims=0),
    one("reduce l1", "ReduceL1", IMAGE, [np.array([1])]),
    one("reduce l2, axes gone", "ReduceL2", IMAGE, [np.array([2, 3])], keepdims=0),
    one("reduce sum of squares", "ReduceSumSquare", IMAGE, [np.array([-1])]),
    one("reduce log sum exp", "ReduceLogSumExp", IMAGE, [np.array([1])], keepdims=0),
    one("gather of several indices, one twice", "Gather", IMAGE, [np.array([2, 0, 2, -1])], axis=1),
    one("gather by a matrix of indices", "Gather", (3, 5, 2), [np.array([[0, 4], [1, 1]])], axis=1),
    one("slice backwards", "Slice", IMAGE, [np.array([-1]), np.array([-100]), np.array([3]), np.array([-2])]),
    one("slice the last axis with steps", "Slice", IMAGE, [np.array([1]), np.array([6]), np.array([3]), np.array([2])]),
    one("pad by reflection", "Pad", IMAGE, [np.array([0, 0, 2, 1, 0, 0, 1, 3])], mode="reflect"),
    one("pad by the edge", "Pad", IMAGE, [np.array([0, 1, 2, 0, 0, 0, 0, 1])], mode="edge"),
    one("pad around", "Pad", IMAGE, [np.array([1, 2]), np.array([2])], mode="wrap", inputs=["x", "c0", "", "c1"]),
    one("tile", "Tile", (2, 3, 4), [np.array([1, 3, 2])]),
    one("space to depth", "SpaceToDepth", (2, 3, 4, 6), blocksize=2),
    one("depth to space", "DepthToSpace", (2, 8, 3, 2), blocksize=2),
    one("depth to space, column-row-depth", "DepthToSpace", (2, 8, 3, 2), blocksize=2, mode="CRD"),
    one(
        "resize to the nearest, by scales",
        "Resize",
        IMAGE,
        [np.array([1, 1, 2, 3], np.float32)],
        inputs=["x", "", "c0"],
    ),
    one(
        "resize linearly, by sizes",
        "Resize",
        IMAGE,
        [np.array([2, 4, 11, 5])],
        inputs=["x", "", "", "c0"],
        mode="linear",
    ),
    one(
        "resize linearly with aligned corners",
        "Resize",
        IMAGE,
        [np.array([2, 4, 9, 12])],
        inputs=["x", "", "", "c0"],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    one(
        "resize by cubics", "Resize", IMAGE, [np.array([1, 1, 2, 2], np.float32)], inputs=["x", "", "c0"], mode="cubic"
    ),
    one("instance norm", "InstanceNormalization", IMAGE, [weights(4), weights(4)]),
    one("l2 norm over channels", "LpNormalization", IMAGE, axis=1, p=2),
    one("l1 norm over channels", "LpNormalization", IMAGE, axis=1, p=1, low=0.5),  # onnx's reference forgets |x|
    one("local response norm", "LRN", (5, 5, 3, 2), size=4, alpha=0.5, beta=0.75, bias=1.5),
    one("einsum of a product", "Einsum", (2, 3, 4), [weights(4, 5)], equation="bij,jk->bik"),
    one("einsum that sums an index alone", "Einsum", (2, 3, 4), [weights(2, 5)], equation="bij,bk->bk"),
    one("einsum of x with itself", "Einsum", (2, 3, 4), inputs=["x", "x"], equation="bij,bkj->bik"),
    one("lp pool", "LpPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, p=2),
    one("max pool dilated", "MaxPool", (1, 2, 9, 9), kernel_shape=[2, 3], strides=[2, 1], dilations=[3, 2]),
    one("conv 3-D stride 2", "Conv", (1, 2, 5, 6, 7), [weights(3, 2, 3, 3, 3)], kernel_shape=[3] * 3, strides=[2] * 3),
]


def forward_of(case, dtype=TensorProto.DOUBLE):
    nodes = [helper.make_node(op, list(i), list(o), name=f"{op}{n}", **a) for n, (op, i, o, a) in enumerate(case.nodes)]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in case.constants.items()]
    x = helper.make_tensor_value_info("x", dtype, list(case.shape))
    y = onnx.ValueInfoProto(name="y")
    y.type.tensor_type.elem_type = dtype
    graph = helper.make_graph(nodes, "case", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    inferred = infer_values(model)["y"]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", inferred.dtype, list(inferred.shape)))
    return model


def with_backward(model, pixel_rule="gradient"):
    """The model with input "seed" and output "dx", and the shape that "dx" has before it is broadcast."""
    graph = Graph(model)
    emit = Emitter(graph)
    y = graph.value("y")
    graph.values["seed"] = Value("seed", y.shape, y.dtype)
    steps = recognise_activations(graph)
    gradient = differentiate(graph, emit, steps, {"y": graph.values["seed"]}, ["x"], pixel_rule)["x"]
    require_accepted(graph, emit.nodes)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.node.extend(emit.nodes)
    result.graph.initializer.extend(emit.initializers)
    result.graph.input.append(helper.make_tensor_value_info("seed", y.dtype, list(y.shape)))
    result.graph.output.append(helper.make_tensor_value_info(gradient.name, gradient.dtype, list(gradient.shape)))
    onnx.checker.check_model(result, full_check=True)  # also holds our shapes against ONNX's own inference
    return result, gradient


def gradient_of(case, x, seed, pixel_rule="gradient", dtype=TensorProto.DOUBLE):
    model, gradient = with_backward(forward_of(case, dtype), pixel_rule)
    found = run_float64(model, {"x": x, "seed": seed})[gradient.name]
    return np.broadcast_to(found, x.shape)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_rule_equals_finite_differences(case):
    generator = np.random.default_rng(7)
    x = generator.uniform(case.low, case.high, case.shape)
    forward = forward_of(case)

    def y_at(point):
        return run_float64(forward, {"x": point})["y"]

    seed, direction = generator.normal(size=y_at(x).shape), generator.normal(size=case.shape)
    step = 1e-6
    difference = ((y_at(x + step * direction) - y_at(x - step * direction)) * seed).sum() / (2 * step)
    assert (gradient_of(case, x, seed) * direction).sum() == pytest.approx(difference, rel=1e-5, abs=1e-6)


def test_every_rule_has_a_case():
    covered = {node[0] for case in CASES for node in case.nodes} | {
        "Celu"
    }  # float32 alone, so it has a test of its own
    internal = {operator for domain, operator in RULES if domain}
    assert {operator for domain, operator in RULES if not domain} - covered == set()
    assert internal == {"Silu", "Gelu", "FakeQuantize"}  # spelled out in the table, and below


def test_no_operator_is_both_with_and_without_a_gradient():
    assert not {operator for _, operator in RULES} & WITHOUT_GRADIENT


@dataclass(frozen=True)
class Special:
    """A case at special points, with the gradient that a seed of ones must give."""

    case: Case
    x: np.ndarray
    expected: np.ndarray
    pixel_rule: str = "gradient"
    seed: float = 1.0


def row(*numbers):
    return np.array(numbers, np.float64).reshape(1, 1, 1, -1)


POOL = one("pool", "MaxPool", (1, 1, 1, 4), kernel_shape=[1, 2], strides=[1, 2])
OVERLAP = one("overlap", "MaxPool", (1, 1, 1, 5), kernel_shape=[1, 3], strides=[1, 2])
RELU = one("relu", "Relu", (1, 1, 1, 3))
RELU6 = one("relu6", "Clip", (1, 1, 1, 4), [np.array(0.0), np.array(6.0)])
SPECIALS = {
    "relu passes nothing at zero": Special(RELU, row(-1, 0, 2), row(0, 0, 1)),
    "relu6 passes nothing at its bounds": Special(RELU6, row(0, 3, 6, 7), row(0, 1, 0, 0)),
    "a tie in a pool goes to the first": Special(POOL, row(2, 2, 5, 1), row(1, 0, 1, 0)),
    "zeros in a pool are a tie too": Special(POOL, row(0, 0, 0, 0), row(1, 0, 1, 0)),
    "windows that overlap add up": Special(OVERLAP, row(0, 1, 9, 1, 0), row(0, 0, 2, 0, 0)),
    "a tie across windows is settled in each": Special(OVERLAP, row(3, 0, 3, 0, 3), row(1, 0, 1, 0, 0)),
    "minus infinity can be a maximum": Special(POOL, row(-np.inf, -np.inf, 1, 2), row(1, 0, 0, 1)),
    "guided passes positive gradients of positive inputs": Special(RELU, row(-1, 0, 2), row(0, 0, 1), "guided"),
    "guided stops negative gradients": Special(RELU, row(-1, 0, 2), row(0, 0, 0), "guided", -1.0),
    "deconvnet does not look at the input": Special(RELU, row(-1, 0, 2), row(1, 1, 1), "deconvnet"),
    "deconvnet stops negative gradients": Special(RELU, row(-1, 0, 2), row(0, 0, 0), "deconvnet", -1.0),
    "guided relu6 stops what saturates": Special(RELU6, row(-1, 3, 6, 7), row(0, 1, 0, 0), "guided"),
    "a gate is no rectifier": Special(one("sigmoid", "Sigmoid", (1, 1, 1, 1)), row(0), row(-0.25), "guided", -1.0),
}


@pytest.mark.parametrize("name", SPECIALS)
def test_a_rule_at_special_points(name):
    special = SPECIALS[name]
    shape = run_float64(forward_of(special.case), {"x": special.x})["y"].shape
    found = gradient_of(special.case, special.x, np.full(shape, special.seed), special.pixel_rule)
    np.testing.assert_allclose(found, special.expected, atol=1e-12)


def test_gradients_behind_a_spatial_mean_stay_compact():
    case = Case(
        "head",
        (1, 3, 5, 5),
        (
            ("GlobalAveragePool", ["x"], ["m"], {}),
            ("Flatten", ["m"], ["f"], {}),
            ("Gemm", ["f", "w"], ["y"], {"transB": 1}),
        ),
        {"w": weights(4, 3)},
    )
    _, gradient = with_backward(forward_of(case))
    assert gradient.shape == (1, 3, 1, 1)


def test_silu_is_taken_as_one_rectifier():
    case = next(case for case in CASES if case.name == "silu, spelled out")
    x = np.full(case.shape, -1.0)
    found = gradient_of(case, x, np.full(case.shape, -1.0), "guided")
    assert not found.any()  # through the product of a gate, a negative gradient would pass


def test_celu_equals_autograd():
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(1, 2, 3, 4)
    point = torch.from_numpy(x).requires_grad_()
    torch.celu(point, 0.5).sum().backward()
    case = one("celu", "Celu", x.shape, alpha=0.5)
    found = gradient_of(case, x, np.ones_like(x), dtype=TensorProto.FLOAT)
    np.testing.assert_allclose(found, point.grad.numpy(), rtol=1e-5, atol=1e-6)


def quantised(low, high, scale=0.1):
    x = np.linspace(low, high, 12).reshape(1, 2, 2, 3)
    nodes = (("QuantizeLinear", ["x", "s", "z"], ["q"], {}), ("DequantizeLinear", ["q", "s", "z"], ["y"], {}))
    return Case("quantised", x.shape, nodes, {"s": np.array(scale), "z": np.array(0, np.int8)}), x


def test_quantisation_passes_straight_through_inside_its_range():
    case, x = quantised(-20, 20)
    model = forward_of(case)
    graph = Graph(model)
    emit = Emitter(graph)
    y = graph.value("y")
    seed = emit.constant(np.ones(x.shape))
    steps = recognise_activations(graph)
    assert [node.op_type for node in steps] == ["FakeQuantize"]
    gradient = differentiate(graph, emit, steps, {"y": seed}, ["x"])["x"]
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    model.graph.output.append(helper.make_tensor_value_info(gradient.name, y.dtype, list(y.shape)))
    found = run_float64(model, {"x": x})[gradient.name]
    np.testing.assert_array_equal(found, (x > -12.75) & (x < 12.65))


@pytest.mark.parametrize(
    ("case", "error", "words"),
    [
        (
            one("no rule", "Acos", (2, 3), low=-0.5, high=0.5),
            MissingRuleError,
            ["Acos", "opset 20", '"Acos0"', '"x"', '"y"', "--layer"],
        ),
        (
            one("einsum with an ellipsis", "Einsum", (2, 3), [weights(3, 4)], equation="...j,jk->...k"),
            UnsupportedGraphError,
            ["ellipsis", "...j,jk->...k"],
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_has_no_rule_is_named(case, error, words):
    with pytest.raises(error) as caught:
        with_backward(forward_of(case))
    assert all(word in str(caught.value) for word in words)
