"""A stream from source to sinks: policies, counters that add up, faults that are told once, and ends."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scripted import FPS, MODEL, WAIT_S, Keeping, Scripted, Watched, adds_up, fails, picture, pictures

import gcpp_edge
from gcpp_edge.errors import (
    CaptureError,
    DeviceLostError,
    FrameError,
    GcppError,
    InputError,
    MethodError,
    PictureError,
    RuntimeFailure,
    SinkError,
    StreamError,
    TargetError,
)
from gcpp_edge.explanation import Explanation
from gcpp_edge.pipeline import capturing, explaining, outlet
from gcpp_edge.pipeline import stream as module
from gcpp_edge.pipeline.capturing import Limits
from gcpp_edge.pipeline.events import Event, Trouble
from gcpp_edge.pipeline.monitor import Monitor
from gcpp_edge.pipeline.rules import Rule
from gcpp_edge.pipeline.settings import Settings
from gcpp_edge.pipeline.stream import ALL, LATEST, Stream

Made = Callable[..., Stream]


@pytest.fixture
def make(explainer: gcpp_edge.Explainer) -> Made:
    """A stream over sources that are opened one after the other."""

    def made(
        *sources: Any, policy: str | None = ALL, on: Any = explainer, limits: Limits | None = None, **settings: Any
    ) -> Stream:
        left = iter(sources)

        def opener() -> Any:
            found = next(left)
            if isinstance(found, BaseException):
                raise found
            return found

        troubles: list[Trouble] = []
        stream = Stream(on, opener, Settings(**settings), policy, limits or Limits(), on_trouble=troubles.append)
        stream.told = troubles  # type: ignore[attr-defined]
        return stream

    return made


def told(stream: Stream) -> list[str]:
    return [trouble.where for trouble in stream.told]  # type: ignore[attr-defined]


def run_with(stream: Stream, *sinks: Keeping) -> Any:
    for sink in sinks:
        stream.add(sink)
    return stream.run()


# every frame


def test_every_frame_is_explained_in_order_as_a_call_would(make: Made, explainer: gcpp_edge.Explainer) -> None:
    frames, sink = pictures(20), Keeping()
    source = Scripted(frames)
    report = run_with(make(source), sink)
    assert sink.ids == list(range(20)) and sink.closed == 1 and source.closed >= 1
    for result, frame in zip(sink.results, frames, strict=True):
        alone = explainer(frame)
        assert result.explanation.capture == result.capture
        assert result.capture.timestamp == result.capture.id / FPS
        np.testing.assert_array_equal(result.explanation.map, alone.map)
        np.testing.assert_array_equal(result.picture(), alone.overlay())
    assert (report.captured, report.explained, report.under_way) == (20, 20, 0) and adds_up(report)
    assert vars(report.sinks["keeping"]) == {"written": 20, "dropped": 0, "broken": ""}
    assert report.source_state == "ended" and sum(report.latencies.buckets) == 20


def test_with_all_the_stream_waits_for_a_recorder_and_never_for_a_viewer(make: Made) -> None:
    recorder = Keeping(before=lambda result: time.sleep(0.002))
    viewer = Keeping("viewer", is_viewer=True, before=lambda result: time.sleep(0.02))
    report = run_with(make(Scripted(pictures(60))), recorder, viewer)
    assert recorder.ids == list(range(60)) and report.stale == 0
    assert viewer.ids[-1] == 59, "a viewer sees the last one"
    assert report.sinks["viewer"].dropped > 0
    assert report.sinks["viewer"].written + report.sinks["viewer"].dropped == 60


def test_a_loop_gets_every_frame_of_a_file(make: Made) -> None:
    stream = make(Scripted(pictures(30)), policy=None)
    assert [one.capture.id for one in stream if one.capture] == list(range(30))
    assert stream.policy == ALL and vars(stream.report().sinks["loop"]) == {"written": 30, "dropped": 0, "broken": ""}


# the newest frame


def test_with_latest_the_newest_frame_wins_and_the_others_are_stale(make: Made, explainer: gcpp_edge.Explainer) -> None:
    """The explainer is held at the first frame until nine more have come."""
    taken, all_came, done = threading.Event(), threading.Event(), threading.Event()
    held = Watched(explainer, {0: lambda: (taken.set(), all_came.wait(WAIT_S))})
    steps = [picture(0), lambda: taken.wait(WAIT_S), *pictures(9), all_came.set, lambda: done.wait(WAIT_S)]
    sink = Keeping(before=lambda result: done.set() if result.capture.id == 9 else None)
    report = run_with(make(Scripted(steps, is_live=True), policy=LATEST, on=held), sink)
    assert sink.ids == [0, 9]
    assert (report.captured, report.explained, report.stale) == (10, 2, 8) and adds_up(report)


def test_with_latest_a_stuck_sink_delays_nobody(make: Made) -> None:
    release, seen = threading.Event(), threading.Semaphore(0)
    stuck = Keeping("stuck", before=lambda result: release.wait(WAIT_S))
    quick = Keeping("quick", before=lambda result: seen.release())
    in_step = [step for frame in pictures(40) for step in (frame, lambda: seen.acquire(timeout=WAIT_S))]
    stream = make(Scripted([*in_step, release.set], is_live=True), policy=LATEST)
    report = run_with(stream, stuck, quick)
    assert quick.ids == list(range(40))
    assert stuck.ids == [0, *range(40 - outlet.RECORDER_SIZE, 40)], "the first, which it held, and the latest"
    assert report.sinks["stuck"].dropped == 40 - len(stuck.ids) and adds_up(report)


@pytest.mark.parametrize(
    ("is_live", "is_viewer", "policy"),
    [(True, False, LATEST), (False, False, ALL), (False, True, LATEST), (True, True, LATEST)],
)
def test_the_policy_follows_from_source_and_sinks(make: Made, is_live: bool, is_viewer: bool, policy: str) -> None:
    stream = make(Scripted(pictures(2), is_live=is_live), policy=None)
    run_with(stream, Keeping(is_viewer=is_viewer))
    assert stream.policy == policy


def test_every_so_many_frames_the_others_carry_the_map(make: Made, explainer: gcpp_edge.Explainer) -> None:
    frames, sink = pictures(7), Keeping()
    report = run_with(make(Scripted(frames), every=3), sink)
    assert [result.is_fresh for result in sink.results] == [True, False, False] * 2 + [True]
    assert (report.explained, report.carried) == (3, 4) and adds_up(report)
    carried = sink.results[4]
    np.testing.assert_array_equal(carried.explanation.map, explainer(frames[3]).map)
    np.testing.assert_array_equal(carried.frame_bgr(), frames[4])
    assert carried.explanation.capture is not None and carried.explanation.capture.id == 4


def test_a_frame_of_another_size_is_explained_itself(make: Made) -> None:
    frames = [picture(0), picture(1), picture(2, (30, 90)), picture(3, (30, 90)), picture(4)]
    sink = Keeping()
    run_with(make(Scripted(frames), every=4), sink)
    assert [result.is_fresh for result in sink.results] == [True, False, True, False, True]
    assert [result.picture().shape[:2] for result in sink.results] == [frame.shape[:2] for frame in frames]


def test_a_rate_is_kept_by_leaving_out_frames_of_a_camera(make: Made) -> None:
    report = run_with(make(Scripted(pictures(50), is_live=True), policy=ALL, limits=Limits(max_fps=0.1)), Keeping())
    assert (report.captured, report.explained, report.skipped) == (50, 1, 49) and adds_up(report)


def test_a_file_ends_where_its_time_is_up(make: Made) -> None:
    sink = Keeping()
    report = run_with(make(Scripted(pictures(50)), limits=Limits(duration_s=1.0)), sink)
    assert len(sink.ids) == FPS and adds_up(report)


def test_settings_act_from_the_next_frame_on(make: Made) -> None:
    stream = make(Scripted(pictures(6)))
    found = []
    for one in stream:
        found.append((one.method, one.class_index))
        if len(found) == 1:
            assert stream.change(method="gradcam", target=2).target == 2
    assert found[-1] == ("gradcam", 2) and found[0][0] == "gradcam++"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"method": "nope"}, MethodError),
        ({"target": 99}, TargetError),
        ({"target": "no such class"}, TargetError),
        ({"alpha": 1.5}, InputError),
        ({"alpha": "0.5"}, InputError),
        ({"alpha": True}, InputError),
        ({"alpha": float("nan")}, InputError),
        ({"colormap": "pink"}, InputError),
        ({"smooth_s": -1}, InputError),
        ({"every": 0}, InputError),
        ({"every": 2.5}, InputError),
        ({"speed": 3}, InputError),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_and_nothing_changes(
    make: Made, change: dict[str, Any], error: type[GcppError]
) -> None:
    with make(Scripted([])) as stream:
        before = stream.settings
        with pytest.raises(error):
            stream.change(alpha=0.25, **{name: value for name, value in change.items() if name != "alpha"}) if (
                "alpha" not in change
            ) else stream.change(**change)
        assert stream.settings == before


def test_maps_are_smoothed_and_begin_anew_where_the_class_changes(make: Made, explainer: gcpp_edge.Explainer) -> None:
    frame = picture(0)
    stream = make(Scripted([frame] * 6), target=1, smooth_s=1.0)
    found = []
    for one in stream:
        found.append(one.class_index)
        if len(found) == 1:
            stream.change(target=2)
    assert found[0] == 1 and found[-1] == 2
    assert stream.report().resets == 1


def test_smoothed_maps_lie_between_those_of_the_frames(make: Made, explainer: gcpp_edge.Explainer) -> None:
    """Noise over one picture: neighbours of one class, and no cut between them."""
    frames = [np.clip(picture(0).astype(int) + shift, 0, 255).astype(np.uint8) for shift in (0, 3, -3, 5)]
    raw = [explainer(frame, 1).map for frame in frames]
    sink = Keeping()
    report = run_with(make(Scripted(frames), target=1, smooth_s=0.5), sink)
    weight = 1 - np.exp(-1 / FPS / 0.5)
    expected = raw[0].astype(np.float64)
    for result, one in zip(sink.results, raw, strict=True):
        expected = expected + weight * (one - expected)
        np.testing.assert_allclose(result.explanation.map, expected, rtol=1e-4, atol=1e-6)
        assert result.explanation.evidence == pytest.approx(float(one.sum()), rel=1e-5), "evidence is the frame's own"
    assert report.resets == 0


# faults: told once, counted, and the stream goes on or ends cleanly


class Fault(NamedTuple):
    """What goes wrong, and what is seen of it."""

    name: str
    steps: list[Any]
    explained: int
    told: list[str]
    counts: dict[str, int]


FAULTS = [
    Fault("a corrupt frame", [*pictures(2), FrameError("damaged"), *pictures(2)], 4, ["source"], {"unreadable": 1}),
    Fault(
        "a run of corrupt frames is told once",
        [picture(0), PictureError("a"), PictureError("b"), picture(1), PictureError("c"), picture(2)],
        3,
        ["source", "source"],
        {"unreadable": 3},
    ),
    Fault("a frame that is none", [picture(0), np.zeros((4, 4)), picture(1)], 2, ["explain"], {"failed": 1}),
    Fault(
        "a run of frames that are none is told once",
        [np.zeros((4, 4))] * 3 + [picture(1)] + [np.zeros((4, 4))],
        1,
        ["explain", "explain"],
        {"failed": 4},
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_told_once_and_the_stream_goes_on(make: Made, fault: Fault) -> None:
    stream, sink = make(Scripted(fault.steps)), Keeping()
    report = run_with(stream, sink)
    assert len(sink.results) == report.explained == fault.explained
    assert told(stream) == fault.told
    assert {name: getattr(report, name) for name in fault.counts} == fault.counts and adds_up(report)


def test_a_network_that_fails_on_a_frame_is_survived(make: Made, explainer: gcpp_edge.Explainer) -> None:
    failing = Watched(explainer, {1: fails(RuntimeFailure("not finite")), 2: fails(RuntimeFailure("not finite"))})
    stream, sink = make(Scripted(pictures(5)), on=failing), Keeping()
    report = run_with(stream, sink)
    assert sink.ids == [0, 3, 4] and report.failed == 2 and told(stream) == ["explain"] and adds_up(report)


@pytest.mark.parametrize("error", [DeviceLostError("the GPU is gone"), ZeroDivisionError("a defect")], ids=repr)
def test_what_cannot_go_on_ends_the_stream_with_files_finished(
    make: Made, explainer: gcpp_edge.Explainer, error: Exception
) -> None:
    stream, sink = make(Scripted(pictures(50)), on=Watched(explainer, {2: fails(error)})), Keeping()
    with pytest.raises(type(error), match=str(error)):
        run_with(stream, sink)
    assert sink.ids == [0, 1] and sink.closed == 1 and adds_up(stream.report())
    assert stream.report().failed == 1


def test_a_camera_that_vanishes_is_found_again(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "FIRST_PAUSE_S", 0.001)
    lost = [*pictures(3), CaptureError("unplugged.")]
    sources: list[Any] = [
        Scripted(lost, is_live=True),
        CaptureError("still away."),
        CaptureError("still away."),
        Scripted(lost, is_live=True),
        Scripted(pictures(2), is_live=True),
    ]
    stream, sink = make(*sources), Keeping()
    report = run_with(stream, sink)
    assert sink.ids == list(range(8)), "ids go on"
    assert report.reconnects == 2 and told(stream) == ["source"] * 4 and adds_up(report)
    assert "unplugged" in stream.report().troubles[0].text and "there again" in stream.report().troubles[1].text
    assert all(source.closed >= 1 for source in sources if isinstance(source, Scripted))


def test_pauses_grow_until_a_camera_is_there(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: _note(self, timeout, pauses))
    stream = make(Scripted([CaptureError("gone.")], is_live=True), *[CaptureError("away")] * 7, Scripted([]))
    assert stream.run().reconnects == 1
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


_REAL_WAIT = threading.Event.wait


def _note(event: threading.Event, timeout: float | None, pauses: list[float]) -> bool:
    """Waits as asked for, but for the pauses of the capture thread, which are written down."""
    if threading.current_thread().name != "gcpp-capture" or timeout in (None, 0.1):
        return _REAL_WAIT(event, timeout)
    pauses.append(timeout)
    return event.is_set()


def test_a_lost_camera_that_is_waited_for_does_not_outlive_the_stream(make: Made) -> None:
    stream = make(Scripted([picture(0), CaptureError("gone.")], is_live=True), *[CaptureError("away")] * 1000)
    for _ in stream:
        pass_on = threading.Timer(0.05, stream.stop)
        pass_on.start()
    assert stream.report().source_state == "ended" and stream.report().reconnects == 0


def test_a_file_that_breaks_ends_the_stream_with_its_error(make: Made) -> None:
    stream, sink = make(Scripted([*pictures(3), CaptureError("disk gone")])), Keeping()
    with pytest.raises(CaptureError, match="disk gone"):
        run_with(stream, sink)
    assert sink.ids == [0, 1, 2] and sink.closed == 1


def test_a_source_that_cannot_be_opened_is_refused_at_once(make: Made) -> None:
    with pytest.raises(CaptureError, match="no such camera"):
        make(CaptureError("no such camera"))


def test_a_camera_that_stalls_is_reported_once_and_again_when_it_is_back(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.02)
    seen = threading.Event()
    steps = [picture(0), lambda: seen.wait(WAIT_S), lambda: time.sleep(0.2), picture(1)]
    stream, sink = make(Scripted(steps, is_live=True)), Keeping(before=lambda result: seen.set())
    report = run_with(stream, sink)
    assert sink.ids == [0, 1] and report.stalls == 1 and told(stream) == ["source"] * 2


def test_what_a_source_remarks_at_its_end_is_told(make: Made) -> None:
    stream = make(Scripted(pictures(2), remark="clip.mp4: ended after 2 of 9 frames."))
    run_with(stream, Keeping())
    assert [trouble.text for trouble in stream.report().troubles] == ["clip.mp4: ended after 2 of 9 frames."]


@pytest.mark.parametrize("error", [SinkError("disk full"), OSError(28, "No space left"), ValueError("a defect")])
def test_a_sink_that_breaks_is_closed_and_told_once_and_the_others_go_on(make: Made, error: Exception) -> None:
    broken = Keeping("broken", before=lambda result: fails(error)() if result.capture.id >= 2 else None)
    stream, good = make(Scripted(pictures(30))), Keeping("good")
    report = run_with(stream, broken, good)
    assert good.ids == list(range(30)) and broken.ids == [0, 1] and broken.closed == 1
    counts = report.sinks["broken"]
    assert (counts.written, counts.dropped) == (2, 28) and str(error) in counts.broken
    assert told(stream) == ["broken"]


def test_a_stream_whose_sinks_are_all_broken_ends(make: Made) -> None:
    stream = make(Scripted(pictures(1000)))
    with pytest.raises(SinkError, match="Every output"):
        run_with(stream, Keeping("one", before=fails(OSError("full"))), Keeping("two", before=fails(OSError("full"))))
    assert stream.report().captured < 1000 and sorted(told(stream)) == ["one", "two"]


def test_a_sink_that_cannot_be_finished_is_told(make: Made) -> None:
    stream = make(Scripted(pictures(3)))
    report = run_with(stream, Keeping("unfinished", at_close=SinkError("no trailer")), Keeping("good"))
    assert report.sinks["unfinished"].broken == "no trailer" and told(stream) == ["unfinished"]


def test_a_recorder_that_takes_nothing_is_given_up(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "PATIENCE_S", 0.05)
    monkeypatch.setattr(module, "JOIN_S", 0.05)
    release = threading.Event()
    stuck, good = Keeping("stuck", before=lambda result: release.wait(WAIT_S)), Keeping("good")
    stream = make(Scripted(pictures(30)))
    report = run_with(stream, stuck, good)
    release.set()
    assert good.ids == list(range(30)) and "took nothing" in report.sinks["stuck"].broken
    assert told(stream) == ["stuck"]


def test_a_model_file_that_is_replaced_is_told_once_and_the_stream_goes_on(
    make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "WATCH_S", 0.0)
    path = tmp_path / "model.onnx"
    shutil.copy(MODEL, path)

    def replace() -> None:
        (tmp_path / "new.onnx").write_bytes(b"another model")
        (tmp_path / "new.onnx").replace(path)

    with gcpp_edge.load(path, device="cpu", threads=1) as own:
        stream, sink = make(Scripted([*pictures(5), replace, *pictures(5)]), on=own), Keeping()
        report = run_with(stream, sink)
    assert len(sink.ids) == 10 and told(stream) == ["model"] and adds_up(report)


# frames that are handed over


def test_a_submitted_frame_comes_back_explained_with_its_timestamp(explainer: gcpp_edge.Explainer) -> None:
    frame = picture(0)
    with explainer.stream(policy=ALL) as stream:
        futures = [stream.submit(frame, timestamp=100 + number) for number in range(5)]
        found = [future.result(WAIT_S) for future in futures]
    assert [one.capture.timestamp for one in found if one.capture] == [100, 101, 102, 103, 104]
    np.testing.assert_array_equal(found[0].map, explainer(frame).map)


def test_a_submitted_frame_may_be_overwritten_at_once(explainer: gcpp_edge.Explainer) -> None:
    frame = picture(0)
    expected = explainer(frame.copy()).map
    with explainer.stream() as stream:
        future = stream.submit(frame)
        frame[:] = 0
        np.testing.assert_array_equal(future.result(WAIT_S).map, expected)


def test_a_submitted_frame_that_gives_way_has_its_future_cancelled(explainer: gcpp_edge.Explainer) -> None:
    taken, go_on = threading.Event(), threading.Event()
    held = Watched(explainer, {0: lambda: (taken.set(), go_on.wait(WAIT_S))})
    with Stream(held, None, Settings(), LATEST, Limits()) as stream:
        first = stream.submit(picture(0))
        assert taken.wait(WAIT_S)
        second, third = stream.submit(picture(1)), stream.submit(picture(2))
        assert second.cancelled() and not third.done()
        go_on.set()
        assert first.result(WAIT_S).capture.id == 0 and third.result(WAIT_S).capture.id == 2
    assert stream.report().stale == 1 and adds_up(stream.report())


def test_a_submitted_frame_that_is_refused_has_the_error(explainer: gcpp_edge.Explainer) -> None:
    with explainer.stream() as stream:
        with pytest.raises(FrameError, match="bgr frame"):
            stream.submit(np.zeros((4, 4), np.uint8)).result(WAIT_S)
        assert stream.submit(np.zeros((4, 4), np.uint8), format="gray").result(WAIT_S).capture.id == 1


def test_after_its_end_a_stream_takes_no_frames(explainer: gcpp_edge.Explainer) -> None:
    with explainer.stream() as stream:
        stream.submit(picture(0)).result(WAIT_S)
    with pytest.raises(StreamError, match="ended"):
        stream.submit(picture(1))
    assert adds_up(stream.report())


def test_a_stream_with_a_source_takes_no_frames(make: Made) -> None:
    with make(Scripted([])) as stream, pytest.raises(StreamError, match="without a source"):
        stream.submit(picture(0))


# ends


def test_leaving_a_loop_ends_the_stream_and_closes_its_sinks(make: Made) -> None:
    source, sink = Scripted(pictures(10_000)), Keeping()
    stream = make(source)
    stream.add(sink)
    for explanation in stream:
        if explanation.capture and explanation.capture.id >= 5:
            break
    stream.close()
    assert sink.closed == 1 and source.closed >= 1 and stream.report().captured < 10_000
    assert adds_up(stream.report()) and stream.report().under_way == 0


def test_stopping_finishes_what_is_on_its_way(make: Made) -> None:
    stream = make(Scripted(pictures(10_000)))
    sink = Keeping(before=lambda result: stream.stop() if result.capture.id == 20 else None)
    report = run_with(stream, sink)
    assert sink.closed == 1 and sink.ids == list(range(len(sink.ids))) and 21 <= len(sink.ids) < 200
    assert report.under_way == 0 and adds_up(report)


def test_a_stream_that_was_never_started_closes_all_that_it_has(make: Made) -> None:
    source, sink = Scripted(pictures(5)), Keeping()
    with make(source) as stream:
        stream.add(sink)
    assert source.closed == 1 and sink.closed == 1 and stream.report().captured == 0
    with pytest.raises(StreamError, match="ended"):
        stream.add(sink)


def test_a_sink_is_an_address_a_function_or_a_sink(make: Made, tmp_path: Path) -> None:
    stream, ids = make(Scripted(pictures(3))), []
    stream.add(f"jsonl://{tmp_path}/out.jsonl")
    stream.add(lambda result: ids.append(result.capture.id))
    report = run_with(stream, Keeping())
    assert ids == [0, 1, 2] and len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    assert all(sink.written == 3 for sink in report.sinks.values()) and len(report.sinks) == 3


def test_an_address_that_is_none_is_refused(make: Made) -> None:
    with make(Scripted([])) as stream, pytest.raises(InputError, match="ftp"):
        stream.add("ftp://host/x")


def test_two_sinks_of_one_name_are_told_apart(make: Made) -> None:
    report = run_with(make(Scripted(pictures(2))), Keeping("out"), Keeping("out"))
    assert list(report.sinks) == ["out", "out 2"]


def test_a_report_is_ready_for_json_while_the_stream_runs(make: Made) -> None:
    import json

    stream = make(Scripted(pictures(20)))
    for _ in stream:
        report = stream.report()
        assert adds_up(report)
        assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["captured"] == report.captured


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 5), (90, 9), (99, 10), (100, 10)])
def test_percentiles_are_by_nearest_rank(percent: float, expected: float) -> None:
    from gcpp_edge.pipeline.counters import Latencies

    latencies = Latencies()
    for value in (3, 1, 2, 10, 9, 8, 7, 6, 5, 4):
        latencies.add(value)
    assert latencies.percentile(percent) == expected
    assert Latencies().percentile(percent) == 0


# a monitor


def test_rules_see_every_explanation_as_it_is_and_their_events_reach_the_sinks(explainer: gcpp_edge.Explainer) -> None:
    told: list[Event] = []
    monitor = Monitor([Rule("seen", number_of, ">", 2.5, after=2)], told.append)
    with explainer.stream(pictures(6), policy=ALL, smooth_s=5, monitor=monitor) as stream:
        events = [event for result in stream.results() for event in result.events]
    assert events == told and [event.kind for event in events] == ["raised"]
    assert events[0].capture is not None and events[0].capture.id == 4
    assert stream.report().events == 1


def test_a_rule_that_raises_is_told_once_and_counted(explainer: gcpp_edge.Explainer) -> None:
    troubles: list[Trouble] = []
    monitor = Monitor([Rule("broken", fails(ZeroDivisionError("no")), "<", 1.0)])
    with explainer.stream(pictures(6), monitor=monitor, on_trouble=troubles.append) as stream:
        assert len(list(stream)) == 6
    assert [trouble.where for trouble in troubles] == ["monitor"] and stream.report().monitor_failures == 6


def number_of(explanation: Explanation) -> float:
    return float(explanation.capture.id) if explanation.capture else 0.0


# whoever ends it, from wherever, and in whatever order


@pytest.mark.parametrize("place", ["sink", "trouble", "future", "rule"])
def test_closing_from_a_thread_of_the_stream_ends_it_and_files_are_finished(
    explainer: gcpp_edge.Explainer, place: str
) -> None:
    all_submitted = threading.Event()  # a stream that is closed before takes no more frames

    def close(*_: object) -> None:
        assert all_submitted.wait(WAIT_S)
        stream.close()

    slow = Keeping("slow", before=lambda result: time.sleep(0.02))
    monitor = Monitor([Rule("seen", number_of, ">", 1.5, after=1)], close if place == "rule" else None)
    troubles: Any = close if place == "trouble" else None
    with explainer.stream(policy=ALL, monitor=monitor, on_trouble=troubles) as stream:
        stream.add(slow)
        if place == "sink":
            stream.add(close)
        futures = [stream.submit(picture(number)) for number in range(3)]
        if place == "trouble":
            futures.append(stream.submit(np.zeros((4, 4), np.uint8)))
        all_submitted.set()
        if place == "future":
            futures[1].add_done_callback(close)
    report = stream.report()
    assert slow.closed == 1 and len(slow.results) == report.explained >= 1 and adds_up(report)
    assert all(future.done() for future in futures) and report.source_state == "ended"


def test_two_who_close_at_once_both_wait_until_files_are_finished(make: Made) -> None:
    release, is_running = threading.Event(), threading.Event()
    slow = Keeping(before=lambda result: (is_running.set(), release.wait(WAIT_S)))
    stream = make(Scripted(pictures(5)))
    stream.add(slow)
    stream.start()
    assert is_running.wait(WAIT_S)
    closed: list[int] = []
    threads = [threading.Thread(target=lambda: (stream.close(), closed.append(slow.closed))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert not closed
    release.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert closed == [1, 1]


def test_a_loop_that_an_error_ends_leaves_nothing_behind(make: Made) -> None:
    sink = Keeping()
    began = time.monotonic()
    with pytest.raises(ValueError, match="mine"), make(Scripted(pictures(60))) as stream:
        stream.add(sink)
        results = stream.results()  # still has a name when the stream is closed
        for _ in results:
            raise ValueError("mine")
    assert sink.closed == 1 and time.monotonic() - began < module.JOIN_S and told(stream) == []


def test_a_stream_that_has_ended_gives_a_loop_nothing_and_takes_no_sinks(make: Made) -> None:
    stream = make(Scripted(pictures(3)))
    assert len(list(stream)) == 3 and list(stream) == []
    again = make(Scripted(pictures(3)))
    again.start()
    while not again.wait(0.01):
        pass
    assert list(again.results()) == []
    with pytest.raises(StreamError, match="ended"):
        again.add(Keeping())


def test_a_stream_that_is_stopped_before_it_starts_ends_at_once(make: Made, explainer: gcpp_edge.Explainer) -> None:
    stream, sink = make(Scripted(pictures(100))), Keeping()
    stream.add(sink)
    stream.stop()
    assert stream.run().captured == 0 and sink.closed == 1
    with explainer.stream() as handed:
        handed.stop()
        with pytest.raises(StreamError, match="ended"):
            handed.submit(picture(0))


def test_what_cannot_be_run_or_waited_for_says_so(make: Made) -> None:
    stream = make(Scripted(pictures(1)))
    assert not stream.wait(0)
    stream.close()
    with pytest.raises(StreamError, match="before it began"):
        stream.run()


def test_a_sink_that_cannot_be_closed_before_the_start_does_not_keep_others_open(make: Made) -> None:
    one, other = Keeping("one", at_close=SinkError("no")), Keeping("other")
    with make(Scripted(pictures(1))) as stream:
        stream.add(one)
        stream.add(other)
    assert (one.closed, other.closed) == (1, 1) and told(stream) == ["one"]


@pytest.mark.parametrize("what", [3, None, b"out.mp4"])
def test_what_is_no_sink_is_refused(make: Made, what: Any) -> None:
    with make(Scripted([])) as stream, pytest.raises(InputError, match="expected an address"):
        stream.add(what)


def test_a_path_is_an_address(make: Made, tmp_path: Path) -> None:
    stream = make(Scripted(pictures(2)))
    stream.add(tmp_path / "out.jsonl")
    stream.run()
    assert (tmp_path / "out.jsonl").exists()


# callbacks that fail, and frames that are odd


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(1)], ids=repr)
def test_an_on_trouble_that_fails_harms_nobody(explainer: gcpp_edge.Explainer, error: BaseException) -> None:
    with explainer.stream(on_trouble=fails(error)) as stream:
        with pytest.raises(FrameError):
            stream.submit(np.zeros((4, 4), np.uint8)).result(WAIT_S)
        assert stream.submit(picture(0)).result(WAIT_S).capture.id == 1
    stream = explainer.stream(pictures(30), on_trouble=fails(error))
    stream.add(fails(SinkError("full")))
    with pytest.raises(SinkError, match="Every output"):
        stream.run()


def test_a_rule_that_ends_the_process_leaves_no_frame_without_a_fate(explainer: gcpp_edge.Explainer) -> None:
    monitor = Monitor([Rule("exit", fails(SystemExit(3)), "<", 1.0)])
    with explainer.stream(monitor=monitor) as stream:
        future = stream.submit(picture(0))
        with pytest.raises(SystemExit):
            future.result(WAIT_S)
    assert stream.report().failed == 1 and adds_up(stream.report())


def test_a_frame_that_is_none_fails_where_it_would_carry_a_map_too(make: Made) -> None:
    sink = Keeping(before=lambda result: result.picture())
    bad = [picture(0).astype(np.float32), picture(0).tolist()]
    stream = make(Scripted([picture(0), bad[0], picture(1), bad[1], picture(2)]), every=2)
    report = run_with(stream, sink)
    assert report.failed == 2 and len(sink.results) == 3 and told(stream) == ["explain"] * 2 and adds_up(report)


def test_a_changed_class_is_explained_at_once_and_not_carried(make: Made) -> None:
    stream = make(Scripted(pictures(30)), every=100, target=1)
    found = []
    for result in stream.results():
        found.append((result.settings.target, result.explanation.class_index))
        if len(found) == 1:
            stream.change(target=3)
    assert all(asked == explained for asked, explained in found) and found[-1] == (3, 3)


@pytest.mark.parametrize("timestamp", [float("nan"), float("inf")])
def test_a_timestamp_that_is_no_time_is_refused(explainer: gcpp_edge.Explainer, timestamp: float) -> None:
    with explainer.stream() as stream, pytest.raises(InputError, match="timestamp"):
        stream.submit(picture(0), timestamp)


def test_a_source_that_gives_no_time_gives_no_frame(make: Made) -> None:
    source = Scripted(pictures(3))
    read = source.read
    source.read = lambda: shot._replace(timestamp=float("nan")) if (shot := read()) and shot.timestamp else shot  # type: ignore[method-assign]
    report = run_with(make(source), Keeping())
    assert (report.captured, report.unreadable) == (1, 2)


def test_frames_from_a_callback_are_refused_where_they_would_wait_for_themselves(
    explainer: gcpp_edge.Explainer,
) -> None:
    answers: list[str] = []

    def more(_: object) -> None:
        try:
            for _ in range(module.QUEUE + 2):
                stream.submit(picture(0))
        except StreamError as error:
            answers.append(str(error))

    with explainer.stream(policy=ALL) as stream:
        stream.submit(picture(0)).add_done_callback(more)
        while not answers:
            time.sleep(0.001)
    assert "callback" in answers[0] and adds_up(stream.report())


def test_a_stream_ends_where_its_explainer_was_closed() -> None:
    own = gcpp_edge.load(MODEL, device="cpu", threads=1)
    with own.stream(pictures(1000)) as stream, pytest.raises(RuntimeFailure, match="closed"):
        for _ in stream:
            own.close()
    assert stream.report().captured < 1000


# clocks


def test_a_camera_that_opens_and_gives_nothing_is_lost_all_the_while(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: _note(self, timeout, pauses))
    empty = [Scripted([CaptureError("nothing.")], is_live=True) for _ in range(5)]
    stream, sink = make(*empty, Scripted(pictures(2), is_live=True)), Keeping()
    assert run_with(stream, sink).reconnects == 1 and sink.ids == [0, 1]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0] and told(stream) == ["source"] * 2


@pytest.mark.parametrize("steps", [[CaptureError("gone.")], [FrameError("damaged")] * 100_000], ids=["lost", "damaged"])
def test_a_duration_ends_a_camera_that_gives_no_frames(
    make: Made, monkeypatch: pytest.MonkeyPatch, steps: list[Any]
) -> None:
    monkeypatch.setattr(capturing, "FIRST_PAUSE_S", 0.01)
    sources = [Scripted(steps, is_live=True) for _ in range(1000)]
    began = time.monotonic()
    report = make(*sources, limits=Limits(duration_s=0.2)).run()
    assert report.captured == 0 and 0.2 <= time.monotonic() - began < WAIT_S
    assert report.unreadable <= 25, "a source that refuses every frame does not burn a core"


def test_frames_that_are_left_out_are_no_stall(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.05)
    steps = [step for frame in pictures(40) for step in (frame, lambda: time.sleep(0.005))]
    stream = make(Scripted(steps, is_live=True), limits=Limits(max_fps=0.01))
    report = run_with(stream, Keeping())
    assert (report.explained, report.skipped, report.stalls) == (1, 39, 0) and told(stream) == []


def test_seconds_count_until_the_last_frame_has_its_map(make: Made, explainer: gcpp_edge.Explainer) -> None:
    slow = Watched(explainer, {number: lambda: time.sleep(0.05) for number in range(8)})
    assert run_with(make(Scripted(pictures(8)), on=slow), Keeping()).seconds >= 0.4


def test_a_sink_that_hangs_has_what_it_held_counted_as_dropped(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_S", 0.1)
    release = threading.Event()
    stuck = Keeping("stuck", before=lambda result: release.wait(WAIT_S))
    report = run_with(make(Scripted(pictures(30)), policy=LATEST), stuck, Keeping("good"))
    counts = report.sinks["stuck"]
    assert counts.written == 0 and counts.dropped == report.explained and "left behind" in counts.broken
    release.set()


@pytest.mark.parametrize("limits", [{"max_fps": -1}, {"max_fps": 1e-11}, {"duration_s": -1}, {"max_fps": np.inf}])
def test_limits_that_cannot_be_are_refused(explainer: gcpp_edge.Explainer, limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(limits))):
        explainer.stream([], **limits)  # type: ignore[arg-type]
