"""A stream over many frames: does anything grow, where did frames go, how old is a map when it is there?

    python benchmarks/soak.py [--frames 20000] [--fps 60] [--network efficientnet_lite0] [--output FILE]

A synthetic camera (test://, 640 x 480, a cut every 300 frames) with policy "latest", smoothing and a monitor, into a
file of records and the live page, which one viewer reads and another never does. Once on an idle machine, and once
with a process that burns each core. Memory, threads and descriptors are looked at every so many frames, after a
warm-up. Latency is from a frame's arrival to its map. Frames that have no record must have been counted as stale.
Before that, in turn, what a stream adds to a call of the explainer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from common import interleaved_medians, network, parser_of, save
from steady import resident_kilobytes

import gcpp_edge
from gcpp_edge.export import explain_module
from gcpp_edge.pipeline.monitor import Monitor
from gcpp_edge.pipeline.sinks import open_sink

WARM_UP = 1_000  # frames before memory is looked at
COST_FRAMES = 50  # of a round, where ways to explain are compared
SAMPLES = 40  # looks at memory, threads and descriptors
READER = "import sys, urllib.request\nanswer = urllib.request.urlopen(sys.argv[1])\nwhile answer.read(65536): pass"
SLEEPER = (
    "import socket, sys, time\nconnection = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
    "connection.sendall(b'GET /stream.mjpg HTTP/1.1\\r\\nHost: 127.0.0.1:%d\\r\\n\\r\\n' % int(sys.argv[1]))\n"
    "time.sleep(1e6)"
)


def main() -> None:
    parser = parser_of(__doc__, "soak", rounds=1)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--fps", type=float, default=60.0)
    parser.add_argument("--network", default="efficientnet_lite0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        example = torch.randn(2, 3, 224, 224)
        onnx.save(explain_module(network(options.network), example, check=False), path)
        around = cost(path, options.threads)
        print(around, flush=True)
        found = {}
        for name, burners in {"idle": 0, "loaded": os.cpu_count() or 1}.items():
            with burning(burners):
                found[name] = soak(path, Path(folder) / f"{name}.jsonl", options)
            print(name, json.dumps(found[name], indent=1), flush=True)
    what = f"{options.network} at 224 x 224, test:// 640 x 480 at {options.fps:g} fps, ONNX Runtime CPU"
    save(options, "soak", {"what": what, "frames": options.frames, "ms_a_frame": around, "runs": found})


def cost(path: Path, threads: int) -> dict[str, float]:
    """Milliseconds a frame of a call, of a stream over frames that are there, and of submit and its answer; in turn."""
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)

    def stream() -> None:
        for _ in explainer.stream([frame] * COST_FRAMES, policy="all"):
            pass

    def submit() -> None:
        with explainer.stream(policy="latest") as own:
            for _ in range(COST_FRAMES):
                own.submit(frame).result()

    def call() -> None:
        for _ in range(COST_FRAMES):
            explainer(frame)

    with gcpp_edge.load(path, threads=threads) as explainer:
        medians = interleaved_medians({"call": call, "stream": stream, "submit": submit}, 11)
    return {name: round(ms / COST_FRAMES, 3) for name, ms in medians.items()}


@contextmanager
def burning(count: int) -> Iterator[None]:
    """With so many processes that do nothing but work."""
    crew = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in crew:
            process.kill()
            process.wait()


def soak(path: Path, records: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run over all frames."""
    address = f"test://?width=640&height=480&fps={options.fps:g}&cut=300&frames={options.frames}"
    monitor = Monitor(["probability<0.5", "spread>0.9", "jump>0.5"])
    samples: list[dict[str, float]] = []
    with ExitStack() as stack:
        explainer = stack.enter_context(gcpp_edge.load(path, threads=options.threads))
        stream = stack.enter_context(explainer.stream(address, policy="latest", smooth_s=0.3, monitor=monitor))
        stream.add(open_sink(f"jsonl://{records}", stream))
        page: Any = open_sink("http://127.0.0.1:0", stream)
        stream.add(page)
        port = page.address.rstrip("/").rpartition(":")[2]
        for code, argument in ((READER, f"http://127.0.0.1:{port}/stream.mjpg"), (SLEEPER, port)):
            viewer = subprocess.Popen([sys.executable, "-c", code, argument], stderr=subprocess.DEVNULL)
            stack.callback(viewer.wait)
            stack.callback(viewer.kill)
        stream.start()
        step = max(1, (options.frames - WARM_UP) // SAMPLES)
        due = WARM_UP
        while not stream.wait(0.05):
            if stream.report().captured >= due:
                samples.append(sample())
                due += step
        report = stream.run()
    counted = {
        name: getattr(report, name)
        for name in ("captured", "explained", "carried", "stale", "skipped", "failed", "under_way", "unreadable")
    }
    latency = {f"p{p}": round(report.latencies.percentile(p), 2) for p in (50, 90, 99)}
    return {
        "seconds": round(report.seconds, 1),
        "counters": counted | {name: getattr(report, name) for name in ("resets", "events", "stalls", "reconnects")},
        "adds_up": counted["captured"] == sum(counted.values()) - counted["captured"] - counted["unreadable"],
        "gaps_in_records": gaps(records, options.frames),
        "latency_ms_of_latest_1000": latency,
        "latency_ms": latencies(records),
        "sinks": report.as_dict()["sinks"],
        "memory": {name: change(samples, name) for name in ("rss_kilobytes", "threads", "descriptors")},
        "troubles": [trouble.text for trouble in report.troubles],
    }


def sample() -> dict[str, float]:
    return {
        "rss_kilobytes": resident_kilobytes(),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def change(samples: list[dict[str, float]], name: str) -> dict[str, float]:
    """The first and the last quarter of the samples, as medians, the largest, and the slope over all of them."""
    values = [each[name] for each in samples]
    quarter = max(1, len(values) // 4)
    slope = float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0
    return {
        "first": statistics.median(values[:quarter]),
        "last": statistics.median(values[-quarter:]),
        "most": max(values),
        "a_sample": round(slope, 3),
    }


def gaps(records: Path, frames: int) -> int:
    """Frames between 0 and the last one that no record has."""
    ids = [json.loads(line)["id"] for line in records.read_text(encoding="utf-8").splitlines()]
    assert ids == sorted(set(ids))
    return frames - len(ids)


def latencies(records: Path) -> dict[str, float]:
    """Percentiles over all records, by nearest rank."""
    found = sorted(json.loads(line)["latency_ms"] for line in records.read_text(encoding="utf-8").splitlines())
    return {f"p{p:g}": round(found[max(0, -int(-len(found) * p // 100) - 1)], 2) for p in (50, 90, 99, 99.9, 100)}


if __name__ == "__main__":
    main()
