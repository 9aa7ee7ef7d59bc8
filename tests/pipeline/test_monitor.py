"""Hysteresis as a table, and faults in what users bring."""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from explanations import explained
from hypothesis import given
from hypothesis import strategies as st
from scripted import Keeping, Scripted, pictures

import gcpp_edge
from gcpp_edge.errors import InputError
from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.capturing import Limits
from gcpp_edge.pipeline.events import CLEARED, RAISED, Event, Trouble
from gcpp_edge.pipeline.monitor import Monitor
from gcpp_edge.pipeline.rules import Rule
from gcpp_edge.pipeline.settings import Settings
from gcpp_edge.pipeline.stream import ALL, Stream

ANY = explained([[1, 2], [3, 4]])
NAN, NONE = float("nan"), None


def giving(values: list[Any]) -> Callable[[Any], Any]:
    """A measure that gives these, one after the other; an exception is raised."""
    left = iter(values)

    def measure(explanation: Any) -> Any:
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return value

    return measure


def changes(values: list[Any], comparison: str, threshold: float, after: int = 3, clear: float | None = None) -> str:
    """What happens on each frame: R raised, C cleared, . nothing."""
    monitor = Monitor([Rule("mine", giving(values), comparison, threshold, after, clear)])
    marks = {RAISED: "R", CLEARED: "C"}
    return "".join("".join(marks[event.kind] for event in monitor(ANY)) or "." for _ in values)


@pytest.mark.parametrize(
    ("values", "rule", "expected"),
    [
        ([1, 1, 1, 1, 1], ("<", 2), "..R.."),
        ([1, 1, 5, 1, 1, 1], ("<", 2), ".....R"),
        ([2, 2, 2, 2], ("<", 2), "...."),  # not below it
        ([1, 1, 1, 5, 5, 5], ("<", 2), "..R..C"),
        ([1, 1, 1, 5, 5, 1, 5, 5, 5], ("<", 2), "..R.....C"),
        ([1, 1, 1, 2.1, 2.1, 2.1, 2.1], ("<", 2), "..R...."),  # within the margin, which ends at 2.2
        ([1, 1, 1, 2.2, 2.2, 2.2], ("<", 2), "..R..C"),
        ([1, 1, 1, 3, 3, 3, 4, 4, 4], ("<", 2, 3, 4), "..R.....C"),
        ([1, 3, 1, 3], ("<", 2, 1), "RCRC"),
        ([1, 1, 3, 3, 1, 1], ("<", 2, 2), ".R.C.R"),
        ([3, 3, 3, 1.9, 1.9, 1.9, 1.8, 1.8, 1.8], (">", 2), "..R.....C"),
        ([2, 2, 2, 2], (">", 2), "...."),
        ([3, 2, 3, 2], (">", 2, 1, 2), "RCRC"),  # no margin
        ([1, 1, NONE, 1, 1, 1], ("<", 2), ".....R"),  # in a row
        ([1, 1, NAN, 1, 1, 1], ("<", 2), ".....R"),
        ([1, 1, 1, NAN, NONE, ValueError(), 5, 5, NAN, 5, 5, 5], ("<", 2), "..R........C"),
        ([NAN] * 9, ("<", 2), "." * 9),
        ([NAN] * 9, (">", 2), "." * 9),
        ([float("inf")] * 3, (">", 2), "..R"),
        ([True, np.float32(1), 1], ("<", 2), "..R"),
    ],
)
def test_hysteresis(values: list[Any], rule: tuple[Any, ...], expected: str) -> None:
    assert changes(values, *rule) == expected


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, NAN, NONE]), max_size=60),
    st.sampled_from("<>"),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_raised_and_cleared_always_alternate_and_only_after_as_many_frames(
    values: list[Any], comparison: str, after: int, margin: int
) -> None:
    clear = 2.0 + (margin if comparison == "<" else -margin)
    found = changes(values, comparison, 2.0, after, clear)
    events = [(frame, mark) for frame, mark in enumerate(found) if mark != "."]
    assert "".join(mark for _, mark in events) == "RC" * (len(events) // 2) + "R" * (len(events) % 2)
    sign = 1 if comparison == "<" else -1
    last = -1
    for frame, mark in events:
        row = values[frame - after + 1 : frame + 1]
        assert frame - after >= last and len(row) == after
        assert all(value is not None for value in row)
        assert all(sign * value < sign * 2 if mark == "R" else sign * value >= sign * clear for value in row)
        last = frame


def test_events_say_what_was_measured_on_which_frame() -> None:
    capture = Capture(7, 1.5, 20.0)
    told: list[Event] = []
    monitor = gcpp_edge.Monitor("evidence<20 after 1", told.append)
    (event,) = monitor(ANY, capture)
    assert event == Event("evidence<20", RAISED, 10.0, capture, "evidence<20 holds: 10")
    assert monitor.active == ("evidence<20",)
    (event,) = monitor(explained([[30]]))
    assert event == Event("evidence<20", CLEARED, 30.0, None, "evidence<20 holds no longer: 30")
    assert monitor.active == ()
    assert [event.kind for event in told] == [RAISED, CLEARED]
    (event,) = monitor(replace(ANY, capture=capture))
    assert event.capture is capture


def test_a_text_of_an_event_says_how_many_frames() -> None:
    monitor = Monitor(["evidence<20 after 2"])
    monitor(ANY)
    assert monitor(ANY)[0].text == "evidence<20 holds: 10, the last of 2 frames in a row"


def test_several_rules_are_told_in_their_order() -> None:
    monitor = Monitor(["evidence<20 after 1", "poles>0 after 1", "spread>0.5 after 1", "jump>0.9 after 1"])
    assert [event.rule for event in monitor(ANY)] == ["evidence<20", "spread>0.5"]
    assert monitor.active == ("evidence<20", "spread>0.5")
    assert [str(rule) for rule in monitor.rules][1] == "poles>0 after 1"


def test_rules_of_the_table_on_a_sequence_of_maps() -> None:
    """Evidence that leaves the left half, all at once, and comes back."""
    monitor = Monitor(["inside:0,0,0.5,1<0.5 after 2", "jump>0.5 after 1"])
    left, right = explained([[9, 1]]), explained([[1, 9]])
    found = [
        [(event.rule[:4], event.kind) for event in monitor(one)] for one in (left, left, right, right, left, left, left)
    ]
    jumped, back = ("jump", RAISED), ("jump", CLEARED)
    left_it, is_there = ("insi", RAISED), ("insi", CLEARED)
    assert found == [[], [], [jumped], [left_it, back], [jumped], [is_there, back], []]


def test_two_monitors_of_the_same_rules_do_not_share_a_memory() -> None:
    rules = Monitor(["jump>0.5 after 1"]).rules
    one, other = Monitor(rules), Monitor(rules)
    one(explained([[1, 0]]))
    assert other(explained([[0, 1]])) == ()
    assert one(explained([[1, 0]])) == ()


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (["certainty<1"], "Unknown measure 'certainty'"),
        ([3], "expected a Rule or its text, found int"),
        (["poles>0", "poles>0 after 9"], "Two rules are named 'poles>0'"),
    ],
)
def test_rules_that_are_none_are_refused(rules: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Monitor(rules)


def test_a_failing_rule_is_told_once_for_each_run_counted_each_time_and_the_others_go_on() -> None:
    bad = giving([1, ValueError("no\nroad"), ValueError("again"), NAN, 1, KeyError("x"), "text", None, object()])
    monitor = Monitor([Rule("bad", bad, "<", 0), "evidence<20 after 1"])
    told = []
    for frame in range(9):
        events = monitor(ANY)
        assert [event.rule for event in events] == (["evidence<20"] if frame == 0 else [])
        told.append([trouble.text for trouble in monitor.troubles])
    left_out = "rule 'bad' failed, and is left out while it does: "
    assert [len(texts) for texts in told] == [0, 1, 0, 0, 0, 1, 0, 0, 1]
    assert told[1] == [left_out + "ValueError: no road"]
    assert told[5] == [left_out + "KeyError: 'x'"]
    assert told[8][0].startswith(left_out + "TypeError: ")
    assert monitor.failures == 6
    assert monitor.troubles[0].where == "monitor"


def test_a_measure_that_refuses_an_explanation_fails_its_rule_alone() -> None:
    """A seed has no class and so no probability."""
    monitor = Monitor(["probability<0.5 after 1", "evidence<20 after 1"])
    assert [event.rule for event in monitor(replace(ANY, class_index=-1))] == ["evidence<20"]
    assert "InputError: probability: a seed was explained" in monitor.troubles[0].text
    assert monitor.failures == 1


def test_a_failing_on_event_is_told_once_for_each_run_and_events_come_all_the_same() -> None:
    outcomes = cycle([RuntimeError("robot gone"), RuntimeError("still gone"), None])
    seen = []

    def on_event(event: Event) -> None:
        seen.append(event)
        error = next(outcomes)
        if error is not None:
            raise error

    values = [1, 3] * 3
    monitor = Monitor([Rule("mine", giving(values), "<", 2, 1)], on_event)
    told = []
    for _ in values:
        assert len(monitor(ANY)) == 1
        told.append([trouble.text for trouble in monitor.troubles])
    assert [len(texts) for texts in told] == [1, 0, 0, 1, 0, 0]
    assert told[0] == ["on_event failed on 'mine holds: 1': RuntimeError: robot gone"]
    assert monitor.failures == 4
    assert len(seen) == 6


def test_a_stream_goes_on_tells_each_run_of_failures_once_and_counts(explainer: gcpp_edge.Explainer) -> None:
    bad = giving([1, ValueError("one"), ValueError("one"), 1, ValueError("two"), ValueError("two"), 1, 1])
    worse = giving([1, 1, NAN, 1, 1, 1, 1, 1])  # begins when the other is told already
    monitor = Monitor([Rule("bad", bad, "<", 0), Rule("worse", worse, "<", 0), "evidence>-1 after 2"])
    told: list[Trouble] = []
    stream = Stream(
        explainer, lambda: Scripted(pictures(8)), Settings(), ALL, Limits(), monitor=monitor, on_trouble=told.append
    )
    sink = Keeping()
    stream.add(sink)
    report = stream.run()
    assert [trouble.text.rpartition(" ")[2] for trouble in told] == ["one", "NaN", "two"]
    assert (report.explained, report.monitor_failures, report.events) == (8, 5, 1)
    assert [len(result.events) for result in sink.results] == [0, 1, 0, 0, 0, 0, 0, 0]
    assert sink.results[1].events[0].capture == sink.results[1].capture


def test_an_interrupt_is_no_failure_of_a_rule() -> None:
    def interrupted(explanation: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Monitor([Rule("mine", interrupted, "<", 1)])(ANY)


def test_without_rules_nothing_happens() -> None:
    monitor = Monitor([])
    assert monitor(ANY) == ()
    assert (monitor.active, monitor.troubles, monitor.failures) == ((), [], 0)
