"""`gcpp-edge build`: TensorRT engines, ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from gcpp_edge.cli import terminal
from gcpp_edge.contract import LEVELS, MAP
from gcpp_edge.errors import GcppError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from gcpp_edge.engine_cache import Entry, Gpu
    from gcpp_edge.model_file import ModelFile
    from gcpp_edge.runtimes.tensorrt_build import BuildOptions
    from gcpp_edge.runtimes.tensorrt_library import Library

LEVEL_HELP = f"What to build: {', '.join(LEVELS)}. Several times: one engine each."
BATCH_HELP = "Frames at once: a count, or smallest:usual:largest, as 1:4:8."
CAPABILITY_HELP = "GPU to build for, as 8.6, without having one. Several times: one engine for all of them."


@dataclass(frozen=True)
class Place:
    """Where engines are built: for which GPU, and on which thread."""

    gpu: Gpu
    perform: Callable[[Callable[[], Any]], Any]
    has_gpu: bool


def build(
    models: Annotated[list[Path], typer.Argument(help="Explained models, as `gcpp-edge export` writes them.")],
    level: Annotated[list[str] | None, typer.Option(help=LEVEL_HELP, show_default=MAP)] = None,
    batch: Annotated[str, typer.Option(help=BATCH_HELP)] = "1",
    compute_capability: Annotated[
        list[str] | None, typer.Option(help=CAPABILITY_HELP, show_default="this machine's GPU")
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Round float32 factors to ten bits of mantissa: faster, less exact.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also copy the engine there, and what it is to FILE.json beside it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False,
) -> None:
    """Builds TensorRT engines of explained models ahead of time, and keeps them where `gcpp_edge.load` finds them.

    Without this, an engine is built the first time that its level is used, which can take minutes on a small board.
    One that is there already is not built again. TensorRT builds for the GPU of the machine it runs on; TensorRT for
    RTX builds for others too, on machines without any.

    [bold]Examples[/bold]

      gcpp-edge build resnet50.explained.onnx

      gcpp-edge build resnet50.explained.onnx --level map --level guided --batch 1:1:8

      gcpp-edge build model.onnx --compute-capability 8.6 --compute-capability 8.9

      gcpp-edge build model.onnx -o model.engine --json

    `gcpp-edge cache list` shows what there is, `gcpp-edge doctor` which TensorRT.
    """
    from gcpp_edge.engine_cache import open_folder
    from gcpp_edge.model_file import read_model_file
    from gcpp_edge.runtimes.tensorrt import options_for
    from gcpp_edge.runtimes.tensorrt_build import batch_of, check_options
    from gcpp_edge.runtimes.tensorrt_library import load_library

    levels, wanted, capabilities = level or [MAP], batch_of(batch), _in_order(compute_capability or [])
    files = [read_model_file(path) for path in models]
    if output is not None and len(files) * len(levels) > 1:
        raise InputError("--output: one engine at a time; give one model and one --level.")
    jobs = [(file, options_for(file, each, wanted, tf32, capabilities)) for file in files for each in levels]
    library = load_library()
    check_options(library, jobs[0][1])
    open_folder()  # an engine that cannot be kept is not built here
    rows = []
    with _place(capabilities, library) as place:
        for file, options in jobs:
            entry, is_new = _build(library, file, options, place)
            if output is not None:
                _copy(entry, output)
            rows.append(_row(file, entry, is_new, output))
            if not as_json:
                _print(rows[-1])
    if as_json:
        terminal.print_json({"engines": rows})


def _in_order(capabilities: list[str]) -> tuple[str, ...]:
    """Each once: the order in which they were given makes no other engine."""
    return tuple(sorted(set(capabilities), key=lambda text: [part.zfill(3) for part in text.split(".")]))


@contextmanager
def _place(capabilities: tuple[str, ...], library: Library) -> Iterator[Place]:
    from gcpp_edge.device import open_device
    from gcpp_edge.engine_cache import Gpu
    from gcpp_edge.runtimes.tensorrt import gpu_of

    if capabilities:
        yield Place(Gpu("", capabilities), lambda work: work(), has_gpu=False)
        return
    try:
        device: Any = open_device("cuda")
        gpu = gpu_of(device)
    except GcppError as error:
        other = (
            f"Without a GPU, say which to build for: --compute-capability {' or '.join(library.capabilities())}."
            if library.features.compute_capability
            else f"{library.title} needs the GPU that it builds for."
        )
        raise MissingDependencyError(f"No GPU can be used here ({str(error).rstrip('.')}). {other}") from error
    try:
        yield Place(gpu, device.perform, has_gpu=True)
    finally:
        device.close()


def _build(library: Library, file: ModelFile, options: BuildOptions, place: Place) -> tuple[Entry, bool]:
    from gcpp_edge.runtimes.tensorrt import obtain_engine

    with build_bar(terminal.remarks(), f"{file.path.name} {options.level}") as bar:

        def work() -> tuple[Entry, bool]:
            # with a GPU the engine is loaded, to see that it can be, and let go of on the thread that loaded it
            _, entry, is_new = obtain_engine(library, file, options, place.gpu, load=place.has_gpu, progress=bar)
            return entry, is_new

        entry, is_new = place.perform(work)
    return entry, is_new


def _copy(entry: Entry, output: Path) -> None:
    """The engine and its document, to a place that the user chose."""
    import json

    from gcpp_edge.engine_cache import read_engine

    output.write_bytes(read_engine(entry))
    document = json.dumps(entry.document, ensure_ascii=False, indent=1)
    output.with_name(output.name + ".json").write_text(document, encoding="utf-8")


def _row(file: ModelFile, entry: Entry, is_new: bool, output: Path | None) -> dict[str, Any]:
    recipe = entry.recipe
    return {
        "model": file.path,
        "level": recipe.level,
        "path": entry.path,
        "copied_to": output,
        "bytes": entry.document["engine"]["bytes"],
        "built": is_new,
        "seconds": entry.document["seconds"],
        "flavour": recipe.flavour,
        "version": recipe.version,
        "gpu": recipe.gpu.name,
        "compute_capabilities": recipe.gpu.capabilities,
        "batch": recipe.batch,
        "tf32": recipe.tf32,
    }


def _print(row: dict[str, Any]) -> None:
    smallest, usual, largest = row["batch"]
    batch = str(largest) if smallest == largest else f"{smallest} to {largest}, best at {usual}"
    target = f"{row['gpu'] or 'any GPU'} ({', '.join(row['compute_capabilities'])})"
    how = f"built in {row['seconds']:.1f} s" if row["built"] else "was there already"
    precision = ", TF32" if row["tf32"] else ""
    terminal.print_file_line(
        terminal.answers(),
        row["copied_to"] or row["path"],
        f"{row['model']}, level {row['level']}, batch {batch}{precision}, for {target}: "
        f"{terminal.size_text(row['bytes'])}, {how}",
    )


@contextmanager
def build_bar(console: Console, task: str) -> Iterator[BuildBar]:
    """A bar that TensorRT's own report of a build moves; it vanishes at the end, and is silent where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield BuildBar(progress, task)


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildBar:
    """How far a build is: phases within steps of other phases. See gcpp_edge.runtimes.tensorrt_build.Progress."""

    def __init__(self, progress: Progress, task: str) -> None:
        self._progress, self._name = progress, task
        self._task = progress.add_task(task, total=1.0)
        self._phases: dict[str, _Phase] = {}
        self._share = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        self._phases[phase] = _Phase(parent, max(steps, 1))
        self._progress.update(self._task, description=f"{self._name}: {phase.lower()}")

    def step(self, phase: str, step: int) -> None:
        if phase in self._phases:
            self._phases[phase].done = step + 1
            self._progress.update(self._task, completed=self.share())

    def finish(self, phase: str) -> None:
        self._phases.pop(phase, None)
        if not self._phases:
            self._progress.update(self._task, completed=1.0)

    def share(self) -> float:
        """0 to 1: of each phase its finished steps, and of the step at work what the phase within it has done.

        It never falls, though TensorRT ends some phases behind the step that they belong to.
        """
        now = max((self._share_of(name) for name, one in self._phases.items() if one.parent is None), default=1.0)
        self._share = max(self._share, now)
        return self._share

    def _share_of(self, name: str) -> float:
        phase = self._phases[name]
        within = max((self._share_of(other) for other, one in self._phases.items() if one.parent == name), default=0.0)
        return min((phase.done + within) / phase.steps, 1.0)
