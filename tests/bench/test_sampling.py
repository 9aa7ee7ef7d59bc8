"""Runs in turn, on a clock that the runs themselves move."""

import pytest

from gcpp_edge.bench.sampling import LEAST_WARM_UP_ROUNDS, Plan, interleaved_medians, sample


class Clock:
    """Seconds. Runs take what they are told to."""

    def __init__(self):
        self.now, self.order = 100.0, []

    def __call__(self):
        return self.now

    def run(self, name, seconds, result=None):
        def work():
            self.order.append(name)
            self.now += seconds
            return result

        return work


@pytest.fixture
def clock():
    return Clock()


def sampled(clock, runs, **plan):
    given = {"seconds": 0.0, "rounds": 4, "warm_up_ms": 0.0} | plan
    return sample(runs, Plan(**given), clock)


def test_the_order_moves_on_by_one_every_round(clock):
    runs = {name: clock.run(name, 1) for name in "abc"}
    taken = sampled(clock, runs)
    assert "".join(clock.order[LEAST_WARM_UP_ROUNDS * 3 :]) == "abcbcacababc"
    assert taken.rounds == 4 and set(map(len, taken.ms.values())) == {4}


def test_times_are_those_of_each_run_and_when_it_began(clock):
    taken = sampled(clock, {"short": clock.run("short", 0.25), "long": clock.run("long", 2)}, rounds=2)
    assert taken.ms == {"short": [250, 250], "long": [2000, 2000]}
    assert taken.starts_s == {"short": [0, 4.25], "long": [0.25, 2.25]}
    assert taken.seconds == 4.5


@pytest.mark.parametrize(
    ("plan", "rounds"),
    [
        ({"seconds": 10, "rounds": 1}, 5),  # two runs of a second each
        ({"seconds": 10, "rounds": 8}, 8),
        ({"seconds": 0, "rounds": 1}, 1),
        ({"seconds": 9.5, "rounds": 1}, 5),
    ],
)
def test_it_goes_on_until_both_time_and_rounds_are_reached(clock, plan, rounds):
    assert sampled(clock, {"a": clock.run("a", 1), "b": clock.run("b", 1)}, **plan).rounds == rounds


@pytest.mark.parametrize(("warm_up_ms", "rounds"), [(0, LEAST_WARM_UP_ROUNDS), (20_000, 10), (19_000, 10)])
def test_the_warm_up_is_by_time_and_does_not_count(clock, warm_up_ms, rounds):
    taken = sampled(clock, {"a": clock.run("a", 1), "b": clock.run("b", 1)}, rounds=1, warm_up_ms=warm_up_ms)
    assert len(clock.order) == 2 * rounds + 2 and taken.rounds == 1


def test_stages_that_a_run_returns_are_kept_and_anything_else_is_not(clock):
    runs = {"a": clock.run("a", 1, {"stage": 3.0}), "b": clock.run("b", 1, "a result")}
    assert sampled(clock, runs, rounds=2).stages_ms == {"a": [{"stage": 3.0}] * 2, "b": [{}, {}]}


def test_between_rounds_it_says_how_far_it_is(clock):
    shares = []
    sampled(clock, {"a": clock.run("a", 1)}, seconds=4, rounds=2, between=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def interrupting(clock, at):
    """A run that Ctrl-C comes into, the so manieth time after the warm-up."""
    left = [at + LEAST_WARM_UP_ROUNDS]

    def work():
        clock.now += 1
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    return work


def test_ctrl_c_leaves_complete_rounds(clock):
    taken = sampled(clock, {"a": clock.run("a", 1, {"stage": 1.0}), "b": interrupting(clock, 3)}, rounds=9)
    assert taken.interrupted and taken.rounds == 2
    assert {len(values) for by_name in (taken.ms, taken.starts_s, taken.stages_ms) for values in by_name.values()} == {
        2
    }


def test_ctrl_c_before_the_first_round_is_done_is_raised(clock):
    with pytest.raises(KeyboardInterrupt):
        sampled(clock, {"a": clock.run("a", 1), "b": interrupting(clock, 1)})


def test_a_script_gets_medians_by_a_count_of_rounds(clock):
    found = interleaved_medians({name: clock.run(name, 0) for name in "ab"}, rounds=3, warm_up_rounds=1)
    assert list(found) == ["a", "b"] and all(0 <= value < 1e3 for value in found.values())
    assert "".join(clock.order) == "abbaabba"
