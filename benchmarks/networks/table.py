"""The rows of the zoo: one JSON document a line, and a table to read that is written from them."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from pathlib import Path
from typing import Any

Row = dict[str, Any]
GROUPS = {
    "torchvision": "torchvision, classification",
    "torchvision-video": "torchvision, video classification",
    "torchvision-segmentation": "torchvision, segmentation",
    "timm": "timm, the smallest member of each family",
}
HEADER = (
    "| network | input | operators | layer | activations | gradients | guided | export s | verdict |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def read(path: Path) -> dict[str, Row]:
    """Rows by network."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return {row["network"]: row for row in map(json.loads, lines)}


def store(path: Path, row: Row) -> dict[str, Row]:
    """Puts a row in, in place of an older one of that network, and returns all. Several processes may do so at once."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        rows = read(path) | {row["network"]: row}
        file.truncate(0)
        file.write("".join(json.dumps(rows[name]) + "\n" for name in sorted(rows)))
    return rows


def write_page(rows: dict[str, Row], path: Path, about: str) -> None:
    """The readable table."""
    parts = [f"# Networks of others\n\n{about}\n"]
    for group, title in GROUPS.items():
        members = [row for name, row in rows.items() if name.partition(":")[0] == group]
        if members:
            holding = sum(row["verdict"] == "holds" for row in members)
            parts.append(f"## {title}: {holding} of {len(members)} hold\n\n{HEADER}{''.join(map(_line, members))}")
    missing = [row for row in rows.values() if row["verdict"] != "holds"]
    if missing:
        reasons = "".join(f"* `{row['network']}` {row['verdict']}: {row.get('reason', '')}\n" for row in missing)
        parts.append(f"## What does not hold, and why\n\n{reasons}")
    parts.append(f"## Operators\n\nHow many of these networks have each: {_operators(rows)}.\n")
    path.write_text("\n".join(parts), "utf-8")


def _line(row: Row) -> str:
    size = "x".join(map(str, row["input"][1:])) if "input" in row else ""
    figures = [_figure(row, key) for key in ("activations", "gradients", "guided")]
    seconds = f"{row['export_seconds'] + row['bake_seconds']:.1f}" if "bake_seconds" in row else ""
    name = row["network"].partition(":")[2]
    cells = (name, size, str(len(row.get("operators", []))), row.get("layer", ""), *figures, seconds, row["verdict"])
    return f"| {' | '.join(cells)} |\n"


def _figure(row: Row, key: str) -> str:
    """The largest relative error in float32, and behind a slash the one in float64 where that decided."""
    if key not in row:
        return ""
    exact = f" / {row['float64'][key]:.0e}" if "float64" in row else ""
    return f"{row[key]['largest']:.1e}{exact}"


def _operators(rows: dict[str, Row]) -> str:
    counts = Counter(operator for row in rows.values() for operator in row.get("operators", []))
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered)
