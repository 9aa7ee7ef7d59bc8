"""What explained models cost on this GPU, against the plain network, PyTorch eager and pytorch-grad-cam.

    python benchmarks/gpu.py NAME [--seconds 420] [--checks FILE] [--networks resnet50 vgg16]

Called by benchmarks/gpu.sh, which makes the environment and runs the tests before. Writes results/gpu-NAME.json and
results/gpu-NAME.md. Each row of PLAN runs in a process of its own, while time is left; what was not reached is said.
Without a CUDA device it says so and ends with status 2.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from time import monotonic
from typing import Any

from common import commit
from gpu_parts.card import card, cuda_devices
from gpu_parts.report import page

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
NO_DEVICE = "benchmarks/gpu: no CUDA device on this machine, so there is nothing to measure."
LEAST_SECONDS = 40.0  # less than that is not worth to begin a row


@dataclass(frozen=True)
class Row:
    network: str
    precision: str = "fp32"
    device: str = "tensorrt"
    tf32: bool = False
    peers: bool = False  # PyTorch eager and pytorch-grad-cam beside it

    @property
    def title(self) -> str:
        arithmetic = self.precision if self.precision == "fp16" else f"fp32, TF32 {'on' if self.tf32 else 'off'}"
        return f"{self.network}, {arithmetic}, {self.device}"


PLAN = (
    Row("resnet50", peers=True),
    Row("resnet50", "fp16"),
    Row("efficientnet_lite0", peers=True),
    Row("resnet50", device="cuda"),
    Row("vgg16", peers=True),
    Row("mobilenet_v3_large", peers=True),
    Row("resnet50", tf32=True, peers=True),
    Row("efficientnet_lite0", "fp16"),
    Row("vgg16", "fp16"),
    Row("mobilenet_v3_large", "fp16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result: gpu-NAME.json")
    parser.add_argument("--seconds", type=float, default=420.0, help="no row is begun that would end later")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--checks", type=Path, help="a JSON of what the tests and the sanitizer said")
    options = parser.parse_args()
    if not cuda_devices():
        print(NO_DEVICE, file=sys.stderr)
        raise SystemExit(2)
    end = monotonic() + options.seconds
    refusal = why_not_tensorrt()
    rows = [row for row in plan(refusal) if not options.networks or row.network in options.networks]
    checks = json.loads(options.checks.read_text("utf-8")) if options.checks else {}
    result = {
        "benchmark": "gpu",
        "input": "a 1080p BGR frame, network input 224 x 224, batch 1",
        "gpu": card(),
        "checks": checks | ({"TensorRT": f"not used: {refusal}"} if refusal else {}),
        "rows": measure(rows, end),
        "machine": machine(),
        "commit": commit(),
        "date": date.today().isoformat(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"gpu-{options.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"gpu-{options.name}.md").write_text(page(result), encoding="utf-8")
    print(page(result))


def why_not_tensorrt() -> str:
    """Why this card cannot run a small model with TensorRT; "" where it can."""
    small = HERE.parent / "tests" / "fixtures" / "explained-v1.onnx"
    code = "import gcpp_edge, sys; gcpp_edge.load(sys.argv[1], device='tensorrt').close()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(small)], capture_output=True, text=True, check=False, timeout=90
        )
    except subprocess.TimeoutExpired:
        return "a small model was not built in 90 s"
    return (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1] if done.returncode else ""


def plan(refusal: str) -> list[Row]:
    """What to measure; where TensorRT is refused, all of it with ONNX Runtime on CUDA."""
    first: dict[str, Row] = {}
    for row in PLAN:
        row = replace(row, device="cuda") if refusal else row
        first.setdefault(row.title, row)
    return list(first.values())


def measure(rows: list[Row], end: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            left = end - monotonic()
            entry: dict[str, Any] = asdict(row) | {"title": row.title}
            if left < LEAST_SECONDS:
                entry["not_measured"] = "no time was left"
            else:
                print(f"benchmarks/gpu: {row.title} ({left:.0f} s left)", file=sys.stderr, flush=True)
                entry |= apart(row, Path(folder), left)
            found.append(entry)
    return found


def apart(row: Row, folder: Path, seconds: float) -> dict[str, Any]:
    """The row's figures, from processes of its own; or why there are none."""
    began = monotonic()
    model, output = folder / f"{row.network}-{row.precision}.onnx", folder / "row.json"
    output.unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": str(HERE),
        "GCPP_EDGE_CACHE": str(folder / f"cache-{row.tf32}"),
        **({} if row.tf32 else {"NVIDIA_TF32_OVERRIDE": "0"}),
    }
    commands = (
        [measuring(row, model, output)] if model.exists() else [exporting(row, model), measuring(row, model, output)]
    )
    for command in commands:
        left = seconds - (monotonic() - began)
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=max(left, 1.0)
            )
        except subprocess.TimeoutExpired:
            return {"not_measured": f"not done after {seconds:.0f} s"}
        if done.returncode:
            lines = (done.stderr.strip() or "no message").splitlines()
            return {"not_measured": f"ended with {done.returncode}: {lines[-1]}", "log": lines[-30:]}
    return json.loads(output.read_text("utf-8")) | {"seconds": round(monotonic() - began, 1)}


EXPORT = """
import sys
from gcpp_edge.export import export_file
source, output, precision = sys.argv[1:]
export_file(source, output, input_size=(224, 224), guided=True, check=False, precision=precision or None)
"""


def exporting(row: Row, model: Path) -> list[str]:
    precision = "fp16" if row.precision == "fp16" else ""
    return [sys.executable, "-c", EXPORT, f"gpu_parts.subjects:{row.network}", str(model), precision]


def measuring(row: Row, model: Path, output: Path) -> list[str]:
    peers = ["--peers"] if row.peers else []
    choices = ["--network", row.network, "--model", str(model), "--device", row.device]
    ends = ["--tf32", "on" if row.tf32 else "off", "--output", str(output)]
    return [sys.executable, "-m", "gpu_parts.measure", *choices, *ends, *peers]


def machine() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    from gcpp_edge.bench.machine import machine as ours

    found = dict(ours())
    for package in ("torch", "grad-cam", "tensorrt", "tensorrt-rtx", "onnxruntime-gpu", "pycuda", "cuda-bindings"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
