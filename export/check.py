"""The self-check: holds exported gradients against autograd, or against finite differences where there is no PyTorch.

Frozen gradients are the classic silent failure. So the check takes two classes on one picture and one class on two, and
also says how far the gradients depend on each, and whether the graph proves that they cannot depend on the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from gcpp_edge.contract import ACTIVATIONS, GRADIENTS, GUIDED, MAP, PLAIN, TARGET, TARGET_CLASS, Contract
from gcpp_edge.errors import MissingDependencyError, SelfCheckError
from gcpp_edge.export.bake import bake
from gcpp_edge.export.from_torch import ForwardModel, autograd_gradients
from gcpp_edge.export.graph import Graph
from gcpp_edge.export.scores import find_scores

AUTOGRAD_LIMIT = 5e-3  # relative L2 error; float32 back ends differ by kinks that flip
DIFFERENCE_LIMIT = 1e-2  # of a directional derivative; in float32 a small step rounds and a large one crosses kinks
HALF_LIMIT = 5e-2  # where the network runs in float16: one mask that rounds the other way moves a class by per cents
STEPS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # share of the activations' norm


@dataclass(frozen=True)
class Probe:
    """What the explained model gave for images [3,..] and targets [3]: one picture twice, then another."""

    images: np.ndarray
    targets: list[int]
    outputs: dict[str, np.ndarray]

    @property
    def gradients(self) -> np.ndarray:
        """At the full shape of the activations, float64."""
        shape = self.outputs[ACTIVATIONS].shape
        return np.broadcast_to(self.outputs[GRADIENTS].astype(np.float64), shape)


def check(model: ModelProto, contract: Contract, forward: ForwardModel, seed: int = 0) -> dict[str, Any]:
    """Figures of the self-check, for the metadata and the user.

    Keys: oracle ("autograd" or "finite differences"), error (relative), limit, target_dependence and input_dependence
    (relative L2), input_independence_proven. Raises SelfCheckError with the figure that failed.
    """
    subject = model if forward.program is not None else _without_degenerate(model, contract, forward, seed)
    probe = _probe(subject, contract, seed)
    _require_alive(contract, probe)
    error = None if forward.program is None else _autograd_error(forward, contract, probe)
    oracle, limit = "autograd", AUTOGRAD_LIMIT
    if error is None:
        half = probe.outputs[ACTIVATIONS].dtype == np.float16
        oracle, limit = "finite differences", HALF_LIMIT if half else DIFFERENCE_LIMIT
        error = _difference_error(subject, contract, probe)
    figures = {
        "oracle": oracle,
        "error": error,
        "limit": limit,
        "target_dependence": _relative(probe.gradients[1], probe.gradients[0]),
        "input_dependence": _relative(probe.gradients[2], probe.gradients[0]),
        "input_independence_proven": _independent_of_input(model, contract),
    }
    _judge(figures, contract)
    return figures


def _judge(figures: dict[str, Any], contract: Contract) -> None:
    where = f'layer "{contract.layer.name}"'
    if not figures["error"] <= figures["limit"]:
        raise SelfCheckError(
            f"Gradients at {where} differ from {figures['oracle']} by {figures['error']:.1e} "
            f"(limit {figures['limit']:.0e}). This is a fault of the exporter: please report the network, or choose "
            "a later layer with --layer."
        )
    if contract.scores.classes > 1 and figures["target_dependence"] == 0:
        raise SelfCheckError(
            f"Gradients at {where} are the same for two classes. Has the network been trained? "
            "--no-check exports it anyway."
        )
    # autograd at both pictures has settled it: an untrained network can be linear for all that float32 shows
    settled = figures["input_independence_proven"] or figures["oracle"] == "autograd"
    if figures["input_dependence"] == 0 and not settled:
        raise SelfCheckError(
            f"Gradients at {where} are the same for two pictures although the graph depends on them. "
            "Choose another layer with --layer, or --no-check to export anyway."
        )


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / norm) if norm > 0 else 0.0


def session_for(model: ModelProto) -> Any:
    """An ONNX Runtime session on the CPU; MissingDependencyError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "The self-check needs ONNX Runtime: pip install 'gcpp-edge[onnxruntime]', or skip it with --no-check."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _probe(model: ModelProto, contract: Contract, seed: int) -> Probe:
    generator = np.random.default_rng(seed)
    session = session_for(model)
    dtypes = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    images = _images(contract, generator).astype(dtypes.get(session.get_inputs()[0].type, np.float32))
    first, second = generator.permutation(contract.scores.classes)[:2] if contract.scores.classes > 1 else (0, 0)
    targets = [int(first), int(second), int(first)]
    names = [name for name in (ACTIVATIONS, GRADIENTS, GUIDED, TARGET_CLASS) if _has_output(model, name)]
    parts = [
        session.run(names, {contract.input: images[i : i + 1], TARGET: np.array(targets[i : i + 1])}) for i in range(3)
    ]
    outputs = {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}
    return Probe(images, targets, outputs)


def _images(contract: Contract, generator: np.random.Generator) -> np.ndarray:
    """Two pictures of blotches, the first one twice, normalised as the network expects. [3,C,H,W]"""
    p = contract.preprocessing
    coarse = generator.uniform(0, 1, (2, p.channels, -(-p.height // 8), -(-p.width // 8)))
    pixels = coarse.repeat(8, 2).repeat(8, 3)[:, :, : p.height, : p.width] * p.pixel_max
    mean, std = (np.array(numbers).reshape(-1, 1, 1) for numbers in (p.mean, p.std))
    normalised = (pixels - mean) / std
    return np.asarray(normalised[[0, 0, 1]])


def _has_output(model: ModelProto, name: str) -> bool:
    return any(output.name == name for output in model.graph.output)


def _require_alive(contract: Contract, probe: Probe) -> None:
    for name, array in probe.outputs.items():
        if not np.isfinite(array).all():
            raise SelfCheckError(f'Output "{name}" holds NaN or infinity for a picture of noise. Check the weights.')
    if not np.any(probe.outputs[GRADIENTS]):
        raise SelfCheckError(
            f'Gradients at layer "{contract.layer.name}" are zero everywhere. Choose a later layer with --layer, '
            "or check that the weights were loaded."
        )
    if probe.outputs[TARGET_CLASS].tolist() != probe.targets:
        raise SelfCheckError(f"Explained classes {probe.outputs[TARGET_CLASS].tolist()}; asked for {probe.targets}.")


def _autograd_error(forward: ForwardModel, contract: Contract, probe: Probe) -> float | None:
    """Relative L2 error of the gradients against PyTorch, worst of the three; None if PyTorch has no such tensor."""
    found = autograd_gradients(forward.program, contract.layer.tensor, probe.images, probe.targets)
    if found is None or found.shape != probe.gradients.shape:
        return None
    return max(_relative(got, wanted.astype(np.float64)) for got, wanted in zip(probe.gradients, found, strict=True))


# finite differences


def _difference_error(model: ModelProto, contract: Contract, probe: Probe) -> float:
    """Worst relative error of directional derivatives along the gradients, in all channels and in half of them."""
    tail, logits = tail_model(model, contract)
    session = session_for(tail)
    generator = np.random.default_rng(1)
    worst = 0.0
    for i in range(3):
        gradient = probe.gradients[i]
        half = (generator.random(gradient.shape[0]) < 0.5).reshape(-1, *(1,) * (gradient.ndim - 1))
        for direction in (gradient, gradient * half):
            if np.any(direction):
                worst = max(worst, _directional_error(session, logits, contract, probe, i, direction))
    return worst


def _directional_error(
    session: Any, logits: str, contract: Contract, probe: Probe, i: int, direction: np.ndarray
) -> float:
    """|difference quotient - g.d| / |g.d| along d, at the best of several steps."""
    point = probe.outputs[ACTIVATIONS][i : i + 1].astype(np.float64)
    unit = direction / np.linalg.norm(direction)
    slope = float((probe.gradients[i] * unit).sum())
    inputs = [entry.name for entry in session.get_inputs()]

    def score(activations: np.ndarray) -> float:
        feeds = {
            ACTIVATIONS: activations.astype(np.float32),
            contract.input: probe.images[i : i + 1].astype(np.float32),
        }
        found = session.run([logits], {name: feeds[name] for name in inputs})[0]
        return float(found.reshape(-1)[probe.targets[i]])

    errors = []
    for share in STEPS:
        step = share * max(float(np.linalg.norm(point)), 1e-6)
        quotient = (score(point + step * unit) - score(point - step * unit)) / (2 * step)
        errors.append(abs(quotient - slope) / abs(slope))
    return min(errors)


def tail_model(model: ModelProto, contract: Contract) -> tuple[ModelProto, str]:
    """The network from the layer to the logits, in float32, and the logits' name. Its inputs: activations, and the
    picture where it is still read.
    """
    plain = ModelProto()
    plain.CopyFrom(model)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in model.graph.node[: contract.levels[PLAIN].nodes]]
    _set(plain.graph.node, nodes)
    _set(plain.graph.output, [o for o in model.graph.output if o.name == contract.scores.output])
    logits = find_scores(Graph(plain)).logits.name
    nodes = [node for node in nodes if ACTIVATIONS not in node.output]
    needed = Graph(plain).needed_for([logits], nodes)
    nodes = [node for node in nodes if needed.intersection(node.output)]
    read = {name for node in nodes for name in node.input}
    floats = [_float32(tensor) for tensor in model.graph.initializer if tensor.name in read]
    space = ["N", contract.layer.channels, *contract.layer.space]
    inputs = [helper.make_tensor_value_info(ACTIVATIONS, TensorProto.FLOAT, space)]
    if contract.input in read:
        picture = contract.preprocessing
        shape = ["N", picture.channels, picture.height, picture.width]
        inputs.append(helper.make_tensor_value_info(contract.input, TensorProto.FLOAT, shape))
    output = helper.make_tensor_value_info(logits, TensorProto.FLOAT, None)
    graph = helper.make_graph([_cast_to_float32(node) for node in nodes], "tail", inputs, [output], floats)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version), logits


def _set(field: Any, values: Any) -> None:
    del field[:]
    field.extend(values)


def _float32(tensor: TensorProto) -> TensorProto:
    if tensor.data_type not in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _cast_to_float32(node: NodeProto) -> NodeProto:
    for entry in node.attribute:
        if node.op_type == "Cast" and entry.i in (TensorProto.FLOAT16, TensorProto.DOUBLE):
            entry.i = TensorProto.FLOAT
    return node


def _without_degenerate(model: ModelProto, contract: Contract, forward: ForwardModel, seed: int) -> ModelProto:
    """The model, or one baked from redrawn weights where some are degenerate: the backward weights must follow."""
    redrawn = redraw_degenerate(forward.model, seed)
    if redrawn is None:
        return model
    size = (contract.preprocessing.height, contract.preprocessing.width)
    return bake(redrawn, layer=contract.layer.tensor, input_size=size, preprocessing=contract.preprocessing)


def redraw_degenerate(model: ModelProto, seed: int) -> ModelProto | None:
    """A copy in which every matrix of equal weights, as test files have, is drawn anew; None where there is none.

    Equal rows of a classifier would hide a frozen target.
    """
    generator = np.random.default_rng(seed)
    drawn = {}
    for tensor in model.graph.initializer:
        if len(tensor.dims) < 2 or tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            continue
        array = numpy_helper.to_array(tensor)
        if array.size > 1 and np.all(array == array.flat[0]):
            drawn[tensor.name] = generator.normal(0, (2 / array[0].size) ** 0.5, array.shape).astype(array.dtype)
    if not drawn:
        return None
    result = ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in drawn:
            tensor.CopyFrom(numpy_helper.from_array(drawn[tensor.name], tensor.name))
    return result


def _independent_of_input(model: ModelProto, contract: Contract) -> bool:
    """Whether the graph proves that the gradients depend on the picture through the choice of the class alone."""
    reached = {contract.input}
    for node in model.graph.node[: contract.levels[MAP].nodes]:
        if reached.intersection(node.input):
            reached.update(name for name in node.output if name != TARGET_CLASS)
    return GRADIENTS not in reached
