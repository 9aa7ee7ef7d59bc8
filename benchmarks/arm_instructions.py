"""Instructions that the kernels take on 64-bit ARM, counted and not timed: there need be no such machine.

    python benchmarks/arm_instructions.py [--output benchmarks/results/arm_instructions.json]

The kernels are cross-compiled and run under qemu-user, which notes every instruction between the first and the last
function of the kernels; the C library's are not counted. Each kernel runs at two sizes, and the difference is what an
element takes. A core that ends three instructions a cycle at 2 GHz needs 0.17 ns for one: at b bytes an element and n
instructions it moves up to 6·b/n GB/s, which is to be held against what its memory can do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from common import commit

from gcpp_edge.kernels import Axis, KernelTable

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "kernels"))

import aarch64  # noqa: E402 (lies beside the kernel tests)

RESULTS = ROOT / "benchmarks" / "results" / "arm_instructions.json"
WIDTH, FRAME = 1920, (1080, 1920)
NETWORK = 224
PALETTE = np.zeros((256, 3), np.uint8)
MAP = np.arange(49, dtype=np.float32).reshape(7, 7)


@dataclass(frozen=True)
class Case:
    """run: the kernel on `size` rows or channels, of `elements` each. moved: bytes an element, read and written."""

    name: str
    run: Callable[[KernelTable, int], None]
    sizes: tuple[int, int]
    elements: int
    moved: float


def cam(space: int, dtype: type, constant: bool) -> Callable[[KernelTable, int], None]:
    def run(table: KernelTable, channels: int) -> None:
        shape = (1, channels, space, space)
        slopes = np.ones((1, channels, 1, 1) if constant else shape, dtype)
        table.cam(np.ones(shape, dtype), slopes, "gradcam++", True, np.empty((1, space, space), np.float32))

    return run


def axes(height: int) -> tuple[Axis, Axis]:
    return Axis(7 / FRAME[0], 0.0, 0, height), Axis(7 / WIDTH, 0.0, 0, WIDTH)


def heatmap(dtype: type) -> Callable[[KernelTable, int], None]:
    return lambda table, height: table.heatmap(MAP, *axes(height), 0.0, 48.0, np.empty((height, WIDTH), dtype))


def overlay(channels: int) -> Callable[[KernelTable, int], None]:
    def run(table: KernelTable, height: int) -> None:
        frame = np.zeros((height, WIDTH, channels), np.uint8)
        table.overlay(frame, MAP, *axes(height), 0.0, 48.0, PALETTE, 0.5, 0.5, frame)

    return run


def guided(dtype: type) -> Callable[[KernelTable, int], None]:
    def run(table: KernelTable, height: int) -> None:
        image = np.ones((3, height, WIDTH), dtype)
        table.guided(MAP, *axes(height), 0.0, 48.0, image, np.empty(image.shape, np.float32))

    return run


def preprocess(format: str, dtype: type) -> Callable[[KernelTable, int], None]:
    def run(table: KernelTable, height: int) -> None:
        frame = np.zeros((1620, WIDTH) if format == "nv12" else (*FRAME, len(format)), np.uint8)
        rows, columns = Axis(FRAME[0] / NETWORK, 0.0, 0, height), Axis(WIDTH / NETWORK, 0.0, 0, NETWORK)
        plain = np.ones(3, np.float32)
        table.preprocess(
            frame, format, rows, columns, "rgb", plain, plain, plain, np.empty((3, height, NETWORK), dtype)
        )

    return run


CASES = (
    Case("cam 7x7 float32", cam(7, np.float32, False), (40, 80), 49, 8),
    Case("cam 7x7 float32, constant gradients", cam(7, np.float32, True), (40, 80), 49, 4),
    Case("cam 7x7 float16", cam(7, np.float16, False), (40, 80), 49, 4),
    Case("cam 14x14 float32", cam(14, np.float32, False), (8, 16), 196, 8),
    Case("cam 56x56 float32", cam(56, np.float32, False), (3, 6), 3136, 8),
    Case("heatmap float32", heatmap(np.float32), (4, 8), WIDTH, 4),
    Case("heatmap uint8", heatmap(np.uint8), (4, 8), WIDTH, 1),
    Case("overlay, three bytes a pixel", overlay(3), (4, 8), WIDTH, 6),
    Case("overlay, four bytes a pixel", overlay(4), (4, 8), WIDTH, 8),
    Case("guided float32", guided(np.float32), (4, 8), 3 * WIDTH, 8),
    Case("guided float16", guided(np.float16), (4, 8), 3 * WIDTH, 6),
    Case("preprocess 1080p bgr to 224 float32", preprocess("bgr", np.float32), (4, 8), 3 * NETWORK, 4),
    Case("preprocess 1080p nv12 to 224 float32", preprocess("nv12", np.float32), (4, 8), 3 * NETWORK, 4),
    Case("preprocess 1080p bgr to 224 float16", preprocess("bgr", np.float16), (4, 8), 3 * NETWORK, 2),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if aarch64.missing():
        sys.exit(f"arm_instructions: {aarch64.missing()}")
    program = aarch64.program()
    found = {case.name: row_of(case, program) for case in CASES}
    for name, row in found.items():
        print(f"{name:40} " + "  ".join(f"{key} {value:6.2f}" for key, value in row.items()))
    options.output.write_text(json.dumps(result_of(found), indent=2) + "\n", encoding="utf-8")


def row_of(case: Case, program: Path) -> dict[str, float]:
    row = {isa: round(instructions(case, isa, program), 2) for isa in aarch64.ISAS}
    return row | {"bytes": case.moved}


def instructions(case: Case, isa: str, program: Path) -> float:
    """Of one element."""
    less, more = (count(case.run, size, isa, program) for size in case.sizes)
    return (more - less) / ((case.sizes[1] - case.sizes[0]) * case.elements)


def count(run: Callable[[KernelTable, int], None], size: int, isa: str, program: Path) -> int:
    """Instructions of one run, a line each in qemu's log."""
    with tempfile.NamedTemporaryFile() as log:
        options = ("-singlestep", "-d", "exec,nochain", "-dfilter", span_of(program), "-D", log.name)
        server = aarch64.Server(program, options)
        run(KernelTable(isa, aarch64.Kernels(isa, server)), size)
        server.close()
        return sum(1 for _ in log)


def span_of(program: Path) -> str:
    """From the first to the last function of the kernels: their files are linked one after the other."""
    listing = subprocess.run(["nm", "-S", program], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in listing.splitlines()]
    code = [line for line in lines if len(line) == 4 and line[2] in "tT" and line[3].startswith("gcpp_")]
    first, last = min(int(line[0], 16) for line in code), max(int(line[0], 16) + int(line[1], 16) for line in code)
    return f"0x{first:x}..0x{last:x}"


def result_of(found: dict[str, dict[str, float]]) -> dict[str, object]:
    version = subprocess.run([aarch64.compiler(), "--version"], check=True, capture_output=True, text=True).stdout
    return {
        "benchmark": "arm_instructions",
        "unit": "instructions an element; bytes read and written an element",
        "instructions": found,
        "compiler": version.splitlines()[0],
        "flags": aarch64.FLAGS,
        "commit": commit(),
        "date": date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
