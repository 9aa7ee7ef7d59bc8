"""The scaling figures: slopes, table and picture, and that the page shows the saved result. No time is asserted."""

import json

import pytest
import scaling_parts as parts

RESULT = {
    "figures": {
        "batch": {
            "title": "a network, frames",
            "x_label": "frames",
            "expected": 1,
            "fitted_from": 0,
            "series": {
                "plain": {"x": [1, 2, 4], "ms": [1.0, 2.0, 4.0], "slope": 1.0},
                "map": {"x": [1, 4], "ms": [0.0123, -0.5], "slope": None},
            },
        },
        "threads": {
            "title": "threads",
            "x_label": "threads",
            "expected": -1,
            "fitted_from": 0,
            "series": {"plain": {"x": [1, 2], "ms": [10.0, 5.5], "slope": -0.862}},
        },
    }
}


@pytest.mark.parametrize(
    ("ms", "fitted_from", "expected"),
    [
        ({1: 2.0, 2: 4.0, 8: 16.0}, 0, 1.0),
        ({1: 10.0, 2: 5.0}, 0, -1.0),
        ({1: 3.0, 10: 3.0, 100: 3.0}, 0, 0.0),
        ({1: 7.0, 10: 1.0, 100: 100.0}, 10, 2.0),
        ({1: 7.0}, 0, None),
        ({1: 7.0, 2: 8.0}, 2, None),
        ({1: -0.1, 2: 8.0, 4: 16.0}, 0, None),  # lost in the noise: no slope rather than a wrong one
    ],
)
def test_a_slope_is_that_of_the_logarithms(ms, fitted_from, expected):
    found = parts.slope(ms, fitted_from)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-3)


def test_the_table_has_a_row_for_each_series():
    rows = parts.table(RESULT).splitlines()[2:]
    assert rows == [
        "| a network, frames: plain | frames | 1: 1.0 ms | 4: 4.0 ms | 1.00 | 1 |",
        "| a network, frames: map | frames | 1: 12 µs | 4: -500 µs | – | 1 |",
        "| threads: plain | threads | 1: 10.0 ms | 2: 5.5 ms | -0.86 | -1 |",
    ]


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="it draws the figures: make test installs it")
    parts.draw(RESULT, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_the_saved_result(pytestconfig):
    saved = json.loads((pytestconfig.rootpath / "benchmarks/results/scaling.json").read_text("utf-8"))
    page = parts.PAGE.read_text("utf-8")
    assert set(saved["figures"]) == {"batch", "resolution", "classes", "channels", "threads"}
    assert len(parts.MARKED.findall(page)) == 1
    assert parts.with_table(page, saved) == page
