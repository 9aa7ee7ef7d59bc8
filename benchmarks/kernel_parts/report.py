"""Results of benchmarks/kernels.py as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME_WIDTH = 58


def print_table(results: list[dict[str, Any]], threads: int, head: bool) -> None:
    """Times in ms, then of the best kernel its share of the limit, warm and cold, its speedup, and OpenCV over it."""
    for result in results:
        best, ms = result["best"], result["ms"]
        isas = [isa for isa in result["share"] if isa != "numpy"]
        if head:
            print(f"{'':{NAME_WIDTH}} {'MB':>5} {'limit':>7} " + " ".join(f"{isa:>10}" for isa in isas), end="")
            print(f"   GB/s share  cold  x {threads} thr.  OpenCV on 1, {threads}")
        moved = (result["read"] + result["written"]) / 1e6
        times = " ".join(f"{ms[isa]:10.4f}" for isa in isas)
        ratios = " ".join(f"{ratio:6.1f}x" for ratio in result["ratio"].values())
        print(
            f"{result['name']:{NAME_WIDTH}} {moved:5.1f} {ms['limit']:7.4f} {times} "
            f"{result['gigabytes_per_second'][best]:6.0f} {result['share'][best]:5.2f} {result['cold_share']:5.2f} "
            f"{result['speedup'][best]:9.2f}  {ratios}",
            flush=True,
        )


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """A bar a case and instruction set: its share of the speed of memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    isas = [isa for isa in results[0]["share"] if isa != "numpy"]
    figure, axes = pyplot.subplots(figsize=(10, 0.35 * len(results) + 1))
    for index, isa in enumerate(isas):
        shares = [result["share"][isa] for result in results]
        axes.barh([row + 0.8 * index / len(isas) for row in range(len(results))], shares, 0.8 / len(isas), label=isa)
    axes.set_yticks([row + 0.4 - 0.4 / len(isas) for row in range(len(results))], [r["name"] for r in results], size=7)
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set_xlabel("share of the speed at which memory is streamed (in cache)")
    axes.invert_yaxis()
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
