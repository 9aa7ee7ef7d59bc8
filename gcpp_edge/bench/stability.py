"""What makes a run not to be believed, in words: each rule has its limit at the top."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from gcpp_edge.bench.conditions import Conditions
from gcpp_edge.bench.summary import least_count, parts

SPREAD = 0.05  # between medians of parts of the run
DRIFT = 0.05  # between the medians of its first and its last quarter
LEAST_FOR_DRIFT = 20  # values
OTHERS = 0.10  # of our cores' time, spent by other processes
STEAL = 0.01  # of our cores' time, taken by the hypervisor
LOAD = 0.25  # of the last minute before the run, a core
CLOCK = 0.05  # between the lowest and the highest clock that was seen


def doubts(series: Mapping[str, Sequence[float]], conditions: Conditions) -> list[str]:
    """A sentence for everything that speaks against the run; none for a good one.

    series: milliseconds of each run, in their order.
    """
    found = [sentence for name, values in series.items() for sentence in _of_times(name, values)]
    return [*found, *_of_conditions(conditions)]


def too_few(count: int, percentiles: Sequence[float]) -> list[str]:
    """A sentence where percentiles are nothing but the largest of `count` values; else none."""
    short = [each for each in percentiles if count < least_count(each)]
    if not short:
        return []
    names = ", ".join(f"p{each:g}" for each in short)
    verb, most = "is" if len(short) == 1 else "are", max(short)
    return [f"{names} {verb} the largest of {count} calls; p{most:g} needs {least_count(most)} (--duration)"]


def drift(values: Sequence[float]) -> float:
    """How much longer the last quarter took than the first, by medians: 0.1 is a tenth. 0 for few values."""
    if len(values) < LEAST_FOR_DRIFT:
        return 0.0
    quarter = len(values) // 4
    return statistics.median(values[-quarter:]) / statistics.median(values[:quarter]) - 1


def spread(values: Sequence[float]) -> float:
    """Between the least and the largest median of parts of the run, by its median."""
    medians = [statistics.median(part) for part in parts(values)]
    return (max(medians) - min(medians)) / statistics.median(values)


def _of_times(name: str, values: Sequence[float]) -> Iterator[str]:
    moved, between = drift(values), spread(values)
    if abs(moved) > DRIFT:
        way = "longer" if moved > 0 else "shorter"
        yield f"{name} drifted: its last quarter took {abs(moved):.0%} {way} than its first"
    elif between > SPREAD:
        yield f"{name} varied: medians of parts of the run lie {between:.0%} apart"


def _of_conditions(seen: Conditions) -> Iterator[str]:
    if seen.others > OTHERS:
        yield f"other processes had {seen.others:.0%} of the cores' time"
    elif seen.load > LOAD * seen.cores:
        yield f"the load average was {seen.load:.1f} before the run, so others may have been at work"
    if seen.steal > STEAL:
        yield f"the hypervisor took {seen.steal:.0%} of the cores' time for others (steal)"
    for whose, mhz in (("the clock", seen.mhz), ("the GPU's clock", seen.gpu_mhz)):
        if mhz and min(mhz) < (1 - CLOCK) * max(mhz):
            yield f"{whose} changed between {min(mhz):.0f} and {max(mhz):.0f} MHz"
    for reason, count in seen.slowed.items():
        yield f"slowed down by {reason}" + (f" ({count} times)" if count > 1 else "")
