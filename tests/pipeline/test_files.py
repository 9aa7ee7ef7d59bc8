"""Videos and pictures as sources: every frame, its position in the file, and what is wrong with it told in one line."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from gcpp_edge.errors import CaptureError, FrameError, GcppError, InputError, PictureError
from gcpp_edge.pictures import write_png
from gcpp_edge.pipeline.capture import Shot, Source
from gcpp_edge.pipeline.sources import opener_of

FRAMES, CUT, FPS = 50, 25, 25


def scene(width: int = 160, height: int = 120) -> Source:
    return opener_of(f"test://?live=0&width={width}&height={height}&cut={CUT}&frames={FRAMES}")()


def write_video(path: Path, codec: str, frames: int = FRAMES) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), FPS, (160, 120))
    assert writer.isOpened(), f"this OpenCV writes no {codec}"
    source = scene()
    for _ in range(frames):
        writer.write(source.read().pixels)
    writer.release()
    return path


def shots_of(source: Source) -> list[Shot]:
    return list(iter(source.read, None))


CONTAINERS = {"clip.mp4": "mp4v", "clip.avi": "MJPG"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_video_gives_every_frame_with_its_position(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, CONTAINERS[name])
    source = opener_of(path)()
    assert (source.name, source.is_live, source.fps) == (str(path), False, FPS)
    shots = shots_of(source)
    assert source.read() is None and source.remark == ""
    source.close()
    source.close()
    assert len(shots) == FRAMES
    np.testing.assert_allclose([shot.timestamp for shot in shots], np.arange(FRAMES) / FPS, atol=1e-3)
    for shot, original in zip(shots, shots_of(scene()), strict=True):
        assert shot.format == "bgr" and shot.pixels.shape == (120, 160, 3)
        assert np.abs(shot.pixels.astype(int) - original.pixels).mean() < 8  # codecs lose a little
    before, after = (shots[index].pixels.astype(int) for index in (CUT - 1, CUT))
    assert np.abs(after - before).mean() > 30  # the cut is where it was written


def test_a_uri_and_a_path_are_the_same_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a file: 50%.avi", "MJPG", 3)
    for address in (path, str(path), f"file://{path}"):
        assert len(shots_of(opener_of(address)())) == 3


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_video_is_played_as_often_as_was_asked_for_and_time_goes_on(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, CONTAINERS[name], 10)
    shots = shots_of(opener_of(path, loop=3)())
    assert len(shots) == 30
    np.testing.assert_allclose(np.diff([shot.timestamp for shot in shots]), 1 / FPS, atol=1e-3)
    np.testing.assert_array_equal(shots[0].pixels, shots[20].pixels)


def test_a_video_is_played_for_ever(tmp_path: Path) -> None:
    source = opener_of(write_video(tmp_path / "clip.avi", "MJPG", 3), loop=0)()
    assert all(source.read() is not None for _ in range(20))
    source.close()


def test_a_truncated_tail_ends_the_video_and_is_remarked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", "MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5])
    source = opener_of(path)()
    shots = shots_of(source)
    assert FRAMES // 3 < len(shots) < FRAMES
    assert source.remark == f"{path}: it ends after {len(shots)} of {FRAMES} frames; the rest is missing or damaged."


def test_damage_inside_a_video_costs_frames_and_no_more(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", "MJPG")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    source, good, bad = opener_of(path)(), 0, 0
    while True:
        try:
            shot = source.read()
        except FrameError:
            bad += 1
            continue
        if shot is None:
            break
        good += 1
    assert good + bad >= FRAMES // 3 and good >= FRAMES // 3


def spoilt(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    if name == "without index.mp4":  # its index is at the end
        content = write_video(path, "mp4v").read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif name == "no frames.avi":
        write_video(path, "MJPG", 0)
    elif name == "text.mp4":
        path.write_text("not a video")
    elif name == "empty.mp4":
        path.touch()
    return path


REFUSED = {
    "without index.mp4": "OpenCV cannot read it as a video",
    "no frames.avi": "no frame can be read from it",
    "text.mp4": "OpenCV cannot read it as a video",
    "empty.mp4": "OpenCV cannot read it as a video",
    "missing.mp4": "there is no such file",
    "missing.png": "there is no such file",
    "missing/*.png": "no file fits this pattern",
    "missing/%06d.png": "no file fits this pattern",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_when_it_is_opened(name: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path, name)
    with pytest.raises(CaptureError) as caught:
        opener_of(path)()
    assert str(path) in str(caught.value) and REFUSED[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_a_device_and_a_bare_number_are_refused(tmp_path: Path) -> None:
    for address, reason in (
        (str(tmp_path), "a folder without pictures"),
        ("/dev/null", "not a file"),
        ("0", "A camera is v4l2://0"),
    ):
        with pytest.raises(CaptureError, match=reason):
            opener_of(address)()


def test_what_opencv_and_ffmpeg_say_does_not_reach_the_terminal(tmp_path: Path) -> None:
    path = spoilt(tmp_path, "without index.mp4")
    code = (
        "from gcpp_edge.errors import CaptureError\n"
        "from gcpp_edge.pipeline.sources import opener_of\n"
        f"try: opener_of({str(path)!r})()\n"
        "except CaptureError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot read it" in done.stdout and done.stderr == ""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Frames 1 to 12 with grey values of ten times their number, of two sizes; one is damaged."""
    for number in range(1, 13):
        height = 20 if number % 2 else 30
        write_png(tmp_path / f"{number:06d}.png", np.full((height, 40, 3), 10 * number, np.uint8))
    (tmp_path / "000005.png").write_bytes((tmp_path / "000005.png").read_bytes()[:-20])
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "/", "/*.png", "/0000??.png", "/%06d.png", "/%d.png"])
def test_pictures_come_in_order_and_a_damaged_one_is_left_out(pictures: Path, pattern: str) -> None:
    source = opener_of(f"{pictures}{pattern}")()
    assert not source.is_live and source.fps == 30
    shades, sizes, times, refused = [], set(), [], []
    while True:
        try:
            shot = source.read()
        except PictureError as error:
            refused.append(str(error))
            continue
        if shot is None:
            break
        shades.append(int(shot.pixels[0, 0, 0]) // 10)
        sizes.add(shot.pixels.shape)
        times.append(shot.timestamp)
    assert shades == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
    assert sizes == {(20, 40, 3), (30, 40, 3)}
    np.testing.assert_allclose(times, [(shade - 1) / 30 for shade in shades])
    assert len(refused) == 1 and "000005.png: truncated" in refused[0]


def test_numbered_pictures_are_ordered_by_number_and_may_have_gaps(tmp_path: Path) -> None:
    for number in (9, 10, 2, 100):
        write_png(tmp_path / f"shot{number}.png", np.full((4, 4, 3), number, np.uint8))
    write_png(tmp_path / "shot.png", np.zeros((4, 4, 3), np.uint8))
    shots = shots_of(opener_of(f"file://{tmp_path}/shot%d.png?fps=2")())
    assert [int(shot.pixels[0, 0, 0]) for shot in shots] == [2, 9, 10, 100]
    assert [shot.timestamp for shot in shots] == [0, 0.5, 1, 1.5]


def test_pictures_are_repeated(pictures: Path) -> None:
    address = f"{pictures}/00000[12].png"
    shots = shots_of(opener_of(address, loop=2)())
    assert [int(shot.pixels[0, 0, 0]) for shot in shots] == [10, 20, 10, 20]
    assert [shot.timestamp * 30 for shot in shots] == pytest.approx([0, 1, 2, 3])
    endless = opener_of(address, loop=0)()
    assert all(endless.read() is not None for _ in range(9))


@pytest.mark.parametrize("loop", [0, 1, 2])
def test_pictures_of_which_none_can_be_read_are_no_source(tmp_path: Path, loop: int) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    source = opener_of(tmp_path, loop=loop)()
    with pytest.raises(PictureError):
        source.read()
    with pytest.raises(CaptureError, match="none of its 1 pictures can be read"):
        source.read()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("foo://bar", "foo://bar: no source of this kind. Known: v4l2://, csi://"),
        ("clip.mp4?speed=2", "clip.mp4?speed=2: unknown option 'speed'. Known for file://: none."),
        ("photos/*.jpg?fps=0", "photos/*.jpg?fps=0: fps: expected a number 0.001 to 1000, found '0'."),
    ],
)
def test_a_bad_address_is_refused_before_anything_is_opened(address: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        opener_of(address)
    assert str(caught.value).startswith(reason)


def test_loop_is_a_count() -> None:
    with pytest.raises(GcppError, match="loop: expected 0"):
        opener_of("clip.mp4", loop=-1)()
