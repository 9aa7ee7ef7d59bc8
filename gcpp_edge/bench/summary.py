"""What many times come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gcpp_edge.errors import ModelError

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
PARTS = 10  # of a run, whose medians show how far it can be believed
LEAST_IN_PART = 5  # the median of fewer says little


@dataclass(frozen=True)
class Summary:
    """Milliseconds. percentiles: by their number as text ("99", "99.9"). parts: medians, in the order of the run."""

    count: int
    min: float
    mean: float
    median: float
    max: float
    percentiles: dict[str, float]
    parts: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Rounded to tenths of a microsecond: a clock is not better than that."""
        rounded = {name: round(value, 4) for name, value in self.percentiles.items()}
        figures = {name: round(getattr(self, name), 4) for name in ("min", "mean", "median", "max")}
        parts = [round(part, 4) for part in self.parts]
        return {"count": self.count, **figures, "percentiles": rounded, "parts": parts}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Summary:
        """What as_json made. Raises ModelError for anything else."""
        try:
            figures = {name: float(document[name]) for name in ("min", "mean", "median", "max")}
            percentiles = {str(name): float(value) for name, value in document["percentiles"].items()}
            return cls(int(document["count"]), **figures, percentiles=percentiles, parts=tuple(document["parts"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"not a summary of times ({error!r})") from error


def summarise(values: Sequence[float], percentiles: Sequence[float] = PERCENTILES) -> Summary:
    """Of at least one value, in the order of the run."""
    ordered = sorted(values)
    return Summary(
        count=len(ordered),
        min=ordered[0],
        mean=statistics.fmean(ordered),
        median=statistics.median(ordered),
        max=ordered[-1],
        percentiles={f"{each:g}": _ranked(ordered, each) for each in percentiles},
        parts=tuple(statistics.median(part) for part in parts(values)),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` (0 to 100) of the values do not exceed: one that has happened.

    Nearest rank, as trtexec and onnxruntime_perf_test have it: nothing is made up between two samples.
    """
    return _ranked(sorted(values), percent)


def _ranked(ordered: Sequence[float], percent: float) -> float:
    rank = math.ceil(round(percent / 100 * len(ordered), 9))  # 0.95 * 20 is a little more than 19
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def parts(values: Sequence[float]) -> list[Sequence[float]]:
    """The run cut into up to PARTS pieces of about one length; one piece where there are few values."""
    count = max(1, min(PARTS, len(values) // LEAST_IN_PART))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    return [values[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]


def least_count(percent: float) -> int:
    """How many samples a percentile needs before it is more than the largest of them."""
    return 1 if percent >= 100 else math.ceil(round(100 / (100 - percent), 9))


@dataclass(frozen=True)
class Ratio:
    """How much longer one takes than the other.

    value: of the medians. low, high: the least and the most of any part of the run. by_round: the median of the ratios
    of each round. fastest: of the fastest calls. Where nobody disturbs, all of them are nearly the same.
    """

    value: float
    low: float
    high: float
    by_round: float
    fastest: float

    def as_json(self) -> dict[str, float]:
        """Rounded."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


def ratio_of(values: Sequence[float], base: Sequence[float], in_turn: bool = True) -> Ratio:
    """in_turn: whether the two ran in turn, so that a value and the other's stand for the same moment."""
    value = statistics.median(values) / statistics.median(base)
    ones, others = ([statistics.median(part) for part in parts(each)] for each in (values, base))
    if in_turn:
        each = [one / other for one, other in zip(ones, others, strict=True)]
        by_round = statistics.median(one / other for one, other in zip(values, base, strict=True))
    else:
        each, by_round = [min(ones) / max(others), max(ones) / min(others)], value
    return Ratio(value, min(value, *each), max(value, *each), by_round, min(values) / min(base))
