"""`gcpp-edge explain`: pictures in, maps of where the network looked out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcpp_edge.cli import terminal
from gcpp_edge.cli.batch import Outcome, Record, class_text, describe, for_each_picture
from gcpp_edge.contract import CLASSES, GUIDED, MAP, SEED, Contract
from gcpp_edge.errors import InputError, PictureError, ShapeError

if TYPE_CHECKING:
    from gcpp_edge.explainer import Explainer
    from gcpp_edge.explanation import Explanation

METHOD_HELP = "gradcam, gradcam++, gradcam++-signed, gradcam++-softmax or cam."


@dataclass(frozen=True)
class Drawing:
    """How the pictures that come out look. alpha: weight of the colours. threshold: share of the peak in a box."""

    alpha: float
    colormap: str
    threshold: float


@dataclass(frozen=True)
class Request:
    """What is asked of the explainer for every picture. region: a mask's file, or a folder of them."""

    target: int | str | None
    method: str | None
    mode: str
    detection: int | None = None
    region: Path | None = None


def _overlay(explanation: Explanation, drawing: Drawing) -> Any:
    return explanation.overlay(colormap=drawing.colormap, alpha=drawing.alpha)


def _heatmap(explanation: Explanation, drawing: Drawing) -> Any:
    return explanation.heatmap(dtype="uint8")


def _guided(explanation: Explanation, drawing: Drawing) -> Any:
    return explanation.guided_picture()


def _draw(output: str, explanation: Explanation, drawing: Drawing) -> Any:
    """An output as one picture; of a clip its pictures side by side."""
    import numpy as np

    if explanation.map.ndim == 2:
        return OUTPUTS[output](explanation, drawing)
    pictures = [explanation.picture(index) for index in range(len(explanation.frame))]
    return np.concatenate([OUTPUTS[output](one, drawing) for one in pictures], axis=1)


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
        str | None,
        typer.Option(
            help="The class to explain: an index, a rank (-1 the best, -2 the next), or a name.",
            show_default="-1; of a --top-k file its K best",
        ),
    ] = None,
    detection: Annotated[
        int | None, typer.Option(help="The detection to explain: an index, or a rank (-1 the best).")
    ] = None,
    region: Annotated[
        Path | None, typer.Option(help="A mask of what to explain, not black inside; or a folder with one a picture.")
    ] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP, show_default="as the file says")] = None,
    mode: Annotated[str, typer.Option(help="Whose formulas: paper, pytorch-grad-cam or authors.")] = "paper",
    alpha: Annotated[float, typer.Option(min=0.0, max=1.0, help="Weight of the colours in overlays.")] = 0.5,
    colormap: Annotated[str, typer.Option(help="Colours of overlays.")] = "jet",
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the peak that a box encloses.")] = 0.25,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 leaves it to choose.")] = 0,
    device: Annotated[str, typer.Option(help="Where to run: auto, tensorrt, cuda or cpu.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False,
) -> None:
    """Says which class the network sees in each picture and, with -o, draws where it looked.

    [bold]Examples[/bold]

      gcpp-edge explain model.onnx cat.jpg -o out

      gcpp-edge explain model.onnx photos/ -o out --outputs panel,boxes

      gcpp-edge explain model.onnx 'photos/*.jpg' --target "tabby" --json

      gcpp-edge explain segmenter.onnx street.jpg --target car --region mask.png -o out

    A picture that cannot be read is named and left out; the others go on, and the exit status is then 2.
    """
    import gcpp_edge
    from gcpp_edge.pictures import find_pictures, read_clip, read_picture

    wanted = _wanted(outputs, output)
    request = Request(None if target is None else target_of(target), method, mode, detection, region)
    level = GUIDED if "guided" in wanted else MAP
    with gcpp_edge.load(model, device=device, level=level, threads=threads) as explainer:
        clip = explainer.contract.preprocessing.frames
        _refuse_what_needs_python(explainer.contract, wanted, model)
        files = list(map(Path, pictures)) if clip else find_pictures(pictures)
        worker = _Worker(explainer, request, Drawing(alpha, colormap, threshold), wanted, output)
        reader = partial(read_clip, count=clip) if clip else read_picture
        outcome = for_each_picture(files, worker.explain_one, reader)
        _report(model, explainer.runtime_name, outcome, as_json)
    raise typer.Exit(2 if outcome.failed else 0)


def _refuse_what_needs_python(contract: Contract, wanted: Sequence[str], model: Path) -> None:
    """Raises InputError for models whose inputs no option gives."""
    if contract.target.kind == SEED:
        raise InputError(f"{model}: explains a gradient of the caller's. From Python: explainer(frame, seed=array).")
    if contract.extra_inputs:
        names = ", ".join(entry.name for entry in contract.extra_inputs)
        raise InputError(f"{model}: also needs {names}. From Python: explainer(frame, inputs={{name: array}}).")
    if contract.preprocessing.frames and PANEL in wanted:
        raise InputError(f"{model}: explains clips, for which there is no panel. Choose of {', '.join(OUTPUTS)}.")


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


def target_of(text: str) -> int | str:
    """A target as an option gives it: an index, a rank, or a name."""
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
        mask = self._mask(file)
        method, guided = self._request.method, self._guided
        if self._takes_all_classes:
            found = self._explainer.classes(frame, method=method, mode=self._request.mode, guided=guided)
            records = [self._record(file, one, f"{name}.{one.class_index}", mask) for one in found]
            return records[0] | {"classes": [_of_class(record) for record in records]}
        try:
            target, detection = self._request.target, self._request.detection
            explanation = self._explain(frame, target, detection, mask, method, guided)
        except ShapeError as error:
            if mask is None:
                raise
            raise PictureError(f"{file}: {error}") from error
        return self._record(file, explanation, name, mask)

    @property
    def _takes_all_classes(self) -> bool:
        """Whether all classes of one pass are wanted. What such a file does not take, a plain call refuses."""
        asked = self._request.target, self._request.detection, self._request.region
        return self._explainer.contract.target.kind == CLASSES and asked == (None, None, None)

    def _mask(self, file: Path) -> Any:
        from gcpp_edge.pictures import read_mask

        return None if self._request.region is None else read_mask(self._request.region, file)

    def _record(self, file: Path, explanation: Explanation, name: str, mask: Any) -> Record:
        written = {output: self._write(output, name, file, explanation, mask) for output in self._wanted}
        return describe(file, explanation, self._drawing.threshold) | {"files": written}

    def _explain(
        self,
        frame: Any,
        target: int | str | None,
        detection: int | None,
        mask: Any,
        method: str | None,
        guided: bool,
    ) -> Explanation:
        found: Explanation = self._explainer(
            [frame],
            target,
            detection=detection,
            region=mask,
            method=method,
            mode=self._request.mode,
            guided=guided,
        )[0]
        return found

    def _write(self, output: str, name: str, file: Path, explanation: Explanation, mask: Any) -> str:
        from gcpp_edge.pictures import write_png

        assert self._output is not None
        path = self._output / f"{name}.{output}.png"
        if output == PANEL:
            picture = self._panel(file.name, explanation, mask)
        else:
            picture = _draw(output, explanation, self._drawing)
        write_png(path, picture)
        return str(path)

    def _panel(self, title: str, explanation: Explanation, mask: Any) -> Any:
        """The chosen method beside Grad-CAM, its guided image and boxes."""
        from gcpp_edge.cli.panel import panel

        shown = [explanation]
        if explanation.method != "gradcam":
            aim = explanation.class_index, explanation.detection, mask
            shown.insert(0, self._explain(explanation.frame, *aim, "gradcam", False))
        return panel(title, shown, self._drawing.threshold, self._drawing.alpha, self._drawing.colormap)


_OF_CLASS = ("class_index", "label", "score", "probability", "evidence", "peak", "poles", "boxes", "files")


def _of_class(record: Record) -> Record:
    """What differs between the classes of a picture."""
    return {name: record[name] for name in _OF_CLASS}


def _report(model: Path, runtime: str, outcome: Outcome, as_json: bool) -> None:
    records, failed = outcome
    if as_json:
        terminal.print_json({"model": model, "runtime": runtime, "pictures": records, "failed": failed})
        return
    if not records:
        return
    rows = [
        _row(name, record | one)
        for name, record in zip(_short_names(records), records, strict=True)
        for one in record.get("classes", [{}])
    ]
    terminal.answers().print(terminal.table("", COLUMNS, rows))
    parts = [
        f"{terminal.count_text(len(records), 'picture')} explained",
        f"{terminal.count_text(sum(map(_files, records)), 'file')} written",
        f"{len(failed)} refused",
    ]
    terminal.remark(f"{', '.join(parts)}; {runtime}")


def _files(record: Record) -> int:
    return sum(len(one["files"]) for one in record.get("classes", [record]))


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
