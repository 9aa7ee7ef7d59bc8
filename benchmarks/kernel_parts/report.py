"""Results of benchmarks/kernels.py as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME_WIDTH = 58


def print_table(results: list[dict[str, Any]], threads: int, head: bool) -> None:
    """Times in ms; `x` is how many times as long OpenCV takes as the best kernel."""
    for result in results:
        isas = [isa for isa in result["share"] if isa != "numpy"]
        if head:
            print(f"{'':{NAME_WIDTH}} {'MB':>5} {'limit':>7} " + " ".join(f"{isa:>8}" for isa in isas), end="")
            print(f" {'share':>5} {'cold':>5} {'GB/s':>5} {'opencv':>7} {f'{threads} thr.':>7}")
        times = " ".join(f"{result['ms'][isa]:8.4f}" for isa in isas)
        ratios = [result["ratio"].get(name) for name in ("opencv", "opencv, threads")]
        print(
            f"{result['name']:{NAME_WIDTH}} {(result['read'] + result['written']) / 1e6:5.1f} "
            f"{result['ms']['limit']:7.4f} "
            f"{times} {result['share'][result['best']]:5.2f} {result['cold_share']:5.2f} "
            f"{result['gigabytes_per_second'][result['best']]:5.0f} "
            + " ".join(f"{ratio:6.1f}x" if ratio else f"{'':7}" for ratio in ratios),
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
