"""One network: exported, run, and held against PyTorch's autograd (docs/design.md, "honest equality")."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import numpy as np
from autograd_oracle import relative_errors
from float64_evaluator import run_float64

from gcpp_edge.contract import contract_from_metadata
from gcpp_edge.errors import GcppError
from gcpp_edge.export.bake import bake
from gcpp_edge.export.differences import session_for
from gcpp_edge.export.from_torch import ForwardModel, TorchSource, forward_model
from networks.autograd import Arrays, Autograd
from networks.subject import Subject, subject

KEYS = ("activations", "gradients", "guided")
SINGLE = 1e-4  # the bar in float32, or three times PyTorch's own error where that is more
MEANINGLESS = 1e-2  # float32 that is as far off says nothing, whatever PyTorch's own error
EXACT = 1e-6  # the bar in float64: some attributes are float32 (HardSigmoid's 1/6)
PAIRS = 3  # of pictures that PyTorch's own error is taken from


def examine(name: str) -> dict[str, Any]:
    """The row of one network.

    verdict: "holds", "differs", "refused" by the exporter, or "failed" in its own code or in PyTorch's exporter.
    """
    start = time.perf_counter()
    row: dict[str, Any] = {}
    try:
        found = subject(name)
        row |= {"input": list(found.shape), "parameters": sum(p.numel() for p in found.module.parameters())}
        row |= compare(found, row)
    except GcppError as error:
        row |= {"verdict": "refused", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - the networks' own code may raise anything, and the others go on
        row |= {"verdict": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
    return {"network": name, **row, "seconds": round(time.perf_counter() - start, 1)}


def compare(network: Subject, row: dict[str, Any]) -> dict[str, Any]:
    image = next(network.pictures())
    row |= {"told": {name: str(option) for name, option in network.told.items()}} if network.told else {}
    start = time.perf_counter()
    forward = forward_model(TorchSource(network.module), image)
    row["export_seconds"] = round(time.perf_counter() - start, 2)
    row["operators"] = sorted({node.op_type for node in forward.model.graph.node})
    start = time.perf_counter()
    model = bake(forward.model, network.options())
    contract = contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})
    row["bake_seconds"] = round(time.perf_counter() - start, 2)
    row["layer"], row["constant_gradients"] = contract.layer.name, contract.layer.constant
    row["nodes"] = {level: entry.nodes for level, entry in contract.levels.items()}
    feeds = {contract.input: image.numpy(), **network.feeds()}
    found = dict(zip(KEYS, session_for(model).run(list(KEYS), feeds), strict=True))
    autograd = Autograd(network, forward.program, contract.layer, contract.scores.logits)
    if autograd.missing:
        return {"verdict": "differs", "reason": f'no value "{min(autograd.missing)}" in the PyTorch program'}
    row |= in_float32(found, autograd)
    if row["verdict"] == "differs":
        row |= in_float64(autograd, feeds)
    return row


def in_float32(found: Arrays, autograd: Autograd) -> dict[str, Any]:
    """Errors, PyTorch's own, and the verdict.

    A kink that flips is chance, so PyTorch's own error is the worst over back ends and pictures. The search for it ends
    as soon as the bar is met: it could only rise.
    """
    own = dict.fromkeys(KEYS, 0.0)
    errors: dict[str, tuple[float, float]] = {}
    for pictures in islice(autograd.subject.pictures(), PAIRS):
        truth = autograd.exact(pictures)
        if not errors:
            errors = {key: _errors(found[key], truth[key]) for key in KEYS}
        for single in autograd.single(pictures):
            for key in KEYS:
                own[key] = max(own[key], _errors(single[key], truth[key])[0])
            holds = all(errors[key][0] <= min(max(SINGLE, 3 * own[key]), MEANINGLESS) for key in KEYS)
            if holds:
                return _figures(errors, own) | {"verdict": "holds"}
    return _figures(errors, own) | {"verdict": "differs"}


def _figures(errors: dict[str, tuple[float, float]], own: dict[str, float]) -> dict[str, Any]:
    return {key: {"largest": errors[key][0], "l2": errors[key][1], "own": own[key]} for key in KEYS}


def _errors(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    largest, l2 = relative_errors(np.broadcast_to(found, expected.shape), expected)
    return float(f"{largest:.2e}"), float(f"{l2:.2e}")


def in_float64(autograd: Autograd, feeds: Arrays) -> dict[str, Any]:
    """The decider where float32 leaves it open: exported in float64, where kinks do not flip. Of the first picture."""
    network = autograd.subject
    image = next(network.pictures())
    truth = autograd.exact(image)
    network.module.double()
    forward: ForwardModel = forward_model(TorchSource(network.module), image.double())
    model = bake(forward.model, network.options())
    exact = run_float64(
        model, {name: array[:1] for name, array in feeds.items()} | {"input": image[:1].double().numpy()}
    )
    network.module.float()
    errors = {key: _errors(exact[key], truth[key][:1])[0] for key in KEYS}
    return {"float64": errors, "verdict": "holds" if max(errors.values()) <= EXACT else "differs"}
