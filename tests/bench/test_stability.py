"""When a run is not to be believed, on series that are made up."""

import pytest

from gcpp_edge.bench.conditions import Conditions
from gcpp_edge.bench.stability import doubts, drift, spread, too_few

STEADY = [10.0, 10.2, 9.9, 10.1, 10.0] * 20
RISING = [10 + index / 50 for index in range(100)]
WAVES = [10.0] * 30 + [12.0] * 40 + [10.0] * 30
HICCUPS = [10.0] * 99 + [500.0]
GOOD = Conditions(cores=4, load=0.3, busy=0.5, others=0.02, steal=0.001, mhz=(2400.0, 2390.0, 2400.0))

SERIES = [
    (STEADY, ""),
    (RISING, "drifted: its last quarter took 15% longer"),
    (RISING[::-1], "drifted: its last quarter took 13% shorter"),
    (WAVES, "varied: medians of parts of the run lie 20% apart"),
    (HICCUPS, ""),  # the percentiles show it
    ([10.0], ""),
    ([10.0, 30.0, 10.0], ""),
]


@pytest.mark.parametrize(("values", "words"), SERIES)
def test_series(values, words):
    found = doubts({"map": values}, GOOD)
    assert len(found) == bool(words) and all(words in sentence for sentence in found)


CONDITIONS = [
    ({}, ""),
    ({"others": 0.4}, "other processes had 40% of the cores' time"),
    ({"others": 0.4, "load": 3.0}, "other processes had 40% of the cores' time"),  # said once
    ({"load": 1.5}, "the load average was 1.5 before the run"),
    ({"steal": 0.05}, "the hypervisor took 5% of the cores' time"),
    ({"mhz": (2400.0, 1800.0, 2400.0)}, "the clock changed between 1800 and 2400 MHz"),
    ({"mhz": ()}, ""),
    ({"gpu_mhz": (900.0, 1300.0)}, "the GPU's clock changed between 900 and 1300 MHz"),
    ({"slowed": {"heat": 3}}, "slowed down by heat (3 times)"),
    ({"slowed": {"the GPU's power limit": 1}}, "slowed down by the GPU's power limit"),
]


@pytest.mark.parametrize(("changes", "words"), CONDITIONS)
def test_conditions(changes, words):
    conditions = Conditions(**vars(GOOD) | changes)
    found = doubts({"map": STEADY}, conditions)
    assert len(found) == bool(words) and all(words in sentence for sentence in found)


def test_every_level_and_every_reason_is_named():
    found = doubts({"plain": RISING, "map": WAVES}, Conditions(cores=1, steal=0.5))
    assert [sentence.split()[0] for sentence in found] == ["plain", "map", "the"]


def test_drift_and_spread_of_known_series():
    assert drift([10.0] * 10 + [11.0] * 10) == pytest.approx(0.1)
    assert drift([10.0] * 9 + [11.0] * 9) == 0.0  # too few
    assert spread([10.0] * 25 + [11.0] * 25) == pytest.approx(1 / 10.5)


@pytest.mark.parametrize(
    ("count", "words"),
    [(100, ""), (99, "p99 is the largest of 99 calls; p99 needs 100"), (12, "p95, p99 are the largest of 12 calls")],
)
def test_percentiles_that_are_only_the_largest_value_are_named(count, words):
    found = too_few(count, (50, 90, 95, 99))
    assert len(found) == bool(words) and all(words in sentence for sentence in found)
