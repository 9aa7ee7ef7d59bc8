"""What an address of an output opens, what it refuses, and what all sinks have in common."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from sink_results import FakeControl, make_result

from gcpp_edge.errors import GcppError, InputError, SinkError
from gcpp_edge.pipeline.sinks import open_sink, sink_of

FILES = ("out.mp4", "out.m4v", "out.mov", "out.avi", "out.mkv", "%04d.png", "newest.jpg", "records.jsonl")


class Refusal(NamedTuple):
    """An address, and what the one line about it holds. {} is a folder with a file called taken."""

    uri: str
    error: type[GcppError]
    says: str


REFUSALS = (
    Refusal("{}/out.txt", InputError, "one of .mp4"),
    Refusal("{}/out", InputError, "FOLDER/%06d.png"),
    Refusal("{}/frames/", InputError, "FOLDER/%06d.png"),
    Refusal("ftp://host/out.mp4", InputError, "no output is of this kind. Known: file://, jsonl://"),
    Refusal("v4l2://0", InputError, "no output is of this kind"),
    Refusal("test://", InputError, "no output is of this kind"),
    Refusal("", InputError, "empty address"),
    Refusal("{}/out.mp4?fsp=30", InputError, "unknown option 'fsp'. Known for file://: fps, codec, pace"),
    Refusal("{}/out.mp4?fps=0", InputError, "fps: expected a number 0.1 to 240, found '0'"),
    Refusal("{}/out.mp4?fps=nan", InputError, "fps: expected a number"),
    Refusal("{}/out.mp4?pace=fast", InputError, "pace: expected time or frames, found 'fast'"),
    Refusal("{}/out.mp4?codec=H.264", InputError, "codec: expected four letters"),
    Refusal("{}/out.mp4?codec=zzzz", SinkError, "cannot write .mp4 as zzzz. Choose one with ?codec=: mp4v"),
    Refusal("{}/taken/out.mp4", SinkError, "there is a file of this name"),
    Refusal("{}/folder.mp4", SinkError, "there is a folder of this name"),
    Refusal("/proc/none/out.mp4", SinkError, "/proc/none cannot be made a folder"),
    Refusal("{}/taken/%d.png", SinkError, "there is a file of this name"),
    Refusal("{}/%d-%d.png", InputError, "expected one %d or %06d"),
    Refusal("{}/%s.png", InputError, "expected one %d or %06d"),
    Refusal("{}/100%.png", InputError, "expected one %d or %06d"),
    Refusal("{}/%d/x.png", InputError, "in the file's name"),
    Refusal("{}/%9999999d.png", InputError, "expected one %d or %06d"),
    Refusal("{}/%d.png?quality=90", InputError, "unknown option 'quality'. Known for file://: compression"),
    Refusal("{}/%d.jpg?quality=0", InputError, "quality: expected a whole number 1 to 100, found '0'"),
    Refusal("jsonl://{}/taken/records", SinkError, "taken cannot be made a folder (there is a file of this name"),
    Refusal("jsonl://{}/folder.mp4", SinkError, "there is a folder of this name"),
    Refusal("jsonl://{}/records?append=1", InputError, "unknown option 'append'"),
    Refusal("rtp://host", InputError, "expected rtp://HOST:PORT"),
    Refusal("rtp://host:port", InputError, "expected rtp://HOST:PORT"),
    Refusal("rtp://host:99999", InputError, "expected rtp://HOST:PORT"),
    Refusal("rtp://host:5004/name", InputError, "expected rtp://HOST:PORT"),
    Refusal("rtp://host ! filesink:5004", InputError, "expected rtp://HOST:PORT"),
    Refusal('rtsp://host:8554/a" ! filesink location="b', InputError, "without spaces and quotes"),
    Refusal("rtp://host:5004?bitrate=1", InputError, "bitrate: expected a whole number 50 to 200000"),
    Refusal("rtp://host:5004?encoder=none", InputError, "encoder: expected nvv4l2h264enc or x264enc"),
    Refusal("display://?size=3", InputError, "unknown option 'size'. Known for display://: none"),
)


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.uri or "empty")
def test_what_cannot_be_used_is_refused_in_one_line(case: Refusal, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(case.error) as refusal:
        open_sink(case.uri.format(tmp_path), FakeControl())
    assert type(refusal.value) is case.error
    assert case.says in str(refusal.value) and "\n" not in str(refusal.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mp4", "taken"]


def test_no_password_is_in_a_refusal() -> None:
    with pytest.raises(GcppError) as refusal:
        open_sink("rtsp://user:secret@host:8554/a b", FakeControl())
    assert "secret" not in str(refusal.value) and "user:***@host" in str(refusal.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_is_there_when_its_sink_is_closed(scheme: str, name: str, tmp_path: Path) -> None:
    uri = f"{scheme}{tmp_path}/new/deep/{name}"
    sink = open_sink(uri, FakeControl())
    assert sink.name == uri and sink.is_viewer == (name == "newest.jpg")
    for number in range(3):
        sink.write(make_result(number))
    sink.close()
    sink.close()
    (first, *_) = sorted((tmp_path / "new" / "deep").iterdir())
    assert first.name == name.replace("%04d", "0000") and first.stat().st_size > 0


@pytest.mark.parametrize("name", FILES)
def test_without_a_frame_nothing_is_left_and_nothing_is_lost(name: str, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / name).write_bytes(b"an earlier run's")
    for folder in ("old", "new"):
        sink = open_sink(str(tmp_path / folder / name), FakeControl())
        sink.close()
        sink.close()
    assert list((tmp_path / "new").iterdir()) == []
    assert [path.read_bytes() for path in (tmp_path / "old").iterdir()] == [b"an earlier run's"]


def test_names_of_any_letters_are_taken(tmp_path: Path) -> None:
    name = "16:30 Kätzchen 猫 100% [a].mp4"
    sink = open_sink(str(tmp_path / name), FakeControl())
    sink.write(make_result())
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_live_page_is_handed_host_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ModuleType("gcpp_edge.web.sink")
    given: list[Any] = []
    page.open_web_sink = lambda *arguments: given.append(arguments) or sink_of(print)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, page.__name__, page)
    control = FakeControl()
    assert open_sink("http://127.0.0.1:8080", control, host="0.0.0.0", token="a").name == "print"
    ((uri, *rest),) = given
    assert (uri.scheme, uri.place) == ("http", "127.0.0.1:8080") and rest == [control, "0.0.0.0", "a"]


def test_a_function_is_a_sink() -> None:
    seen: list[int] = []
    sink = sink_of(lambda result: seen.append(result.capture.id))
    for number in (4, 5):
        sink.write(make_result(number))
    sink.close()
    sink.close()
    assert seen == [4, 5] and "lambda" in sink.name and not sink.is_viewer


def test_what_a_function_raises_is_told_with_its_name() -> None:
    def plot(result: Any) -> None:
        raise KeyError("axis")

    with pytest.raises(SinkError, match="plot: KeyError: 'axis'") as refusal:
        sink_of(plot).write(make_result())
    assert isinstance(refusal.value.__cause__, KeyError)
