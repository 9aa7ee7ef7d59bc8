"""Normal form: each rewrite by its numbers and by its graph."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from small_models import classifier

pytest.importorskip("onnxruntime", reason="ONNX Runtime runs both graphs")

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.differences import session_for
from gcpp_edge.export.graph import Graph
from gcpp_edge.export.normalise import normalise
from gcpp_edge.export.recognise import recognise_activations


@dataclass(frozen=True)
class Rewrite:
    """A graph from "image" to "y", and how many of each operator must be left."""

    name: str
    nodes: tuple
    constants: dict = field(default_factory=dict)
    shape: tuple = (1, 3, 7, 6)
    left: dict = field(default_factory=dict)
    opset: int = 20


def weights(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def norm(prefix="n", channels=4):
    generator = np.random.default_rng(4)
    return {f"{prefix}{i}": generator.uniform(0.5, 1.5, channels).astype(np.float32) for i in range(4)}


NORM = ["n0", "n1", "n2", "n3"]
REWRITES = [
    Rewrite(
        "sizes of space become those of all axes, the batch read off the input",
        (("Resize", ["image", "", "", "sizes"], ["y"], {"mode": "linear", "axes": [2, 3]}),),
        {"sizes": np.array([11, 9])},
        left={"Resize": 1, "Shape": 1, "Concat": 1},
    ),
    Rewrite(
        "a batch norm behind a convolution is folded",
        (("Conv", ["image", "w"], ["a"], {}), ("BatchNormalization", ["a", *NORM], ["y"], {})),
        {"w": weights(4, 3, 3, 3), **norm()},
        left={"Conv": 1},
    ),
    Rewrite(
        "a batch norm behind a convolution that others read is kept",
        (
            ("Conv", ["image", "w"], ["a"], {}),
            ("BatchNormalization", ["a", *NORM], ["b"], {}),
            ("Add", ["a", "b"], ["y"], {}),
        ),
        {"w": weights(4, 3, 3, 3), **norm()},
        left={"Conv": 1, "BatchNormalization": 1, "Add": 1},
    ),
    Rewrite(
        "dropout and identity go",
        (("Identity", ["image"], ["a"], {}), ("Dropout", ["a"], ["b"], {}), ("Relu", ["b"], ["y"], {})),
        left={"Relu": 1},
    ),
    Rewrite(
        "an identity that is the output stays",
        (("Relu", ["image"], ["a"], {}), ("Identity", ["a"], ["y"], {})),
        left={"Relu": 1, "Identity": 1},
    ),
    Rewrite(
        "same_upper pads are written out",
        (("Conv", ["image", "w"], ["y"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),),
        {"w": weights(4, 3, 3, 4)},
        left={"Conv": 1},
    ),
    Rewrite(
        "same_lower pads are written out",
        (("MaxPool", ["image"], ["y"], {"auto_pad": "SAME_LOWER", "kernel_shape": [2, 3], "strides": [2, 2]}),),
        left={"MaxPool": 1},
    ),
    Rewrite(
        "valid pads are written out",
        (("AveragePool", ["image"], ["y"], {"auto_pad": "VALID", "kernel_shape": [2, 2]}),),
        left={"AveragePool": 1},
    ),
    Rewrite(
        "a gather of everything in order is a reshape",
        (
            ("GlobalAveragePool", ["image"], ["m"], {}),
            ("Reshape", ["m", "flat"], ["f"], {}),
            ("Shape", ["image"], ["s"], {"start": 0, "end": 1}),
            ("Squeeze", ["s"], ["n"], {}),
            ("Range", ["zero", "n", "one"], ["r"], {}),
            ("Mul", ["r", "three"], ["o"], {}),
            ("Unsqueeze", ["o", "axes"], ["u"], {}),
            ("Add", ["u", "channels"], ["i"], {}),
            ("Gather", ["f", "i"], ["y"], {"axis": 0}),
        ),
        {
            "flat": np.array([-1]),
            "zero": np.array(0),
            "one": np.array(1),
            "three": np.array(3),
            "axes": np.array([1, 2, 3]),
            "channels": np.arange(3).reshape(1, 3, 1, 1),
        },
        left={"GlobalAveragePool": 1, "Reshape": 1},
    ),
    Rewrite(
        "a gather in another order stays",
        (
            ("GlobalAveragePool", ["image"], ["m"], {}),
            ("Reshape", ["m", "flat"], ["f"], {}),
            ("Gather", ["f", "order"], ["y"], {"axis": 0}),
        ),
        {"flat": np.array([-1]), "order": np.array([2, 1, 0])},
        left={"GlobalAveragePool": 1, "Reshape": 1, "Gather": 1},
    ),
    Rewrite(
        "constants become initializers",
        (("Constant", [], ["c"], {"value_float": 2.0}), ("Mul", ["image", "c"], ["y"], {})),
        left={"Mul": 1},
    ),
    Rewrite(
        "what the output does not need goes",
        (("Relu", ["image"], ["y"], {}), ("Tanh", ["image"], ["unused"], {})),
        left={"Relu": 1},
    ),
    Rewrite("an old opset is raised", (("Relu", ["image"], ["y"], {}),), left={"Relu": 1}, opset=8),
]


def model_of(case):
    nodes = [helper.make_node(op, i, o, name=f"{op}{n}", **a) for n, (op, i, o, a) in enumerate(case.nodes)]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in case.constants.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(case.shape))
    y = onnx.ValueInfoProto(name="y")
    y.type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph(nodes, "case", [image], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8)


@pytest.mark.parametrize("case", REWRITES, ids=lambda case: case.name)
def test_a_rewrite_keeps_the_numbers_and_leaves_the_graph_that_it_should(case):
    source = model_of(case)
    result = normalise(source)
    found = {}
    for node in result.graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    assert found == case.left
    assert all(entry.name != "auto_pad" for node in result.graph.node for entry in node.attribute)
    image = np.random.default_rng(0).normal(size=case.shape).astype(np.float32)
    outputs = [session_for(model).run(None, {"image": image})[0] for model in (source, result)]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)


def test_a_local_function_is_inlined():
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["c"])]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "NegatedRelu", ["a"], ["c"], body, opsets[:1])
    model = model_of(Rewrite("", (("NegatedRelu", ["image"], ["y"], {"domain": "local"}),)))
    model.functions.append(function)
    model.opset_import.append(opsets[1])
    assert [node.op_type for node in normalise(model).graph.node] == ["Relu", "Neg"]


def refused_dropout():
    nodes = (("Dropout", ["image", "ratio", "training"], ["a"], {}), ("Relu", ["a"], ["y"], {}))
    return model_of(Rewrite("", nodes, {"ratio": np.float32(0.5), "training": np.array(True)}))


def foreign_operator():
    model = model_of(Rewrite("", (("FusedConv", ["image"], ["y"], {"domain": "com.microsoft"}),)))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def control_flow():
    branch = helper.make_graph([helper.make_node("Relu", ["image"], ["z"])], "b", [], [onnx.ValueInfoProto(name="z")])
    model = model_of(Rewrite("", (("Relu", ["image"], ["y"], {}),), {"yes": np.array(True)}))
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["q"], name="choice", then_branch=branch, else_branch=branch)
    )
    return model


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (refused_dropout, ["Dropout", "training mode", "evaluation mode"]),
        (foreign_operator, ["com.microsoft.FusedConv", "outside the ONNX standard"]),
        (control_flow, ["choice", "If", "control flow"]),
    ],
)
def test_what_cannot_be_normalised_is_named(build, words):
    with pytest.raises(UnsupportedGraphError) as caught:
        normalise(build())
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_gate_that_others_read_is_no_activation():
    nodes = (
        ("Sigmoid", ["image"], ["s"], {}),
        ("Mul", ["image", "s"], ["a"], {}),
        ("Add", ["a", "s"], ["y"], {}),
    )
    graph = Graph(normalise(model_of(Rewrite("", nodes))))
    assert [node.op_type for node in recognise_activations(graph)] == ["Sigmoid", "Mul", "Add"]


@pytest.mark.parametrize("batch", [1, 2])
def test_the_batch_of_a_fixed_reshape_is_freed(batch):
    model = classifier(batch=batch)
    for node in model.graph.node:
        if node.op_type == "Flatten":
            node.op_type = "Reshape"
            node.input.append("shape")
    model.graph.initializer.append(numpy_helper.from_array(np.array([batch, 12]), "shape"))
    result = normalise(model)
    image = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    assert ReferenceEvaluator(result).run(None, {"image": image})[0].shape == (3, 6)
