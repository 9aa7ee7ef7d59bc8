"""Finite differences of an explained model behind its layer: the oracle of the self-check where there is no PyTorch.

The part of the graph behind the layer, forward and backward, is run alone in float32 with the activations as its
input. So it can be probed beside the activations that a picture gives: those are full of ties (windows of zeros behind
a ReLU), where a derivative has two sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from gcpp_edge.contract import MAP, Contract, Layer
from gcpp_edge.errors import MissingDependencyError, SelfCheckError
from gcpp_edge.export.graph import FLOATS, WEIGHTED, Graph, numpy_dtype
from gcpp_edge.export.probes import Sample, full_gradients, seeds_of, tensor_of
from gcpp_edge.export.weights import array_of, placeholders

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
    options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of the weights, for few runs
    beside = placeholders(model)
    try:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array_of(tensor)) for tensor in beside]
        options.add_external_initializers([tensor.name for tensor in beside], values)
        kept = _kept_as_they_are(model)
        for tensor, value in zip(beside, values, strict=True):
            if tensor.name in kept:
                options.add_initializer(tensor.name, value)  # it copies what the line above gives it, and needs both
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base but Exception
        raise SelfCheckError(f"ONNX Runtime does not load the explained model: {_first_line(error)}") from error


def _kept_as_they_are(model: ModelProto) -> set[str]:
    """Weights that ONNX Runtime may share: none that it transposes under their old name, as it does with summands."""
    weighing: set[str] = set()
    other: set[str] = set()
    for node in model.graph.node:
        (weighing if node.op_type in WEIGHTED else other).update(node.input)
    return weighing - other


def run(session: Any, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of a session; SelfCheckError with the runtime's reason where it fails."""
    try:
        return list(session.run(names, feeds))
    except Exception as error:  # its errors share no base but Exception
        raise SelfCheckError(f"ONNX Runtime does not run the explained model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:240]


def with_outputs(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """The model with inner tensors among its outputs."""
    result = ModelProto()
    result.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    fresh = [name for name in dict.fromkeys(names) if name not in known]
    result.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in fresh)
    return result


def input_dtype(model: ModelProto, name: str) -> np.dtype[Any]:
    """The NumPy dtype of a model's input."""
    return next(numpy_dtype(value.type.tensor_type.elem_type) for value in model.graph.input if value.name == name)


def source_tensor(model: ModelProto, layer: Layer) -> str:
    """The layer's tensor in an explained model: its output of activations, where that is not a copy in other layout."""
    produced = {name for node in model.graph.node for name in node.output}
    return layer.tensor if layer.tensor in produced else layer.activations


def difference_error(
    model: ModelProto,
    contract: Contract,
    layer: Layer,
    samples: list[Sample],
    outputs: list[dict[str, np.ndarray]],
    gradients: list[np.ndarray],
) -> float:
    """The worst relative error of the gradients at a layer.

    Of the explained model's own against those of its tail, and of the tail's against central differences along them, in
    all channels and in half of them, at the best of several steps. outputs: what the model gave for the samples, the
    layer's source tensor among it. gradients: [K,C,*space] each.
    """
    tail = _Tail(model, contract, layer, outputs[0])
    generator = np.random.default_rng(1)
    worst = 0.0
    for sample, found, own in zip(samples, outputs, gradients, strict=True):
        point = found[tail.tensor].astype(np.float64)
        worst = max(worst, relative(tail.at(point, sample)[1], own))
        size = float(np.sqrt(np.mean(point**2))) or 1.0  # a layer may be silent altogether
        noise = generator.normal(size=point.shape) * size * OFF_TIES
        worst = max(worst, _along_gradients(tail, point + noise, sample, generator))
    return worst


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The L2 error over the expected norm; 1 where zeros were expected and something was found."""
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / norm if norm else float(np.any(found))


def _along_gradients(tail: _Tail, point: np.ndarray, sample: Sample, generator: Any) -> float:
    """The worst of the sample's targets, along each gradient and along half of its channels."""
    logits, gradients = tail.at(point, sample)
    seeds = seeds_of(tail.contract, sample, logits)
    half = (generator.random(gradients.shape[1]) < 0.5).reshape(-1, *(1,) * (gradients.ndim - 2))
    errors = []
    for seed, gradient in zip(seeds, gradients, strict=True):
        if not np.any(gradient):
            errors.append(_flatness(tail, point, sample, seed, generator.normal(size=gradient.shape)))
        directions = [direction for direction in (gradient, gradient * half) if np.any(direction)]
        errors += [_directional(tail, point, sample, seed, gradient, direction) for direction in directions]
    return max(errors, default=1.0)


def _flatness(tail: _Tail, point: np.ndarray, sample: Sample, seed: np.ndarray, direction: np.ndarray) -> float:
    """0 where a small step changes nothing, as a gradient of zero says (a ReLU behind the class is shut); else 1."""
    unit = direction / np.linalg.norm(direction)
    return float(_quotient(tail, point, sample, seed, unit, STEPS[0]) != 0)


def _quotient(
    tail: _Tail, point: np.ndarray, sample: Sample, seed: np.ndarray, unit: np.ndarray, share: float
) -> float:
    """The central difference of the explained scalar along a unit vector, by a share of the activations' norm."""
    step, moved = share * max(float(np.linalg.norm(point)), 1e-6), tensor_of(tail.layer, unit)
    ends = [tail.at(point + sign * step * moved, sample)[0] for sign in (1, -1)]
    return float((seed * (ends[0][0] - ends[1][0])).sum()) / (2 * step)


def _directional(
    tail: _Tail, point: np.ndarray, sample: Sample, seed: np.ndarray, gradient: np.ndarray, direction: np.ndarray
) -> float:
    """|difference quotient - g.d| / |g.d| along d, at the best of several steps."""
    unit = direction / np.linalg.norm(direction)
    slope = float((gradient * unit).sum())
    found = [_quotient(tail, point, sample, seed, unit, share) for share in STEPS]
    return min(abs(quotient - slope) / abs(slope) for quotient in found)


class _Tail:
    """The explained model from a layer on, ready to run in float32."""

    def __init__(self, model: ModelProto, contract: Contract, layer: Layer, outputs: dict[str, np.ndarray]) -> None:
        self.contract, self.layer = contract, layer
        self.tensor = source_tensor(model, layer)
        shape = outputs[self.tensor].shape[1:]
        self.session = session_for(tail_model(model, contract, layer, shape))
        self.inputs = [entry.name for entry in self.session.get_inputs()]

    def at(self, point: np.ndarray, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """The logits [1,...] and dS/dA [K,C,*space], float64, at the layer's source tensor [1,...]."""
        feeds = {**sample.feeds, self.tensor: point}
        cast = {n: feeds[n].astype(np.float32) if feeds[n].dtype.kind == "f" else feeds[n] for n in self.inputs}
        logits, stored = run(self.session, [self.contract.scores.logits, self.layer.gradients], cast)
        return logits.astype(np.float64), full_gradients(self.layer, stored)


def tail_model(model: ModelProto, contract: Contract, layer: Layer, shape: tuple[int, ...]) -> ModelProto:
    """The graph from the layer's source tensor [N,*shape] to the logits and to the gradients, in float32.

    Its inputs: that tensor, what says the target, and the network's own where they are still read.
    """
    logits, tensor = contract.scores.logits, source_tensor(model, layer)
    nodes = [node for node in model.graph.node[: contract.levels[MAP].nodes] if tensor not in node.output]
    nodes += [node for node in model.graph.node if layer.gradients in node.output and node not in nodes]
    whole = Graph(model)
    needed = whole.needed_for([logits, layer.gradients], nodes)
    nodes = [_in_float32(_copy(node)) for node in nodes if needed.intersection(node.output)]
    read = {name for node in nodes for name in node.input}
    inputs = [_input_in_float32(value) for value in model.graph.input if value.name in read]
    inputs.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["N", *shape]))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (logits, layer.gradients)]
    constants = [_constant_in_float32(whole, entry) for entry in model.graph.initializer if entry.name in read]
    graph = helper.make_graph(nodes, "tail", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def _input_in_float32(value: Any) -> Any:
    result = _copy(value)
    if result.type.tensor_type.elem_type in FLOATS:
        result.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def _copy(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


def _constant_in_float32(graph: Graph, tensor: TensorProto) -> TensorProto:
    if tensor.data_type not in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        return tensor
    return graph.tensor(array_of(tensor).astype(np.float32), tensor.name)


def _in_float32(node: NodeProto) -> NodeProto:
    for entry in node.attribute:
        if node.op_type == "Cast" and entry.i in (TensorProto.FLOAT16, TensorProto.DOUBLE):
            entry.i = TensorProto.FLOAT
    return node
