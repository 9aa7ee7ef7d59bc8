"""Records are whole lines of strict JSON, whatever happens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sink_results import FakeControl, make_result

from gcpp_edge.errors import SinkError
from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.events import RAISED, Event
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sinks import open_sink

HERE = Path(__file__).parent


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_lines(path: Path) -> list[dict]:
    content = path.read_text(encoding="ascii")
    assert content.endswith("\n")
    return [json.loads(line, parse_constant=refuse_constant) for line in content.splitlines()]


def write_all(uri: str, results: list[Result]) -> None:
    sink = open_sink(uri, FakeControl())
    for result in results:
        sink.write(result)
    sink.close()


@pytest.mark.parametrize("uri", ["jsonl://{}", "file://{}", "{}"])
def test_what_is_read_back_is_what_was_known(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    results = [make_result(number, class_index=number % 3) for number in range(5)]
    write_all(uri.format(path), results)
    assert read_lines(path) == [result.record() for result in results]


def test_labels_of_any_letters_come_through(tmp_path: Path) -> None:
    write_all(f"jsonl://{tmp_path}/a", [make_result(class_index=1)])
    assert read_lines(tmp_path / "a")[0]["label"] == "Würstchen 猫"


def test_events_are_documents_with_the_frame_s_own(tmp_path: Path) -> None:
    event = Event("roi", RAISED, 0.25, Capture(3, 0.1, 7.0), "evidence left the\nregion")
    write_all(f"{tmp_path}/a.jsonl", [make_result(3, events=(event,))])
    (record,) = read_lines(tmp_path / "a.jsonl")
    (found,) = record["events"]
    assert found["capture"] == {"id": 3, "timestamp": 0.1, "arrived": 7.0} and found["text"] == event.text


def test_a_map_with_nan_gives_a_line_with_null(tmp_path: Path) -> None:
    write_all(f"{tmp_path}/a.jsonl", [make_result(timestamp=float("nan"), timings={"network": float("inf")})])
    (record,) = read_lines(tmp_path / "a.jsonl")
    assert record["timestamp"] is None and record["ms"] == {"network": None}


def test_every_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    sink = open_sink(str(path), FakeControl())
    for number in range(3):
        sink.write(make_result(number))
        assert len(read_lines(path)) == number + 1
    sink.close()


def test_an_earlier_file_is_replaced_by_the_first_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_all(str(path), [make_result(number) for number in range(9)])
    sink = open_sink(str(path), FakeControl())
    assert len(read_lines(path)) == 9
    sink.write(make_result(1))
    assert [record["id"] for record in read_lines(path)] == [1]
    sink.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full: Linux")
def test_a_full_disk_is_named() -> None:
    sink = open_sink("jsonl:///dev/full", FakeControl())
    with pytest.raises(SinkError, match="jsonl:///dev/full: cannot be written any more .No space left on device.; it"):
        sink.write(make_result())
    sink.close()
    assert os.path.exists("/dev/full")


def run_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python that can import what these tests share."""
    prologue = f"import sys; sys.path.insert(0, {str(HERE)!r}); from sink_results import *\n"
    given = [sys.executable, "-c", prologue + code, *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, timeout=120)


WRITE_WITHIN = """
import resource
from gcpp_edge.pipeline.sinks import open_sink
sink = open_sink(sys.argv[1], FakeControl())
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    for number in range(9):
        sink.write(make_result(number))
except Exception as error:
    print(type(error).__name__, error)
sink.close()
"""


def test_a_line_that_did_not_fit_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    child = run_child(WRITE_WITHIN, path)
    assert "SinkError" in child.stdout and "(File too large); it holds 2 records" in child.stdout, child.stderr
    assert [record["id"] for record in read_lines(path)] == [0, 1]


KILL_IT = """
import os, signal
from gcpp_edge.pipeline.sinks import open_sink
sink = open_sink(sys.argv[1], FakeControl())
for number in range(5):
    sink.write(make_result(number))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_whole_lines(tmp_path: Path) -> None:
    assert run_child(KILL_IT, tmp_path / "a.jsonl").returncode == -9
    assert len(read_lines(tmp_path / "a.jsonl")) == 5


def test_standard_output_gets_records_and_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    print("before", end=" ")
    write_all("jsonl://-", [make_result(number) for number in range(2)])
    print("after")
    first, second, last = capfd.readouterr().out.splitlines()
    assert first.startswith("before {") and json.loads(second)["id"] == 1 and last == "after"


def test_a_reader_that_went_away_is_named(tmp_path: Path) -> None:
    code = WRITE_WITHIN.replace("print(", "sys.stderr.write('%s %s' % (").replace("error)\n", "error))\n")
    given = f"import sys; sys.path.insert(0, {str(HERE)!r}); from sink_results import *\n" + code
    child = subprocess.Popen(
        [sys.executable, "-c", given, "jsonl://-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout and child.stderr
    child.stdout.close()
    assert "SinkError jsonl://-: cannot be written any more (Broken pipe)" in child.stderr.read()
    child.stderr.close()
    child.wait()


def test_without_standard_output_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SinkError, match="no standard output"):
        open_sink("jsonl://-", FakeControl())
