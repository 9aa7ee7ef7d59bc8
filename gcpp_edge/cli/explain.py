"""`gcpp-edge explain`: pictures in, maps of where the network looked out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcpp_edge.cli import terminal
from gcpp_edge.cli.batch import Outcome, Record, class_text, describe, for_each_picture
from gcpp_edge.contract import GUIDED, MAP
from gcpp_edge.errors import InputError

if TYPE_CHECKING:
    from gcpp_edge.explainer import Explainer
    from gcpp_edge.explanation import Explanation


@dataclass(frozen=True)
class Drawing:
    """How the pictures that come out look. alpha: weight of the colours. threshold: share of the peak in a box."""

    alpha: float
    colormap: str
    threshold: float


@dataclass(frozen=True)
class Request:
    """What is asked of the explainer for every picture."""

    target: int | str
    method: str | None
    mode: str


def _overlay(explanation: Explanation, drawing: Drawing) -> Any:
    return explanation.overlay(colormap=drawing.colormap, alpha=drawing.alpha)


def _heatmap(explanation: Explanation, drawing: Drawing) -> Any:
    return explanation.heatmap(dtype="uint8")


def _guided(explanation: Explanation, drawing: Drawing) -> Any:
    return explanation.guided_picture()


def _boxes(explanation: Explanation, drawing: Drawing) -> Any:
    from gcpp_edge.cli.panel import frame_with_boxes

    return frame_with_boxes(explanation, drawing.threshold)


OUTPUTS: dict[str, Callable[[Explanation, Drawing], Any]] = {
    "overlay": _overlay,
    "heatmap": _heatmap,
    "guided": _guided,
    "boxes": _boxes,
}
DEFAULT_OUTPUT = "overlay"
PANEL = "panel"  # needs several explanations of a picture, so it stands beside the table


def explain(
    model: Annotated[Path, typer.Argument(help="An explained model, as `gcpp-edge export` writes it.")],
    pictures: Annotated[list[str], typer.Argument(help="Picture files, folders of pictures, or 'patterns*.jpg'.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for what is drawn; without it, nothing is.")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(help=f"What to draw, comma between: {', '.join(OUTPUTS)}, {PANEL}.", show_default=DEFAULT_OUTPUT),
    ] = None,
    target: Annotated[
        str, typer.Option(help="The class to explain: an index, a rank (-1 the best, -2 the next), or a name.")
    ] = "-1",
    method: Annotated[
        str | None, typer.Option(help="gradcam, gradcam++, gradcam++-signed or cam.", show_default="as the file says")
    ] = None,
    mode: Annotated[str, typer.Option(help="Whose formulas: paper, pytorch-grad-cam or authors.")] = "paper",
    alpha: Annotated[float, typer.Option(min=0.0, max=1.0, help="Weight of the colours in overlays.")] = 0.5,
    colormap: Annotated[str, typer.Option(help="Colours of overlays.")] = "jet",
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the peak that a box encloses.")] = 0.25,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 leaves it to choose.")] = 0,
    device: Annotated[str, typer.Option(help="Where to run: auto or cpu.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False,
) -> None:
    """Says which class the network sees in each picture and, with -o, draws where it looked.

    [bold]Examples[/bold]

      gcpp-edge explain model.onnx cat.jpg -o out

      gcpp-edge explain model.onnx photos/ -o out --outputs panel,boxes

      gcpp-edge explain model.onnx 'photos/*.jpg' --target "tabby" --json

    A picture that cannot be read is named and left out; the others go on, and the exit status is then 2.
    """
    import gcpp_edge
    from gcpp_edge.cli.pictures import find_pictures

    wanted = _wanted(outputs, output)
    request = Request(_target(target), method, mode)
    files = find_pictures(pictures)
    level = GUIDED if "guided" in wanted else MAP
    with gcpp_edge.load(model, device=device, level=level, threads=threads) as explainer:
        worker = _Worker(explainer, request, Drawing(alpha, colormap, threshold), wanted, output)
        outcome = for_each_picture(files, worker.explain_one)
        _report(model, explainer.runtime_name, outcome, as_json)
    raise typer.Exit(2 if outcome.failed else 0)


def _wanted(outputs: str | None, output: Path | None) -> list[str]:
    """What is drawn into the folder `output`; nothing without one. InputError for outputs that cannot be."""
    if outputs is None:
        return [DEFAULT_OUTPUT] if output else []
    known = [*OUTPUTS, PANEL]
    wanted = [name.strip() for name in outputs.split(",") if name.strip()]
    if not wanted:
        raise InputError(f"--outputs: expected one or more of {', '.join(known)}, found {outputs!r}.")
    for name in wanted:
        if name not in known:
            raise InputError(f"--outputs: unknown output {name!r}. Known: {', '.join(known)}.")
    if not output:
        raise InputError("--outputs: nowhere to draw. Name a folder with -o.")
    return wanted


def _target(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


class _Worker:
    """Explains one picture after the other and writes what is wanted of it."""

    def __init__(
        self, explainer: Explainer, request: Request, drawing: Drawing, wanted: Sequence[str], output: Path | None
    ) -> None:
        self._explainer, self._request, self._drawing = explainer, request, drawing
        self._wanted, self._output = wanted, output
        # a panel shows the guided image where the file has one
        self._guided = "guided" in wanted or (PANEL in wanted and GUIDED in explainer.contract.levels)

    def explain_one(self, file: Path, frame: Any, name: str) -> Record:
        """Explain the frame, write what is wanted of it under this name, and say what was found."""
        explanation = self._explain(frame, self._request.target, self._request.method, self._guided)
        written = {output: self._write(output, name, file, explanation) for output in self._wanted}
        return describe(file, explanation, self._drawing.threshold) | {"files": written}

    def _explain(self, frame: Any, target: int | str, method: str | None, guided: bool) -> Explanation:
        found: Explanation = self._explainer(frame, target, method=method, mode=self._request.mode, guided=guided)
        return found

    def _write(self, output: str, name: str, file: Path, explanation: Explanation) -> str:
        from gcpp_edge.cli.pictures import write_png

        assert self._output is not None
        path = self._output / f"{name}.{output}.png"
        if output == PANEL:
            picture = self._panel(file.name, explanation)
        else:
            picture = OUTPUTS[output](explanation, self._drawing)
        write_png(path, picture)
        return str(path)

    def _panel(self, title: str, explanation: Explanation) -> Any:
        """The chosen method beside Grad-CAM, its guided image and boxes."""
        from gcpp_edge.cli.panel import panel

        shown = [explanation]
        if explanation.method != "gradcam":
            shown.insert(0, self._explain(explanation.frame, explanation.class_index, "gradcam", False))
        return panel(title, shown, self._drawing.threshold, self._drawing.alpha, self._drawing.colormap)


def _report(model: Path, runtime: str, outcome: Outcome, as_json: bool) -> None:
    records, failed = outcome
    if as_json:
        terminal.print_json({"model": model, "runtime": runtime, "pictures": records, "failed": failed})
        return
    if not records:
        return
    terminal.answers().print(terminal.table("", COLUMNS, map(_row, _short_names(records), records)))
    parts = [
        f"{terminal.count_text(len(records), 'picture')} explained",
        f"{terminal.count_text(sum(len(record['files']) for record in records), 'file')} written",
        f"{len(failed)} refused",
    ]
    terminal.remark(f"{', '.join(parts)}; {runtime}")


def _short_names(records: Sequence[Record]) -> list[str]:
    """File names, which leave room for the figures; whole paths where two names are the same."""
    names = [Path(record["picture"]).name for record in records]
    return names if len(set(names)) == len(names) else [record["picture"] for record in records]


COLUMNS = ("picture", "class", ">probability", ">evidence", ">ms")


def _row(name: str, record: Record) -> tuple[str, ...]:
    return (
        name,
        class_text(record),
        f"{record['probability']:.1%}",
        terminal.number_text(record["evidence"]),
        f"{record['ms']['total']:.1f}",
    )
