"""Two documents of results, and what is no document of ours."""

import copy
import json

import pytest

from gcpp_edge.bench.comparison import COST, FASTER, SAME, SLOWER, compare
from gcpp_edge.bench.results import KIND, VERSION, document_of, read_results, write_json
from gcpp_edge.bench.summary import ratio_of, summarise
from gcpp_edge.errors import InputError

NOISE = [0.0, 0.1, -0.1, 0.05, -0.05]


def series(middle, noise=1.0):
    """Ten parts, whose medians lie a hundredth apart."""
    return [middle + noise * (stage + (part - 4.5) / 100) for part in range(10) for stage in NOISE]


def run_of(plain=10.0, mapped=11.0, noise=1.0, **about):
    plain_total, map_total = summarise(series(plain, noise)), summarise(series(mapped, noise))
    cost = ratio_of(series(mapped, noise), series(plain, noise))
    levels = {
        "plain": {"total": plain_total.as_json(), "stages": {"network": plain_total.as_json()}},
        "map": {"total": map_total.as_json(), "stages": {"network": map_total.as_json()}},
    }
    told = {"model": "a.onnx", "backend": "cpu", "batch": 1, "frame": [640, 480], "threads": 1, "doubts": []}
    return told | about | {"levels": levels, "cost": {"map": {"total": cost.as_json()}}}


def document(*runs, **machine):
    found = document_of(runs)
    return found | {"machine": found["machine"] | machine}


def verdicts(old, new):
    found = compare(document(old), document(new))
    return {(change.level, change.what): change.verdict for change in found.changes}


def test_the_same_run_is_the_same():
    assert set(verdicts(run_of(), run_of()).values()) == {SAME}


CASES = [
    ("beyond the noise", {"mapped": 11.5}, SLOWER),
    ("less, beyond the noise", {"mapped": 10.5}, FASTER),
    ("within the noise of one of them", {"mapped": 11.5, "noise": 20.0}, SAME),
    ("steady, and too little to mind", {"mapped": 11.05, "noise": 0.01}, SAME),
]


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_change_counts_where_parts_of_the_runs_do_not_meet(changes, expected):
    found = verdicts(run_of(), run_of(**changes))
    assert found["map", "total"] == found["map", "network"] == expected
    assert found["plain", "total"] == SAME


def test_the_cost_is_compared_too():
    assert verdicts(run_of(), run_of(mapped=12.0))["map", COST] == SLOWER
    slower_machine = verdicts(run_of(), run_of(plain=20.0, mapped=22.0))
    assert slower_machine["map", COST] == SAME and slower_machine["map", "total"] == SLOWER


def test_of_an_unstable_run_no_time_is_sure_and_the_ratio_is():
    found = compare(document(run_of()), document(run_of(mapped=12.0, doubts=["map drifted"])))
    assert [(change.what, change.is_sure) for change in found.changes if change.verdict == SLOWER] == [
        ("network", False),
        ("total", False),
        (COST, True),
    ]
    assert [change.what for change in found.slower] == [COST]
    assert found.notes == ["a.onnx: the new run was unstable: map drifted"]


def test_few_calls_are_compared_by_all_of_them_and_give_no_ratio():
    def few(values):
        run = run_of()
        run["levels"]["map"]["total"] = summarise(values).as_json()
        return run

    assert verdicts(few([10.0, 14.0]), few([13.0, 15.0]))["map", "total"] == SAME
    found = verdicts(few([10.0, 11.0]), few([13.0, 15.0]))
    assert found["map", "total"] == SLOWER and ("map", COST) not in found


def test_noise_and_change_are_shares_of_the_old_figure():
    found = compare(document(run_of()), document(run_of(mapped=12.1)))
    change = next(change for change in found.changes if (change.level, change.what) == ("map", "total"))
    assert change.share == pytest.approx(0.1, abs=0.001) and change.noise == pytest.approx(0.09 / 11, rel=0.01)


def test_other_settings_and_another_machine_are_noted():
    old, new = document(run_of(), processor="A"), document(run_of(threads=2), processor="B")
    assert compare(old, new).notes == [
        "another processor: A, then B; compare the ratios alone",
        "a.onnx: another threads: 1, then 2",
    ]


def test_runs_that_one_of_them_lacks_are_named():
    skipped = {"model": "a.onnx", "backend": "cuda", "not_measured": "no GPU"}
    old, new = document(run_of(), run_of(batch=4), skipped), document(run_of(), run_of(model="b.onnx"))
    assert compare(old, new).alone == [
        "only in the new one: b.onnx on cpu, batch 1, frame 640x480",
        "only in the old one: a.onnx on cpu, batch 4, frame 640x480",
    ]


def test_runs_of_the_same_model_are_paired_in_their_order():
    old, new = document(run_of(), run_of(mapped=20.0)), document(run_of(), run_of(mapped=20.0))
    assert {change.verdict for change in compare(old, new).changes} == {SAME}


def test_results_without_a_run_in_common_are_refused():
    with pytest.raises(InputError, match="no run in common"):
        compare(document(run_of()), document(run_of(model="b.onnx")))


@pytest.mark.parametrize("part", ["cost", "frame", "levels"])
def test_damaged_results_are_refused(part):
    damaged = copy.deepcopy(document(run_of()))
    damaged["runs"][0][part] = None
    with pytest.raises(InputError):
        compare(document(run_of()), damaged)


def test_a_document_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, document(run_of()))
    assert read_results(path) == json.loads(path.read_text())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


REFUSED = {
    "no JSON": ("gcpp", "not a JSON document"),
    "half of one": ('{"benchmark": "gcpp-', "not a JSON document"),
    "a list": ("[]", "not a result of gcpp-edge bench"),
    "another's": ('{"benchmark": "levels", "version": 1, "runs": []}', "not a result of gcpp-edge bench"),
    "without runs": (json.dumps({"benchmark": KIND, "version": VERSION}), "not a result of gcpp-edge bench"),
    "a newer one": (json.dumps({"benchmark": KIND, "version": VERSION + 1, "runs": []}), f"version {VERSION + 1}"),
    "bytes": ("\x00\xff", "not a JSON document"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "other.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=words) as caught:
        read_results(path)
    assert "other.json" in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "missing.json")


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})
