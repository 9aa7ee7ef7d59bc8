"""Videos are read back as they were written, and what cannot be written is noticed."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sink_results import FakeControl, make_result, number_in

from gcpp_edge.errors import SinkError
from gcpp_edge.pipeline.outlet import Outlet
from gcpp_edge.pipeline.sinks import open_sink, sink_of, video
from gcpp_edge.pipeline.tally import Tally

cv2 = pytest.importorskip("cv2", reason="videos are written with OpenCV: pip install 'gcpp-edge[cli]'")
HERE = Path(__file__).parent
NAMES = ("out.mp4", "out.m4v", "out.mov", "out.avi", "out.mkv", "out.avi?codec=XVID", "out.mkv?codec=MJPG")


def record(uri: object, numbers: Any = range(12), *, fps: float = 30.0, **options: Any) -> Any:
    """The closed sink, after results of these numbers."""
    sink = open_sink(str(uri), FakeControl(fps))
    for number in numbers:
        sink.write(make_result(number, **options))
    sink.close()
    sink.close()
    return sink


def read(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames and frames a second."""
    found = cv2.VideoCapture(str(path))
    assert found.isOpened()
    frames, fps = [], found.get(cv2.CAP_PROP_FPS)
    while True:
        is_there, frame = found.read()
        if not is_there:
            return frames, fps
        frames.append(frame)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_back_is_what_was_written(name: str, tmp_path: Path) -> None:
    record(tmp_path / name)
    (path,) = tmp_path.iterdir()
    frames, fps = read(path)
    assert path.name == name.split("?")[0] and len(frames) == 12 and fps == pytest.approx(30)
    for number, frame in enumerate(frames):
        expected = make_result(number).picture()
        assert frame.shape == expected.shape and number_in(frame) == number
        # both codecs lose something, most at the edges of small squares
        assert np.abs(frame.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("given, found", [("", 12.5), ("?fps=24", 24), ("?fps=7.5", 7.5)])
def test_the_rate_is_the_source_s_unless_another_is_asked_for(given: str, found: float, tmp_path: Path) -> None:
    record(f"{tmp_path}/out.mp4{given}", fps=12.5)
    assert read(tmp_path / "out.mp4")[1] == pytest.approx(found)


def test_a_source_that_says_no_rate_is_recorded_at_thirty(tmp_path: Path) -> None:
    record(tmp_path / "out.avi", fps=0)
    assert read(tmp_path / "out.avi")[1] == pytest.approx(30)


def test_dropped_frames_leave_the_one_before_on_the_screen(tmp_path: Path) -> None:
    record(tmp_path / "out.avi", [0, 1, 2, 10, 11, 20])
    shown = [number_in(frame) for frame in read(tmp_path / "out.avi")[0]]
    assert shown == [0, 1] + 8 * [2] + [10] + 9 * [11] + [20]


def test_a_source_that_is_too_fast_loses_frames_and_no_time(tmp_path: Path) -> None:
    record(f"{tmp_path}/out.avi?fps=10", range(30))
    shown = [number_in(frame) for frame in read(tmp_path / "out.avi")[0]]
    assert len(shown) in (10, 11) and all(abs(number - 3 * place) <= 2 for place, number in enumerate(shown))


def test_each_frame_once_if_asked_for(tmp_path: Path) -> None:
    record(f"{tmp_path}/out.avi?fps=10&pace=frames", [0, 1, 2, 10, 40])
    assert [number_in(frame) for frame in read(tmp_path / "out.avi")[0]] == [0, 1, 2, 10, 40]


def test_frames_of_another_size_go_into_another_file_and_it_is_told(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.mp4"), FakeControl())
    for number in range(4):
        sink.write(make_result(number))
    assert sink.remark == ""
    for number in range(4, 7):
        sink.write(make_result(number, height=32, width=80))
    for number in range(7, 12):
        sink.write(make_result(number))
    sink.close()
    assert "Frames changed their size from 80 x 32 to 64 x 48" in sink.remark and "out.3.mp4" in sink.remark
    found = {path.name: read(path)[0] for path in tmp_path.iterdir()}
    sizes = {name: (len(frames), frames[0].shape) for name, frames in found.items()}
    assert sizes == {"out.mp4": (4, (48, 64, 3)), "out.2.mp4": (3, (32, 80, 3)), "out.3.mp4": (5, (48, 64, 3))}


def test_a_size_that_never_settles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MOST_PARTS", 3)
    sink = open_sink(str(tmp_path / "out.avi"), FakeControl())
    with pytest.raises(SinkError, match="changed their size 3 times"):
        for number in range(9):
            sink.write(make_result(number, height=32 + 2 * number))
    with pytest.raises(SinkError, match="changed their size 3 times"):
        sink.close()
    sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.2.avi", "out.3.avi", "out.avi"]


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv"])
def test_odd_sides_lose_a_row_or_a_column_at_most(name: str, tmp_path: Path) -> None:
    record(tmp_path / name, height=33, width=47)
    frames, _ = read(tmp_path / name)
    height, width, _ = frames[0].shape
    assert len(frames) == 12 and 32 <= height <= 33 and 46 <= width <= 47


def test_frames_that_are_too_small_for_a_video_are_named(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.mp4"), FakeControl())
    sink.write(make_result(0, height=1, width=1))
    with pytest.raises(SinkError, match="cannot write frames of 1 x 1 as mp4v"):
        sink.write(make_result(1, height=1, width=1))


def test_a_video_appears_under_its_name_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out.mkv").write_bytes(b"an earlier run's")
    sink = open_sink(str(tmp_path / "out.mkv"), FakeControl())
    for number in range(3):
        sink.write(make_result(number))
    assert (tmp_path / "out.mkv").read_bytes() == b"an earlier run's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mkv", "out.part.mkv"]
    sink.close()
    assert len(read(tmp_path / "out.mkv")[0]) == 3 and len(list(tmp_path.iterdir())) == 1


def run_child(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Python that can import what these tests share."""
    prologue = f"import sys; sys.path.insert(0, {str(HERE)!r}); from sink_results import *\n"
    given = [sys.executable, "-c", prologue + code, *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, timeout=120)


WRITE_WITHIN = """
import resource
from gcpp_edge.pipeline.sinks import open_sink
sink = open_sink(sys.argv[1], FakeControl())
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
random = np.random.default_rng(0)
def attempt(action, *arguments):
    try:
        return action(*arguments)
    except Exception as error:
        print(type(error).__name__, error)
        return error
for number in range(60):
    result = make_result(number, height=240, width=320)
    result.explanation.frame[...] = random.integers(0, 256, result.explanation.frame.shape)
    if attempt(sink.write, result):
        break
attempt(sink.close)
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv"])
@pytest.mark.parametrize("limit", [30_000, 300_000], ids=["when it is finished", "while it is written"])
def test_a_file_that_may_not_grow_is_noticed(name: str, limit: int, tmp_path: Path) -> None:
    """OpenCV says little or nothing of it; an earlier good file stays, and what there is can be found."""
    (tmp_path / name).write_bytes(b"an earlier run's")
    child = run_child(WRITE_WITHIN, tmp_path / name, limit)
    partial = name.replace(".", ".part.")
    assert "SinkError" in child.stdout and partial in child.stdout and "MB left" in child.stdout, child.stderr
    assert (tmp_path / name).read_bytes() == b"an earlier run's"
    assert (tmp_path / partial).stat().st_size == limit


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv"])
def test_what_goes_wrong_at_the_end_alone_is_noticed_too(name: str, tmp_path: Path) -> None:
    """Here every frame is still in a buffer when the file is closed."""
    child = run_child(WRITE_WITHIN.replace("range(60)", "range(2)"), tmp_path / name, 10_000)
    assert child.stdout.count("SinkError") == 1, child.stderr
    assert "could not be finished (0 of 2 frames can be read)" in child.stdout


def test_a_disk_that_is_almost_full_ends_a_video_while_it_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10_000_000]
    monkeypatch.setattr(video.os, "statvfs", lambda path: SimpleNamespace(f_bavail=free[0], f_frsize=4096))
    monkeypatch.setattr(video, "WATCH_S", 0.0)
    sink = open_sink(str(tmp_path / "out.mp4"), FakeControl())
    for number in range(6):
        sink.write(make_result(number))
    free[0] = 1_000
    with pytest.raises(SinkError, match="almost full, so the video ends here. .* has 4 MB left"):
        sink.write(make_result(6))
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] and len(read(tmp_path / "out.mp4")[0]) == 6


KILL_IT = """
import os, signal
from gcpp_edge.pipeline.sinks import open_sink
sink = open_sink(sys.argv[1], FakeControl())
for number in range(120):
    result = make_result(number, height=240, width=320)
    result.explanation.frame[...] = np.random.default_rng(number).integers(0, 256, result.explanation.frame.shape)
    sink.write(result)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv"])
def test_a_killed_process_leaves_a_part_that_is_found(name: str, tmp_path: Path) -> None:
    assert run_child(KILL_IT, tmp_path / name).returncode == -9
    (path,) = tmp_path.iterdir()
    assert path.name == name.replace(".", ".part.") and path.stat().st_size > 100_000
    if not name.endswith(".mp4"):
        assert len(read(path)[0]) > 10


def test_a_folder_that_goes_away_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    sink = open_sink(str(folder / "out.mp4"), FakeControl())
    for number in range(3):
        sink.write(make_result(number))
    os.rename(folder, tmp_path / "there")
    with pytest.raises(SinkError, match="its folder cannot be used any more .No such file"):
        sink.close()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["out.part.mp4"]


def test_it_is_opened_in_one_thread_and_written_in_another(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.mp4"), FakeControl())

    def work() -> None:
        for number in range(5):
            sink.write(make_result(number))
        sink.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(read(tmp_path / "out.mp4")[0]) == 5


def through_outlet(sink: Any, results: list[Any]) -> list[tuple[str, str]]:
    """What a stream tells of the sink."""
    tally = Tally(None)
    outlet = Outlet(sink, True, tally, lambda: None)
    for result in results:
        outlet.give(result)
    outlet.finish()
    outlet.join(30)
    return [tuple(trouble) for trouble in tally.report().troubles]


def test_a_stream_tells_of_a_size_that_changed(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.mp4"), FakeControl())
    ((where, text),) = through_outlet(sink, [make_result(0), make_result(1, height=32)])
    assert where == sink.name and text == sink.remark != ""


def test_a_stream_names_a_broken_sink_once() -> None:
    def full(result: Any) -> None:
        raise SinkError("disk: is full.")

    told = through_outlet(sink_of(full, "full"), [make_result(0)])
    assert told == [("full", "SinkError: disk: is full. It is left out from here on.")]
