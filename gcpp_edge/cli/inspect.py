"""`gcpp-edge inspect`: what an explained model holds, or which layers a network could be explained at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcpp_edge.cli import terminal
from gcpp_edge.cli.describe import contract_tables
from gcpp_edge.cli.export import (
    INPUT_SIZE_HELP,
    SCORES_OUTPUT_HELP,
    SOURCE_HELP,
    TARGET_HELP,
    TOKEN_GRID_HELP,
    WEIGHTS_HELP,
    parse_size,
    target_options,
)
from gcpp_edge.contract import CLASS
from gcpp_edge.errors import NotExplainedError

if TYPE_CHECKING:
    from gcpp_edge.export import Coverage, LayerCandidate
    from gcpp_edge.model_file import ModelFile


def inspect(
    source: Annotated[str, typer.Argument(help=f"An explained model, or {SOURCE_HELP}")],
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    input_size: Annotated[str | None, typer.Option(help=INPUT_SIZE_HELP)] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Whether a network can be explained, and what blocks it.")
    ] = False,
    layer: Annotated[list[str] | None, typer.Option(help="With --coverage: the layer, else the default.")] = None,
    target: Annotated[str, typer.Option(help=TARGET_HELP)] = CLASS,
    scores_output: Annotated[str | None, typer.Option(help=SCORES_OUTPUT_HELP)] = None,
    token_grid: Annotated[str | None, typer.Option(help=TOKEN_GRID_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False,
) -> None:
    """Says what an explained model holds, or which layers a network can be explained at.

    Of an explained model: layer, levels, memory, preprocessing, classes and self-check. Of any other network: the
    layers that `gcpp-edge export --layer` takes, with the default marked; or, with --coverage, its operators and
    whether both levels can be exported.

    [bold]Examples[/bold]

      gcpp-edge inspect resnet50.explained.onnx

      gcpp-edge inspect torchvision:resnet50

      gcpp-edge inspect timm:convnext_atto --coverage

      gcpp-edge inspect net.onnx --json
    """
    file = _explained(source)
    if file is not None:
        _show_contract(file, as_json)
        return
    from gcpp_edge.export import inspect_coverage, list_layers

    options: dict[str, Any] = {
        "weights": weights,
        "input_size": parse_size(input_size),
        "target": target_options(target, scores_output=scores_output),
        "token_grid": parse_size(token_grid, "--token-grid"),
    }
    if coverage:
        found = inspect_coverage(source, layer=layer or None, **options)
        _show_coverage(source, found, as_json)
        return
    layers = list_layers(source, **options)
    _show_layers(source, layers, as_json)


def _explained(source: str) -> ModelFile | None:
    """The explained model that the source names, or None where it names another network."""
    from gcpp_edge.model_file import read_model_file

    path = Path(source)
    # a missing .onnx file is said to be missing; any other word may name a network
    if path.suffix.lower() == ".pt2" or not (path.is_file() or path.suffix.lower() == ".onnx"):
        return None
    try:
        return read_model_file(source)
    except NotExplainedError:
        return None


def _show_contract(file: ModelFile, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"path": file.path, "bytes": file.bytes, "contract": file.contract})
        return
    answers = terminal.answers()
    terminal.print_file_line(answers, file.path, f"{terminal.size_text(file.bytes)}\n")
    for each in contract_tables(file.contract):
        answers.print(each)
        answers.print()


def _show_layers(source: str, layers: list[LayerCandidate], as_json: bool) -> None:
    if as_json:
        terminal.print_json({"source": source, "layers": layers})
        return
    title = f"layers of {source}, from input to scores"
    terminal.answers().print(terminal.table(title, COLUMNS, map(_row, layers)))
    terminal.remark("The default is marked with *; another one: gcpp-edge export ... --layer NAME")


def _show_coverage(source: str, found: Coverage, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"source": source, "coverage": found})
        return
    answers = terminal.answers()
    rows = ((entry.operator, str(entry.count), entry.state) for entry in found.operators)
    answers.print(terminal.table(f"operators of {source}", ("operator", ">nodes", "differentiated by"), rows))
    for level, blocked in (("map", found.map), ("guided", found.guided)):
        answers.print(f"{level} level at layer {found.layer}: {blocked or 'can be exported'}", markup=False)


COLUMNS = ("", "layer", ">channels", ">space", "operator", "gradients", "tensor")


def _row(layer: LayerCandidate) -> tuple[str, ...]:
    return (
        "*" if layer.default else "",
        layer.name,
        str(layer.channels),
        " x ".join(map(str, layer.space)),
        layer.operator,
        "constant" if layer.constant else "",
        layer.tensor,
    )
