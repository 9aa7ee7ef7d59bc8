"""The page of a GPU's results: whole frames, stages, kernels against the copy's speed, and the goals beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

FRAMES = (
    "plain",
    "map",
    "map, frame on the GPU",
    "map and overlay",
    "map, of a stream",
    "guided",
    "pytorch eager",
    "pytorch-grad-cam",
)
POST = ("cam", "range", "heatmap at the input's size")  # what makes a map of a network's outputs
POST_US, MAP_RATIO, GUIDED_RATIO, PEER_RATIO, DIFFERENCE = 15.0, 1.10, 2.0, 20.0, 1e-3
LOST_BYTES = 1 << 20


def page(result: dict[str, Any]) -> str:
    """Markdown."""
    card, rows = result["gpu"], [row for row in result["rows"] if "stages_us" in row]
    parts = [
        f"# {card['name']}",
        f"Commit {result['commit']}, {result['date']}. {result['input']}. A copy of 256 MB runs at "
        f"{card['copy_gbs']} GB/s, reads and writes together. Written by benchmarks/gpu.py; medians.",
        "## Checks",
        table(("check", "result"), result["checks"].items()) if result["checks"] else "None were run.",
        "## Whole frames, ms",
        table(("network", *FRAMES), map(_frames, rows)),
        "## Stages, µs",
        _stage_table(rows),
        "## Our kernels against the copy's speed",
        table(("network", "kernel", "KB", "at the copy's speed, µs", "found, µs"), _floors(rows, card["copy_gbs"])),
        "## Goals",
        table(("network", "goal", "found", "met"), _goals(rows)),
    ]
    missing = [row for row in result["rows"] if "not_measured" in row]
    if missing:
        parts += [
            "## Not measured",
            table(("network", "why"), ((row["title"], row["not_measured"]) for row in missing)),
        ]
    return "\n\n".join(parts) + "\n"


def _frames(row: dict[str, Any]) -> Iterator[str]:
    yield row["title"]
    for name in FRAMES:
        yield f"{row['frame_ms'][name]:.3f}" if name in row["frame_ms"] else "–"


def _stage_table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["stages_us"]))
    lines = ((row["title"], *(f"{row['stages_us'][name]:.1f}" for name in names)) for row in rows)
    return table(("network", *names), lines)


def _floors(rows: list[dict[str, Any]], speed_gbs: float) -> Iterator[tuple[str, ...]]:
    for row in rows:
        for name, count in row["kernel_bytes"].items():
            floor = count / (1e3 * speed_gbs)
            yield row["title"], name, f"{count / 1e3:.0f}", f"{floor:.2f}", f"{row['stages_us'][name]:.2f}"


def _goals(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        for goal, found, met in _goals_of(row):
            yield row["title"], goal, found, "yes" if met else "no"


def _goals_of(row: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    stages, frames = row["stages_us"], row["frame_ms"]
    plain, post = stages["network, plain"], sum(stages[name] for name in POST)
    mapped, guided = ((stages[f"network, {level}"] + post) / plain for level in ("map", "guided"))
    yield f"map ≤ {MAP_RATIO:.2f} × plain, kernels included", f"{mapped:.3f}", mapped <= MAP_RATIO
    yield f"guided ≤ {GUIDED_RATIO:.1f} × plain, kernels included", f"{guided:.3f}", guided <= GUIDED_RATIO
    if row["network"] == "resnet50":
        yield f"kernels behind the network ≤ {POST_US:.0f} µs", f"{post:.1f} µs", post <= POST_US
    if "pytorch-grad-cam" in frames:
        ratio = frames["pytorch-grad-cam"] / frames.get("map, frame on the GPU", frames["map"])
        yield (
            f"≥ {PEER_RATIO:.0f} × faster than pytorch-grad-cam, whose input is on the GPU",
            f"{ratio:.1f} ×",
            ratio >= PEER_RATIO,
        )
    if row["precision"] == "fp32" and not row["tf32"]:
        differs = row["differs_from_cpu"]["map"]
        yield f"map within {DIFFERENCE:.0e} of the CPU's", f"{differs:.1e}", differs <= DIFFERENCE
    lost = row.get("device_bytes_lost", 0)
    yield "no device memory lost", f"{lost} bytes over 500 frames", lost < LOST_BYTES


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    head = tuple(head)
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)
