"""The commands, put together. Adding one: write its file, add it to COMMANDS."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from gcpp_edge.cli.bench import bench
from gcpp_edge.cli.build import build
from gcpp_edge.cli.cache import cache_group
from gcpp_edge.cli.demo import demo
from gcpp_edge.cli.doctor import doctor
from gcpp_edge.cli.explain import explain
from gcpp_edge.cli.export import export
from gcpp_edge.cli.inspect import inspect

COMMANDS = (export, explain, inspect, bench, build, demo, doctor)  # in the order of --help
GROUPS = {"cache": cache_group}  # commands of several words


def _print_version(asked: bool) -> None:
    if asked:
        print(metadata.version("gcpp-edge"))
        raise typer.Exit


def _gcpp_edge(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Grad-CAM++ beside the network: where did it look? Start with [bold]gcpp-edge demo[/bold]."""


def application() -> typer.Typer:
    """The command line as typer runs it."""
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.callback()(_gcpp_edge)
    for command in COMMANDS:
        app.command()(command)
    for name, group in GROUPS.items():
        app.add_typer(group(), name=name)
    return app
