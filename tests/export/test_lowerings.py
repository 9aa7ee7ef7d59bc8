"""Every form of the backward pass gives the same numbers: exactly in float64, on inputs full of ties and kinks."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from vjp_cases import Case, forward_of, gradient_of, weights, with_backward

from gcpp_edge.errors import SourceError
from gcpp_edge.export.lowering import TUNED, Lowerings, lowerings_for

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the graphs in float32")

RULES = ("gradient", "guided", "deconvnet")
SIX = {"zero": np.array(0.0), "six": np.array(6.0)}


def graph(name, size, *nodes, channels=4, batch=2, **constants):
    """Nodes as "Operator input,... output" with attributes, from x to y."""
    parsed = []
    for text, *rest in nodes:
        operator, inputs, output = text.split()
        parsed.append((operator, inputs.split(","), [output], rest[0] if rest else {}))
    used = {name for _, inputs, _, _ in parsed for name in inputs}
    return Case(name, (batch, channels, *size), tuple(parsed), {k: v for k, v in constants.items() if k in used})


def window(kernel, stride=1, pad=0, **more):
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, **more}


GRAPHS = [
    graph("relu before a convolution", (6, 4), ("Relu x r",), ("Conv r,w y", window(3, 1, 1)), w=weights(8, 4, 3, 3)),
    graph(
        "relu6 before a convolution", (6, 4), ("Clip x,zero,six r",), ("Conv r,w y", window(1)),
        w=weights(8, 4, 1, 1), **SIX,
    ),
    graph("relu at the end", (4, 6), ("Conv x,w c", window(1)), ("Relu c y",), w=weights(4, 4, 1, 1)),
    graph(
        "relu6 before a strided depthwise", (8, 6), ("Clip x,zero,six r",), ("Conv r,w y", window(3, 2, 1, group=4)),
        w=weights(4, 1, 3, 3), **SIX,
    ),
    graph(
        "depthwise 5x5 stride 2", (8, 6), ("Relu x r",), ("Conv r,w y", window(5, 2, 2, group=4)), w=weights(4, 1, 5, 5)
    ),
    graph("dense stride 2", (6, 8), ("Relu x r",), ("Conv r,w y", window(3, 2, 1)), w=weights(8, 4, 3, 3)),
    graph("dense stride 3", (6, 9), ("Relu x r",), ("Conv r,w y", window(3, 3)), w=weights(4, 4, 3, 3)),
    graph("stride 3, kernel 2", (6, 9), ("Relu x r",), ("Conv r,w y", window(2, 3)), w=weights(4, 4, 2, 2)),
    graph("dilated and strided", (8, 8), ("Conv x,w y", window(3, 2, 2, dilations=[2, 2])), w=weights(4, 4, 3, 3)),
    graph(
        "pads of one side, stride 2", (8, 8), ("Relu x r",),
        ("Conv r,w y", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}), w=weights(4, 4, 3, 3),
    ),
    graph(
        "a shortcut beside a strided branch", (8, 8), ("Relu x r",), ("Conv r,a b", window(1)), ("Relu b c",),
        ("Conv c,w d", window(3, 2, 1)), ("Conv r,s e", window(1, 2)), ("Add d,e y",),
        a=weights(4, 4, 1, 1), w=weights(8, 4, 3, 3), s=weights(8, 4, 1, 1),
    ),
    graph(
        "phases that are woven before a wide convolution", (4, 4), ("Conv x,a b", window(1)), ("Relu b c",),
        ("Conv c,w y", window(3, 2, 1)), a=weights(4, 12, 1, 1), w=weights(4, 4, 3, 3), channels=12,
    ),
    graph(
        "a residual sum", (4, 4), ("Relu x r",), ("Conv r,w c", window(3, 1, 1)), ("Add c,r s",), ("Relu s t",),
        ("GlobalAveragePool t y",), w=weights(4, 4, 3, 3),
    ),
    graph(
        "max pool 2x2", (6, 8), ("Relu x r",), ("MaxPool r p", window(2, 2)), ("Conv p,w y", window(1)),
        w=weights(4, 4, 1, 1),
    ),
    graph("max pool 2x2 behind relu6", (6, 8), ("Clip x,zero,six r",), ("MaxPool r y", window(2, 2)), **SIX),
    graph("max pool 2x2, no rectifier", (6, 8), ("MaxPool x y", window(2, 2))),
    graph("max pool 3x3 stride 2", (6, 8), ("Relu x r",), ("MaxPool r y", window(3, 2, 1))),
    graph("max pool 3x3 stride 2, no rectifier", (6, 8), ("MaxPool x y", window(3, 2, 1))),
    graph("max pool 3x3 stride 2, ceiled", (6, 8), ("Relu x r",), ("MaxPool r y", window(3, 2, 0, ceil_mode=1))),
    graph("max pool 3x3 stride 3", (6, 9), ("Relu x r",), ("MaxPool r y", window(3, 3))),
    graph("max pool with a second reader", (4, 4), ("Relu x r",), ("MaxPool r p", window(2, 2)),
        ("Conv r,w c", window(1, 2)), ("Add p,c y",), w=weights(4, 4, 1, 1)),
    graph(
        "hard swish", (4, 6), ("Conv x,w c", window(1)), ("HardSwish c h",), ("Conv h,w y", window(1)),
        w=np.eye(4)[:, :, None, None],
    ),
    graph(
        "branches side by side", (4, 6), ("Relu x r",), ("Conv r,a b", window(1)), ("Relu b c",),
        ("Conv r,w d", window(3, 1, 1)), ("Relu d e",), ("Concat c,e f", {"axis": 1}), ("Conv f,s y", window(1)),
        a=weights(8, 4, 1, 1), w=weights(4, 4, 3, 3), s=weights(4, 12, 1, 1),
    ),
    graph(
        "branches side by side with two readers", (4, 6), ("Conv x,a b", window(1)), ("Conv x,w d", window(3, 1, 1)),
        ("Concat b,d f", {"axis": 1}), ("Conv f,s g", window(1)), ("Conv f,t h", window(1)), ("Add g,h y",),
        a=weights(8, 4, 1, 1), w=weights(4, 4, 3, 3), s=weights(4, 12, 1, 1), t=weights(4, 12, 1, 1, seed=1),
    ),
    graph("max pool 3x3 stride 1", (4, 6), ("Relu x r",), ("MaxPool r y", window(3, 1, 1))),
    graph("max pool 3x3 stride 1, no pads", (5, 6), ("MaxPool x y", window(3))),
    graph("max pool 2x2 of odd sizes", (7, 5), ("Relu x r",), ("MaxPool r y", window(2, 2))),
    graph("max pool 3x3 of odd sizes", (7, 5), ("MaxPool x y", window(3, 2))),
    graph("max pool 3x3 of odd sizes, ceiled", (6, 7), ("Relu x r",), ("MaxPool r y", window(3, 2, 0, ceil_mode=1))),
    graph(
        "depthwise 5x5 stride 2 of odd sizes", (7, 9), ("Clip x,zero,six r",), ("Conv r,w y", window(5, 2, 2, group=4)),
        w=weights(4, 1, 5, 5), **SIX,
    ),
    graph("dense stride 3, odd sizes", (7, 8), ("Relu x r",), ("Conv r,w y", window(3, 3, 1)), w=weights(8, 4, 3, 3)),
    graph(
        "a shortcut beside a strided branch of odd sizes", (7, 5), ("Relu x r",), ("Conv r,a b", window(1)),
        ("Relu b c",), ("Conv c,w d", window(3, 2, 1)), ("Conv r,s e", window(1, 2)), ("Add d,e y",),
        a=weights(4, 4, 1, 1), w=weights(8, 4, 3, 3), s=weights(8, 4, 1, 1),
    ),
    graph(
        "odd sizes", (7, 5), ("Relu x r",), ("Conv r,w p", window(3, 2, 1)), ("MaxPool p y", window(2, 1)),
        w=weights(4, 4, 3, 3),
    ),
    graph("a picture, 3x3", (4, 6), ("Conv x,w c", window(3, 1, 1)), ("Relu c y",), w=weights(8, 3, 3, 3), channels=3),
    graph("a picture, 3x3 without pads", (6, 8), ("Conv x,w y", window(3)), w=weights(4, 1, 3, 3), channels=1),
    graph("a picture, 7x7 stride 2", (8, 12), ("Conv x,w y", window(7, 2, 3)), w=weights(4, 3, 7, 7), channels=3),
    graph(
        "a picture, 6x5 dilated and padded unevenly", (8, 8),
        ("Conv x,w y", {"kernel_shape": [6, 5], "strides": [2, 2], "pads": [0, 1, 3, 2], "dilations": [1, 2]}),
        w=weights(4, 3, 6, 5), channels=3,
    ),
    graph("a picture, 3x3 stride 2", (8, 8), ("Conv x,w y", window(3, 2, 1)), w=weights(4, 3, 3, 3), channels=3),
    graph("five channels", (6, 6), ("Relu x r",), ("MaxPool r y", window(2, 2)), channels=5),
]  # fmt: skip
PLAIN = {  # the same nodes either way, and under which rules
    "five channels": set(RULES),
    "a picture, 3x3 stride 2": set(RULES),
    "relu at the end": {"gradient", "deconvnet"},
    "hard swish": {"deconvnet"},
    "max pool 3x3 stride 2, no rectifier": set(RULES),
    "max pool 3x3 stride 2": {"deconvnet"},
    "max pool 3x3 stride 1": {"deconvnet"},
    "max pool 3x3 of odd sizes, ceiled": {"deconvnet"},
    "max pool 3x3 stride 2, ceiled": {"deconvnet"},
    "relu before a convolution": {"gradient", "deconvnet"},
    "relu6 before a convolution": {"gradient", "deconvnet"},
}


def drawn(shape, seed):
    """Whole numbers, most of them at a kink: 0, 3 and 6, and many ties."""
    return np.random.default_rng(seed).choice([-4.0, -3, -1, 0, 0, 1, 3, 3, 5, 6, 7], size=shape)


def shape_of(case):
    return tuple(size.dim_value for size in forward_of(case).graph.output[0].type.tensor_type.shape.dim)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", GRAPHS, ids=lambda case: case.name)
def test_both_forms_are_equal(case, rule):
    for seed in range(3):
        x, g = drawn(case.shape, seed), drawn(shape_of(case), seed + 10) + 0.5
        found = [gradient_of(case, x, g, rule, lowerings=form) for form in TUNED.values()]
        np.testing.assert_allclose(found[0], found[1], rtol=1e-12, atol=1e-12)
        assert found[1].any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", GRAPHS, ids=lambda case: case.name)
def test_the_forms_differ_where_they_should(case, rule):
    kinds = []
    for form in TUNED.values():
        model, _ = with_backward(forward_of(case), rule, form)
        kinds.append([node.op_type for node in model.graph.node])
    assert (kinds[0] == kinds[1]) == (rule in PLAIN.get(case.name, ()))


@pytest.mark.parametrize("case", GRAPHS, ids=lambda case: case.name)
def test_onnx_runtime_gets_the_same_in_float32(case):
    x, g = drawn(case.shape, 1), drawn(shape_of(case), 2) + 0.5
    single = Case(
        case.name, case.shape, case.nodes, {name: np.asarray(c, np.float32) for name, c in case.constants.items()}
    )
    model, gradient = with_backward(forward_of(single, TensorProto.FLOAT), "guided")
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run([gradient.name], {"x": x.astype(np.float32), "seed": g.astype(np.float32)})[0]
    wanted = gradient_of(case, x, g, "guided")
    np.testing.assert_allclose(
        np.broadcast_to(found, wanted.shape), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max()
    )


@pytest.mark.parametrize("switch", Lowerings.__dataclass_fields__)
def test_every_switch_works_alone(switch):
    only = Lowerings(**{name: name == switch for name in Lowerings.__dataclass_fields__})
    for case in GRAPHS:
        x, g = drawn(case.shape, 4), drawn(shape_of(case), 5) + 0.5
        found = [gradient_of(case, x, g, "guided", lowerings=form) for form in (only, TUNED["gpu"])]
        np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-12, err_msg=case.name)


def test_the_smallest_positive_activations_pass():
    """What is hardly above a bound, or hardly below one, is inside; the bound itself is not."""
    case = graph(
        "relu6", (1, 4), ("Clip x,zero,six r",), ("Conv r,w y", window(1)), w=np.eye(4)[:, :, None, None], **SIX
    )
    single = Case(case.name, case.shape, case.nodes, {k: np.asarray(c, np.float32) for k, c in case.constants.items()})
    row = np.array([0, 1e-19, np.nextafter(np.float32(6), np.float32(0)), 6], np.float32)
    x = np.broadcast_to(row, case.shape).astype(np.float32)
    found = gradient_of(single, x, np.ones(case.shape, np.float32), "guided", TensorProto.FLOAT)
    np.testing.assert_array_equal(found[0, 0, 0], [0, 1, 1, 0])


def test_an_unknown_device_is_refused():
    with pytest.raises(SourceError, match='"tpu".*cpu, gpu'):
        lowerings_for("tpu")
