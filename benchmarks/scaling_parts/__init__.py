"""The slope of a series, the picture of all of them, and the page that shows it; nothing here measures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PICTURE = DOCS / "scaling.md", DOCS / "scaling.png"
MARKED = re.compile(r"(<!-- scaling -->\n).*?(<!-- end -->)", re.DOTALL)
_COLOURS = ("#8a8a8a", "#2a7f62", "#b8403a", "#3060a0")


def slope(ms: Mapping[int, float], fitted_from: int = 0) -> float | None:
    """Of the straight line through the logarithms; None for fewer than two points, or times that are not positive."""
    points = [(x, value) for x, value in ms.items() if x >= fitted_from and value > 0]
    if len(points) < 2 or len(points) < sum(x >= fitted_from for x in ms):
        return None
    x, y = np.log(np.array(points)).T
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def with_table(page: str, result: dict[str, Any]) -> str:
    """The page with the table between its marks written anew."""
    return MARKED.sub(lambda match: f"{match[1]}{table(result)}\n{match[2]}", page)


def table(result: dict[str, Any]) -> str:
    """A row a series: from where to where it runs, and its slope."""
    rows = [["time of", "against", "from", "to", "slope", "in proportion"], ["---"] * 6]
    for figure in result["figures"].values():
        for name, series in figure["series"].items():
            x, ms = series["x"], series["ms"]
            ends = [f"{x[end]:,}: {_milliseconds(ms[end])}" for end in (0, -1)]
            found = "–" if series["slope"] is None else f"{series['slope']:.2f}"
            rows.append([f"{figure['title']}: {name}", figure["x_label"], *ends, found, str(figure["expected"])])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _milliseconds(ms: float) -> str:
    return f"{ms:.1f} ms" if ms >= 1 else f"{1e3 * ms:.0f} µs"


def draw(result: dict[str, Any], path: Path) -> None:
    """A panel a figure, both axes logarithmic; dashed: in proportion, through the last point of the first series."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figures = list(result["figures"].values())
    columns = 3
    sheet, plots = plt.subplots(-(-len(figures) // columns), columns, figsize=(13, 7.4), squeeze=False)
    for plot, figure in zip(plots.flat, figures, strict=False):
        _panel(plot, figure)
    for plot in plots.flat[len(figures) :]:
        plot.set_visible(False)
    sheet.tight_layout()
    sheet.savefig(path, dpi=110)
    plt.close(sheet)


def _panel(plot: Any, figure: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    xs = sorted({x for series in figure["series"].values() for x in series["x"]})
    for color, (name, series) in zip(_COLOURS, figure["series"].items(), strict=False):
        found = "" if series["slope"] is None else f", slope {series['slope']:.2f}"
        ms = [value if value > 0 else float("nan") for value in series["ms"]]  # lost in the noise of the difference
        plot.plot(series["x"], ms, "o-", color=color, label=name + found, markersize=4)
    for number, series in enumerate(figure["series"].values()):
        end = -1 if figure["expected"] > 0 else 0
        if series["slope"] is None:
            continue
        line = [series["ms"][end] * (x / series["x"][end]) ** figure["expected"] for x in series["x"]]
        label = "" if number else f"in proportion, slope {figure['expected']}"
        plot.plot(series["x"], line, "--", color="#000000", alpha=0.35, linewidth=1, label=label)
    plot.set(xscale="log", yscale="log", xlabel=figure["x_label"], ylabel="ms")
    plot.set_title(figure["title"], fontsize=10)
    plot.set_xticks(xs, [f"{x:,}" for x in xs], fontsize=8)
    plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (plot.xaxis, plot.yaxis):
        axis.set_minor_locator(NullLocator())
    plot.grid(alpha=0.2)
    plot.legend(fontsize=8, frameon=False)
    plot.spines[["top", "right"]].set_visible(False)
