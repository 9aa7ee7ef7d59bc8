"""The self-check: holds exported gradients against autograd, or against finite differences where there is no PyTorch.

Frozen gradients are the classic silent failure. So the check takes two targets on one picture and one on two, and
also says how far the gradients depend on each, and whether the graph proves that they cannot depend on the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from gcpp_edge.contract import AIMS, DETECTION, GUIDED, MAP, REGION, SEED, TARGET_CLASS, Contract, Layer
from gcpp_edge.errors import SelfCheckError
from gcpp_edge.export.bake import BakeOptions, bake
from gcpp_edge.export.differences import (
    difference_error,
    input_dtype,
    relative,
    run,
    session_for,
    source_tensor,
    with_outputs,
)
from gcpp_edge.export.from_torch import ForwardModel, autograd_gradients
from gcpp_edge.export.graph import attribute
from gcpp_edge.export.probes import Sample, full_gradients, map_of, samples_of, seeds_of
from gcpp_edge.export.weights import array_of, initializer_maker, scratch

AUTOGRAD_LIMIT = 5e-3  # relative L2 error; float32 back ends differ by kinks that flip
DIFFERENCE_LIMIT = 1e-2  # of a directional derivative; in float32 a small step rounds and a large one crosses kinks
FURTHER_PAIRS = 5  # of pictures, where the first two gave the same gradients
HALF_LIMIT = 5e-2  # where the network runs in float16: one mask that rounds the other way moves a class by per cents

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Probe:
    """What the explained model gave for the samples: two targets on one picture, then the first on another."""

    samples: list[Sample]
    outputs: list[Outputs]

    def gradients(self, layer: Layer) -> list[np.ndarray]:
        """dS/dA of each sample [K,C,*space] at the full shape of the activations, float64."""
        return [full_gradients(layer, outputs[layer.gradients]) for outputs in self.outputs]


def check(
    model: ModelProto,
    contract: Contract,
    forward: ForwardModel,
    options: BakeOptions = BakeOptions(),
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of the self-check, for the metadata and the user.

    Keys: oracle ("autograd" or "finite differences"), error (relative, the worst of all layers), limit,
    target_dependence and input_dependence (relative L2, of the first layer), input_independence_proven.
    Raises SelfCheckError with the figure that failed.
    """
    with scratch(forward.model):
        return _checked(model, contract, forward, options, seed)


def _checked(
    model: ModelProto, contract: Contract, forward: ForwardModel, options: BakeOptions, seed: int
) -> dict[str, Any]:
    subject = model if forward.program is not None else _without_degenerate(model, contract, forward, options, seed)
    probe = _probe(subject, contract, seed)
    _require_alive(contract, probe)
    error = None if forward.program is None else _autograd_error(forward, contract, probe)
    oracle, limit = "autograd", AUTOGRAD_LIMIT
    if error is None:
        half = probe.outputs[0][contract.layer.activations].dtype == np.float16
        oracle, limit = "finite differences", HALF_LIMIT if half else DIFFERENCE_LIMIT
        error = max(
            difference_error(subject, contract, layer, probe.samples, probe.outputs, probe.gradients(layer))
            for layer in contract.layers
        )
    gradients = probe.gradients(contract.layer)
    figures = {
        "oracle": oracle,
        "error": error,
        "limit": limit,
        "target_dependence": relative(gradients[1], gradients[0]),
        "input_dependence": _input_dependence(subject, contract, gradients, seed),
        "input_independence_proven": _independent_of_input(model, contract),
    }
    _judge(figures, contract)
    return figures


def _input_dependence(model: ModelProto, contract: Contract, gradients: list[np.ndarray], seed: int) -> float:
    """How far the gradients of two pictures differ; of further pairs where two happen to pass the same masks."""
    found = relative(gradients[2], gradients[0])
    for other in range(seed + 1, seed + 1 + FURTHER_PAIRS):
        if found or _independent_of_input(model, contract):
            break
        again = _probe(model, contract, other).gradients(contract.layer)
        found = relative(again[2], again[0])
    return found


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
    # autograd at both pictures has settled it: an untrained network can be linear for all that float32 shows; and where
    # the picture chooses the place, the graph cannot prove what a linear head leaves constant
    chosen = contract.target.kind in (REGION, DETECTION)
    settled = figures["input_independence_proven"] or figures["oracle"] == "autograd" or chosen
    if figures["input_dependence"] == 0 and not settled:
        raise SelfCheckError(
            f"Gradients at {where} are the same for two pictures although the graph depends on them. "
            "Choose another layer with --layer, or --no-check to export anyway."
        )


def _probe(model: ModelProto, contract: Contract, seed: int) -> Probe:
    own = [contract.network_input] if contract.network_input else []
    inner = [*own, contract.scores.logits, *(source_tensor(model, layer) for layer in contract.layers)]
    watched = with_outputs(model, inner)
    session = session_for(watched)
    samples = samples_of(contract, input_dtype(model, SEED if contract.target.kind == SEED else contract.input), seed)
    names = [output.name for output in watched.graph.output]
    outputs = [dict(zip(names, run(session, names, sample.feeds), strict=True)) for sample in samples]
    return Probe(samples, outputs)


def _require_alive(contract: Contract, probe: Probe) -> None:
    for outputs in probe.outputs:
        for name in [*contract.levels[MAP].outputs, GUIDED]:
            if name in outputs and not np.isfinite(outputs[name]).all():
                raise SelfCheckError(
                    f'Output "{name}" holds NaN or infinity for a picture of noise. Check the weights.'
                )
    for layer in contract.layers:
        if not any(np.any(outputs[layer.gradients]) for outputs in probe.outputs):
            raise SelfCheckError(
                f'Gradients at layer "{layer.name}" are zero everywhere. Choose a later layer with --layer, '
                "or check that the weights were loaded."
            )
    for sample, outputs in zip(probe.samples, probe.outputs, strict=True):
        if TARGET_CLASS in outputs and outputs[TARGET_CLASS].reshape(-1).tolist() != list(sample.classes):
            raise SelfCheckError(
                f"Explained classes {outputs[TARGET_CLASS].reshape(-1).tolist()}; asked for {list(sample.classes)}."
            )


def _autograd_error(forward: ForwardModel, contract: Contract, probe: Probe) -> float | None:
    """Relative L2 error against PyTorch, worst of all layers and samples; None if PyTorch has no such tensors."""
    runs = list(zip(probe.samples, probe.outputs, strict=True))
    feeds = [_network_feeds(contract, sample, outputs) for sample, outputs in runs]
    seeds = [seeds_of(contract, sample, outputs[contract.scores.logits]) for sample, outputs in runs]
    worst = 0.0
    for layer in contract.layers:
        found = autograd_gradients(forward.program, layer.tensor, contract.scores.logits, feeds, seeds)
        if found is None:
            return None
        for got, wanted in zip(probe.gradients(layer), found, strict=True):
            expected = map_of(layer, wanted).astype(np.float64)
            if expected.shape != got.shape:
                return None
            worst = max(worst, *(relative(g, e) for g, e in zip(got, expected, strict=True)))
    return worst


def _network_feeds(contract: Contract, sample: Sample, outputs: Outputs) -> dict[str, np.ndarray]:
    """What the network itself was fed: where the file takes frames, what it made of them."""
    feeds = {name: array for name, array in sample.feeds.items() if name not in AIMS}
    if contract.network_input:
        del feeds[contract.input]
        feeds[contract.network_input] = outputs[contract.network_input]
    return feeds


def _without_degenerate(
    model: ModelProto, contract: Contract, forward: ForwardModel, options: BakeOptions, seed: int
) -> ModelProto:
    """The model, or one baked from redrawn weights where some are degenerate: the backward weights must follow."""
    redrawn = redraw_degenerate(forward.model, seed)
    if redrawn is None:
        return model
    size = (contract.preprocessing.height, contract.preprocessing.width)
    layers = [layer.tensor for layer in contract.layers]
    return bake(
        redrawn,
        replace(options, layer=layers, guided=False),
        input_size=size,
        preprocessing=contract.preprocessing,
    )


def redraw_degenerate(model: ModelProto, seed: int) -> ModelProto | None:
    """A copy in which every matrix of equal weights, as test files have, is drawn anew; None where there is none.

    Equal rows of a classifier would hide a frozen target. Test files also make such weights by ConstantOfShape.
    """
    generator = np.random.default_rng(seed)
    drawn = {name: _drawn(generator, shape, dtype) for name, (shape, dtype) in _degenerate(model).items()}
    if not drawn:
        return None
    result, made = ModelProto(), initializer_maker(model)
    result.CopyFrom(model)
    kept = [node for node in model.graph.node if node.output[0] not in drawn]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    stored = [tensor for tensor in model.graph.initializer if tensor.name not in drawn]
    del result.graph.initializer[:]
    result.graph.initializer.extend(stored)
    result.graph.initializer.extend(made(array, name) for name, array in drawn.items())
    return result


def _drawn(generator: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    fan_in = math.prod(shape[1:])
    drawn: np.ndarray = (generator.standard_normal(shape, np.float32) * (2 / fan_in) ** 0.5).astype(dtype)
    return drawn


def _degenerate(model: ModelProto) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of the weights that hold one number over and over."""
    found: dict[str, tuple[tuple[int, ...], Any]] = {}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, tensor in constants.items():
        if len(tensor.dims) < 2 or tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            continue
        array = array_of(tensor)
        if array.size > 1 and np.all(array == array.flat[0]):
            found[name] = (array.shape, array.dtype)
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in constants:
            shape = tuple(numpy_helper.to_array(constants[node.input[0]]).tolist())
            value = attribute(node, "value")
            dtype = np.float32 if value is None else helper.tensor_dtype_to_np_dtype(value.data_type)
            if len(shape) >= 2 and np.issubdtype(dtype, np.floating):
                found[node.output[0]] = (shape, dtype)
    return found


def _independent_of_input(model: ModelProto, contract: Contract) -> bool:
    """Whether the first layer's gradients provably depend on the picture through the choice of the class alone."""
    reached = {contract.input}
    for node in model.graph.node[: contract.levels[MAP].nodes]:
        if reached.intersection(node.input):
            reached.update(name for name in node.output if name != TARGET_CLASS)
    return contract.layer.gradients not in reached
