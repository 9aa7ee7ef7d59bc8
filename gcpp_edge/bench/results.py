"""The document of results: written whole, and loaded again; and every single time, for tools of others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gcpp_edge.bench.machine import described
from gcpp_edge.bench.measure import Measured
from gcpp_edge.errors import InputError
from gcpp_edge.level_cache import write_whole

KIND = "gcpp-edge bench"
VERSION = 1  # raised when the meaning of a field changes; new fields do not raise it
DEFINITIONS = {
    "plain": "preprocessing and network: explainer.scores(frame)",
    "map": "from the same frame to a finished overlay",
    "guided": "from the same frame to a finished overlay and the guided image",
    "cost": "median of the level / median of plain, which ran in turn with it (value); the same in the part of the run "
    "where it is least and most (low, high), as the median of each round's ratio (by_round), of the fastest calls",
    "percentiles": "nearest rank: a time that was measured",
    "frames_per_second": "batch / mean time, calls one behind the other",
}


def document_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is saved. runs: Measured.as_json, or what could not be measured, with "not_measured": why."""
    return {
        "benchmark": KIND,
        "version": VERSION,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "unit": "ms a call",
        "definitions": DEFINITIONS,
        "machine": described(),
        "runs": list(runs),
    }


def times_of(measured: Sequence[Measured]) -> dict[str, Any]:
    """Every call: level, when it began, how long it took, and its stages where they were seen."""
    return {
        "benchmark": f"{KIND}, times",
        "version": VERSION,
        "runs": [one.about | {"times": _calls(one)} for one in measured],
    }


def _calls(one: Measured) -> list[dict[str, Any]]:
    samples = one.samples
    calls = [
        {
            "level": level,
            "round": number,
            "start_ms": round(1e3 * start, 4),
            "ms": round(took, 4),
            "stages_ms": {stage: round(value, 4) for stage, value in stages.items()},
        }
        for level in samples.ms
        for number, (start, took, stages) in enumerate(
            zip(samples.starts_s[level], samples.ms[level], samples.stages_ms[level], strict=True)
        )
    ]
    return sorted(calls, key=lambda call: float(call["start_ms"]))


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all. Raises InputError where it cannot be written."""
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    if not write_whole(path, text.encode("utf-8")):
        raise InputError(f"{path}: cannot be written.")


def read_results(path: Path) -> dict[str, Any]:
    """A document that `document_of` made. Raises InputError for any other, and for another version."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path}: not a JSON document ({error}).") from error
    if not isinstance(found, dict) or found.get("benchmark") != KIND or not isinstance(found.get("runs"), list):
        raise InputError(f"{path}: not a result of gcpp-edge bench. Make one: gcpp-edge bench MODEL --json {path.name}")
    if found.get("version") != VERSION:
        raise InputError(
            f"{path}: a result of version {found.get('version')!r}, and this gcpp-edge reads version {VERSION}. "
            "Measure again."
        )
    return found
