"""An explained model measured: which figures there are, and that they belong together. No time is asserted."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge.bench import cold
from gcpp_edge.bench.gpu_stages import REPEATS
from gcpp_edge.bench.measure import measure
from gcpp_edge.bench.results import times_of
from gcpp_edge.bench.sampling import Plan
from gcpp_edge.bench.subject import Settings, Subject, refuse_unknown_inputs
from gcpp_edge.errors import InputError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
PLAN = Plan(seconds=0.0, rounds=6, warm_up_ms=0.0)


def measured(model, picture=None, plan=PLAN, **settings):
    with Subject(model, Settings(**{"backend": "cpu", "threads": 1, "frame": (40, 30)} | settings), picture) as subject:
        return measure(subject, plan, load=0.0)


def test_levels_have_their_stages_and_the_rest_makes_up_the_total(model):
    found = measured(model, guided=True)
    stages = {name: list(level.stages) for name, level in found.levels.items()}
    assert stages == {
        "plain": ["preprocess", "network", "rest"],
        "map": ["preprocess", "network", "cam", "overlay", "rest"],
        "guided": ["preprocess", "network", "cam", "overlay", "guided", "rest"],
    }
    for level in found.levels.values():
        assert level.total.count == 6
        assert sum(stage.mean for stage in level.stages.values()) == pytest.approx(level.total.mean)
        assert all(stage.min > 0 for stage in level.stages.values())


def test_the_cost_is_the_ratio_of_medians_in_total_and_of_the_network(model):
    found = measured(model)
    plain, mapped = found.levels["plain"], found.levels["map"]
    assert found.cost["map"]["total"].value == mapped.total.median / plain.total.median
    assert found.cost["map"]["network"].value == mapped.stages["network"].median / plain.stages["network"].median
    assert list(found.cost) == ["map"]


def test_a_batch_is_a_call_and_counts_as_its_frames(model):
    found = measured(model, batch=3)
    assert found.about["batch"] == 3
    for level in ("plain", "map"):
        assert found.frames_per_second(level) == pytest.approx(3e3 / found.levels[level].total.mean)
        assert min(found.samples.ms[level]) > found.levels[level].stages["network"].min


def test_what_was_measured_is_told(model):
    about = measured(model, method="gradcam", spin=True).about
    assert about["frame"] == [40, 30] and about["method"] == "gradcam" and about["spin"] and about["threads"] == 1
    assert about["runtime"].startswith("ONNX Runtime CPU, kernels ") and about["model"] == model.name


def test_a_picture_is_measured_as_it_is(model):
    picture = np.random.default_rng(0).integers(0, 256, (24, 50, 3), np.uint8)
    assert measured(model, picture, frame=None).about["frame"] == [50, 24]


def test_without_a_frame_it_is_640_by_480(model):
    assert measured(model, frame=None, plan=Plan(0.0, 1, 0.0)).about["frame"] == [640, 480]


def test_the_document_and_the_times_are_json(model):
    found = measured(model)
    document = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert document["levels"]["map"]["total"]["count"] == document["rounds"] == 6
    (run,) = json.loads(json.dumps(times_of([found]), allow_nan=False))["runs"]
    calls = run["times"]
    assert len(calls) == 12 and [call["start_ms"] for call in calls] == sorted(call["start_ms"] for call in calls)
    assert [(call["level"], call["round"]) for call in calls[:4]] == [
        ("plain", 0),
        ("map", 0),
        ("map", 1),
        ("plain", 1),
    ]
    assert calls[1]["stages_ms"].keys() == {"preprocess", "network", "cam", "overlay"}


def test_threads_that_spin_are_given_a_pause_and_it_is_said(model):
    found = measured(model, spin=True, plan=Plan(0.0, 2, 0.0))
    assert any("threads spin" in sentence for sentence in found.remarks)
    assert found.samples.seconds > 4 * 0.010


def test_the_explainer_sums_up_what_scores_took_by_stage(model):
    with gcpp_edge.load(model, device="cpu") as explainer:
        taken = explainer._inference.scores_ms
        for _ in range(2):
            before = dict(taken)
            explainer.scores([np.zeros((9, 9, 3), np.uint8)] * 2)
            assert list(taken) == ["preprocess", "network"]
            assert all(taken[stage] > before.get(stage, 0.0) for stage in taken)


def test_a_model_that_fails_to_open_leaves_nothing_open(model):
    before = threading.active_count()
    with pytest.raises(InputError, match="threads"), Subject(model, Settings(backend="cpu", threads=-1)):
        pass
    with pytest.raises(gcpp_edge.MethodError), Subject(model, Settings(backend="cpu", method="nonsense")):
        pass
    assert threading.active_count() == before


def test_a_cold_start_has_its_figures_apart(model):
    found = cold.cold_ms(model, Settings(backend="cpu", threads=1, frame=(40, 30)))
    assert list(found) == ["start and import", "load, nothing cached", "load", "first frame", "second frame"]
    assert all(took > 0 for took in found.values())


def test_a_cold_start_that_fails_says_why_in_one_line(model):
    with pytest.raises(gcpp_edge.RuntimeFailure, match="--cold failed .*nonsense") as caught:
        cold.cold_ms(model, Settings(backend="cpu", method="nonsense"))
    assert "\n" not in str(caught.value)


def test_further_inputs_are_refused_since_nobody_can_make_them_up():
    contract = SimpleNamespace(extra_inputs=[SimpleNamespace(name="angle")])
    with pytest.raises(InputError, match="model.onnx: also needs angle"):
        refuse_unknown_inputs("model.onnx", contract)


# a GPU


@pytest.fixture
def emulated_gpu():
    found = pytest.importorskip("emulated_gpu", reason="needs the CUDA kernels and their emulator")
    if found.emulator.missing():
        pytest.skip(found.emulator.missing())
    return found


@pytest.fixture
def drivers(monkeypatch, emulated_gpu):
    return emulated_gpu.install(monkeypatch, [])


def test_on_a_gpu_each_stage_is_measured_apart_in_a_recorded_graph(model, drivers):
    found = measured(model, backend="cuda", guided=True)
    (driver,) = drivers
    assert {name: list(level.stages) for name, level in found.levels.items()} == {
        "plain": ["copy in", "preprocess", "network", "copy out"],
        "map": ["copy in", "preprocess", "network", "cam", "overlay", "copy out"],
        "guided": ["copy in", "preprocess", "network", "cam", "overlay", "copy out"],
    }
    assert found.apart and found.about["cuda_graph"] and found.cost["map"].keys() == {"total", "network"}
    for level in found.levels.values():  # the driver's events say that any time is a millisecond
        assert {stage.median for stage in level.stages.values()} == {1 / REPEATS}
    assert driver.counts["replay"] > 3 * 6 and driver.counts["end_capture"] >= 3 + 4 + 6 + 6
    assert (driver.closings, driver.leaks) == (1, {})


def test_frames_call_by_call_are_not_recorded(model, drivers):
    found = measured(model, backend="cuda", recorded=False)
    assert drivers[0].counts["begin_capture"] == drivers[0].counts["replay"] == 0
    assert not found.about["cuda_graph"] and "network" in found.levels["map"].stages
    assert drivers[0].leaks == {}


def test_an_integrated_gpu_copies_no_frame_in(model, monkeypatch, emulated_gpu):
    emulated_gpu.install(monkeypatch, [], integrated=True)
    found = measured(model, backend="cuda")
    assert list(found.levels["plain"].stages) == ["preprocess", "network", "copy out"]
    assert list(found.levels["map"].stages) == ["preprocess", "network", "cam", "overlay", "copy out"]


def test_a_gpu_s_explanation_is_the_same_after_its_stages_were_measured(model, drivers):
    """They work in the network's own buffers."""
    settings = Settings(backend="cuda", frame=(40, 30))
    with Subject(model, settings) as subject, gcpp_edge.load(model, device="cpu") as host:
        measure(subject, PLAN, load=0.0)
        frame = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
        found, expected = subject.explainer(frame), host(frame)
        np.testing.assert_allclose(found.map, expected.map, rtol=1e-4, atol=1e-6)


def test_what_a_gpu_cannot_draw_is_no_stage_of_it(drivers):
    several = FIXTURES / "explained-v2.onnx"  # classes and layers
    found = measured(several, backend="cuda")
    assert list(found.levels["map"].stages) == ["copy in", "preprocess", "network", "cam", "copy out"]
    assert list(measured(several).levels["map"].stages) == ["preprocess", "network", "cam", "overlay", "rest"]


@pytest.mark.parametrize("words", [(), ("--stages",), ("--no-cuda-graph", "--guided", "--json", "-")])
def test_the_command_shows_a_gpu_s_stages(model, drivers, capfd, words):
    pytest.importorskip("typer", reason="the command line needs it: pip install 'gcpp-edge[cli]'")
    from gcpp_edge.cli import main

    short = ("--duration", "0", "--warmup-ms", "0", "--frame", "40x30")
    assert main(["bench", str(model), "--runtime", "cuda", *short, *words]) == 0
    out = capfd.readouterr().out
    for stage in ("copy in", "preprocess", "network", "cam", "overlay", "copy out"):
        assert stage in out
    if not words:
        assert "stages, median ms on the GPU, each stage by itself" in out and "frames as CUDA graphs" in out
