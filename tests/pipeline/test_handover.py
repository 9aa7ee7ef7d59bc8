"""What is handed from thread to thread: nothing is lost, nothing comes twice, nobody waits who should not."""

import threading
from time import monotonic

import pytest

from gcpp_edge.pipeline.handover import Handover

WAIT_S = 20.0


@pytest.mark.parametrize(
    ("size", "replaces", "given_up", "left"),
    [
        (1, True, [None, 0, 1, 2], [3]),
        (2, True, [None, None, 0, 1], [2, 3]),
        (4, True, [None, None, None, None], [0, 1, 2, 3]),
        (4, False, [None, None, None, None], [0, 1, 2, 3]),
    ],
)
def test_the_oldest_gives_way(size: int, replaces: bool, given_up: list[int | None], left: list[int]) -> None:
    handover: Handover[int] = Handover(size, replaces)
    assert [handover.put(item) for item in range(4)] == given_up
    handover.close()
    assert list(handover) == left


def test_without_room_a_put_waits_until_some_is_made() -> None:
    handover: Handover[int] = Handover(1, replaces=False)
    handover.put(0)
    answers: list[int | None] = []
    thread = threading.Thread(target=lambda: answers.append(handover.put(1)))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert handover.take() == 0
    thread.join(WAIT_S)
    assert answers == [None] and handover.take() == 1


def test_a_put_that_waited_too_long_has_its_item_back() -> None:
    handover: Handover[int] = Handover(1, replaces=False)
    handover.put(0)
    assert handover.put(1, timeout=0.01) == 1
    assert handover.take() == 0


def test_closing_wakes_whoever_waits() -> None:
    full: Handover[int] = Handover(1, replaces=False)
    full.put(0)
    empty: Handover[int] = Handover(1, replaces=False)
    answers: dict[str, int | None] = {}
    threads = [
        threading.Thread(target=lambda: answers.update(put=full.put(1))),
        threading.Thread(target=lambda: answers.update(take=empty.take())),
    ]
    for thread in threads:
        thread.start()
    full.close()
    empty.close()
    for thread in threads:
        thread.join(WAIT_S)
    assert answers == {"put": 1, "take": None}
    assert not full.has_ended and empty.has_ended and full.take() == 0 and full.has_ended


def test_after_closing_nothing_is_let_in_and_what_is_there_comes_out() -> None:
    handover: Handover[int] = Handover(2, replaces=True)
    handover.put(0)
    handover.close()
    handover.close()
    assert handover.put(1) == 1
    assert list(handover) == [0]


def test_a_take_gives_up_in_time() -> None:
    handover: Handover[int] = Handover(1, replaces=True)
    began = monotonic()
    assert handover.take(timeout=0.02) is None
    assert monotonic() - began >= 0.02
    assert not handover.has_ended


@pytest.mark.parametrize("replaces", [True, False])
def test_every_item_comes_out_once(replaces: bool) -> None:
    handover: Handover[int] = Handover(3, replaces)
    taken: list[int] = []
    given_up: list[int] = []

    def give(first: int) -> None:
        given_up.extend(lost for item in range(first, first + 500) if (lost := handover.put(item)) is not None)

    givers = [threading.Thread(target=give, args=(first,)) for first in (0, 500)]
    taker = threading.Thread(target=lambda: taken.extend(handover))
    for thread in (*givers, taker):
        thread.start()
    for thread in givers:
        thread.join(WAIT_S)
    handover.close()
    taker.join(WAIT_S)
    assert sorted(taken + given_up) == list(range(1000))
    assert replaces or not given_up
