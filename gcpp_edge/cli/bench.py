"""`gcpp-edge bench`: what an explanation costs on this machine, beside the plain network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from gcpp_edge.cli import EXIT_BAD_INPUT, terminal
from gcpp_edge.cli.bench_request import (
    AUTO,
    STDOUT,
    Job,
    Request,
    frame_of,
    jobs_of,
    outputs_of,
    percentiles_of,
    spins,
)
from gcpp_edge.cli.explain import METHOD_HELP
from gcpp_edge.errors import GcppError, InputError

if TYPE_CHECKING:
    from gcpp_edge.cli.bench_report import Outcome

EXIT_MISSED = 1
RUNTIME_HELP = "Where to run: auto, tensorrt, cuda, cpu, or all that can be used, in turn."
FRAME_HELP = "The frame: WIDTHxHEIGHT of one that is made up, or a picture file."
JSON_HELP = "Save the results to FILE.json; - prints one JSON document instead of tables."
PERCENTILE_HELP = "Percentiles of the times, comma between."


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(help="Explained models; with --compare two results that --json saved, the old first."),
    ],
    runtime: Annotated[str, typer.Option(help=RUNTIME_HELP)] = AUTO,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP, show_default="as the file says")] = None,
    guided: Annotated[bool, typer.Option("--guided", help="Also the guided level.")] = False,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Frames a call.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 leaves it to choose.")] = 0,
    warmup_ms: Annotated[float, typer.Option(min=0.0, help="What runs before and does not count.")] = 200.0,
    duration: Annotated[float, typer.Option(min=0.0, help="Seconds to measure at least, all levels in turn.")] = 3.0,
    iterations: Annotated[int, typer.Option(min=1, help="Calls of each level to measure at least.")] = 10,
    percentile: Annotated[str, typer.Option(help=PERCENTILE_HELP)] = "50,90,95,99",
    stages: Annotated[
        bool, typer.Option("--stages", help="Every figure of every stage, not the medians alone.")
    ] = False,
    frame: Annotated[str | None, typer.Option(help=FRAME_HELP, show_default="640x480, or what the file takes")] = None,
    no_cuda_graph: Annotated[
        bool, typer.Option("--no-cuda-graph", help="On a GPU: frames call by call, not as CUDA graphs.")
    ] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="Also load, build and first frame, in processes and a cache of their own.")
    ] = False,
    spin: Annotated[
        str, typer.Option(help="on: waiting threads burn their cores; a pause then keeps levels apart.")
    ] = "off",
    export_times: Annotated[Path | None, typer.Option(help="Save every single time to FILE.json.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw latencies and stages to FILE.png.")] = None,
    max_p99_ms: Annotated[
        float | None, typer.Option(min=0.0, help="Exit status 1 where the 99th percentile of a call is larger.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two results: what became slower or faster beyond the noise.")
    ] = False,
    fail_if_slower: Annotated[
        bool, typer.Option("--fail-if-slower", help="With --compare: exit status 1 where something became slower.")
    ] = False,
) -> None:
    """Measures what an explanation costs, from a frame to a finished overlay.

    The plain network runs in turn with it on the same frame, so that whatever
    else the machine does is done to both: the cost is the ratio of their medians.
    What makes a run not to be believed is said, with the reason.

    [bold]Examples[/bold]

      gcpp-edge bench model.onnx

      gcpp-edge bench model.onnx --frame 1920x1080 --threads 1 --stages --cold

      gcpp-edge bench model.onnx --guided --json new.json --plot new.png

      gcpp-edge bench --compare old.json new.json

      gcpp-edge bench lite0.onnx resnet50.onnx --runtime all

      gcpp-edge bench model.onnx --max-p99-ms 33 || echo "too slow for 30 a second"

    Ctrl-C ends it: what was measured is printed, no file is written, and the exit
    status is 130.
    """
    if compare:
        raise typer.Exit(_compare(models, stages, json_file, fail_if_slower))
    if fail_if_slower:
        raise InputError("--fail-if-slower goes with --compare.")
    from gcpp_edge.bench.conditions import load_average
    from gcpp_edge.bench.sampling import Plan
    from gcpp_edge.bench.subject import Settings
    from gcpp_edge.cli.bench_report import misses, save

    load = load_average()
    outputs = outputs_of(json_file, export_times, plot)
    size, picture = frame_of(frame)
    settings = Settings(runtime, method, guided, batch, threads, spins(spin), not no_cuda_graph, size)
    plan = Plan(duration, iterations, warmup_ms)
    request = Request(settings, plan, percentiles_of(percentile), picture, load, cold)
    outcome = _measure_all(request, jobs_of(models, runtime, guided))
    _tell(outcome, stages, json_file == STDOUT)
    if outcome.is_interrupted:
        raise KeyboardInterrupt
    if not outcome.measured:
        raise typer.Exit(EXIT_BAD_INPUT)
    save(outcome, outputs)
    missed = max_p99_ms is not None and misses(outcome, max_p99_ms)
    raise typer.Exit(EXIT_BAD_INPUT if outcome.is_broken else EXIT_MISSED if missed else 0)


def _tell(outcome: Outcome, all_stages: bool, as_json: bool) -> None:
    from gcpp_edge.cli.bench_report import document, print_doubts, print_outcome

    if as_json:
        terminal.print_json(document(outcome) | ({"interrupted": True} if outcome.is_interrupted else {}))
    else:
        print_outcome(outcome, all_stages)
    print_doubts(outcome)


def _measure_all(request: Request, jobs: Sequence[Job]) -> Outcome:
    """Every job; one that fails is left out, and Ctrl-C leaves out the rest."""
    from gcpp_edge.cli.bench_report import Outcome

    outcome = Outcome()
    for job in jobs:
        if job.why_not:
            outcome.left_out.append(job)
            continue
        try:
            _measure(request, job, outcome)
        except GcppError as error:
            outcome.left_out.append(job._replace(why_not=str(error)))
            outcome.is_broken = True
        except KeyboardInterrupt:
            outcome.is_interrupted = True
        if outcome.is_interrupted:
            break
    return outcome


def _measure(request: Request, job: Job, outcome: Outcome) -> None:
    from gcpp_edge.bench.cold import cold_ms
    from gcpp_edge.bench.measure import measure
    from gcpp_edge.bench.subject import Subject

    file, settings = job.file, request.settings._replace(backend=job.backend)
    with _bar(f"measuring {file.path.name}") as between, Subject(file.path, settings, request.picture) as subject:
        plan = request.plan._replace(between=between)
        outcome.measured.append(measure(subject, plan, request.load, request.percentiles))
    outcome.is_interrupted = outcome.measured[-1].samples.interrupted
    if request.cold and not outcome.is_interrupted:
        terminal.remark(f"starting {file.path.name} anew, twice")
        outcome.cold_ms[len(outcome.measured) - 1] = cold_ms(file.path, settings)


@contextmanager
def _bar(task: str) -> Iterator[Callable[[float], None]]:
    """A bar that moves between calls alone, twice a second: one that moves by itself would be measured too."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = terminal.remarks()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    shown_at = perf_counter()
    with Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as progress:
        number = progress.add_task(task, total=1.0)

        def between(share: float) -> None:
            nonlocal shown_at
            if perf_counter() - shown_at > 0.5:
                shown_at = perf_counter()
                progress.update(number, completed=share, refresh=True)

        progress.refresh()
        yield between


def _compare(paths: Sequence[Path], everything: bool, json_file: str | None, fail_if_slower: bool) -> int:
    """Prints what changed from the first to the second; returns the exit status."""
    from gcpp_edge.bench.comparison import compare
    from gcpp_edge.bench.results import read_results, write_json
    from gcpp_edge.cli import bench_tables

    if len(paths) != 2:
        raise InputError(f"--compare: expected two results, the old one and the new one; found {len(paths)}.")
    json_path = outputs_of(json_file).results
    found = compare(*(read_results(path) for path in paths))
    document = {
        "old": str(paths[0]),
        "new": str(paths[1]),
        "changes": [vars(change) | {"share": round(change.share, 5)} for change in found.changes],
        "notes": found.notes,
        "alone": found.alone,
    }
    if json_file == STDOUT:
        terminal.print_json(document)
    else:
        answers = terminal.answers()
        answers.print(bench_tables.comparison_table(found, everything))
        answers.print(bench_tables.verdict(found), markup=False)
    if json_path is not None:
        write_json(json_path, document)
    for note in (*found.notes, *found.alone):
        terminal.remark(note)
    return EXIT_MISSED if fail_if_slower and found.slower else 0
