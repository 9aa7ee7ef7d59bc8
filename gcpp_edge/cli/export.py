"""`gcpp-edge export`: a trained network in, an explained ONNX file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcpp_edge.cli import terminal
from gcpp_edge.cli.describe import contract_tables
from gcpp_edge.contract import CLASS, CLASSES, DETECTION, REGION, SEED, FrameInput
from gcpp_edge.errors import SourceError
from gcpp_edge.pictures import find_pictures, read_picture

if TYPE_CHECKING:
    from rich.table import Table

    from gcpp_edge.export import Report
    from gcpp_edge.export.lowering import Lowerings
    from gcpp_edge.export.scores import TargetOptions

SOURCE_HELP = "torchvision:NAME, timm:NAME, package.module:callable, a .pt2 or an .onnx file."
WEIGHTS_HELP = "State dict of the network (.pth), read with weights_only=True."
INPUT_SIZE_HELP = "224, or 224x320 for height x width."
FRAME_INPUT_HELP = (
    "Take uint8 frames of one size, 720x1280 or 720x1280:rgb (bgr if not said), preprocessing in the graph."
)
TOKEN_GRID_HELP = "Grid of a transformer's tokens, 14x14 for height x width, where it is not recognised."
SCORES_OUTPUT_HELP = "The output that holds the scores, where it is not the first that fits."
OFFERED = (CLASS, REGION, DETECTION, SEED)
TARGET_HELP = (
    "What is explained: class (of the picture), region (a class over a part of a segmentation), detection (a class of "
    "one of many detections) or seed (the caller's own gradient)."
)


def export(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The explained model to write.")],
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer to explain, by module path or tensor. Several times: their maps are fused.",
            show_default="last features",
        ),
    ] = None,
    token_grid: Annotated[str | None, typer.Option(help=TOKEN_GRID_HELP)] = None,
    input_size: Annotated[str | None, typer.Option(help=INPUT_SIZE_HELP)] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of each channel, comma between, in --color's order.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of each channel, likewise.")] = None,
    pixel_max: Annotated[
        float | None, typer.Option(help="What the brightest pixel is before mean and std: 1 or 255.")
    ] = None,
    frame_input: Annotated[str | None, typer.Option(help=FRAME_INPUT_HELP)] = None,
    color: Annotated[str | None, typer.Option(help="Channels of the input: rgb, bgr, gray, rgba or bgra.")] = None,
    geometry: Annotated[str | None, typer.Option(help="Frame to input: stretch, crop or letterbox.")] = None,
    share: Annotated[float | None, typer.Option(help="With crop: input size / resized short side (0.875).")] = None,
    fill: Annotated[float | None, typer.Option(help="With letterbox: the pixel value around the frame.")] = None,
    labels: Annotated[str | None, typer.Option(help="File with one class name a line, or the word imagenet.")] = None,
    guided: Annotated[bool, typer.Option("--guided", help="Add the level with the pixel-space image.")] = False,
    pixel_rule: Annotated[str, typer.Option(help="How that image is made: guided, deconvnet or gradient.")] = "guided",
    softmax: Annotated[
        bool, typer.Option("--softmax", help="Add the channel weights of the method gradcam++-softmax.")
    ] = False,
    softmax_classes: Annotated[
        int, typer.Option(min=1, help="With --softmax, away from pooling + linear: how many other classes it counts.")
    ] = 10,
    method: Annotated[str, typer.Option(help="The file's method, where none is asked for at run time.")] = "gradcam++",
    portable: Annotated[
        bool,
        typer.Option(
            "--portable", help="Compute that method's heatmap in the graph too, for runtimes without kernels."
        ),
    ] = False,
    tuned_for: Annotated[
        str, typer.Option(help="Form of the backward pass, the same numbers: cpu, or gpu for TensorRT.")
    ] = "cpu",
    ranks: Annotated[int, typer.Option(min=1, help="How many ranks can be asked for at run time.")] = 5,
    target: Annotated[str, typer.Option(help=TARGET_HELP)] = CLASS,
    top_k: Annotated[int | None, typer.Option(min=1, help="Explain K classes from one forward pass.")] = None,
    scores_output: Annotated[str | None, typer.Option(help=SCORES_OUTPUT_HELP)] = None,
    seed_output: Annotated[
        str | None, typer.Option(help="The caller gives the gradient at this output (--target seed).")
    ] = None,
    class_axis: Annotated[
        int | None, typer.Option(help="Of detections: the axis of the classes, 1 or 2.", show_default="the shorter one")
    ] = None,
    first_class: Annotated[int, typer.Option(min=0, help="Of detections: entries before the classes (4 boxes).")] = 0,
    class_count: Annotated[
        int | None, typer.Option(min=1, help="Of detections: how many classes.", show_default="the rest")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp16 or bf16: network and backward pass.", show_default="the source's")
    ] = None,
    fidelity: Annotated[
        list[str] | None,
        typer.Option(help="Pictures (file, folder, pattern; several times) to calibrate and compare --precision on."),
    ] = None,
    check: Annotated[bool, typer.Option(help="Hold the result against autograd or finite differences.")] = True,
    external_data: Annotated[
        bool, typer.Option("--external-data", help="Weights in a file beside the model's, as above 2 GB.")
    ] = False,
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

      gcpp-edge export mine.networks:faces --layer backbone.block3 --layer backbone.block4 -o faces.explained.onnx

      gcpp-edge export net.onnx --precision fp16 --fidelity pictures/ -o net.fp16.onnx

      gcpp-edge export segmenter.onnx --target region -o segmenter.explained.onnx

      gcpp-edge export yolo.onnx --target detection --first-class 4 -o yolo.explained.onnx

    An existing file is replaced once the new one is complete. Above 2 GB the weights go into NAME.onnx.data: keep the
    two together. `gcpp-edge inspect SOURCE` lists the layers.
    """
    options = {
        "weights": weights,
        "layer": layer or None,
        "token_grid": parse_size(token_grid, "--token-grid"),
        "target": target_options(
            target, top_k, scores_output, seed_output, ranks, class_axis, first_class, class_count or 0
        ),
        "input_size": parse_size(input_size),
        "mean": parse_numbers("--mean", mean),
        "std": parse_numbers("--std", std),
        "pixel_max": pixel_max,
        "frame_input": parse_frame_input(frame_input),
        "color": color,
        "geometry": geometry,
        "share": share,
        "fill": fill,
        "labels": labels,
        "guided": guided,
        "pixel_rule": pixel_rule,
        "precision": precision,
        "pictures": read_pictures(fidelity or [], precision),
        "lowerings": _lowerings(tuned_for),
        "method": method,
        "portable": method if portable else None,
        "softmax": softmax,
        "softmax_classes": softmax_classes,
        "check": check,
        "external_data": external_data,
    }
    report = _export(source, output, options)
    for note in report.notes:
        terminal.remark(f"note: {note}")
    if as_json:
        terminal.print_json(report_document(report))
    else:
        _print_report(report)


def read_pictures(arguments: list[str], precision: str | None) -> list[tuple[str, Any]]:
    """The names and frames of the pictures that half precision is compared on; SourceError without --precision."""
    if arguments and precision is None:
        raise SourceError("--fidelity goes with --precision: the source's own is what it would be compared with.")
    return [(path.name, read_picture(path)) for path in find_pictures(arguments)]


def _lowerings(device: str) -> Lowerings:
    from gcpp_edge.export.lowering import lowerings_for

    return lowerings_for(device)


def _export(source: str, output: Path, options: dict[str, Any]) -> Report:
    from gcpp_edge.export import export_file

    with terminal.steps(terminal.remarks()) as begin:
        return export_file(source, output, progress=begin, **options)


def target_options(
    kind: str,
    top_k: int | None = None,
    scores_output: str | None = None,
    seed_output: str | None = None,
    ranks: int = 5,
    class_axis: int | None = None,
    first_class: int = 0,
    class_count: int = 0,
) -> TargetOptions:
    """What the options say is explained; SourceError where they contradict each other."""
    from gcpp_edge.export.scores import TargetOptions

    if seed_output is not None:
        if kind not in (CLASS, SEED) or scores_output is not None:
            raise SourceError("--seed-output goes with --target seed alone, and names its output.")
        kind, scores_output = SEED, seed_output
    if kind not in OFFERED:
        raise SourceError(f'--target "{kind}": expected one of {", ".join(OFFERED)}.')
    if top_k is not None:
        if kind != CLASS:
            raise SourceError(f"--top-k goes with --target class, not {kind}.")
        kind, ranks = CLASSES, max(ranks, top_k)
    if kind != DETECTION and (class_axis is not None or first_class or class_count):
        raise SourceError("--class-axis, --first-class and --class-count go with --target detection.")
    return TargetOptions(kind, top_k or 1, scores_output, ranks, class_axis, first_class, class_count)


def parse_size(text: str | None, option: str = "--input-size") -> tuple[int, int] | None:
    """(height, width) of "224" or "224x320"; SourceError for anything else."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise SourceError(f"{option}: expected {INPUT_SIZE_HELP.rstrip('.')}, found {text!r}.")
    return int(sides[0]), int(sides[-1])


def parse_frame_input(text: str | None) -> FrameInput | None:
    """The frames of "720x1280:rgb"; SourceError for anything else."""
    if text is None:
        return None
    size, _, form = text.partition(":")
    height, width = parse_size(size, "--frame-input") or (0, 0)
    return FrameInput(height, width, form.strip() or "bgr")


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
        "files": report.files,
        "seconds": report.seconds,
        "notes": report.notes,
        "contract": report.contract,
        "fidelity": report.fidelity,
    }


def _print_report(report: Report) -> None:
    answers = terminal.answers()
    for each in contract_tables(report.contract):
        answers.print(each)
        answers.print()
    if report.fidelity:
        answers.print(_fidelity_table(report))
        answers.print()
    seconds = sum(report.seconds.values())
    for file in report.files:
        made = f", made in {seconds:.1f} s" if file.path == report.path else ", its weights: keep the two together"
        terminal.print_file_line(answers, file.path, f"{terminal.size_text(file.bytes)}{made}")
    terminal.remark(f"next: gcpp-edge explain {report.path} PICTURES -o out")


def _fidelity_table(report: Report) -> Table:
    """A row a picture, and what holds for all of them."""
    columns = ("picture", ">map correlation", ">largest difference", ">largest change of a probability", "best class")
    found = report.fidelity
    rows = [
        (
            one.picture,
            f"{one.correlation:.6f}",
            f"{one.difference:.4f}",
            f"{one.probability:.4f}",
            _same(one.same_class),
        )
        for one in found
    ]
    worst = min(one.correlation for one in found), max(one.difference for one in found)
    change, same = max(one.probability for one in found), sum(one.same_class for one in found)
    rows.append(("worst", f"{worst[0]:.6f}", f"{worst[1]:.4f}", f"{change:.4f}", f"same in {same} of {len(found)}"))
    return terminal.table("half precision beside float32", columns, rows)


def _same(same: bool) -> str:
    return "same" if same else "another"
