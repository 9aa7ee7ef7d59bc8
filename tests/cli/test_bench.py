"""`gcpp-edge bench`: tables, documents, exit status, and what is refused. No time is asserted."""

import json
from pathlib import Path

import pytest

SHORT = ("--runtime", "cpu", "--threads", "1", "--duration", "0", "--iterations", "20", "--warmup-ms", "0")
FRAME = ("--frame", "80x48")


@pytest.fixture
def bench(run):
    """Runs the command on a small frame, shortly."""
    return lambda *words: run("bench", *words, *SHORT, *(() if "--frame" in words else FRAME))


def test_the_plain_network_stands_beside_the_explanation_with_its_cost(folder, bench):
    result = bench(folder / "map.onnx")
    assert result.status == 0, result.err
    rows = [line.split() for line in result.out.splitlines()]
    heads = [row for row in rows if row[:1] == ["level"]]
    assert heads == [["level", "min", "mean", "median", "p90", "p95", "p99", "frames/s", "cost"]]
    by_name = {row[0]: row for row in rows if row}
    for name in ("plain", "map", "preprocess", "network", "cam", "overlay", "rest", "total"):
        assert name in by_name
    assert by_name["cam"][1] == by_name["overlay"][1] == "-"  # of the plain network
    for words in (
        "cost of map",
        "x plain",
        "median of plain, which ran in turn",
        "cores for us",
        "versions",
        "1 thread",
    ):
        assert words in result.out
    assert "no spinning" in result.out and "frame    80 x 48 bgr, batch 1" in result.out
    assert "p99 is the largest of 20 calls" in result.err


def test_a_board_shows_its_power_mode_clocks_and_gpu():
    from gcpp_edge.cli.bench_tables import machine_rows

    gpu = {"name": "A GPU", "driver_version": "570.1", "clocks.max.sm": "1980 MHz", "power.limit": "700 W"}
    found = {
        "processor": "ARM",
        "cores": 6,
        "gcpp_edge": "1",
        "numpy": "2",
        "python": "3.12",
        "versions": {"pycuda": "3"},
    }
    board = {"board": "Orin", "governor": "schedutil", "mhz_limits": [100.0, 1984.0], "power_mode": "MAXN", "gpu": gpu}
    assert dict(machine_rows(found | board, [])) == {
        "machine": "Orin, 6 cores for us",
        "clocks": "governor schedutil, limits 100 to 1984 MHz, power mode MAXN",
        "gpu": "A GPU, driver 570.1, at most 1980 MHz, 700 W",
        "versions": "gcpp-edge 1, pycuda 3, numpy 2, Python 3.12",
    }


def test_stages_have_every_figure(folder, bench):
    result = bench(folder / "guided.onnx", "--guided", "--stages", "--percentile", "75,99.9")
    assert result.status == 0, result.err
    assert [line for line in result.out.splitlines() if line.startswith("stage ")][0].split() == [
        *("stage", "min", "mean", "median", "p75", "p99.9", "share"),
    ]
    for level in ("plain", "map", "guided"):
        assert f"stages of {level}, ms a call" in result.out
    assert "cost of guided" in result.out


def test_several_models_are_a_row_each(folder, bench):
    result = bench(folder / "map.onnx", folder / "guided.onnx")
    assert result.status == 0, result.err
    rows = [line for line in result.out.splitlines() if line.startswith(("map.onnx", "guided.onnx"))]
    assert len(rows) == 2 and all(row.count(" x ") == 1 for row in rows)
    assert "stages" not in result.out and "guided.onnx on cpu: p99" in result.err


def test_results_are_saved_and_compared_with_themselves(folder, tmp_path, bench, run):
    path = tmp_path / "a.json"
    assert bench(folder / "map.onnx", "--json", path).status == 0
    document = json.loads(path.read_text())
    (measured,) = document["runs"]
    assert document["benchmark"] == "gcpp-edge bench" and document["version"] == 1
    assert measured["frame"] == [80, 48] and measured["rounds"] == 20
    assert {"processor", "cores", "python", "versions"} <= document["machine"].keys()
    assert measured["cost"]["map"]["total"].keys() == {"value", "low", "high", "by_round", "fastest"}
    same = run("bench", "--compare", path, path, "--fail-if-slower")
    assert same.status == 0 and "0 slower and 0 faster beyond the noise" in same.out
    found = json.loads(run("bench", "--compare", path, path, "--json", "-").out)
    assert {change["verdict"] for change in found["changes"]} == {"same"}


def test_what_became_slower_fails_where_that_is_asked_for(folder, tmp_path, bench, run):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert bench(folder / "map.onnx", "--json", old).status == 0
    document = json.loads(old.read_text())
    cost = document["runs"][0]["cost"]["map"]["total"]
    for name in ("value", "low", "high"):
        cost[name] *= 1000
    new.write_text(json.dumps(document))
    slower = run("bench", "--compare", old, new)
    assert slower.status == 0 and "1 slower and 0 faster" in slower.out
    assert run("bench", "--compare", old, new, "--fail-if-slower").status == 1
    assert run("bench", "--compare", new, old, "--fail-if-slower").status == 0


def test_json_to_standard_output_is_one_document_and_nothing_else(folder, bench):
    result = bench(folder / "map.onnx", "--json", "-")
    assert json.loads(result.out)["runs"][0]["model"] == "map.onnx"


def test_every_time_can_be_saved(folder, tmp_path, bench):
    path = tmp_path / "times.json"
    assert bench(folder / "map.onnx", "--export-times", path).status == 0
    (measured,) = json.loads(path.read_text())["runs"]
    assert len(measured["times"]) == 40 and measured["times"][0].keys() == {
        "level",
        "round",
        "start_ms",
        "ms",
        "stages_ms",
    }


def test_a_plot_is_a_picture(folder, tmp_path, bench):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("matplotlib", reason="--plot draws with it: pip install 'gcpp-edge[plot]'")
    path = tmp_path / "a.png"
    assert bench(folder / "guided.onnx", "--guided", "--plot", path).status == 0
    picture = cv2.imread(str(path))
    assert picture.shape[1] == 1320 and picture.std() > 10
    assert [entry.name for entry in tmp_path.glob("*.p*")] == ["a.png"]


def test_without_matplotlib_it_says_so_before_it_measures(folder, tmp_path, bench, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = bench(folder / "map.onnx", "--plot", tmp_path / "a.png")
    assert result.status == 2 and result.out == "" and "pip install 'gcpp-edge[plot]'" in result.err


def test_a_cold_start_is_shown_apart(folder, bench):
    result = bench(folder / "map.onnx", "--cold")
    assert result.status == 0, result.err
    for words in ("start and import", "load, nothing cached", "first frame", "a cache of their own"):
        assert words in result.out


@pytest.mark.parametrize(("limit", "status"), [("0", 1), ("1e9", 0)])
def test_a_limit_that_is_missed_is_status_1(folder, bench, limit, status):
    result = bench(folder / "map.onnx", "--max-p99-ms", limit)
    assert result.status == status and ("--max-p99-ms 0" in result.err) == bool(status)


def test_a_picture_is_a_frame(folder, bench):
    result = bench(folder / "map.onnx", "--frame", folder / "tall.png")
    assert result.status == 0 and "48 x 80 bgr" in result.out


def test_a_file_that_takes_frames_of_one_size_is_given_them(folder, tmp_path, bench, run):
    framed = tmp_path / "framed.onnx"
    words = ("--frame-input", "30x40:rgb", "--no-check", "-o", framed)
    assert run("export", folder / "network.onnx", *words).status == 0
    assert "40 x 30 rgb" in run("bench", framed, *SHORT).out
    refused = bench(framed, "--frame", "41x30")
    assert refused.status == 2 and "takes rgb frames of 30 x 40" in refused.err


def test_all_runtimes_are_those_that_can_be_used_and_the_others_are_named(folder, run):
    result = run("bench", folder / "map.onnx", *SHORT, *FRAME, "--runtime", "all", "--json", "-")
    assert result.status == 0
    runs = {one["backend"]: one for one in json.loads(result.out)["runs"]}
    assert list(runs)[0] == "cpu" and set(runs) == {"cpu", "cuda", "tensorrt"}
    for name in ("cuda", "tensorrt"):
        if "not_measured" in runs[name]:
            assert f"map.onnx: not measured on {name}: " in result.err


def test_a_model_that_fails_is_named_and_the_others_are_measured(folder, bench, monkeypatch):
    from gcpp_edge import explainer
    from gcpp_edge.errors import RuntimeFailure

    whole = explainer.Explainer.scores

    def failing(self, *given, **named):
        if "guided" in str(self._file.path):
            raise RuntimeFailure("it fell over.")
        return whole(self, *given, **named)

    monkeypatch.setattr(explainer.Explainer, "scores", failing)
    result = bench(folder / "guided.onnx", folder / "map.onnx")
    assert result.status == 2 and "guided.onnx: not measured on cpu: it fell over." in result.err
    assert "cost of map" in result.out


def interrupt(monkeypatch, at):
    """Ctrl-C in the so manieth call of the explanation, the warm-up's three included."""
    from gcpp_edge.bench.subject import Subject

    whole, left = Subject.map, [at]

    def interrupted(self):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(Subject, "map", interrupted)


def test_ctrl_c_prints_what_was_measured_and_writes_nothing(folder, tmp_path, bench, monkeypatch):
    interrupt(monkeypatch, at=9)
    result = bench(folder / "map.onnx", "--json", tmp_path / "a.json", "--export-times", tmp_path / "t.json")
    assert result.status == 130 and result.err.endswith("gcpp-edge: interrupted\n")
    assert "ms a call, 5 of each in turn" in result.out and "cost of map" in result.out
    assert not list(tmp_path.glob("*.json"))


def test_ctrl_c_in_a_second_model_prints_the_first(folder, bench, monkeypatch):
    interrupt(monkeypatch, at=3 + 20 + 2)
    result = bench(folder / "map.onnx", folder / "guided.onnx", "--json", "-")
    assert result.status == 130
    document = json.loads(result.out)
    assert [one["model"] for one in document["runs"]] == ["map.onnx"] and document["interrupted"]


REFUSED = [
    (("map.onnx", "--runtime", "abacus"), "Unknown device 'abacus'"),
    (("map.onnx", "--runtime", "tensorrt"), "device='tensorrt' cannot be used here"),
    (("map.onnx", "--method", "nonsense"), "nonsense"),
    (("map.onnx", "--guided"), "guided"),
    (("map.onnx", "--batch", "0"), "--batch"),
    (("map.onnx", "--threads", "-1"), "--threads"),
    (("map.onnx", "--duration", "-1"), "--duration"),
    (("map.onnx", "--iterations", "0"), "--iterations"),
    (("map.onnx", "--percentile", "50,a"), "--percentile: expected numbers above 0"),
    (("map.onnx", "--percentile", "0"), "--percentile"),
    (("map.onnx", "--percentile", "nan"), "--percentile"),
    (("map.onnx", "--percentile", ""), "--percentile"),
    (("map.onnx", "--frame", "0x9"), "--frame: expected sides"),
    (("map.onnx", "--frame", "99999x9"), "--frame: expected sides"),
    (("map.onnx", "--frame", "large"), "--frame: expected WIDTHxHEIGHT"),
    (("map.onnx", "--frame", "missing.jpg"), "missing.jpg"),
    (("map.onnx", "--frame", "text.jpg"), "text.jpg"),
    (("map.onnx", "--spin", "maybe"), "--spin: expected on or off"),
    (("map.onnx", "--json", "guided.onnx"), "--json: expected a file that ends in .json"),
    (("map.onnx", "--json", "nowhere/a.json"), "--json"),
    (("map.onnx", "--export-times", "a.csv"), "--export-times: expected a file that ends in .json"),
    (("map.onnx", "--json", "a.json", "--export-times", "a.json"), "would both be"),
    (("map.onnx", "--plot", "a.jpg"), "--plot: expected a file that ends in .png"),
    (("map.onnx", "--fail-if-slower"), "goes with --compare"),
    (("map.onnx", "truncated.onnx"), "truncated.onnx"),
    (("network.onnx",), "network.onnx"),
    (("missing.onnx",), "missing.onnx"),
    ((), "models"),
    (("--compare", "labels.txt"), "expected two results"),
    (("--compare", "labels.txt", "labels.txt"), "not a JSON document"),
    (("--compare", "missing.json", "labels.txt"), "cannot be read"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda value: " ".join(value) if value else "nothing")
def test_bad_input_is_one_line(folder, run, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    result = run("bench", *words)
    assert result.status == 2 and result.out == "", result.err
    assert result.err.count("\n") == 1 and result.err.startswith("gcpp-edge: ") and message in result.err
    assert not list(Path().glob("a.*"))
