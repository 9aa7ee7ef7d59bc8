"""benchmarks/gpu.py and gpu.sh, as far as they can be proven without a GPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
from gpu_parts.report import page

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
LEVELS = ("plain", "map", "guided")

without_gpu = pytest.mark.skipif(gpu.cuda_devices() > 0, reason="this machine has a CUDA device")


def run(*command):
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@without_gpu
@pytest.mark.parametrize("command", [("bash", SCRIPT, "x"), (sys.executable, SCRIPT.with_suffix(".py"), "x")], ids=str)
def test_without_a_gpu_it_says_so_in_one_line_and_ends_with_2(command):
    done = run(*command)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert "no CUDA device" in done.stderr
    assert not list((ROOT / "benchmarks" / "results").glob("gpu-x.*"))


def test_the_script_is_shell():
    assert run("bash", "-n", SCRIPT).returncode == 0


def measured(**changes):
    stages = {f"network, {level}": us for level, us in zip(LEVELS, (400.0, 410.0, 780.0), strict=True)}
    stages |= {"preprocess": 5.0, "cam": 4.0, "range": 2.0, "heatmap at the input's size": 3.0, "overlay": 12.0}
    row = {
        "network": "resnet50",
        "precision": "fp32",
        "device": "tensorrt",
        "tf32": False,
        "title": "resnet50, fp32, TF32 off, tensorrt",
        "frame_ms": {"plain": 0.5, "map": 0.52, "guided": 0.9, "pytorch eager": 6.0, "pytorch-grad-cam": 15.0},
        "stages_us": stages,
        "kernel_bytes": {"preprocess": 3_000_000, "cam": 400_000},
        "differs_from_cpu": {"scores": 1e-5, "map": 2e-5, "guided": 1e-4},
        "device_bytes_lost": 0,
    }
    return row | changes


def result(*rows):
    card = {"name": "A card", "copy_gbs": 1000.0}
    about = {"commit": "abc", "date": "today", "input": "a frame", "checks": {"pytest -m gpu": "passed"}}
    return about | {"gpu": card, "rows": list(rows)}


def test_the_page_puts_the_goals_beside_the_figures():
    text = page(result(measured()))
    assert "| resnet50, fp32, TF32 off, tensorrt | map ≤ 1.10 × plain, kernels included | 1.048 | yes |" in text
    assert "kernels behind the network ≤ 15 µs | 9.0 µs | yes" in text
    assert "≥ 20 × faster than pytorch-grad-cam, whose input is on the GPU | 28.8 × | yes" in text
    assert "| preprocess | 3000 | 3.00 | 5.00 |" in text


def test_a_goal_that_is_missed_and_a_row_that_is_missing_are_said():
    slow = measured(frame_ms={"map": 1.0, "pytorch-grad-cam": 15.0}, differs_from_cpu={"map": 2e-3})
    text = page(result(slow, {"title": "vgg16", "not_measured": "no time was left"}))
    assert "≥ 20 × faster than pytorch-grad-cam, whose input is on the GPU | 15.0 × | no" in text
    assert "2.0e-03 | no" in text
    assert "| vgg16 | no time was left |" in text


def test_without_tensorrt_every_row_is_measured_on_cuda_and_once():
    assert gpu.plan("") == list(gpu.PLAN)
    rows = gpu.plan("no TensorRT")
    assert {row.device for row in rows} == {"cuda"} and rows[0] == gpu.Row("resnet50", device="cuda", peers=True)
    assert len(rows) == len({row.title for row in rows}) == len(gpu.PLAN) - 1


@without_gpu
def test_why_tensorrt_cannot_be_used_is_one_line():
    assert "device='tensorrt' cannot be used here" in gpu.why_not_tensorrt()


def test_rows_that_time_does_not_allow_are_not_begun(monkeypatch):
    monkeypatch.setattr(gpu, "apart", lambda *_: pytest.fail("begun"))
    (row,) = gpu.measure([gpu.Row("vgg16")], gpu.monotonic() + 5)
    assert row["not_measured"] == "no time was left"


def test_a_row_that_fails_says_why_and_the_next_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "exporting", lambda *_: [sys.executable, "-c", "raise SystemExit('no such network')"])
    found = gpu.apart(gpu.Row("vgg16"), tmp_path, 30)
    assert found["not_measured"] == "ended with 1: no such network"
    assert json.dumps(found)


def test_a_rehearsal_on_the_cpu_gives_every_figure_of_the_page(tmp_path):
    """The fixture stands in for the network: what is timed is only that it can be."""
    output = tmp_path / "row.json"
    row = gpu.Row("resnet50", device="cpu")
    command = [*gpu.measuring(row, ROOT / "tests" / "fixtures" / "explained-v1.onnx", output), "--rounds", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "benchmarks"), "GCPP_EDGE_CACHE": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text("utf-8"))
    assert found["differs_from_cpu"] == {"scores": 0.0, "map": 0.0, "guided": 0.0}
    text = page(result(measured(**found)))
    for stage in ("copy in", "preprocess", "network, guided", "cam", "overlay", "copy out, map"):
        assert stage in text


@pytest.mark.slow
def test_the_gpu_tests_pass_on_stand_ins():
    """So that what fails on a GPU is not the tests. Without the largest pictures, which take the emulator long."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler to build the emulator of the CUDA kernels with")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu", "-k", "not 1080"]
    environment = os.environ | {"GCPP_GPU_REHEARSAL": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and " skipped" not in done.stdout
