"""What the benchmark of memory sees, and what its saved result promises. No time is asserted."""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="it exports the network that it runs: pip install 'gcpp-edge[export]'")
import steady


def test_an_array_that_is_made_and_dropped_shows_in_the_peak():
    found = steady.traced(lambda: np.zeros(100_000, np.uint8).fill(1), 20)
    assert 100_000 <= found["peak_bytes"] < 110_000
    assert found["kept_bytes"] < 2_000


def test_what_is_never_dropped_shows_as_kept():
    kept = []
    found = steady.traced(lambda: kept.append(bytes(1_000)), 30)
    assert 30_000 <= found["kept_bytes"] < 60_000


def test_every_member_of_a_crew_works_through_its_frames():
    class Counter:
        count = 0

        def __call__(self, frame, out=None):
            self.count += 1
            return self

        def overlay(self, out):
            return out

    crew = [Counter(), Counter()]
    assert steady.frames_per_second(crew, np.zeros((2, 2, 3), np.uint8)) > 0
    assert [one.count for one in crew] == [steady.THREADED_FRAMES + 1] * 2


def test_the_saved_result_shows_that_out_makes_no_arrays_and_that_nothing_grows(pytestconfig):
    saved = json.loads((pytestconfig.rootpath / "benchmarks/results/steady.json").read_text("utf-8"))
    assert saved["frames"] >= 10_000
    for name, row in saved["memory"].items():
        assert row["kept_bytes"] < 20_000 and row["rss_kilobytes"] < 2_000, name
        if "out=" in name:
            assert row["peak_bytes"] < 16_000, name  # the README says so
    assert saved["memory"]["explanation and overlay"]["peak_bytes"] > 640 * 480 * 3
