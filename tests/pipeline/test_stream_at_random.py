"""Streams with everything at random that may happen to one: whatever comes, the counters add up and all is closed."""

from __future__ import annotations

import random
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
from scripted import WAIT_S, Keeping, Scripted, Watched, adds_up, fails, picture

import gcpp_edge
from gcpp_edge.errors import CaptureError, FrameError, RuntimeFailure, SinkError
from gcpp_edge.pipeline import capturing
from gcpp_edge.pipeline.capturing import Limits
from gcpp_edge.pipeline.settings import Settings
from gcpp_edge.pipeline.stream import ALL, LATEST, Stream

FRAMES = [picture(number) for number in range(3)] + [picture(3, (20, 90))]
NO_FRAME = np.zeros((4, 4))


def steps(chance: random.Random, is_live: bool) -> list[Any]:
    """What a source does: frames above all, of two sizes, and a pause, a bad frame or a loss here and there."""
    made: list[Any] = []
    for _ in range(chance.randrange(60)):
        kind = chance.random()
        if kind < 0.8:
            made.append(chance.choice(FRAMES))
        elif kind < 0.85:
            made.append(FrameError("damaged"))
        elif kind < 0.9:
            made.append(NO_FRAME)
        else:
            made.append(partial(time.sleep, chance.random() / 500))
    return [*made, CaptureError("gone.")] if is_live and chance.random() < 0.5 else made


def sink(chance: random.Random, number: int) -> Keeping:
    """One that is quick or slow, and may break while it works or when it is closed."""
    breaks_at = chance.choice([None, None, chance.randrange(40)])
    pause = chance.choice([0.0, 0.0, chance.random() / 200])
    left = [breaks_at]

    def before(result: Any) -> None:
        time.sleep(pause)
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise chance.choice([SinkError("full"), OSError(28, "full"), KeyError("a defect")])

    at_close = SinkError("no trailer") if chance.random() < 0.1 else None
    return Keeping(f"sink {number}", is_viewer=chance.random() < 0.3, before=before, at_close=at_close)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_the_counters_add_up_and_all_is_closed(
    explainer: gcpp_edge.Explainer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(capturing, "FIRST_PAUSE_S", 0.001)
    chance = random.Random(seed)
    is_live = chance.random() < 0.5
    sources = [Scripted(steps(chance, is_live), is_live) for _ in range(4)] + [Scripted([], is_live)]
    openings = [*sources]
    failing = {chance.randrange(60): fails(RuntimeFailure("not finite")) for _ in range(chance.randrange(3))}
    limits = Limits(max_fps=chance.choice([0, 0, 500.0]), duration_s=chance.choice([0, 0, 0.05]))
    stream = Stream(
        Watched(explainer, failing),
        lambda: openings.pop(0),
        Settings(every=chance.choice([1, 1, 3]), smooth_s=chance.choice([0, 0.3])),
        chance.choice([ALL, LATEST, None]),
        limits,
    )
    sinks = [sink(chance, number) for number in range(chance.randrange(4))]
    for each in sinks:
        stream.add(each)
    if chance.random() < 0.4:
        threading.Timer(chance.random() / 20, stream.stop).start()
    try:
        if sinks and chance.random() < 0.7:
            stream.run()
        else:
            leave_at = chance.choice([10_000, chance.randrange(20)])
            for number, _ in enumerate(stream):
                assert adds_up(stream.report())
                if number >= leave_at:
                    break
    except SinkError as error:
        assert "Every output" in str(error)
    stream.close()
    report = stream.report()
    assert adds_up(report) and report.under_way == 0 and report.source_state == "ended"
    mapped = report.explained + report.carried
    assert all(report.sinks[each.name].written == len(each.results) for each in sinks)
    assert all(counts.written + counts.dropped == mapped for name, counts in report.sinks.items() if name != "loop")
    assert [each.closed for each in sinks] == [1] * len(sinks)
    assert all(source.closed for source in sources if source not in openings)


def test_frames_from_many_threads_all_come_to_an_end(explainer: gcpp_edge.Explainer) -> None:
    futures: list[Any] = []
    with explainer.stream(policy=LATEST) as stream:

        def submit() -> None:
            for number in range(50):
                futures.append(stream.submit(FRAMES[number % 4], timestamp=number))

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert len(futures) == 200 and all(future.done() for future in futures)
    report = stream.report()
    assert adds_up(report) and report.captured == 200
    assert report.explained == sum(not future.cancelled() for future in futures)
