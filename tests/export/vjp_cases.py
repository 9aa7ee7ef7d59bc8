"""What a row of the table of rules is: a graph of one input "x" and one output "y", and its gradient."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from float64_evaluator import run_float64
from onnx import TensorProto, helper, numpy_helper

from gcpp_edge.export.differentiate import differentiate
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Graph, Value, infer_values
from gcpp_edge.export.lowering import Lowerings
from gcpp_edge.export.recognise import recognise_activations
from gcpp_edge.export.tensorrt_policy import require_accepted

IMAGE = (2, 4, 7, 6)


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


def with_backward(model, pixel_rule="gradient", lowerings=Lowerings()):
    """The model with input "seed" and output "dx", and the shape that "dx" has before it is broadcast."""
    graph = Graph(model)
    emit = Emitter(graph, lowerings=lowerings)
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


def gradient_of(case, x, seed, pixel_rule="gradient", dtype=TensorProto.DOUBLE, lowerings=Lowerings()):
    model, gradient = with_backward(forward_of(case, dtype), pixel_rule, lowerings)
    found = run_float64(model, {"x": x, "seed": seed})[gradient.name]
    return np.broadcast_to(found, x.shape)
