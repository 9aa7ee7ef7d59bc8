"""The commands, put together. Adding one: write its file with a function of its name, add that to COMMANDS."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Annotated

import typer

COMMANDS = ("export", "explain", "stream", "inspect", "bench", "build", "demo", "doctor")  # in the order of --help
GROUPS = ("cache",)  # commands of several words: their files have NAME_group


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


def application(command: str = "") -> typer.Typer:
    """The command line as typer runs it: with this command alone, or with all where there is none of that name.

    The files of the others are not imported then, which is a tenth of what `explain` takes for one picture.
    """
    wanted = {command} if command in COMMANDS + GROUPS else {*COMMANDS, *GROUPS}
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.callback()(_gcpp_edge)
    for name in COMMANDS:
        if name in wanted:
            app.command()(getattr(import_module(f"gcpp_edge.cli.{name}"), name))
    for name in GROUPS:
        if name in wanted:
            app.add_typer(getattr(import_module(f"gcpp_edge.cli.{name}"), f"{name}_group")(), name=name)
    return app
