"""Pictures of frames appear whole, numbered by frame, or as the newest alone."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from sink_results import FakeControl, make_result, number_in

from gcpp_edge.errors import SinkError
from gcpp_edge.pictures import read_picture
from gcpp_edge.pipeline.sinks import open_sink

pytest.importorskip("cv2", reason="pictures are written with OpenCV: pip install 'gcpp-edge[cli]'")


def test_pictures_are_numbered_by_frame_and_png_loses_nothing(tmp_path: Path) -> None:
    sink = open_sink(f"file://{tmp_path}/frames/seen-%06d.png", FakeControl())
    for number in (0, 3, 1_000_000):
        sink.write(make_result(number))
    sink.close()
    found = sorted((tmp_path / "frames").iterdir())
    assert [path.name for path in found] == ["seen-000000.png", "seen-000003.png", "seen-1000000.png"]
    assert np.array_equal(read_picture(found[1]), make_result(3).picture())


@pytest.mark.parametrize("name", ["%d.jpg", "%d.jpeg", "%d.JPG"])
def test_jpegs_are_those_that_all_sinks_share(name: str, tmp_path: Path) -> None:
    sink, result = open_sink(f"{tmp_path}/{name}?quality=70", FakeControl()), make_result(5)
    sink.write(result)
    assert (tmp_path / name.replace("%d", "5")).read_bytes() == result.jpeg(70)


@pytest.mark.parametrize("compression", [0, 9])
def test_png_is_as_small_as_is_asked_for(compression: int, tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/%d.png?compression={compression}", FakeControl())
    sink.write(make_result())
    size = (tmp_path / "0.png").stat().st_size
    assert (size > make_result().picture().nbytes) == (compression == 0)


def test_the_newest_picture_is_never_seen_in_half(tmp_path: Path) -> None:
    """A reader beside the writer always finds a whole one, and none from before."""
    path = tmp_path / "status.png"
    sink = open_sink(str(path), FakeControl())
    assert sink.is_viewer
    sink.write(make_result(0))
    seen: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            seen.append(number_in(read_picture(path)))

    reader = threading.Thread(target=watch)
    reader.start()
    for number in range(1, 200):
        sink.write(make_result(number))
    is_over.set()
    reader.join()
    assert seen == sorted(seen) and len(seen) > 1
    assert number_in(read_picture(path)) == 199 and [entry.name for entry in tmp_path.iterdir()] == ["status.png"]


def test_a_full_disk_is_named_and_leaves_no_half_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = open_sink(f"{tmp_path}/%d.png", FakeControl())
    sink.write(make_result(0))
    whole = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        whole(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(SinkError, match=r"1\.png cannot be written \(No space left on device\)"):
        sink.write(make_result(1))
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["0.png"]


def test_a_folder_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/frames/%d.jpg", FakeControl())
    (tmp_path / "frames").rmdir()
    sink.write(make_result(2))
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["2.jpg"]


def test_a_folder_that_a_file_replaces_is_named(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/frames/%d.jpg", FakeControl())
    (tmp_path / "frames").rmdir()
    (tmp_path / "frames").touch()
    with pytest.raises(SinkError, match="there is a file of this name"):
        sink.write(make_result(2))
