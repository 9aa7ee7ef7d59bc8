"""Runs in turn: whatever else the machine does meanwhile, it does to all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

Run = Callable[[], object]

LEAST_WARM_UP_ROUNDS = 3  # a frame on a GPU is done, then recorded, then replayed


@dataclass
class Samples:
    """Of complete rounds, in their order, by the run's name.

    ms: wall time. starts_s: when, since the first. stages_ms: what a run returned, if that is a dict. seconds: of all
    rounds. interrupted: whether Ctrl-C ended them.
    """

    ms: dict[str, list[float]]
    starts_s: dict[str, list[float]]
    stages_ms: dict[str, list[dict[str, float]]]
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def rounds(self) -> int:
        """How many there are of each run."""
        return len(next(iter(self.ms.values()), []))


def _go_on(share: float) -> None:
    """Nothing between rounds."""


class Plan(NamedTuple):
    """How long to sample: until both `seconds` and `rounds` are reached, after `warm_up_ms` that do not count.

    pause_ms: of sleep before each run, for threads that still spin behind the one before. between: called after each
    round with how far it is, 0 to 1.
    """

    seconds: float = 3.0
    rounds: int = 10
    warm_up_ms: float = 200.0
    pause_ms: float = 0.0
    between: Callable[[float], None] = _go_on


def sample(runs: Mapping[str, Run], plan: Plan, clock: Callable[[], float] = time.perf_counter) -> Samples:
    """One run of each a round, in an order that moves on by one every round.

    Ctrl-C ends it after a first complete round, and is raised before that. clock: seconds.
    """
    _warm_up(runs, plan, clock)
    taken = Samples({name: [] for name in runs}, {name: [] for name in runs}, {name: [] for name in runs})
    began = clock()
    try:
        number = 0
        while number < plan.rounds or clock() - began < plan.seconds:
            for name in _order(list(runs), number):
                if plan.pause_ms:
                    time.sleep(plan.pause_ms / 1e3)
                start = clock()
                stages = runs[name]()
                stop = clock()
                taken.ms[name].append(1e3 * (stop - start))
                taken.starts_s[name].append(start - began)
                taken.stages_ms[name].append(stages if isinstance(stages, dict) else {})
            number += 1
            plan.between(min(number / max(plan.rounds, 1), (clock() - began) / max(plan.seconds, 1e-9), 1.0))
    except KeyboardInterrupt:
        taken.interrupted = True
        _drop_incomplete(taken)
        if not taken.rounds:
            raise
    taken.seconds = clock() - began
    return taken


def interleaved_medians(runs: Mapping[str, Run], rounds: int, warm_up_rounds: int = 10) -> dict[str, float]:
    """Median milliseconds of each, by a count of rounds instead of time: for scripts that compare."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm_up_rounds + rounds):
        for name in _order(list(runs), number):
            start = time.perf_counter()
            runs[name]()
            if number >= warm_up_rounds:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def _warm_up(runs: Mapping[str, Run], plan: Plan, clock: Callable[[], float]) -> None:
    """Caches fill, clocks rise, buffers and recordings are made."""
    began, rounds = clock(), 0
    while rounds < LEAST_WARM_UP_ROUNDS or 1e3 * (clock() - began) < plan.warm_up_ms:
        for run in runs.values():
            run()
        rounds += 1


def _order(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


def _drop_incomplete(taken: Samples) -> None:
    """A round that was broken off has some runs and not others, and its last one perhaps by half."""
    whole = min(map(len, taken.stages_ms.values()))
    for by_name in (taken.ms, taken.starts_s, taken.stages_ms):
        for values in by_name.values():
            del values[whole:]
