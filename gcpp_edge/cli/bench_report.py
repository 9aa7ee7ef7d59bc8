"""What `gcpp-edge bench` says and saves when it has measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gcpp_edge.cli import bench_tables, terminal
from gcpp_edge.cli.bench_request import Job, Outputs

if TYPE_CHECKING:
    from gcpp_edge.bench.measure import Measured


@dataclass
class Outcome:
    """measured, with cold_ms by number of it; and left_out, with the reason. is_broken: an error among the reasons."""

    measured: list[Measured] = field(default_factory=list)
    cold_ms: dict[int, dict[str, float]] = field(default_factory=dict)
    left_out: list[Job] = field(default_factory=list)
    is_broken: bool = False
    is_interrupted: bool = False


def document(outcome: Outcome) -> dict[str, Any]:
    """All of it, to be saved or printed."""
    from gcpp_edge.bench.results import document_of

    runs = [one.as_json() for one in outcome.measured]
    for number, figures in outcome.cold_ms.items():
        runs[number]["cold_ms"] = {name: round(value, 2) for name, value in figures.items()}
    runs += [
        {"model": job.file.path.name, "backend": job.backend, "not_measured": job.why_not} for job in outcome.left_out
    ]
    return document_of(runs)


def print_outcome(outcome: Outcome, all_stages: bool) -> None:
    """One run in full; of several a row each, and in full with all_stages."""
    from gcpp_edge.bench.machine import described

    answers, measured = terminal.answers(), outcome.measured
    several = len(measured) > 1
    for number, one in enumerate(measured):
        if all_stages or not several:
            bench_tables.print_run(answers, one, all_stages)
        if number in outcome.cold_ms:
            name = one.about["model"] if several else ""
            answers.print(bench_tables.cold_table(name, outcome.cold_ms[number]))
            answers.print()
    if several:
        answers.print(bench_tables.overview_table(measured))
        answers.print()
    if measured:
        words = bench_tables.definition_rows(measured, all_stages or not several, bool(outcome.cold_ms))
        rows = (*words, *bench_tables.machine_rows(described(), measured))
        answers.print(terminal.facts("", rows))


def print_doubts(outcome: Outcome) -> None:
    """What speaks against the figures, and what there are none of."""
    console, several = terminal.remarks(), len(outcome.measured) > 1
    for one in outcome.measured:
        name = f"{one.about['model']} on {one.about['backend']}: " if several else ""
        for doubt in one.doubts:
            terminal.complain(console, f"{name}unstable: {doubt}")
        for sentence in one.remarks:
            terminal.complain(console, f"{name}{sentence}")
    for job in outcome.left_out:
        terminal.complain(console, f"{job.file.path.name}: not measured on {job.backend}: {job.why_not}")


def save(outcome: Outcome, outputs: Outputs) -> None:
    """The files that were asked for, each whole or not at all."""
    from gcpp_edge.bench.plot import save_plot
    from gcpp_edge.bench.results import times_of, write_json

    if outputs.results is not None:
        write_json(outputs.results, document(outcome))
    if outputs.times is not None:
        write_json(outputs.times, times_of(outcome.measured))
    if outputs.plot is not None:
        save_plot(outputs.plot, outcome.measured)
    for path in outputs:
        if path is not None:
            terminal.remark(f"wrote {path}")


def misses(outcome: Outcome, max_p99_ms: float) -> bool:
    """Whether the 99th percentile of any run's last level is larger; each that is is said."""
    from gcpp_edge.bench.summary import percentile

    missed = False
    for one in outcome.measured:
        level = list(one.levels)[-1]
        found = percentile(one.samples.ms[level], 99)
        if found > max_p99_ms:
            missed = True
            name = f"{one.about['model']} on {one.about['backend']}"
            message = f"{name}: p99 of {level} is {found:.2f} ms, above --max-p99-ms {max_p99_ms:g}."
            terminal.complain(terminal.remarks(), message)
    return missed
