"""Two documents of results: what became slower or faster beyond the noise.

Noise is what the medians of parts of each run show. A change counts where no part of the one run lies within the parts
of the other, and it is more than LEAST. Of a run that was unstable no time is sure; the ratio to the plain network,
which ran in turn with it, still is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gcpp_edge.bench.summary import Summary
from gcpp_edge.errors import InputError

LEAST = 0.01  # a smaller change says nothing, however steady the runs were
SAME, SLOWER, FASTER = "same", "slower", "faster"
TOTAL, COST = "total", "cost"
# what makes two runs the same measurement; where several fit, they are paired in their order
SUBJECT = ("model", "backend", "batch", "frame")
SETTINGS = ("method", "input", "format", "threads", "spin", "cuda_graph", "runtime", "bytes")
MACHINE = ("processor", "cores", "gpu", "board", "power_mode", "governor", "virtual")

LEAST_PARTS = 3  # medians of fewer say nothing of the noise

Document = dict[str, Any]
Pair = tuple[Document, Document]
Ends = tuple[float, float]


@dataclass(frozen=True)
class Change:
    """Of one figure. what: "total", a stage, or "cost", a ratio; the others are ms. noise: of both, as a share.

    is_sure: both runs were stable, or the figure is the ratio of what ran in turn.
    """

    model: str
    backend: str
    level: str
    what: str
    old: float
    new: float
    noise: float
    verdict: str
    is_sure: bool

    @property
    def share(self) -> float:
        """0.1 is a tenth more."""
        return self.new / self.old - 1 if self.old else 0.0


@dataclass(frozen=True)
class Comparison:
    """changes: of all that both have. notes: why they may not be of the same thing. alone: what one of them lacks."""

    changes: list[Change]
    notes: list[str]
    alone: list[str]

    @property
    def slower(self) -> list[Change]:
        """What became slower beyond the noise, for sure."""
        return self.of(SLOWER)

    def of(self, verdict: str, is_sure: bool = True) -> list[Change]:
        """The changes of this verdict."""
        return [change for change in self.changes if (change.verdict, change.is_sure) == (verdict, is_sure)]


def compare(old: Document, new: Document) -> Comparison:
    """Every figure of runs that both have. Raises InputError where they have none in common, or are damaged."""
    try:
        pairs, alone = _pairs(old["runs"], new["runs"])
        changes = [change for pair in pairs for change in _changes(*pair)]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"One of the results is damaged ({error!r}). Measure again.") from error
    if not changes:
        raise InputError("The two results have no run in common (model, backend, batch and frame).")
    return Comparison(changes, [*_machines(old, new), *_settings(pairs)], alone)


def _pairs(old: list[Document], new: list[Document]) -> tuple[list[Pair], list[str]]:
    left = [run for run in old if "levels" in run]
    pairs, alone = [], []
    for run in (run for run in new if "levels" in run):
        partner = next((other for other in left if _subject(other) == _subject(run)), None)
        if partner is None:
            alone.append(f"only in the new one: {_title(run)}")
        else:
            left.remove(partner)
            pairs.append((partner, run))
    return pairs, alone + [f"only in the old one: {_title(run)}" for run in left]


def _subject(run: Document) -> list[Any]:
    return [run[name] for name in SUBJECT]


def _title(run: Document) -> str:
    width, height = run["frame"]
    return f"{run['model']} on {run['backend']}, batch {run['batch']}, frame {width}x{height}"


def _changes(old: Document, new: Document) -> Iterator[Change]:
    for level in (name for name in old["levels"] if name in new["levels"]):
        totals = []
        for what, one, other in _figures(old["levels"][level], new["levels"][level]):
            yield _change((old, new), level, what, (one.median, _range(one)), (other.median, _range(other)))
            totals = [one, other]  # the last one is the total
        if level in old["cost"] and level in new["cost"] and all(map(_has_parts, totals)):
            costs = (run["cost"][level][TOTAL] for run in (old, new))
            yield _change((old, new), level, COST, *((cost["value"], (cost["low"], cost["high"])) for cost in costs))


def _figures(old: Document, new: Document) -> Iterator[tuple[str, Summary, Summary]]:
    for stage in (name for name in old["stages"] if name in new["stages"]):
        yield stage, Summary.from_json(old["stages"][stage]), Summary.from_json(new["stages"][stage])
    yield TOTAL, Summary.from_json(old[TOTAL]), Summary.from_json(new[TOTAL])


def _has_parts(summary: Summary) -> bool:
    return len(summary.parts) >= LEAST_PARTS


def _range(summary: Summary) -> Ends:
    """How far the median can be believed: the parts' medians, and of too few parts every time."""
    return (min(summary.parts), max(summary.parts)) if _has_parts(summary) else (summary.min, summary.max)


def _change(runs: Pair, level: str, what: str, old: tuple[float, Ends], new: tuple[float, Ends]) -> Change:
    (before, (old_low, old_high)), (after, (new_low, new_high)) = old, new
    verdict = SAME
    if new_low > old_high and after > before * (1 + LEAST):
        verdict = SLOWER
    elif new_high < old_low and after < before * (1 - LEAST):
        verdict = FASTER
    noise = (old_high - old_low + new_high - new_low) / 2 / before if before else 0.0
    is_sure = what == COST or not any(run.get("doubts") for run in runs)
    model, backend = runs[1]["model"], runs[1]["backend"]
    return Change(model, backend, level, what, before, after, noise, verdict, is_sure)


def _machines(old: Document, new: Document) -> Iterator[str]:
    for name in MACHINE:
        before, after = (document.get("machine", {}).get(name) for document in (old, new))
        if before != after:
            yield f"another {name.replace('_', ' ')}: {_text(before)}, then {_text(after)}; compare the ratios alone"


def _settings(pairs: list[Pair]) -> Iterator[str]:
    for old, new in pairs:
        for name in SETTINGS:
            if old.get(name) != new.get(name):
                before, after = _text(old.get(name)), _text(new.get(name))
                yield f"{new['model']}: another {name.replace('_', ' ')}: {before}, then {after}"
        for when, run in (("old", old), ("new", new)):
            if run.get("doubts"):
                yield f"{run['model']}: the {when} run was unstable: {'; '.join(run['doubts'])}"


def _text(value: Any) -> str:
    return "not told" if value is None else str(value)
