"""`gcpp-edge stream` from end to end, on a real video that the test makes and on the synthetic scene."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

import gcpp_edge

Run = Callable[..., Any]

FRAMES, FPS, CUT = 60, 20, 30
SIZE = (96, 128)
WAIT_S = 60.0


def scene(number: int) -> np.ndarray:
    """Two things that move over a ground, which is another one after the cut."""
    after = number >= CUT
    picture = np.full((*SIZE, 3), (60, 90, 40) if after else (150, 120, 180), np.uint8)
    x, y = 10 + (number * 3) % (SIZE[1] - 30), 20 + (number * 2) % (SIZE[0] - 40)
    cv2.circle(picture, (x, y), 12, (20, 220, 240) if after else (30, 40, 200), -1)
    cv2.rectangle(picture, (SIZE[1] - x, SIZE[0] - y), (SIZE[1] - x + 18, SIZE[0] - y + 14), (240, 200, 20), -1)
    return picture


def write_video(path: Path, codec: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), FPS, SIZE[::-1])
    assert writer.isOpened()
    for number in range(FRAMES):
        writer.write(scene(number))
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    video, found = cv2.VideoCapture(str(path)), []
    while True:
        is_there, frame = video.read()
        if not is_there:
            return found
        found.append(frame)


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def adds_up(report: dict[str, Any]) -> bool:
    fates = ("explained", "carried", "stale", "skipped", "failed", "under_way")
    mapped = report["explained"] + report["carried"]
    sinks = report["sinks"].values()
    return report["captured"] == sum(report[fate] for fate in fates) and all(
        sink["written"] + sink["dropped"] == mapped for sink in sinks
    )


def complaints(err: str) -> list[str]:
    """Lines of ours. In this process OpenCV was imported before our command could ask it to be silent."""
    return [line for line in err.splitlines() if line.startswith("gcpp-edge: ")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "clip.mp4", "mp4v")
    whole = write_video(folder / "clip.avi", "MJPG").read_bytes()
    (folder / "truncated.avi").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "prose.mp4").write_text("a video, honestly\n", encoding="utf-8")
    (folder / "pictures").mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / "pictures" / f"{number}.png"), scene(number))
    (folder / "pictures" / "3.png").write_bytes(b"no picture")
    return folder


def test_a_video_becomes_a_video_pictures_and_records_of_all_its_frames(
    run: Run, folder: Path, videos: Path, tmp_path: Path
) -> None:
    outputs = (tmp_path / "out.mp4", tmp_path / "frames" / "%06d.png", f"jsonl://{tmp_path}/out.jsonl")
    done = run("stream", folder / "map.onnx", videos / "clip.mp4", *outputs, "--json")
    assert done.status == 0 and not done.err
    report = json.loads(done.out)
    assert (report["captured"], report["explained"], report["policy"]) == (FRAMES, FRAMES, "all") and adds_up(report)
    records = records_of(tmp_path / "out.jsonl")
    assert [record["id"] for record in records] == list(range(FRAMES))
    assert [record["timestamp"] for record in records] == pytest.approx([n / FPS for n in range(FRAMES)], abs=1e-3)
    assert len(list((tmp_path / "frames").iterdir())) == FRAMES
    with gcpp_edge.load(folder / "map.onnx") as explainer:
        for number, frame in enumerate(frames_of(videos / "clip.mp4")):
            alone = explainer(frame)
            assert records[number]["class_index"] == alone.class_index
            assert records[number]["evidence"] == pytest.approx(alone.evidence, rel=1e-5)
            np.testing.assert_array_equal(cv2.imread(str(tmp_path / "frames" / f"{number:06d}.png")), alone.overlay())
    played = frames_of(tmp_path / "out.mp4")
    assert len(played) == FRAMES and cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FPS) == FPS
    still = cv2.imread(str(tmp_path / "frames" / "000010.png")).astype(float)
    assert np.abs(played[10] - still).mean() < 8, "but for the codec's losses"


class Case(NamedTuple):
    """Words behind `stream MODEL`, and what the counters are then."""

    name: str
    words: str
    counts: dict[str, int]


CASES = (
    Case("every third frame", "{videos}/clip.mp4 --every 3", {"captured": 60, "explained": 20, "carried": 40}),
    Case("two times over", "{videos}/clip.avi --loop 2", {"captured": 120, "explained": 120}),
    Case("a second of it", "{videos}/clip.mp4 --duration 1", {"explained": FPS}),
    Case("a folder with a bad picture", "{videos}/pictures", {"captured": 5, "explained": 5, "unreadable": 1}),
    Case("a pattern", "{videos}/pictures/[0-2].png", {"captured": 3, "explained": 3}),
    Case("the synthetic scene", "test://?frames=50&live=0&width=160&height=120", {"captured": 50, "explained": 50}),
    Case(
        "grey frames",
        "test://?frames=20&live=0&width=160&height=120&format=gray",
        {"captured": 20, "explained": 20},
    ),
    Case(
        "NV12 frames, smoothed over a cut",
        "test://?frames=40&live=0&width=160&height=120&format=nv12&cut=20 --smooth 1 --target 1",
        {"explained": 40, "resets": 1},
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_counters_are_exact(run: Run, folder: Path, videos: Path, tmp_path: Path, case: Case) -> None:
    source, *more = case.words.format(videos=videos).split()
    words = (source, f"jsonl://{tmp_path}/out.jsonl", *more)
    done = run("stream", folder / "map.onnx", *words, "--policy", "all", "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert {name: report[name] for name in case.counts} == case.counts and adds_up(report)
    assert len(records_of(tmp_path / "out.jsonl")) == report["explained"] + report["carried"]


def test_a_truncated_video_is_explained_as_far_as_it_goes_and_said_to_be_short(
    run: Run, folder: Path, videos: Path, tmp_path: Path
) -> None:
    done = run("stream", folder / "map.onnx", videos / "truncated.avi", f"jsonl://{tmp_path}/out.jsonl", "--json")
    report = json.loads(done.out)
    assert done.status == 0 and 0 < report["captured"] < FRAMES and adds_up(report)
    assert len(records_of(tmp_path / "out.jsonl")) == report["captured"]
    assert len(complaints(done.err)) == 1 and "truncated.avi" in done.err


def test_with_latest_a_video_plays_at_its_own_pace(run: Run, folder: Path, videos: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    words = (videos / "clip.mp4", f"jsonl://{tmp_path}/out.jsonl", "--policy", "latest", "--duration", "1", "--json")
    done = run("stream", folder / "map.onnx", *words)
    report = json.loads(done.out)
    assert time.monotonic() - began >= 0.9 and report["captured"] == FPS and adds_up(report)


@pytest.mark.parametrize("policy", ["latest", "all"])
def test_a_camera_that_vanishes_is_found_again(run: Run, folder: Path, tmp_path: Path, policy: str) -> None:
    source = "test://?frames=40&fps=100&fail_at=20&width=160&height=120"
    done = run("stream", folder / "map.onnx", source, f"jsonl://{tmp_path}/out.jsonl", "--policy", policy, "--json")
    report = json.loads(done.out)
    assert done.status == 0 and report["reconnects"] == 1 and adds_up(report)
    assert len(done.err.splitlines()) == 2, done.err


def test_what_a_rule_sees_is_told(run: Run, folder: Path) -> None:
    done = run("stream", folder / "map.onnx", "test://?frames=20&live=0", "--rule", "probability<0.99", "--json")
    assert done.status == 0 and json.loads(done.out)["events"] == 1
    assert "probability" in done.err and len(done.err.splitlines()) == 1


def test_the_summary_is_a_table(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run("stream", folder / "map.onnx", "test://?frames=20&live=0", tmp_path / "out.avi")
    assert done.status == 0 and "explained" in done.out and "20 written" in done.out and "frame to map" in done.out


def test_records_have_standard_output_to_themselves(run: Run, folder: Path) -> None:
    done = run("stream", folder / "map.onnx", "test://?frames=5&live=0", "jsonl://-")
    assert done.status == 0 and [json.loads(line)["id"] for line in done.out.splitlines()] == list(range(5))
    assert "explained" in done.err and "5 written" in done.err


def test_a_name_is_never_taken_for_markup(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run("stream", folder / "map.onnx", "test://?frames=5&live=0", tmp_path / "[/b].jsonl")
    assert done.status == 0 and "[/b].jsonl" in done.out, done.err


def test_without_its_display_a_stream_is_as_if_none_were_named(run: Run, folder: Path, tmp_path: Path) -> None:
    words = ("test://?frames=5&live=0", f"jsonl://{tmp_path}/out.jsonl", "display://", "--headless", "--json")
    done = run("stream", folder / "map.onnx", *words)
    report = json.loads(done.out)
    assert (done.status, report["policy"], len(report["sinks"])) == (0, "all", 1)
    assert done.err.splitlines() == ["display:// is left out (--headless)."]


@pytest.mark.parametrize("how", ["--json", "--device=cpu"])
def test_where_every_output_broke_the_report_is_there_all_the_same(run: Run, folder: Path, how: str) -> None:
    done = run("stream", folder / "map.onnx", "test://?frames=500&live=0", "jsonl:///dev/full", how)
    assert done.status == 2 and "No space left" in complaints(done.err)[0]
    assert "Every output" in complaints(done.err)[1] and len(complaints(done.err)) == 2
    if how == "--json":
        report = json.loads(done.out)
        assert "No space left" in report["sinks"]["jsonl:///dev/full"]["broken"] and adds_up(report)
    else:
        assert "broken" in done.out


def test_a_token_in_the_environment_needs_no_page(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCPP_EDGE_TOKEN", "secret")
    assert run("stream", folder / "map.onnx", "test://?frames=1&live=0").status == 0


def test_a_folder_in_which_no_picture_can_be_read_is_bad_input(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = run("stream", folder / "map.onnx", tmp_path)
    assert done.status == 2 and "none of its 1 pictures can be read" in complaints(done.err)[-1]


BAD = {
    "a missing video": ("{videos}/nope.mp4", ("nope.mp4",)),
    "a video that is text": ("{videos}/prose.mp4", ("prose.mp4",)),
    "an unknown kind of source": ("ftp://host/x", ("ftp", "test://")),
    "an unknown kind of output": ("test://?frames=1 ftp://host/x", ("ftp",)),
    "an unknown option of a source": ("test://?speed=3", ("speed", "fps")),
    "a policy that is none": ("test://?frames=1 --policy newest", ("newest", "latest")),
    "a class that is none": ("test://?frames=1 --target zebra", ("zebra",)),
    "a method that is none": ("test://?frames=1 --method nope", ("nope", "gradcam")),
    "a colormap that is none": ("test://?frames=1 --colormap pink", ("pink", "jet")),
    "a rule that is none": ("test://?frames=1 --rule luck>3", ("luck", "probability")),
    "two things on standard output": ("test://?frames=1 jsonl://- --json", ("--json", "jsonl://-")),
    "the same, written otherwise": ("test://?frames=1 JSONL://- --json", ("--json", "jsonl://-")),
    "a rate below any": ("test://?frames=1 --max-fps 1e-11", ("max_fps", "0.001")),
    "a rate that is none": ("test://?frames=1 --max-fps nan", ("fps",)),
    "a host without a page": ("test://?frames=1 jsonl://- --host 0.0.0.0", ("--host", "http://")),
    "a token without a page": ("test://?frames=1 --token secret", ("--token", "http://")),
    "a page for everybody": ("test://?frames=1 http://0.0.0.0:0", ("0.0.0.0", "--host")),
    "a folder that cannot be": ("test://?frames=1 jsonl://{videos}/clip.mp4/x.jsonl", ("clip.mp4",)),
}


@pytest.mark.parametrize(("words", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line(run: Run, folder: Path, videos: Path, words: str, says: tuple[str, ...]) -> None:
    done = run("stream", folder / "map.onnx", *words.format(videos=videos).split())
    assert done.status == 2 and not done.out
    lines = complaints(done.err)
    assert len(lines) == 1 and all(part in lines[0] for part in says), done.err


OVERWRITING = {
    "a video": "clip.mp4 clip.mp4",
    "a video by another way": "clip.mp4 ../{here}/clip.mp4",
    "a video behind a link": "link.mp4 file://clip.mp4",
    "what is left of a video": "out.part.avi out.avi",
    "a video by records": "clip.mp4 jsonl://clip.mp4",
    "the model": "test://?frames=1 jsonl://map.onnx",
    "a pattern": "frames/%06d.png frames/%06d.png",
    "a pattern by a shorter one": "frames/%06d.png?fps=3 frames/%d.png?compression=3",
    "files of a wildcard": "frames/*1.png frames/%06d.png",
    "a picture of a pattern": "frames/000001.png frames/%06d.png",
    "a folder": "frames frames/%06d.png",
    "a folder by other names": "frames/ frames/overlay%d.jpg",
    "this folder": ". new.png",
    "the same records twice": "test://?frames=1 out.jsonl jsonl://{folder}/out.jsonl",
    "the same pictures twice": "test://?frames=1 new/%d.png new/%06d.png",
    "a picture of others": "test://?frames=1 new/000007.png new/%06d.png",
    "standard output twice": "test://?frames=1 jsonl://- jsonl://-",
}


@pytest.fixture
def precious(folder: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with things to lose."""
    shutil.copy(folder / "map.onnx", tmp_path)
    shutil.copy(videos / "clip.mp4", tmp_path)
    shutil.copy(videos / "clip.avi", tmp_path / "out.part.avi")
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    (tmp_path / "frames").mkdir()
    for number in range(3):
        shutil.copy(videos / "pictures" / "0.png", tmp_path / "frames" / f"{number:06d}.png")
    shutil.copy(videos / "pictures" / "0.png", tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", OVERWRITING.values(), ids=OVERWRITING)
def test_nothing_that_is_read_is_overwritten(run: Run, precious: Path, words: str) -> None:
    before = contents_of(precious)
    done = run("stream", "map.onnx", *words.format(here=precious.name, folder=precious).split())
    assert done.status == 2 and not done.out and "Name another" in complaints(done.err)[0], done.err
    assert len(complaints(done.err)) == 1 and contents_of(precious) == before


def test_outputs_beside_the_input_are_welcome(run: Run, precious: Path) -> None:
    outputs = ("frames/%06d.jpg", "frames/out.jsonl", "frames/out.avi", "frames/newest.png", "1000.png")
    assert run("stream", "map.onnx", "frames/%06d.png", *outputs).status == 0
    assert sorted(path.name for path in (precious / "frames").glob("*.jpg")) == [f"{n:06d}.jpg" for n in range(3)]


# as a process of its own, which signals reach


class Live:
    """A running `gcpp-edge stream`."""

    def __init__(self, *words: object) -> None:
        code = "import sys; from gcpp_edge.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "stream", *map(str, words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out, err


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    started: list[Live] = []

    def start(*words: object) -> Live:
        started.append(Live(*words))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_the_stream_with_files_that_can_be_opened(
    live: Callable[..., Live], folder: Path, tmp_path: Path, number: int
) -> None:
    video, records = tmp_path / "out.avi", tmp_path / "out.jsonl"
    source = "test://?fps=50&width=160&height=120"
    running = live(folder / "map.onnx", source, video, f"jsonl://{records}", "--json")
    wait_for(lambda: records.exists() and records.read_text().count("\n") > 20)
    status, out, err = running.end(number)
    assert status == 0, err
    report = json.loads(out)
    assert adds_up(report) and report["under_way"] == 0
    assert len(records_of(records)) == report["sinks"][f"jsonl://{records}"]["written"]
    assert len(frames_of(video)) > 10


def test_a_signal_while_files_are_finished_does_not_lose_them(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gcpp_edge.pipeline.sinks.video import Video

    main_thread = threading.main_thread().ident
    assert main_thread is not None
    finish = Video.close

    def close(video: Video) -> None:
        signal.pthread_kill(main_thread, signal.SIGINT)
        time.sleep(0.5)
        finish(video)

    monkeypatch.setattr(Video, "close", close)
    done = run("stream", folder / "map.onnx", "test://?frames=5&live=0&width=160&height=120", tmp_path / "out.avi")
    assert done.status == 0, done.err
    assert len(frames_of(tmp_path / "out.avi")) == 5


@pytest.mark.parametrize("name", ["prose.mp4", "nope.mp4"])
def test_libraries_say_nothing_beside_our_line(
    live: Callable[..., Live], folder: Path, videos: Path, name: str
) -> None:
    process = live(folder / "map.onnx", videos / name).process
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (2, "") and len(err.splitlines()) == 1 and name in err


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_the_page_serves_a_stream_and_another_stream_takes_its_picture_for_a_camera(
    live: Callable[..., Live], folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp", reason="the live page needs aiohttp: pip install 'gcpp-edge[web]'")
    port, records = free_port(), tmp_path / "second.jsonl"
    address = f"http://127.0.0.1:{port}"
    running = live(folder / "map.onnx", "test://?fps=50&width=160&height=120", address, "--json")

    def answers() -> bool:
        try:
            return json.load(urllib.request.urlopen(f"{address}/report", timeout=5))["explained"] > 10
        except OSError:
            return False

    wait_for(answers)
    second = live(folder / "map.onnx", f"{address}/stream.mjpg", f"jsonl://{records}", "--json")
    wait_for(lambda: records.exists() and records.read_text().count("\n") > 5)
    status, out, err = second.end()
    assert status == 0 and adds_up(json.loads(out)), err
    status, out, err = running.end()
    report = json.loads(out)
    assert status == 0 and adds_up(report) and report["sinks"][address]["written"] > 0, err
    assert f"live page: {address}" in err
