"""The kernels at real shapes, beside NumPy reading or copying the same number of bytes in the same run.

    python benchmarks/kernels.py [--output benchmarks/results/kernels.json] [--only cam] [--repeats 30]

Every row is timed in turn, round after round, so that a disturbance hits all of them; medians are reported.
`bytes` is what must cross: inputs and outputs once. `copy_ms` is a copy that moves as many, `share` how much of its
speed the kernel has. Buffers are as they are right behind the network: in cache as far as they fit.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcpp_edge import kernels
from gcpp_edge.kernels import Axis

ROOT = Path(__file__).resolve().parent.parent
RANDOM = np.random.default_rng(0)
PALETTE = RANDOM.integers(0, 256, (256, 3), dtype=np.uint8)
CAM_SHAPES = [(1280, 7, 7), (2048, 7, 7), (512, 14, 14), (256, 56, 56)]
WARM_SECONDS = 0.004
SLOW_BYTES = 3_000_000  # NumPy is timed on small work alone


@dataclass(frozen=True)
class Row:
    """One kernel at one shape: `run(table)` does it once, and moves `bytes`."""

    name: str
    bytes: int
    run: Callable[[kernels.KernelTable], object]


def stretch(source: tuple[int, int], destination: tuple[int, int]) -> tuple[Axis, Axis]:
    rows, columns = (Axis(s / d, 0.0, 0, d) for s, d in zip(source, destination, strict=True))
    return rows, columns


def cam_row(channels: int, height: int, width: int, dtype: str, constant: bool, rule: str = "gradcam++") -> Row:
    shape = (1, channels, height, width)
    activations = RANDOM.standard_normal(shape).astype(dtype)
    gradients = RANDOM.standard_normal((1, channels, 1, 1) if constant else shape).astype(dtype)
    out = np.empty((1, height, width), np.float32)
    name = f"cam {rule} {channels}x{height}x{width} {dtype}{' constant gradients' if constant else ''}"
    return Row(
        name, activations.nbytes + gradients.nbytes, lambda table: table.cam(activations, gradients, rule, True, out)
    )


def heatmap_row(dtype: str) -> Row:
    map, out = RANDOM.random((7, 7), np.float32), np.empty((1080, 1920), dtype)
    axes = stretch(map.shape, out.shape)
    return Row(f"heatmap 7x7 to 1080p {dtype}", out.nbytes, lambda table: table.heatmap(map, *axes, 0.0, 1.0, out))


def overlay_row(channels: int, map_size: int) -> Row:
    frame = RANDOM.integers(0, 256, (1080, 1920, channels), dtype=np.uint8)
    map, out = RANDOM.random((map_size, map_size), np.float32), np.empty_like(frame)
    axes = stretch(map.shape, frame.shape[:2])
    return Row(
        f"overlay {map_size}x{map_size} on 1080p, {channels} channels",
        2 * frame.nbytes,
        lambda table: table.overlay(frame, map, *axes, 0.0, 1.0, PALETTE, 0.5, 0.5, out),
    )


def guided_row(dtype: str) -> Row:
    image, map = RANDOM.standard_normal((3, 224, 224)).astype(dtype), RANDOM.random((7, 7), np.float32)
    out, axes = np.empty(image.shape, np.float32), stretch(map.shape, image.shape[1:])
    return Row(
        f"guided 3x224x224 {dtype}",
        image.nbytes + out.nbytes,
        lambda table: table.guided(map, *axes, 0.0, 1.0, image, out),
    )


def preprocess_row(format: str, height: int, width: int, size: int, dtype: str = "float32") -> Row:
    planes = {"bgr": (3,), "bgra": (4,)}.get(format, ())
    rows = height * 3 // 2 if format == "nv12" else height
    frame = RANDOM.integers(0, 256, (rows, width, *planes), dtype=np.uint8)
    out, scale = np.empty((3, size, size), dtype), np.full(3, 0.017, np.float32)
    axes = stretch((height, width), (size, size))
    touched = frame.nbytes * min(1, 2 * size / height)  # two frame rows for each row of the input
    return Row(
        f"preprocess {format} {width}x{height} to {size}x{size} {dtype}",
        int(touched) + out.nbytes,
        lambda table: table.preprocess(frame, format, *axes, "rgb", scale, scale, scale, out),
    )


def all_rows() -> list[Row]:
    cams = [
        cam_row(*shape, dtype, constant)
        for shape in CAM_SHAPES
        for dtype, constant in (("float32", False), ("float32", True), ("float16", False))
    ]
    cams += [cam_row(1280, 7, 7, "float32", False, rule) for rule in ("gradcam", "gradcam++-signed")]
    maps = [heatmap_row("float32"), heatmap_row("uint8"), overlay_row(3, 7), overlay_row(4, 7), overlay_row(3, 56)]
    pictures = [
        preprocess_row("bgr", 1080, 1920, 224),
        preprocess_row("bgra", 1080, 1920, 224),
        preprocess_row("nv12", 1080, 1920, 224),
        preprocess_row("gray", 1080, 1920, 224),
        preprocess_row("bgr", 1080, 1920, 224, "float16"),
        preprocess_row("bgr", 480, 640, 640),
    ]
    return [*cams, *maps, guided_row("float32"), guided_row("float16"), *pictures]


def copier(count: int) -> Callable[[], None]:
    """Moves `count` bytes: reads one half, writes the other."""
    source, destination = np.ones(max(count // 2, 1), np.uint8), np.empty(max(count // 2, 1), np.uint8)
    return lambda: np.copyto(destination, source)


def warm_up(work: Callable[[], object]) -> None:
    """As it is right behind a network: what it wrote is in cache, and its vector instructions have woken the units.

    Without the second, the first 2.4 ms of AVX2 after a pause ran at half speed on a Xeon under a hypervisor.
    """
    start = time.perf_counter()
    work()
    while time.perf_counter() - start < WARM_SECONDS:
        work()


def timed_ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def measure(rows: list[Row], repeats: int) -> list[dict[str, object]]:
    tables = {isa: kernels.table(isa) for isa in kernels.available()}
    jobs: dict[tuple[str, str], Callable[[], object]] = {}
    for row in rows:
        jobs[row.name, "copy"] = copier(row.bytes)
        for isa, table in tables.items():
            if isa != "numpy" or row.bytes < SLOW_BYTES:
                jobs[row.name, isa] = lambda row=row, table=table: row.run(table)
    samples: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
    for _ in range(repeats):
        for key, work in jobs.items():
            warm_up(work)
            samples[key].append(timed_ms(work))
    medians = {key: statistics.median(times) for key, times in samples.items()}
    return [_result(row, {isa: ms for (name, isa), ms in medians.items() if name == row.name}) for row in rows]


def _result(row: Row, medians: dict[str, float]) -> dict[str, object]:
    copy = medians.pop("copy")
    best = min(medians, key=medians.__getitem__)
    return {
        "name": row.name,
        "bytes": row.bytes,
        "copy_ms": round(copy, 4),
        "ms": {isa: round(value, 4) for isa, value in medians.items()},
        "gigabytes_per_second": round(row.bytes / medians[best] / 1e6, 2),
        "share_of_copy": round(copy / medians[best], 2),
    }


def machine() -> dict[str, str]:
    lines = _text("/proc/cpuinfo").splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": str(len(models)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _text(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.exists() else ""


def commit() -> str:
    result = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() or "not committed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/kernels.json")
    parser.add_argument("--only", default="", help="a part of the rows' names")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    results = measure([row for row in all_rows() if options.only in row.name], options.repeats)
    for result in results:
        times = "  ".join(f"{isa} {ms:8.3f}" for isa, ms in result["ms"].items())
        print(f"{result['name']:52} copy {result['copy_ms']:7.3f}  {times}  {result['share_of_copy']} of copy")
    if not options.only:
        document = {"machine": machine(), "commit": commit(), "repeats": options.repeats, "rows": results}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
