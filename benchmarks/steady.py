"""What a frame allocates after the warm-up, and what explainers in threads of their own add up to.

    python benchmarks/steady.py [--frames 10000] [--network mobilenet_v3_small] [--output FILE]

Memory, of many frames of one kind after each other: `peak_bytes` is the most that Python and NumPy held at once beyond
what they held before (an array that is made and dropped shows here), `kept_bytes` what was left of it at the end,
`rss_kilobytes` by how much the process grew, ONNX Runtime and the C kernels included. With out= what remains are
Python's own objects: tuples, dicts, views, numbers.

Throughput, in turn: explainers of one thread each, as many as there are threads, and one that two threads share.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
from common import network, parser_of, save

import gcpp_edge
from gcpp_edge.export import explain_module

WARM_UP = 2_500  # CPython keeps up to 2,000 tuples of each length that were given back, to hand them out again
FRAME = (480, 640, 3)
SMALL = 96  # pixels a side: what is allocated does not depend on how long the network takes
THREADED_FRAMES = 100  # of each thread in a round


def main() -> None:
    parser = parser_of(__doc__, "steady", rounds=10)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--network", default="mobilenet_v3_small")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "memory": memory(exported(Path(folder), options.network, SMALL), options),
            "frames_per_second": throughput(exported(Path(folder), options.network, 224), options.rounds),
        }
    what = f"{options.network}, 640 x 480 BGR frames, ONNX Runtime CPU; memory at {SMALL} x {SMALL}, rates at 224 x 224"
    save(options, "steady", {"what": what, "frames": options.frames, **found})


def exported(folder: Path, name: str, side: int) -> Path:
    path = folder / f"{side}.onnx"
    example = torch.randn(2, 3, side, side)
    onnx.save(explain_module(network(name), example, guided=True, check=False), path)
    return path


def memory(path: Path, options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """What each way of calling allocates."""
    found = {}
    with gcpp_edge.load(path, threads=options.threads) as explainer:
        for name, work in ways(explainer).items():
            found[name] = traced(work, options.frames)
            print(f"{name:38}", found[name], flush=True)
    return found


def ways(explainer: gcpp_edge.Explainer) -> dict[str, Callable[[], object]]:
    """By name: one frame."""
    frame = np.random.default_rng(0).integers(0, 256, FRAME, np.uint8)
    overlay, heatmap = np.empty_like(frame), np.empty(FRAME[:2], np.float32)
    product, scores = np.empty((SMALL, SMALL, 3), np.float32), np.empty((1, 1000), np.float32)
    explanation, detail = explainer(frame), explainer(frame, guided=True)

    def with_out() -> None:
        explainer(frame, out=explanation)
        explanation.overlay(out=overlay)
        explanation.heatmap(out=heatmap)

    def guided_with_out() -> None:
        explainer(frame, guided=True, out=detail)
        detail.guided(out=product)

    return {
        "explanation": lambda: explainer(frame),
        "explanation and overlay": lambda: explainer(frame).overlay(),
        "explanation, guided": lambda: explainer(frame, guided=True).guided(),
        "with out=": lambda: explainer(frame, out=explanation),
        "with out=, overlay and heatmap": with_out,
        "with out=, made in the call": lambda: explainer(frame, make="overlay", out=explanation),
        "with out=, guided": guided_with_out,
        "scores with out=": lambda: explainer.scores(frame, out=scores),
    }


def traced(work: Callable[[], object], frames: int) -> dict[str, int]:
    """Memory over this many frames."""
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(WARM_UP):
            work()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        resident = resident_kilobytes()
        for _ in range(frames):
            work()
        after, peak = tracemalloc.get_traced_memory()
        grown = resident_kilobytes() - resident
    finally:
        tracemalloc.stop()
    return {"peak_bytes": peak - before, "kept_bytes": after - before, "rss_kilobytes": grown}


def resident_kilobytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def throughput(path: Path, rounds: int) -> dict[str, float]:
    """Medians of frames a second, in turn; each explainer has one thread."""
    frame = np.random.default_rng(0).integers(0, 256, FRAME, np.uint8)
    explainers = [gcpp_edge.load(path, threads=1) for _ in range(2)]
    one, two = explainers
    crews = {
        "1 explainer, 1 thread": [one],
        "2 explainers, 2 threads": [one, two],
        "1 explainer shared by 2 threads": [one, one],
    }
    found: dict[str, list[float]] = {name: [] for name in crews}
    for index in range(rounds + 1):
        for name, crew in crews.items():
            rate = frames_per_second(crew, frame)
            if index:  # the first is the warm-up
                found[name].append(rate)
    for explainer in explainers:
        explainer.close()
    medians = {name: round(statistics.median(rates), 1) for name, rates in found.items()}
    print(medians, flush=True)
    return medians


def frames_per_second(crew: Sequence[Any], frame: np.ndarray) -> float:
    """Of all together, a thread for each of the crew, from the first frame begun to the last one done."""
    barrier = threading.Barrier(len(crew) + 1)

    def work(explainer: Any) -> None:
        explanation, out = explainer(frame), np.empty_like(frame)
        barrier.wait()
        for _ in range(THREADED_FRAMES):
            explainer(frame, out=explanation).overlay(out=out)

    threads = [threading.Thread(target=work, args=(explainer,)) for explainer in crew]
    for thread in threads:
        thread.start()
    barrier.wait()
    began = perf_counter()
    for thread in threads:
        thread.join()
    return len(crew) * THREADED_FRAMES / (perf_counter() - began)


if __name__ == "__main__":
    main()
