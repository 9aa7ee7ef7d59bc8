"""`gcpp-edge cache`: what is kept on this machine, and its removal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gcpp_edge.cli import terminal

OlderThan = Annotated[
    float, typer.Option(min=0, metavar="DAYS", help="Only what was written longer ago than this many days.")
]
_SECONDS_A_DAY = 86400


def list_cache(
    older_than: OlderThan = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False,
) -> None:
    """Lists TensorRT engines and levels cut out of models: what of, for which GPU, how large, how old.

    [bold]Examples[/bold]

      gcpp-edge cache list

      gcpp-edge cache list --older-than 30 --json
    """
    from gcpp_edge.level_cache import cache_folder

    rows = found(older_than)
    if as_json:
        terminal.print_json({"folder": cache_folder(), "files": rows})
        return
    answers = terminal.answers()
    total = sum(row["bytes"] for row in rows)
    terminal.print_file_line(
        answers,
        cache_folder(),
        f"{terminal.count_text(len(rows), 'entry', 'entries')}, {terminal.size_text(total)}",
    )
    if rows:
        columns = ("kind", "of", "level", "for", ">size", ">days", "file")
        answers.print(terminal.table("", columns, map(_cells, rows)))


def clear_cache(
    older_than: OlderThan = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False,
) -> None:
    """Removes TensorRT engines and cut levels; what is needed again is made again. Other files are left alone.

    [bold]Examples[/bold]

      gcpp-edge cache clear

      gcpp-edge cache clear --older-than 30
    """
    from gcpp_edge.level_cache import cache_folder

    rows = found(older_than)
    removed: list[Path] = []
    kept: list[Path] = []
    freed = 0
    for row in rows:
        size = _remove(row)
        freed += size
        (removed if size or not row["path"].exists() else kept).append(row["path"])
    if as_json:
        terminal.print_json({"folder": cache_folder(), "removed": removed, "kept": kept, "bytes": freed})
        return
    for path in kept:
        terminal.complain(terminal.remarks(), f"{path}: cannot be removed")
    said = f"{terminal.count_text(len(removed), 'file')} removed, {terminal.size_text(freed)} freed"
    terminal.print_file_line(terminal.answers(), cache_folder(), said)


def found(older_than: float = 0.0) -> list[dict[str, Any]]:
    """What is older than so many days: engines, then cut levels, then what belongs to engines."""
    from gcpp_edge.level_cache import cache_folder

    folder = cache_folder()
    rows = [*_engines(folder / "engines"), *_levels(folder), *_leftovers(folder)]
    return [row for row in rows if row["days"] >= older_than]


def _engines(folder: Path) -> Iterator[dict[str, Any]]:
    from gcpp_edge.engine_store import ENGINE, SIDECAR, entries

    known = {entry.path: entry for entry in entries(folder)}
    for path in sorted({*folder.glob(f"*{ENGINE}"), *known}):
        entry = known.get(path)
        row = _row("engine", path if path.exists() else path.with_suffix(SIDECAR))
        if row is None:
            continue
        if entry is not None:
            recipe = entry.recipe
            row |= {
                "of": entry.model_path,
                "level": recipe.level,
                "for": f"{recipe.gpu}, {recipe.flavour} {recipe.version}",
            }
        yield row


def _levels(folder: Path) -> Iterator[dict[str, Any]]:
    """Files that are named as model_at_level names them; the models of others are no concern of ours."""
    from gcpp_edge.contract import LEVELS

    for path in sorted(folder.glob("*.onnx")):
        parts = path.name.split(".")[0].split("-")
        row = _row("level", path)
        if row is not None and len(parts) == 3 and parts[1] in LEVELS:
            yield row | {"level": parts[1]}


def _leftovers(folder: Path) -> Iterator[dict[str, Any]]:
    """What a build measured, the digests of models, and files of writers that were interrupted."""
    from gcpp_edge.engine_store import DIGESTS, TIMINGS

    patterns = {"timings": f"engines/*{TIMINGS}", "digests": f"engines/{DIGESTS}", "unfinished": "**/*.part"}
    for kind, pattern in patterns.items():
        for path in sorted(folder.glob(pattern)):
            if (row := _row(kind, path)) is not None:
                yield row


def _row(kind: str, path: Path) -> dict[str, Any] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # removed meanwhile
    days = (time.time() - status.st_mtime) / _SECONDS_A_DAY
    named = {"of": "", "level": "", "for": ""}
    return {"kind": kind, **named, "bytes": status.st_size, "days": max(round(days, 3), 0.0), "path": path}


def _remove(row: dict[str, Any]) -> int:
    """Returns the bytes that became free."""
    from gcpp_edge.engine_store import remove

    if row["kind"] == "engine":
        return remove(row["path"])
    try:
        row["path"].unlink()
    except OSError:
        return 0
    return int(row["bytes"])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size, days = terminal.size_text(row["bytes"]), f"{row['days']:.1f}"
    return row["kind"], Path(row["of"]).name, row["level"], row["for"], size, days, row["path"].name


def cache_group() -> typer.Typer:
    """The two commands under their name."""
    group = typer.Typer(rich_markup_mode="rich", help=GROUP_HELP)
    group.command("list")(list_cache)
    group.command("clear")(clear_cache)
    return group


GROUP_HELP = """Shows or clears what is kept between runs: TensorRT engines, and levels cut out of models.

Both lie in $GCPP_EDGE_CACHE, else in the user's cache folder. Both commands have --json.

[bold]Examples[/bold]

  gcpp-edge cache list

  gcpp-edge cache clear --older-than 30
"""
