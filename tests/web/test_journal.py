"""What the page's log is made of."""

import pytest

from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.counters import Report
from gcpp_edge.pipeline.events import Event, Trouble
from gcpp_edge.web.journal import KEPT, Journal, known_of

A, B, C, D = (Trouble("source", text) for text in "abcd")


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        ([], [], 0),
        ([], [A, B], 0),
        ([A], [A], 1),
        ([A], [A, B], 1),
        ([A, B], [A, B, A, B], 2),
        ([A, B, C], [B, C, D], 2),  # a full list moved on by one
        ([A, B], [C, D], 0),
        ([A, B], [], 0),
    ],
    ids=str,
)
def test_troubles_that_were_seen_are_found_in_the_next_report(old: list, new: list, known: int) -> None:
    assert known_of(old, new) == known


def texts(journal: Journal, after: int = 0) -> list[tuple[str, str, str]]:
    return [(one["kind"], one["where"], one["text"]) for one in journal.after(after)]


def test_entries_are_numbered_and_given_from_a_number_on() -> None:
    journal = Journal()
    journal.note_report(Report(troubles=[A]))
    journal.note_report(Report(troubles=[A, B]))
    journal.note_events([Event("centre", "raised", 0.1, Capture(3, 0.1, 0.0), "too little")])
    assert texts(journal) == [
        ("trouble", "source", "a"),
        ("trouble", "source", "b"),
        ("raised", "centre", "too little"),
    ]
    assert texts(journal, 2) == [("raised", "centre", "too little")]
    assert journal.last == 3 and texts(journal, 3) == []


def test_a_source_that_comes_back_or_ends_is_entered() -> None:
    journal = Journal()
    for state in ("opening", "running", "lost", "lost", "running", "running", "ended", "ended"):
        journal.note_report(Report(source_state=state))
    assert texts(journal) == [
        ("state", "source", "Frames come again."),
        ("state", "source", "The source has ended."),
    ]


def test_it_keeps_the_latest_and_no_more() -> None:
    journal = Journal()
    for number in range(KEPT + 20):
        journal.note_events([Event("rule", "raised", 0.0, None, str(number))])
    assert [text for _, _, text in texts(journal)] == [str(number) for number in range(20, KEPT + 20)]
    assert len(journal.after(KEPT + 15)) == 5


def test_a_trouble_of_the_page_is_entered() -> None:
    journal = Journal()
    journal.note_trouble("live page", "frame 3 cannot be drawn")
    assert texts(journal) == [("trouble", "live page", "frame 3 cannot be drawn")]
