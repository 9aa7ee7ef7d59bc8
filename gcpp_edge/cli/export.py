"""`gcpp-edge export`: a trained network in, an explained ONNX file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcpp_edge.cli import terminal
from gcpp_edge.cli.describe import contract_tables
from gcpp_edge.errors import SourceError

if TYPE_CHECKING:
    from gcpp_edge.export import Report

SOURCE_HELP = "torchvision:NAME, timm:NAME, package.module:callable, a .pt2 or an .onnx file."
WEIGHTS_HELP = "State dict of the network (.pth), read with weights_only=True."
INPUT_SIZE_HELP = "224, or 224x320 for height x width."


def export(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The explained model to write.")],
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer to explain, by module path or tensor.", show_default="last features")
    ] = None,
    input_size: Annotated[str | None, typer.Option(help=INPUT_SIZE_HELP)] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of each channel, comma between, in --color's order.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of each channel, likewise.")] = None,
    pixel_max: Annotated[
        float | None, typer.Option(help="What the brightest pixel is before mean and std: 1 or 255.")
    ] = None,
    color: Annotated[str | None, typer.Option(help="Channels of the input: rgb, bgr, gray, rgba or bgra.")] = None,
    geometry: Annotated[str | None, typer.Option(help="Frame to input: stretch, crop or letterbox.")] = None,
    share: Annotated[float | None, typer.Option(help="With crop: input size / resized short side (0.875).")] = None,
    fill: Annotated[float | None, typer.Option(help="With letterbox: the pixel value around the frame.")] = None,
    labels: Annotated[str | None, typer.Option(help="File with one class name a line, or the word imagenet.")] = None,
    guided: Annotated[bool, typer.Option("--guided", help="Add the level with the pixel-space image.")] = False,
    pixel_rule: Annotated[str, typer.Option(help="How that image is made: guided, deconvnet or gradient.")] = "guided",
    ranks: Annotated[int, typer.Option(min=1, help="How many ranks can be asked for at run time.")] = 5,
    check: Annotated[bool, typer.Option(help="Hold the result against autograd or finite differences.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False,
) -> None:
    """Writes an ONNX file that computes the scores and, beside them, what explains them: activations and gradients.

    SOURCE is one of

      torchvision:NAME, timm:NAME        a network of these libraries; give its --weights

      package.module:callable            a function of yours that returns a torch.nn.Module

      model.pt2                          a program saved by torch.export

      model.onnx                         an ONNX file from elsewhere; needs no torch

    [bold]Examples[/bold]

      gcpp-edge export torchvision:resnet50 --weights resnet50.pth --labels imagenet -o resnet50.explained.onnx

      gcpp-edge export net.onnx --input-size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 -o net.explained.onnx

      gcpp-edge export mine.networks:detector --layer backbone.block4 --guided -o detector.explained.onnx

    An existing file is replaced once the new one is complete. `gcpp-edge inspect SOURCE` lists the layers.
    """
    options = {
        "weights": weights,
        "layer": layer,
        "input_size": parse_size(input_size),
        "mean": parse_numbers("--mean", mean),
        "std": parse_numbers("--std", std),
        "pixel_max": pixel_max,
        "color": color,
        "geometry": geometry,
        "share": share,
        "fill": fill,
        "labels": labels,
        "guided": guided,
        "pixel_rule": pixel_rule,
        "ranks": ranks,
        "check": check,
    }
    report = _export(source, output, options)
    for note in report.notes:
        terminal.remark(f"note: {note}")
    if as_json:
        terminal.print_json(report_document(report))
    else:
        _print_report(report)


def _export(source: str, output: Path, options: dict[str, Any]) -> Report:
    from gcpp_edge.export import export_file

    with terminal.steps(terminal.remarks()) as begin:
        return export_file(source, output, progress=begin, **options)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "224" or "224x320"; SourceError for anything else."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise SourceError(f"--input-size: expected {INPUT_SIZE_HELP.rstrip('.')}, found {text!r}.")
    return int(sides[0]), int(sides[-1])


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """The numbers of "0.485,0.456,0.406"; SourceError for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise SourceError(f"{option}: expected numbers with commas between, found {text!r}.") from error


def report_document(report: Report) -> dict[str, Any]:
    """An export's report as one JSON document."""
    return {
        "path": report.path,
        "bytes": report.bytes,
        "seconds": report.seconds,
        "notes": report.notes,
        "contract": report.contract,
    }


def _print_report(report: Report) -> None:
    answers = terminal.answers()
    for each in contract_tables(report.contract):
        answers.print(each)
        answers.print()
    seconds = sum(report.seconds.values())
    terminal.print_file_line(answers, report.path, f"{terminal.size_text(report.bytes)}, made in {seconds:.1f} s")
    terminal.remark(f"next: gcpp-edge explain {report.path} PICTURES -o out")
