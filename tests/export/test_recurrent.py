"""Recurrent layers, written out step by step, give the numbers and the gradients of those that they stand for."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the recurrent layers themselves")
pytest.importorskip("torch", reason="PyTorch computes float64 convolutions for the evaluator")

from float64_evaluator import run_float64
from vjp_cases import with_backward

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.differences import session_for
from gcpp_edge.export.normalise import normalise

STEPS, WIDTH, FEATURES = 4, 3, 5  # of x [N,5,4,3]: rows are the steps, a column is a sequence
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def weights(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape, scale=0.6).astype(np.float32)


def network(
    operator,
    state,
    hidden=2,
    directions=1,
    bias=True,
    batch_first=False,
    result="Y",
    batch="N",
    exact=False,
    **attributes,
):
    """x -> steps -> the operator -> its whole result, or its last state, as y.

    state: initial states, "" for none, "zeros" as PyTorch writes them, "given" for those that the input decides.
    exact: in float64.
    """
    gates, dtype = GATES[operator], TensorProto.DOUBLE if exact else TensorProto.FLOAT
    constants = {
        "steps": np.array([STEPS, -1, FEATURES]),
        "W": weights(directions, gates * hidden, FEATURES),
        "R": weights(directions, gates * hidden, hidden, seed=4),
        "B": weights(directions, 2 * gates * hidden, seed=5),
    }
    nodes = [("Transpose", ["x"], ["a"], {"perm": [2, 0, 3, 1]}), ("Reshape", ["a", "steps"], ["s"], {})]
    ready = "s"
    if batch_first:
        nodes.append(("Transpose", ["s"], ["f"], {"perm": [1, 0, 2]}))
        ready, attributes = "f", {**attributes, "layout": 1}
    inputs = [ready, "W", "R", "B" if bias else ""]
    if state:
        made, extra = (zero_state if state == "zeros" else given_state)(directions, hidden, batch_first)
        nodes += made
        constants |= extra
        inputs += ["", *["h"] * (2 if operator == "LSTM" else 1)]
    names = {"Y": ["y"], "Y_h": ["", "y"], "Y_c": ["", "", "y"]}[result]
    nodes.append((operator, inputs, names, {"hidden_size": hidden, **attributes}))
    made = [helper.make_node(op, i, o, name=f"{op}{n}", **a) for n, (op, i, o, a) in enumerate(nodes)]
    x = helper.make_tensor_value_info("x", dtype, [batch, FEATURES, STEPS, WIDTH])
    if exact:
        constants = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in constants.items()}
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(made, "steps", [x], [helper.make_tensor_value_info("y", dtype, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def zero_state(directions, hidden, batch_first):
    """Zeros [D,B,H] as many as the batch asks for: a shape, then Expand."""
    nodes = [
        ("Shape", ["s"], ["sizes"], {"start": 1, "end": 2}),
        ("Concat", ["directions", "sizes", "hidden"], ["many"], {"axis": 0}),
        ("Expand", ["nought", "many"], ["h"], {}),
    ]
    assert not batch_first
    sizes = {"directions": np.array([directions]), "hidden": np.array([hidden]), "nought": np.zeros((), np.float32)}
    return nodes, sizes


def given_state(directions, hidden, batch_first):
    """The mean over steps, projected: [D,B,H], or [B,D,H]."""
    order = [0, 1, 2] if batch_first else [1, 0, 2]
    nodes = [
        ("ReduceMean", ["s", "first"], ["m"], {"keepdims": 0}),
        ("MatMul", ["m", "P"], ["p"], {}),
        ("Reshape", ["p", "split"], ["d"], {}),
        ("Transpose", ["d"], ["h"], {"perm": order}),
    ]
    constants = {"first": np.array([0]), "P": weights(FEATURES, directions * hidden, seed=6)}
    return nodes, {**constants, "split": np.array([-1, directions, hidden])}


CASES = {
    "lstm": ("LSTM", "", {}),
    "lstm backwards": ("LSTM", "", {"direction": "reverse"}),
    "lstm in both directions": ("LSTM", "", {"direction": "bidirectional", "directions": 2}),
    "lstm without bias": ("LSTM", "", {"bias": False}),
    "lstm from zeros": ("LSTM", "zeros", {"direction": "bidirectional", "directions": 2}),
    "lstm from states": ("LSTM", "given", {"direction": "bidirectional", "directions": 2}),
    "lstm with other activations": ("LSTM", "", {"activations": ["Softsign", "Sigmoid", "Softplus"]}),
    "the last hidden state of an lstm": ("LSTM", "", {"result": "Y_h", "direction": "bidirectional", "directions": 2}),
    "the last cell of an lstm": ("LSTM", "given", {"result": "Y_c"}),
    "gru": ("GRU", "", {}),
    "gru with its reset behind the product": ("GRU", "", {"linear_before_reset": 1}),
    "gru in both directions": (
        "GRU",
        "given",
        {"linear_before_reset": 1, "direction": "bidirectional", "directions": 2},
    ),
    "gru without bias": ("GRU", "zeros", {"bias": False, "linear_before_reset": 1}),
    "rnn": ("RNN", "", {}),
    "rnn backwards, from states": ("RNN", "given", {"direction": "reverse"}),
    "rnn of sigmoids, its last state": ("RNN", "", {"activations": ["Sigmoid"], "result": "Y_h"}),
}
BATCH_FIRST = {
    "lstm": ("LSTM", "given", {"direction": "bidirectional", "directions": 2}),
    "gru, its last state": ("GRU", "", {"result": "Y_h"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_written_out_form_gives_the_same_numbers_for_any_batch(name):
    operator, state, options = CASES[name]
    model = network(operator, state, **options)
    plain = normalise(model)
    assert not {node.op_type for node in plain.graph.node} & set(GATES)
    for batch in (1, 3):
        x = np.random.default_rng(1).normal(size=(batch, FEATURES, STEPS, WIDTH)).astype(np.float32)
        expected = session_for(model).run(None, {"x": x})[0]
        found = session_for(plain).run(None, {"x": x})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", GATES)
def test_steps_share_their_weights(operator):
    plain = normalise(network(operator, "", linear_before_reset=1) if operator == "GRU" else network(operator, ""))
    arrays = [numpy_helper.to_array(tensor) for tensor in plain.graph.initializer]
    floats = [(array.shape, array.tobytes()) for array in arrays if array.dtype == np.float32 and array.any()]
    assert len(floats) == len(set(floats)) >= 2


@pytest.mark.parametrize("name", BATCH_FIRST)
def test_the_batch_may_come_first(name):
    """ONNX Runtime has no such form: the one that it has is the truth."""
    operator, state, options = BATCH_FIRST[name]
    x = np.random.default_rng(1).normal(size=(2, FEATURES, STEPS, WIDTH)).astype(np.float32)
    expected = session_for(network(operator, state, **options)).run(None, {"x": x})[0]
    plain = normalise(network(operator, state, batch_first=True, **options))
    order = [1, 0, 2] if options.get("result") else [2, 0, 1, 3]
    np.testing.assert_allclose(
        session_for(plain).run(None, {"x": x})[0], expected.transpose(order), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_finite_differences(name):
    operator, state, options = CASES[name]
    forward = normalise(network(operator, state, batch=2, exact=True, **options))
    model, gradient = with_backward(forward)
    generator = np.random.default_rng(7)
    x = generator.normal(size=(2, FEATURES, STEPS, WIDTH))

    def y_at(point):
        return run_float64(forward, {"x": point})["y"]

    seed, direction = generator.normal(size=y_at(x).shape), generator.normal(size=x.shape)
    step = 1e-6
    difference = ((y_at(x + step * direction) - y_at(x - step * direction)) * seed).sum() / (2 * step)
    found = run_float64(model, {"x": x, "seed": seed})[gradient.name]
    assert (found * direction).sum() == pytest.approx(difference, rel=1e-4)


def lengths(model):
    model.graph.node[-1].input.extend([""] * (5 - len(model.graph.node[-1].input)))
    model.graph.node[-1].input[4] = "lengths"
    model.graph.initializer.append(numpy_helper.from_array(np.full(2 * WIDTH, STEPS - 1, np.int32), "lengths"))


def computed_weights(model):
    model.graph.node[-1].input[1] = "W2"
    model.graph.node.insert(0, helper.make_node("Mul", ["W", "W0"], ["W2"]))
    model.graph.node.insert(0, helper.make_node("ReduceMean", ["x"], ["W0"], keepdims=0))


def steps_of_the_batch(model):
    model.graph.node[1].input[1] = "other"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, STEPS, FEATURES]), "other"))


def peepholes(model):
    model.graph.node[-1].input.extend([*[""] * (7 - len(model.graph.node[-1].input)), "peepholes"])
    model.graph.initializer.append(numpy_helper.from_array(weights(1, 6), "peepholes"))


REFUSED = {
    "sequences of several lengths": (lengths, {}, "several lengths"),
    "computed weights": (computed_weights, {}, '"W2"'),
    "as many steps as pictures": (steps_of_the_batch, {}, "number of steps"),
    "peepholes": (peepholes, {}, "peepholes"),
    "clipped sums": (None, {"clip": 3.0}, "clips"),
    "coupled gates": (None, {"input_forget": 1}, "input_forget"),
    "activations with a parameter": (None, {"activations": ["Elu", "Tanh", "Tanh"]}, "Elu"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_such_form_is_refused_by_name(name):
    change, options, words = REFUSED[name]
    model = network("LSTM", "", **options)
    if change:
        change(model)
    with pytest.raises(UnsupportedGraphError) as caught:
        normalise(model)
    message = str(caught.value)
    assert words in message and 'LSTM at node "LSTM' in message and "\n" not in message
