"""How commands speak: tables and JSON on standard output, progress and complaints on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from os import PathLike
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

Thing = TypeVar("Thing")

JSON_HELP = "Print one JSON document instead of tables."

_UNITS = ("bytes", "KiB", "MiB", "GiB")


def answers() -> Console:
    """Where the answer goes: standard output, at full width when it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=not sys.stdout.isatty())


def remarks() -> Console:
    """Where progress and complaints go: standard error."""
    return Console(stderr=True, highlight=False)


def remark(message: str) -> None:
    """One line on standard error that is no complaint."""
    remarks().print(Text(message), soft_wrap=True)


def complain(console: Console, message: str) -> None:
    """One line about something that could not be used, while the rest goes on."""
    console.print(Text("gcpp-edge: " + " ".join(message.split())), soft_wrap=True)


def print_json(document: Any) -> None:
    """The document as JSON on standard output. Dataclasses become objects, paths strings."""
    print(json.dumps(document, default=_plain, ensure_ascii=False, indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, PathLike):
        return str(value)
    if hasattr(value, "item"):
        return value.item()  # a NumPy scalar
    raise TypeError(f"{type(value).__name__} has no JSON form")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table; a column whose name begins with `>` is set flush right: ">ms"."""
    made = Table(
        title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def facts(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """A table of names and values without a header."""
    made = Table(
        title=title or None, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False
    )
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(Text(name), Text(value))
    return made


def size_text(count: float) -> str:
    """A count of bytes for people: "17.8 MiB"."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == _UNITS[0] else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def print_file_line(console: Console, path: PathLike[str], rest: str) -> None:
    """The path, set off, and what there is to say of the file; a path is never taken for markup."""
    console.print(Text.assemble((str(path), "bold"), f"  {rest}"), soft_wrap=True)


def count_text(count: int, thing: str, things: str = "") -> str:
    """ "1 file", "3 files"; things: where an s does not do."""
    return f"{count} {thing}" if count == 1 else f"{count} {things or f'{thing}s'}"


def number_text(value: float) -> str:
    """Three digits that count, without an exponent for everyday sizes: "0.0123", "12.3", "23400"."""
    return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= 1e7 else f"{value:.0f}"


@contextmanager
def steps(console: Console) -> Iterator[Callable[[str], None]]:
    """A spinner that names the step at work, and a line for each finished one; silent where nobody watches."""
    if not console.is_terminal:
        yield lambda name: None
        return
    began: list[tuple[str, float]] = []

    def finish() -> None:
        for name, start in began:
            console.print(f"  {escape(name)} [dim]{time.perf_counter() - start:.1f} s[/dim]")
        began.clear()

    with console.status("starting") as status:

        def begin(name: str) -> None:
            finish()
            began.append((name, time.perf_counter()))
            status.update(escape(name))

        yield begin
        finish()


@contextmanager
def progress_bar(console: Console, task: str) -> Iterator[Callable[[Sequence[Thing]], Iterable[Thing]]]:
    """Gives a function to go through things with: under a bar that vanishes at the end, silent where nobody watches."""
    if not console.is_terminal:
        yield iter
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield lambda things: progress.track(things, description=task)
