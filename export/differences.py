"""Finite differences of an explained model behind its layer: the oracle of the self-check where there is no PyTorch.

The part of the graph behind the layer, forward and backward, is run alone in float32 with the activations as its
input. So it can be probed beside the activations that a picture gives: those are full of ties (windows of zeros behind
a ReLU), where a derivative has two sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from gcpp_edge.contract import ACTIVATIONS, GRADIENTS, MAP, TARGET, Contract
from gcpp_edge.errors import MissingDependencyError, SelfCheckError
from gcpp_edge.export.graph import Graph

STEPS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # share of the activations' norm
OFF_TIES = 0.1  # noise that breaks ties, as a share of the activations' root mean square


def session_for(model: ModelProto) -> Any:
    """An ONNX Runtime session on the CPU; MissingDependencyError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "The self-check needs ONNX Runtime: pip install 'gcpp-edge[onnxruntime]', or skip it with --no-check."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base but Exception
        raise SelfCheckError(f"ONNX Runtime does not load the explained model: {_first_line(error)}") from error


def run(session: Any, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of a session; SelfCheckError with the runtime's reason where it fails."""
    try:
        return list(session.run(names, feeds))
    except Exception as error:  # its errors share no base but Exception
        raise SelfCheckError(f"ONNX Runtime does not run the explained model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:240]


def difference_error(
    model: ModelProto,
    contract: Contract,
    images: np.ndarray,
    targets: list[int],
    activations: np.ndarray,
    gradients: np.ndarray,
) -> float:
    """The worst relative error of the gradients.

    Of the explained model's own against those of its tail, and of the tail's against central differences along them, in
    all channels and in half of them, at the best of several steps. images, activations, gradients: [n,..].
    """
    tail = _Tail(model, contract)
    generator = np.random.default_rng(1)
    worst = 0.0
    for i, target in enumerate(targets):
        point, image = activations[i : i + 1].astype(np.float64), images[i : i + 1]
        worst = max(worst, relative(tail.at(point, target, image)[1], gradients[i]))
        size = float(np.sqrt(np.mean(point**2))) or 1.0  # a layer may be silent altogether
        noise = generator.normal(size=point.shape) * size * OFF_TIES
        worst = max(worst, _along_gradient(tail, point + noise, target, image, generator))
    return worst


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The L2 error over the expected norm; 1 where zeros were expected and something was found."""
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / norm if norm else float(np.any(found))


def _along_gradient(tail: _Tail, point: np.ndarray, target: int, image: np.ndarray, generator: Any) -> float:
    gradient = tail.at(point, target, image)[1]
    half = (generator.random(gradient.shape[0]) < 0.5).reshape(-1, *(1,) * (gradient.ndim - 1))
    directions = [direction for direction in (gradient, gradient * half) if np.any(direction)]
    return max((_directional(tail, point, target, image, gradient, d) for d in directions), default=1.0)


def _directional(
    tail: _Tail, point: np.ndarray, target: int, image: np.ndarray, gradient: np.ndarray, direction: np.ndarray
) -> float:
    """|difference quotient - g.d| / |g.d| along d, at the best of several steps."""
    unit = direction / np.linalg.norm(direction)
    slope = float((gradient * unit).sum())
    errors = []
    for share in STEPS:
        step = share * max(float(np.linalg.norm(point)), 1e-6)
        ends = [tail.at(point + sign * step * unit, target, image)[0] for sign in (1, -1)]
        errors.append(abs((ends[0] - ends[1]) / (2 * step) - slope) / abs(slope))
    return min(errors)


class _Tail:
    """The explained model from its layer on, ready to run in float32."""

    def __init__(self, model: ModelProto, contract: Contract) -> None:
        self.contract = contract
        self.logits = contract.scores.logits
        self.session = session_for(tail_model(model, contract))
        self.inputs = [entry.name for entry in self.session.get_inputs()]

    def at(self, activations: np.ndarray, target: int, image: np.ndarray) -> tuple[float, np.ndarray]:
        """The target's logit and dS/dA [C,*space], float64, at activations [1,C,*space]."""
        feeds = {
            ACTIVATIONS: activations.astype(np.float32),
            TARGET: np.array([target]),
            self.contract.input: image.astype(np.float32),
        }
        outputs = run(self.session, [self.logits, GRADIENTS], {name: feeds[name] for name in self.inputs})
        gradients = np.broadcast_to(outputs[1].astype(np.float64), activations.shape)
        return float(outputs[0].reshape(-1)[target]), gradients[0]


def tail_model(model: ModelProto, contract: Contract) -> ModelProto:
    """The graph from the layer to the logits and to the gradients, in float32.

    Its inputs: activations, target, and the picture where it is still read.
    """
    logits = contract.scores.logits
    nodes = [node for node in model.graph.node[: contract.levels[MAP].nodes] if ACTIVATIONS not in node.output]
    nodes += [node for node in model.graph.node if GRADIENTS in node.output and node not in nodes]
    needed = Graph(model).needed_for([logits, GRADIENTS], nodes)
    nodes = [_in_float32(_copy(node)) for node in nodes if needed.intersection(node.output)]
    read = {name for node in nodes for name in node.input}
    p = contract.preprocessing
    shapes = {
        ACTIVATIONS: ["N", contract.layer.channels, *contract.layer.space],
        contract.input: ["N", p.channels, p.height, p.width],
    }
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items() if name in read
    ]
    inputs.append(helper.make_tensor_value_info(TARGET, TensorProto.INT64, ["N"]))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (logits, GRADIENTS)]
    constants = [_constant_in_float32(tensor) for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, "tail", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def _copy(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


def _constant_in_float32(tensor: TensorProto) -> TensorProto:
    if tensor.data_type not in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _in_float32(node: NodeProto) -> NodeProto:
    for entry in node.attribute:
        if node.op_type == "Cast" and entry.i in (TensorProto.FLOAT16, TensorProto.DOUBLE):
            entry.i = TensorProto.FLOAT
    return node
