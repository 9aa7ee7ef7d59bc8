"""A contract as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gcpp_edge.cli import terminal
from gcpp_edge.contract import CLASS, CLASSES, DETECTION, REGION, SEED, Contract, FrameInput, Preprocessing

if TYPE_CHECKING:
    from rich.table import Table


def contract_tables(contract: Contract) -> Iterator[Table]:
    """What is explained, how frames reach the network, the levels, and how exact the gradients are."""
    yield terminal.facts("network", _network(contract))
    yield terminal.facts("preprocessing", _preprocessing(contract.preprocessing, contract.frame))
    yield terminal.table("levels", ("level", ">nodes", ">memory", "outputs"), _levels(contract))
    if contract.check:
        yield terminal.facts("self-check at export", _check(contract.check))


def _network(contract: Contract) -> Iterator[tuple[str, str]]:
    layer, scores = contract.layer, contract.scores
    if contract.source_name:
        yield "source", contract.source_name
    if contract.source_sha256:
        yield "sha256", contract.source_sha256
    for each in contract.layers:
        yield "layer", f"{each.name} ({each.channels} x {' x '.join(map(str, each.space))}, tensor {each.tensor})"
    yield "gradients", "constant over space" if layer.constant else "one for each position"
    yield "explained", _target(contract)
    yield "classes", f"{scores.classes}{_some_labels(contract.labels)}"
    yield (
        "scores",
        scores.kind + ("" if scores.differentiated == scores.kind else f", {scores.differentiated} explained"),
    )
    yield "method", contract.method
    yield "ranks", f"-1 to -{contract.ranks}"
    if contract.pixel_rule:
        yield "guided image", f"by the rule {contract.pixel_rule!r}"
    yield "contract", f"version {contract.version}, written by {contract.exporter or 'an unnamed exporter'}"


def _target(contract: Contract) -> str:
    target = contract.target
    shape = " x ".join(map(str, target.shape))
    if target.kind == DETECTION:
        return f"a class of one of {target.shape[1 - target.class_axis]} detections"
    return {
        CLASS: "a class of the picture",
        CLASSES: f"{target.count} classes of the picture at once",
        REGION: f"a class over a region of its maps, {shape}",
        SEED: f"a gradient of the caller's at {contract.scores.output}, {shape}",
    }[target.kind]


def _some_labels(labels: tuple[str, ...]) -> str:
    if not labels:
        return ", without names"
    return f": {', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''}"


def _preprocessing(preprocessing: Preprocessing, frame: FrameInput) -> Iterator[tuple[str, str]]:
    geometry = preprocessing.geometry
    details = {"crop": f", share {geometry.share:g}", "letterbox": f", filled with {geometry.fill:g}"}
    yield "input", f"{preprocessing.height} x {preprocessing.width} {preprocessing.color}"
    if frame.height:
        yield "takes", f"uint8 {frame.format} frames of {frame.height} x {frame.width}"
    yield "geometry", geometry.kind + details.get(geometry.kind, "")
    yield "pixels", f"0 to {preprocessing.pixel_max:g}"
    yield "mean", _numbers(preprocessing.mean)
    yield "std", _numbers(preprocessing.std)


def _levels(contract: Contract) -> Iterator[tuple[str, ...]]:
    for name, level in contract.levels.items():
        memory = terminal.size_text(level.memory_bytes) if level.memory_bytes else "unknown"
        yield name, str(level.nodes), memory, ", ".join(level.outputs)


def _check(check: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in check.items():
        if isinstance(value, dict):
            for inner, figure in value.items():
                yield f"{name} {inner}".replace("_", " "), _figure(figure)
        else:
            yield name.replace("_", " "), _figure(value)


def _figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
