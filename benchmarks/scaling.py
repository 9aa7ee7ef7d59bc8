"""How time grows with batch, resolution, classes, channels and threads, and how it should.

    python benchmarks/scaling.py [--rounds 15] [--output FILE]
    python benchmarks/scaling.py --draw     # measures nothing: the picture and the page from the saved result

Each series runs turn by turn in one process, with spinning off, one thread but for the series of threads. `slope` is
that of a straight line through the logarithms, over the points from `fitted_from` on: smaller ones show what a call
costs by itself. `expected` is what the work says: 1 where it grows in proportion, -1 for threads that share it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from common import RESULTS, interleaved_medians, network, parser_of, run_of, save
from scaling_parts import PAGE, PICTURE, draw, slope, with_table

import gcpp_edge
from gcpp_edge.contract import CLASSES, LEVELS, MAP, PLAIN, Preprocessing
from gcpp_edge.export import explain_module
from gcpp_edge.export.scores import TargetOptions
from gcpp_edge.kernels import table

BATCHES = (1, 2, 4, 8, 16)
SIDES = (96, 128, 192, 256, 384)
COUNTS = (1, 2, 4, 8, 16)
CHANNELS = (32, 128, 512, 2048, 8192)
GRIDS = ((7, 7), (28, 28))
FEW = 3  # rounds of the large ones are this many times fewer
Runs = dict[str, Callable[[], object]]


def main() -> None:
    parser = parser_of(__doc__, "scaling", rounds=15)
    parser.add_argument("--draw", action="store_true", help="only draw the saved result, and write its page")
    options = parser.parse_args()
    if not options.draw:
        figures = {}
        for measure in (by_batch, by_resolution, by_classes, by_channels, by_threads):
            name = measure.__name__.removeprefix("by_")
            figures[name] = measure(options.rounds)
            for series, row in figures[name]["series"].items():
                print(f"{name}, {series}: slope {row['slope']}, expected {figures[name]['expected']}", flush=True)
        save(options, "scaling", {"what": "medians of milliseconds, ONNX Runtime CPU", "figures": figures})
    if options.draw or options.output == RESULTS / "scaling.json":
        result = json.loads(options.output.read_text("utf-8"))
        draw(result, PICTURE)
        PAGE.write_text(with_table(PAGE.read_text("utf-8"), result), encoding="utf-8")


def by_batch(rounds: int) -> dict[str, Any]:
    """Frames in one call."""
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder, gcpp_edge.load(saved(folder, lite0(224)), threads=1) as explainer:
        runs: dict[tuple[str, int], Callable[[], object]] = {}
        for count in BATCHES:
            frames = [frame] * count
            runs["plain", count] = lambda frames=frames: explainer.scores(frames)
            runs["map", count] = lambda frames=frames: explainer(frames)
        return figure("EfficientNet-Lite0, frames in one call", "frames", 1, runs, rounds)


def by_resolution(rounds: int) -> dict[str, Any]:
    """Pixels of the network's input."""
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    for side in SIDES:
        for level, run in level_runs(lite0(side), LEVELS).items():
            runs[level, side * side] = run
    return figure("EfficientNet-Lite0, 96² to 384² input", "pixels of the input", 1, runs, rounds)


def by_classes(rounds: int) -> dict[str, Any]:
    """Classes from one forward pass, behind a layer with a block of convolutions after it: what they add to plain."""
    example, module = torch.randn(2, 3, 224, 224), network("resnet18")
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    for count in COUNTS:
        target = TargetOptions(kind=CLASSES, count=count, ranks=max(5, count))
        for layer in ("layer3", "layer4"):
            model = explain_module(module, example, layer=layer, target=target, check=False)
            runs[layer, count] = level_runs(model, [MAP], count)[MAP]
    runs["plain", 1] = level_runs(model, [PLAIN])[PLAIN]
    return figure("ResNet-18, K classes from one pass, beyond plain", "classes", 1, runs, rounds, beyond="plain")


def by_channels(rounds: int) -> dict[str, Any]:
    """Channels of the cam kernel, gradients of each position."""
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    for height, width in GRIDS:
        for channels in CHANNELS:
            runs[f"{height} x {width}", channels] = cam(channels, height, width)
    return figure("the cam kernel alone", "channels", 1, runs, 8 * rounds, fitted_from=512)


def by_threads(rounds: int) -> dict[str, Any]:
    """Threads of the runtime."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    model = explain_module(network("resnet50"), torch.randn(2, 3, 224, 224), guided=True, check=False)
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    for threads in range(1, min(cores, 8) + 1):
        for level, run in level_runs(model, LEVELS, threads=threads).items():
            runs[level, threads] = run
    return figure("ResNet-50, threads of the runtime", "threads", -1, runs, max(rounds // FEW, 3))


def lite0(side: int) -> onnx.ModelProto:
    pixels = replace(Preprocessing(side, side), mean=(0.5,) * 3, std=(0.25,) * 3)
    example = torch.randn(2, 3, side, side)
    return explain_module(network("efficientnet_lite0"), example, preprocessing=pixels, guided=True, check=False)


def saved(folder: str, model: onnx.ModelProto) -> Path:
    path = Path(folder) / "explained.onnx"
    onnx.save(model, path)
    return path


def level_runs(model: onnx.ModelProto, levels: Sequence[str], count: int = 0, threads: int = 1) -> Runs:
    """The network at each level, without pre- and post-processing. count: of the file's classes."""
    from common import contract_of, cut

    contract = contract_of(model)
    return {
        level: run_of(
            cut(model, contract.levels[level]), contract, threads, contract.levels[level].outputs, targets=count
        )
        for level in levels
    }


def cam(channels: int, height: int, width: int) -> Callable[[], object]:
    random, shape = np.random.default_rng(0), (1, channels, height, width)
    activations, gradients = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
    kernels, out = table(threads=1), np.empty((1, height, width), np.float32)
    return lambda: kernels.cam(activations, gradients, "gradcam++", True, out)


def figure(
    title: str,
    x_label: str,
    expected: int,
    runs: dict[tuple[str, int], Callable[[], object]],
    rounds: int,
    *,
    beyond: str = "",
    fitted_from: int = 0,
) -> dict[str, Any]:
    """The series of the runs, timed. beyond: the series whose time is taken off the others, and is left out."""
    names = {f"{series} {x}": (series, x) for series, x in runs}
    medians = interleaved_medians({name: runs[key] for name, key in names.items()}, rounds)
    found: dict[str, dict[int, float]] = {}
    for name, (series, x) in names.items():
        found.setdefault(series, {})[x] = medians[name]
    base = found.pop(beyond)[1] if beyond else 0.0
    series = {}
    for name, points in found.items():
        ms = {x: round(value - base, 4) for x, value in points.items()}
        series[name] = {"x": list(ms), "ms": list(ms.values()), "slope": slope(ms, fitted_from)}
    return {
        "title": title,
        "x_label": x_label,
        "expected": expected,
        "fitted_from": fitted_from,
        "base_ms": round(base, 4),
        "series": series,
    }


if __name__ == "__main__":
    main()
