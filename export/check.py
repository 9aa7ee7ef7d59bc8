"""The self-check: holds exported gradients against autograd, or against finite differences where there is no PyTorch.

Frozen gradients are the classic silent failure. So the check takes two classes on one picture and one class on two, and
also says how far the gradients depend on each, and whether the graph proves that they cannot depend on the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from gcpp_edge.contract import ACTIVATIONS, GRADIENTS, GUIDED, MAP, TARGET, TARGET_CLASS, Contract
from gcpp_edge.errors import SelfCheckError
from gcpp_edge.export.bake import bake
from gcpp_edge.export.differences import difference_error, relative, run, session_for
from gcpp_edge.export.from_torch import ForwardModel, autograd_gradients

AUTOGRAD_LIMIT = 5e-3  # relative L2 error; float32 back ends differ by kinks that flip
DIFFERENCE_LIMIT = 1e-2  # of a directional derivative; in float32 a small step rounds and a large one crosses kinks
HALF_LIMIT = 5e-2  # where the network runs in float16: one mask that rounds the other way moves a class by per cents


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
        error = difference_error(
            subject, contract, probe.images, probe.targets, probe.outputs[ACTIVATIONS], probe.gradients
        )
    figures = {
        "oracle": oracle,
        "error": error,
        "limit": limit,
        "target_dependence": relative(probe.gradients[1], probe.gradients[0]),
        "input_dependence": relative(probe.gradients[2], probe.gradients[0]),
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


def _probe(model: ModelProto, contract: Contract, seed: int) -> Probe:
    generator = np.random.default_rng(seed)
    session = session_for(model)
    dtypes = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    images = _images(contract, generator).astype(dtypes.get(session.get_inputs()[0].type, np.float32))
    first, second = generator.permutation(contract.scores.classes)[:2] if contract.scores.classes > 1 else (0, 0)
    targets = [int(first), int(second), int(first)]
    names = [name for name in (ACTIVATIONS, GRADIENTS, GUIDED, TARGET_CLASS) if _has_output(model, name)]
    parts = [
        run(session, names, {contract.input: images[i : i + 1], TARGET: np.array(targets[i : i + 1])}) for i in range(3)
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
    tensors = contract.layer.tensor, contract.scores.logits
    found = autograd_gradients(forward.program, *tensors, probe.images, probe.targets)
    if found is None or found.shape != probe.gradients.shape:
        return None
    return max(relative(got, wanted.astype(np.float64)) for got, wanted in zip(probe.gradients, found, strict=True))


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
