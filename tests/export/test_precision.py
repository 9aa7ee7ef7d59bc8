"""A network in float16 or bfloat16: what is converted, what stays in float32, and that it computes the same."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the converted graph")

from small_models import classifier  # noqa: E402

from gcpp_edge.errors import SourceError  # noqa: E402
from gcpp_edge.export import weights  # noqa: E402
from gcpp_edge.export.graph import infer_values  # noqa: E402
from gcpp_edge.export.normalise import normalise  # noqa: E402
from gcpp_edge.export.precision import FLOAT32_OPERATORS, to_float32, to_precision  # noqa: E402

HALF = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def run(model, image):
    """The outputs by name, for an image that is cast to what the model takes."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
    found = session.run(None, {entry.name: image.astype(dtype)})
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


def network(*nodes, shape=("N", 4, 6, 6), output="y", **constants):
    """image [N,4,6,6] -> nodes -> output, in normal form."""
    graph = helper.make_graph(
        list(nodes),
        "piece",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    return normalise(helper.make_model(graph, opset_imports=opset, ir_version=10))


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


def f32(*numbers):
    return np.array(numbers if len(numbers) > 1 else numbers[0], np.float32)


def written_out_layer_norm():
    """Over the channels, in seven nodes; activations of 300, whose squares float16 cannot hold."""
    return network(
        node("Mul", "image big", "x"),
        node("ReduceMean", "x axes", "mean"),
        node("Sub", "x mean", "centred"),
        node("Pow", "centred two", "squares"),
        node("ReduceMean", "squares axes", "variance"),
        node("Add", "variance epsilon", "shifted"),
        node("Sqrt", "shifted", "deviation"),
        node("Div", "centred deviation", "normal"),
        node("Mul", "normal gamma", "y"),
        big=f32(300),
        axes=np.array([1]),
        two=f32(2),
        epsilon=f32(1e-6),
        gamma=f32(1.5),
    )


def layer_norm():
    return network(
        node("Mul", "image big", "x"),
        node("Transpose", "x", "last", perm=[0, 2, 3, 1]),
        node("LayerNormalization", "last gamma beta", "normal", axis=-1),
        node("Transpose", "normal", "y", perm=[0, 3, 1, 2]),
        big=f32(300),
        gamma=f32(1, 2, 3, 4),
        beta=f32(0, 1, 0, 1),
    )


def gelu_by_erf():
    return network(
        node("Div", "image root", "scaled"),
        node("Erf", "scaled", "erf"),
        node("Add", "erf one", "shifted"),
        node("Mul", "image shifted", "product"),
        node("Mul", "product half", "y"),
        root=f32(2**0.5),
        one=f32(1),
        half=f32(0.5),
    )


def a_count_in_floats():
    """2049 for each picture, counted in floats: of two it is 4098, which float16 does not hold."""
    return network(
        node("Shape", "image", "batch", start=0, end=1),
        node("Cast", "batch", "floats", to=TensorProto.FLOAT),
        node("Mul", "floats factor", "larger"),
        node("Cast", "larger", "count", to=TensorProto.INT64),
        node("Sub", "count base", "rest"),
        node("Cast", "rest", "small", to=TensorProto.FLOAT),
        node("Mul", "image small", "y"),
        factor=f32(2049),
        base=np.array(4096),
    )


@dataclass(frozen=True)
class Piece:
    """A part of a network. wide: operators that must stay in float32, in order."""

    name: str
    build: Callable
    wide: list[str]


PIECES = [
    Piece("nothing that needs it", lambda: network(node("Relu", "image", "y")), []),
    Piece("layer normalisation", layer_norm, ["LayerNormalization"]),
    Piece(
        "layer normalisation, written out",
        written_out_layer_norm,
        ["Pow", "ReduceMean", "Add", "Sqrt", "Div"],
    ),
    Piece("softmax", lambda: network(node("Softmax", "image", "s", axis=1), node("Relu", "s", "y")), ["Softmax"]),
    Piece(
        "an exponential over its sum",
        lambda: network(
            node("Mul", "image steep", "x"),
            node("Exp", "x", "e"),
            node("ReduceSum", "e axes", "sum"),
            node("Div", "e sum", "y"),
            steep=f32(9),
            axes=np.array([1]),
        ),
        ["Exp", "ReduceSum", "Div"],
    ),
    Piece("GELU in terms of Erf", gelu_by_erf, []),
    Piece(
        "a constant beyond float16",
        lambda: network(
            node("Mul", "image many", "x"),
            node("Mul", "x few", "z"),
            node("Relu", "z", "y"),
            many=f32(1e6),
            few=f32(1e-6),
        ),
        ["Mul", "Mul"],
    ),
    Piece(
        "a constant below float16",
        lambda: network(node("Relu", "image", "x"), node("Add", "x small", "y"), small=f32(1e-9)),
        ["Add"],
    ),
    Piece(
        "a bound without end",
        lambda: network(node("Clip", "image low high", "y"), low=f32(0), high=f32(3.4e38)),
        [],
    ),
    Piece(
        "a large sum",
        lambda: network(
            node("Relu", "image", "x"), node("ReduceSum", "x axes", "y"), shape=("N", 4, 48, 48), axes=np.array([2, 3])
        ),
        ["ReduceSum"],
    ),
    Piece("a count in floats", a_count_in_floats, ["Cast", "Mul", "Cast", "Cast"]),
    Piece(
        "a sum of many channels by convolution",
        lambda: network(node("Conv", "image w", "y"), w=np.ones((2, 4, 3, 3), np.float32)),
        [],
    ),
]


def wide_nodes(model):
    """Operators with a float32 input that is no cast of ours, in order."""
    values = infer_values(model)
    found = []
    for each in model.graph.node:
        if each.name.endswith("/cast") or not each.input:
            continue
        floats = [values[name].dtype for name in (*each.input[:1], *each.output) if name in values]
        if TensorProto.FLOAT in floats:
            found.append(each.op_type)
    return found


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
def test_what_float16_cannot_hold_stays_in_float32(piece):
    source = piece.build()
    model = to_precision(source, "fp16")
    onnx.checker.check_model(model, full_check=True)
    assert wide_nodes(model) == piece.wide
    size = [entry.dim_value or 2 for entry in source.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(1).normal(size=size)
    expected, found = run(source, image.astype(np.float16).astype(np.float32))["y"], run(model, image)["y"]
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("ending", ["logits", "Softmax", "LogSoftmax", "Sigmoid"])
@pytest.mark.parametrize("head", ["linear", "convolution"])
def test_a_network_keeps_its_names_and_gives_its_scores_in_float32(precision, ending, head):
    source = normalise(classifier(ending=ending, head=head))
    model = to_precision(source, precision)
    values = infer_values(model)
    assert [output.name for output in model.graph.output] == [output.name for output in source.graph.output]
    assert all(values[output.name].dtype == TensorProto.FLOAT for output in model.graph.output)
    assert values["image"].dtype == (TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT)
    for name in ("stem/relu", "body/features"):
        assert values[name].dtype == HALF[precision]
    weights = [tensor.data_type for tensor in model.graph.initializer if "weight" in tensor.name]
    assert weights and set(weights) == {HALF[precision]}


def test_a_network_in_float16_computes_the_same():
    source = normalise(classifier(ending="Softmax"))
    image = np.random.default_rng(5).normal(size=(4, 3, 16, 16))
    expected, found = run(source, image)["scores"], run(to_precision(source, "fp16"), image)["scores"]
    np.testing.assert_allclose(found, expected, atol=2e-3)  # 11 bits, through two convolutions


def test_a_network_that_is_float16_keeps_its_types_and_gives_float32_scores():
    source = normalise(classifier(dtype=np.float16, ending="Softmax"))
    model = to_precision(source, "fp16")
    onnx.checker.check_model(model, full_check=True)
    before, after = ({name: value.dtype for name, value in infer_values(each).items()} for each in (source, model))
    assert after["scores"] == TensorProto.FLOAT
    assert {name: dtype for name, dtype in after.items() if name in before and name != "scores"} == {
        name: dtype for name, dtype in before.items() if name != "scores"
    }


def test_float32_and_back_are_the_same_numbers():
    source = normalise(classifier(dtype=np.float16))
    wide = to_float32(source)
    onnx.checker.check_model(wide, full_check=True)
    assert {value.dtype for value in infer_values(wide).values()} == {TensorProto.FLOAT}
    image = np.random.default_rng(5).normal(size=(2, 3, 16, 16))
    np.testing.assert_allclose(run(source, image)["logits"], run(wide, image)["logits"], rtol=5e-3, atol=5e-3)


def test_a_source_is_not_changed():
    source = normalise(classifier())
    before = source.SerializeToString(deterministic=True)
    to_precision(source, "fp16")
    to_float32(source)
    assert source.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_that_lie_beside_the_graph_are_converted_too(precision, monkeypatch):
    expected = [to_precision(normalise(classifier()), precision)]
    expected.append(to_float32(expected[0]))
    monkeypatch.setattr(weights, "LARGE_BYTES", 0)
    light, store = weights.set_aside(classifier())
    half = to_precision(normalise(light), precision)
    found = [half, to_float32(half)]
    assert all(weights.weights_of(model) is store for model in found)
    for model, whole in zip(found, expected, strict=True):
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
        for tensor in weights.filled(model).graph.initializer:
            array = numpy_helper.to_array(tensor)
            assert array.dtype == arrays[tensor.name].dtype
            assert np.array_equal(array, arrays.pop(tensor.name))
        assert not arrays


def test_every_operator_that_stays_in_float32_says_why():
    assert all(FLOAT32_OPERATORS.values())


def quantised():
    return network(
        node("QuantizeLinear", "image scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "y"),
        scale=f32(0.1),
        zero=np.array(0, np.int8),
    )


REFUSED = [
    ("an unknown one", lambda: normalise(classifier()), "fp8", ["fp8", "fp16, bf16"]),
    ("float16 as bfloat16", lambda: normalise(classifier(dtype=np.float16)), "bf16", ["holds float16"]),
    ("float64", lambda: normalise(classifier(dtype=np.float64)), "fp16", ["holds double"]),
    ("a quantised network", quantised, "fp16", ['"q" is QuantizeLinear', "before quantisation"]),
]


@pytest.mark.parametrize(("name", "build", "precision", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_converted_is_refused_in_one_line(name, build, precision, words):
    with pytest.raises(SourceError) as caught:
        to_precision(build(), precision)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
