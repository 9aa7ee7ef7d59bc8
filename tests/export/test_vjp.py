"""Every rule against float64 finite differences, away from kinks; then kinks, ties, padding and broadcasts by value.

A case builds a graph of one input "x" and one output "y". The rule's gradient of sum(seed * y) along a random direction
must equal the central difference.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch", reason="PyTorch computes float64 convolutions for the evaluator")

from float64_evaluator import run_float64  # noqa: E402
from vjp_cases import Case, forward_of, gradient_of, one, weights, with_backward  # noqa: E402
from vjp_cases_elementwise import ELEMENTWISE  # noqa: E402
from vjp_cases_tensors import TENSORS  # noqa: E402
from vjp_cases_windows import WINDOWS  # noqa: E402

from gcpp_edge.errors import MissingRuleError, UnsupportedGraphError  # noqa: E402
from gcpp_edge.export.differentiate import differentiate  # noqa: E402
from gcpp_edge.export.emit import Emitter  # noqa: E402
from gcpp_edge.export.graph import Graph  # noqa: E402
from gcpp_edge.export.recognise import recognise_activations  # noqa: E402
from gcpp_edge.export.vjp import RULES, WITHOUT_GRADIENT  # noqa: E402

CASES = [*ELEMENTWISE, *WINDOWS, *TENSORS]


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
    covered = {node[0] for case in CASES for node in case.nodes} | {"Celu"}  # has a test of its own
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
CLIP = one("clip", "Clip", (1, 1, 1, 5), [np.array(-0.5), np.array(0.5)])
PRELU = one("prelu", "PRelu", (1, 1, 1, 3), [np.array([-0.5])])
SHRINK = one("shrink", "Shrink", (1, 1, 1, 5), lambd=0.5)
HARD_SIGMOID = one("hard sigmoid", "HardSigmoid", (1, 1, 1, 5), alpha=0.5, beta=0.5)
MAX = one("max", "Max", (1, 1, 1, 3), [np.array(1.0)])
MIN = one("min", "Min", (1, 1, 1, 3), [np.array(0.0)])
REDUCE_MAX = one("reduce max", "ReduceMax", (1, 1, 1, 4), [np.array([3])])
REDUCE_MIN = one("reduce min", "ReduceMin", (1, 1, 1, 4), [np.array([3])], keepdims=0)
GLOBAL_MAX = one("global max", "GlobalMaxPool", (1, 1, 1, 4))
TOP_TWO = Case("top two", (1, 1, 1, 4), (("TopK", ["x", "k"], ["y", "i"], {}),), {"k": np.array([2])})
GATHERED = one("gathered", "GatherElements", (1, 1, 1, 3), [np.array([[[[1, 1, 2, -2]]]])], axis=3)
WHERE = one("where", "Where", (1, 1, 1, 1), [np.array([True, False, True]), np.zeros(3)], inputs=["c0", "x", "c1"])
EXPAND = one("expand", "Expand", (1, 1, 1, 1), [np.array([2, 1, 1, 3])])
TILE = one("tile", "Tile", (1, 1, 1, 2), [np.array([1, 1, 1, 3])])
PRODUCT = one("product", "ReduceProd", (1, 1, 1, 3), [np.array([3])])
NORM = one("norm", "ReduceL2", (1, 1, 1, 2), [np.array([3])])
LP_POOL = one("lp pool", "LpPool", (1, 1, 1, 4), kernel_shape=[1, 2], strides=[1, 2])
EDGES = one("edges", "AveragePool", (1, 1, 1, 4), kernel_shape=[1, 3], pads=[0, 1, 0, 1])
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
    "abs has no slope at zero": Special(one("abs", "Abs", (1, 1, 1, 3)), row(-2, 0, 3), row(-1, 0, 1)),
    "a clip passes nothing at its bounds": Special(CLIP, row(-1, -0.5, 0, 0.5, 2), row(0, 0, 1, 0, 0)),
    "prelu at zero takes its slope": Special(PRELU, row(-1, 0, 2), row(-0.5, -0.5, 1)),
    "shrink passes nothing at its bounds": Special(SHRINK, row(-2, -0.5, 0, 0.5, 1), row(1, 0, 0, 0, 1)),
    "a hard sigmoid is flat at its ends": Special(HARD_SIGMOID, row(-2, -1, 0, 1, 3), row(0, 0, 0.5, 0, 0)),
    "a tie of two maxima is shared": Special(MAX, row(-1, 1, 2), row(0, 0.5, 1)),
    "a tie of two minima is shared": Special(MIN, row(-1, 0, 1), row(1, 0.5, 0)),
    "the largest of a row shares in a tie": Special(REDUCE_MAX, row(2, 5, 5, 1), row(0, 0.5, 0.5, 0)),
    "the least of a row shares in a tie": Special(REDUCE_MIN, row(1, 5, 1, 1), row(1 / 3, 0, 1 / 3, 1 / 3)),
    "a global maximum shares in a tie": Special(GLOBAL_MAX, row(2, 5, 5, 5), row(0, 1 / 3, 1 / 3, 1 / 3)),
    "the largest two take the first in a tie": Special(TOP_TWO, row(3, 3, 3, 1), row(1, 1, 0, 0)),
    "what was gathered twice gets both": Special(GATHERED, row(4, 5, 6), row(0, 3, 1)),
    "where sums what broadcast": Special(WHERE, row(7), row(2)),
    "expand sums what it repeated": Special(EXPAND, row(7), row(6)),
    "tile sums its copies": Special(TILE, row(1, 2), row(3, 3)),
    "a product with one zero": Special(PRODUCT, row(2, 0, 3), row(0, 6, 0)),
    "a product with two zeros": Special(PRODUCT, row(2, 0, 0), row(0, 0, 0)),
    "the norm of zeros has no direction": Special(NORM, row(0, 0), row(0, 0)),
    "an lp pool of zeros has no direction": Special(LP_POOL, row(0, 0, 3, 4), row(0, 0, 0.6, 0.8)),
    "the square of zero is flat": Special(one("square", "Pow", (1, 1, 1, 1), [np.array(2.0)]), row(0), row(0)),
    "to the power of zero is flat": Special(one("one", "Pow", (1, 1, 1, 2), [np.array(0.0)]), row(0, 3), row(0, 0)),
    "average pooling does not count its pads": Special(EDGES, row(1, 2, 3, 4), row(5 / 6, 7 / 6, 7 / 6, 5 / 6)),
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
            one("no rule", "Det", (3, 3)),
            MissingRuleError,
            ["Det", "opset 20", '"Det0"', '"x"', '"y"', "--layer"],
        ),
        (
            one("einsum with a diagonal beside x", "Einsum", (2, 3), [weights(3, 3)], equation="bi,ii->bi"),
            UnsupportedGraphError,
            ["Einsum0", "bi,ii->bi", "repeats an index", "--layer"],
        ),
        (
            Case("weights from x", (1, 2, 3, 3), (("Conv", ["x", "x"], ["y"], {"kernel_shape": [3, 3]}),)),
            UnsupportedGraphError,
            ['"Conv0"', "weights that depend on the picture", "--layer"],
        ),
        (
            one("a scatter that adds", "ScatterND", (4, 3), [np.array([[1]]), weights(1, 3)], reduction="add"),
            UnsupportedGraphError,
            ["ScatterND0", "adds up", "--layer"],
        ),
        (
            Case(
                "a scatter twice",
                (2, 3),
                (("ScatterND", ["c0", "c1", "x"], ["y"], {}),),
                {"c0": weights(4, 3), "c1": np.array([[1], [1]])},
            ),
            UnsupportedGraphError,
            ["ScatterND0", "twice", "--layer"],
        ),
        (
            Case(
                "bounds from x",
                (2, 3),
                (("ReduceMax", ["x"], ["m"], {"keepdims": 0}), ("Clip", ["x", "", "m"], ["y"], {})),
            ),
            UnsupportedGraphError,
            ["Clip1", "bounds that depend on the picture", "--layer"],
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_has_no_rule_is_named(case, error, words):
    with pytest.raises(error) as caught:
        with_backward(forward_of(case))
    assert all(word in str(caught.value) for word in words)
