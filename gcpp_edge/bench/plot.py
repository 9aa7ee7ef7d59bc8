"""A picture of what was measured: where the times lie, and what they are made of. Needs matplotlib, an extra."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.bench.measure import Measured, median_rest
from gcpp_edge.bench.subject import REST, STAGES
from gcpp_edge.bench.summary import percentile
from gcpp_edge.contract import GUIDED, MAP, PLAIN
from gcpp_edge.errors import InputError, MissingDependencyError

COLORS = {PLAIN: "#5b6770", MAP: "#d1495b", GUIDED: "#edae49"}
STAGE_COLORS = {
    "copy in": "#9ecae1",
    "preprocess": "#4292c6",
    "network": "#5b6770",
    "cam": "#d1495b",
    "overlay": "#f28e5c",
    "guided": "#edae49",
    "copy out": "#a1d99b",
    "rest": "#d9d9d9",
}
SHOWN = 99.0  # per cent of the times; a single hiccup would push all others into a corner
BINS = 50
WIDE = 2.5  # times that lie farther apart than this stand on a logarithmic axis
WIDTH, ROW_HEIGHT, DOTS = 11.0, 3.6, 120  # inches, inches, dots an inch


def require_matplotlib() -> Any:
    """matplotlib, drawing to files; MissingDependencyError with the install line where it is missing."""
    try:
        matplotlib = import_module("matplotlib")
    except ImportError as error:
        raise MissingDependencyError(f"--plot needs matplotlib ({error}): pip install 'gcpp-edge[plot]'") from error
    matplotlib.use("Agg")
    return import_module("matplotlib.figure")


def save_plot(path: Path, measured: Sequence[Measured]) -> None:
    """A row a run: left its latencies, right its stages. The file appears whole or not at all."""
    figure = require_matplotlib().Figure(figsize=(WIDTH, ROW_HEIGHT * len(measured)), layout="constrained")
    rows = figure.subfigures(len(measured), 1, squeeze=False)[:, 0]
    for one, row in zip(measured, rows, strict=True):
        left, right = row.subplots(1, 2)
        row.suptitle(_title(one), fontsize=9, x=0.01, ha="left", fontweight="bold")
        _draw_latencies(left, one)
        _draw_stages(right, one)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(partial, format="png", dpi=DOTS)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}).") from error
    finally:
        partial.unlink(missing_ok=True)


def _draw_latencies(axes: Any, one: Measured) -> None:
    """A histogram a level, on one axis, with its median and its 99th percentile."""
    series = one.samples.ms
    edges = _edges([value for values in series.values() for value in values])
    if edges[-1] > WIDE * edges[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="both", labelsize=8)
    for level, values in series.items():
        median, tail = one.levels[level].total.median, percentile(values, SHOWN)
        label = f"{level}: median {median:.3g} ms, p99 {tail:.3g} ms"
        axes.hist(values, bins=edges, color=COLORS[level], alpha=0.6, label=label)
        axes.axvline(median, color=COLORS[level], linewidth=1.4)
        axes.axvline(tail, color=COLORS[level], linewidth=1.2, linestyle=":")
    axes.set_xlabel("ms a call (solid: median, dotted: p99)")
    axes.set_ylabel(f"of {one.samples.rounds} calls")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    _plain_frame(axes)


def _edges(values: list[float]) -> NDArray[np.float64]:
    """Of the bins: even ones, or growing ones where the times lie far apart."""
    low, high = min(values), percentile(values, SHOWN) * 1.02
    return (np.geomspace if high > WIDE * low else np.linspace)(low * 0.98, high, BINS + 1)


def _draw_stages(axes: Any, one: Measured) -> None:
    """A bar a level, out of the medians of its stages."""
    levels = list(one.levels)
    lefts = dict.fromkeys(levels, 0.0)
    for stage in STAGES:
        widths = [_stage_ms(one, level, stage) for level in levels]
        if any(widths):
            axes.barh(levels, widths, left=[lefts[level] for level in levels], color=STAGE_COLORS[stage], label=stage)
        for level, width in zip(levels, widths, strict=True):
            lefts[level] += width
    for level in levels:
        ratios = one.cost.get(level)
        text = f"  {one.levels[level].total.median:.3g} ms" + (f", {ratios['total'].value:.3f} x" if ratios else "")
        axes.text(lefts[level], level, text, va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(lefts.values()))
    axes.set_xlabel("ms a call, medians" + (" on the GPU, each stage by itself" if one.apart else ""))
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    _plain_frame(axes)


def _stage_ms(one: Measured, level: str, stage: str) -> float:
    found = one.levels[level]
    if stage == REST:
        return max(median_rest(found), 0.0) if found.stages else found.total.median
    return found.stages[stage].median if stage in found.stages else 0.0


def _title(one: Measured) -> str:
    width, height = one.about["frame"]
    return f"{one.about['model']}: {one.about['runtime']}, frame {width} x {height}, batch {one.about['batch']}"


def _plain_frame(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
