"""Ten thousand frames leave memory where it was."""

import gc
from pathlib import Path

import numpy as np
import pytest
import rehearsal

import gcpp_edge

pytestmark = pytest.mark.gpu

FRAMES = rehearsal.FRAMES if rehearsal.IS_ON else 10_000
SETTLED = 200  # frames after which nothing is allocated any more
DEVICE_BYTES = 1 << 20
HOST_BYTES = 16 << 20  # 1.7 KB a frame: an array that is kept would show


def host_bytes():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return 1024 * int(fields["VmRSS"].split()[0])


def test_ten_thousand_frames_keep_nothing(gpu, explained, free_device_bytes):
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
    with gcpp_edge.load(explained, device=gpu) as explainer:
        for index in range(FRAMES + SETTLED):
            explainer(frames[index % len(frames)], make="overlay")
            if index == SETTLED:
                gc.collect()
                before = free_device_bytes(), host_bytes()
        gc.collect()
        after = free_device_bytes(), host_bytes()
    assert before[0] - after[0] < DEVICE_BYTES
    assert after[1] - before[1] < HOST_BYTES


def test_closing_gives_the_memory_back(gpu, explained, frame, free_device_bytes):
    def once():
        with gcpp_edge.load(explained, device=gpu) as explainer:
            explainer(frame, make="overlay")
        gc.collect()
        return free_device_bytes()

    first = once()
    assert first - min(once() for _ in range(5)) < 8 << 20  # the libraries keep their own pools
