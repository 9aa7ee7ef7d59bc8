"""What samples that are known come to."""

import json

import pytest

from gcpp_edge.bench.summary import PARTS, Summary, least_count, parts, percentile, ratio_of, summarise
from gcpp_edge.errors import ModelError

ONE_TO_TEN = [7, 1, 9, 3, 5, 2, 10, 4, 8, 6]


def test_the_figures_of_known_samples():
    found = summarise(ONE_TO_TEN, (50, 90, 99.9))
    assert (found.count, found.min, found.mean, found.median, found.max) == (10, 1, 5.5, 5.5, 10)
    assert found.percentiles == {"50": 5, "90": 9, "99.9": 10}
    assert found.parts == (5, 6)  # medians of 7 1 9 3 5 and 2 10 4 8 6


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        (ONE_TO_TEN, 0.1, 1),
        (ONE_TO_TEN, 10, 1),
        (ONE_TO_TEN, 10.1, 2),
        (ONE_TO_TEN, 50, 5),
        (ONE_TO_TEN, 90, 9),
        (ONE_TO_TEN, 91, 10),
        (ONE_TO_TEN, 100, 10),
        (range(20), 95, 18),  # 0.95 * 20 is a little more than 19 in binary
        (range(1, 101), 99, 99),
        (range(1, 1001), 99.9, 999),
        ([3.5], 99, 3.5),
        ([1, 1, 1, 9], 75, 1),
        ([1, 1, 1, 9], 76, 9),
    ],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values, percent, expected):
    assert percentile(values, percent) == expected
    assert sum(value <= expected for value in values) >= percent / 100 * len(values) - 1e-9


@pytest.mark.parametrize(
    ("count", "lengths"),
    [(1, [1]), (4, [4]), (9, [9]), (10, [5, 5]), (17, [6, 5, 6]), (50, [5] * 10), (53, None), (1000, [100] * 10)],
)
def test_a_run_is_cut_into_parts_that_are_worth_a_median(count, lengths):
    found = parts(list(range(count)))
    assert [value for part in found for value in part] == list(range(count))
    assert len(found) <= PARTS and (lengths is None or list(map(len, found)) == lengths)
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize(("percent", "count"), [(50, 2), (90, 10), (95, 20), (99, 100), (99.9, 1000), (100, 1)])
def test_how_many_samples_a_percentile_needs(percent, count):
    assert least_count(percent) == count


def test_a_summary_survives_json():
    found = summarise([0.5, 0.25, 0.75])
    assert Summary.from_json(json.loads(json.dumps(found.as_json()))) == found


@pytest.mark.parametrize("document", [{}, {"count": 1}, summarise([1.0]).as_json() | {"percentiles": 3}, [], None])
def test_what_is_no_summary_is_refused(document):
    with pytest.raises(ModelError, match="not a summary"):
        Summary.from_json(document)


def test_a_ratio_is_of_medians_with_its_range_over_parts_that_ran_at_the_same_time():
    base = [10.0] * 5 + [20.0] * 5 + [10.0] * 5
    other = [11.0] * 5 + [21.0] * 5 + [12.0] * 5
    ratio = ratio_of(other, base)
    assert (ratio.value, ratio.low, ratio.high, ratio.fastest) == pytest.approx((1.2, 1.05, 1.2, 1.1))
    assert ratio.by_round == pytest.approx(1.1)
    apart = ratio_of(other[:9], base, in_turn=False)
    assert (apart.value, apart.low, apart.high) == pytest.approx((1.1, 0.55, 1.1))
