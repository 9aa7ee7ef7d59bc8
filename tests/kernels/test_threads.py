"""Several threads on one call: the same bits, no more threads than asked for, and no call that waits for another."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gcpp_edge import kernels
from gcpp_edge.errors import InputError
from gcpp_edge.kernels import Axis

COMPILED = [isa for isa in kernels.available() if isa != "numpy"]
RANDOM = np.random.default_rng(0)
FRAME = RANDOM.integers(0, 256, (721, 1283, 3), dtype=np.uint8)  # large enough for several threads, odd in all ways
MAP = RANDOM.standard_normal((7, 9)).astype(np.float32)
IMAGE = RANDOM.standard_normal((3, 721, 1283)).astype(np.float32)
PALETTE = RANDOM.integers(0, 256, (256, 3), dtype=np.uint8)
ROWS, COLUMNS = Axis(7 / 721, 0.0, 0, 721), Axis(9 / 1283, 0.0, 0, 1283)
CROP = Axis(7 / 600, 0.0, 30, 611), Axis(9 / 1000, 0.0, 17, 1200)

pytestmark = pytest.mark.skipif(not COMPILED, reason=kernels.reason() or "there")


def heatmap(table, dtype):
    out = np.ones((1080, 1920), dtype)
    table.heatmap(MAP, Axis(7 / 1080, 0.0, 0, 1080), Axis(9 / 1920, 0.0, 0, 1920), -1.0, 1.0, out)
    return out


def overlay(table, rows=ROWS, columns=COLUMNS):
    out = np.empty_like(FRAME)
    table.overlay(FRAME, MAP, rows, columns, -1.0, 1.0, PALETTE, 0.5, 0.4, out)
    return out


def guided(table, rows=ROWS, columns=COLUMNS):
    out = np.empty_like(IMAGE)
    table.guided(MAP, rows, columns, -1.0, 1.0, IMAGE, out)
    return out


def preprocess(table, size=(640, 640)):
    out, ones = np.empty((3, *size), np.float32), np.ones(3, np.float32)
    axes = Axis(721 / size[0], 0.0, 0, size[0]), Axis(1283 / size[1], 0.0, 20, size[1] - 20)
    table.preprocess(FRAME, "bgr", *axes, "rgb", ones, ones, ones, out)
    return out


def cam(table):
    activations = np.random.default_rng(1).standard_normal((9, 640, 7, 7)).astype(np.float32)
    gradients = np.random.default_rng(2).standard_normal(activations.shape).astype(np.float32)
    out = np.empty((9, 7, 7), np.float32)
    table.cam(activations, gradients, "gradcam++", True, out)
    return out


WORK = {
    "heatmap": lambda table: heatmap(table, np.float32),
    "heatmap in bytes": lambda table: heatmap(table, np.uint8),
    "overlay": overlay,
    "overlay of a crop": lambda table: overlay(table, *CROP),
    "guided": guided,
    "guided of a crop": lambda table: guided(table, *CROP),
    "preprocess": preprocess,
    "preprocess to few rows": lambda table: preprocess(table, (5, 200_000)),
    "cam": cam,
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
@pytest.mark.parametrize("isa", COMPILED)
def test_any_number_of_threads_gives_the_same_bits(isa, work):
    alone = work(kernels.table(isa))
    for threads in (2, 3, 5, 64):
        np.testing.assert_array_equal(work(kernels.table(isa, threads)), alone)


def test_calls_of_many_threads_share_the_helpers_and_all_end():
    table, expected = kernels.table(COMPILED[0], 4), overlay(kernels.table(COMPILED[0]))
    with ThreadPoolExecutor(8) as callers:
        for found in callers.map(lambda _: overlay(table), range(64), timeout=60):
            np.testing.assert_array_equal(found, expected)


def in_a_process_of_its_own(code):
    """What the code prints, run behind the imports and the work of this file."""
    start = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from test_threads import *\n"
    result = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60)
    assert not result.returncode, result.stderr
    return result.stdout.split()


COUNT = "def count(): return len(os.listdir('/proc/self/task'))\nbefore = count()\n"


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted in /proc, which is not here")
def test_helpers_are_started_once_and_only_for_large_work():
    code = COUNT + (
        "small = np.empty((30, 40), np.float32)\n"
        "kernels.table(None, 3).heatmap(MAP, Axis(0.2, 0., 0, 30), Axis(0.2, 0., 0, 40), -1., 1., small)\n"
        "print(count() - before)\n"
        "for _ in range(20): overlay(kernels.table(None, 3)); preprocess(kernels.table(None, 2))\n"
        "print(count() - before)\n"
        "overlay(kernels.table(None, 1)); print(count() - before)\n"
    )
    assert in_a_process_of_its_own(code) == ["0", "2", "2"]


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted in /proc, which is not here")
def test_a_fork_computes_on_with_helpers_of_its_own():
    code = (
        "table, expected = kernels.table(None, 3), overlay(kernels.table(None, 1))\n"
        "callers = ThreadPoolExecutor(2); busy = [callers.submit(overlay, table) for _ in range(200)]\n"
        "for _ in range(5):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        same = all((overlay(table) == expected).all() for _ in range(5))\n"
        "        os._exit(0 if same and len(os.listdir('/proc/self/task')) == 3 else 1)\n"
        "    print(os.waitpid(child, 0)[1])\n"
        "print(int(all((work.result() == expected).all() for work in busy)))\n"
    )
    assert in_a_process_of_its_own(code) == ["0"] * 5 + ["1"]


def test_the_number_of_threads_is_checked():
    for threads in (-1, 65):
        with pytest.raises(InputError, match=f"threads={threads} is not possible; expected 0"):
            kernels.table(None, threads)


def test_zero_threads_is_the_cores_at_hand_up_to_four():
    assert 1 <= kernels.default_threads() <= 4
    assert kernels.table(None, 0) is kernels.table(None, kernels.default_threads())
