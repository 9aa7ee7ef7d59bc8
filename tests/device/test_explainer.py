"""From frames to explanations, on a model whose answers are known in closed form."""

import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge.contract import (
    CONTRACT_VERSION,
    METADATA_KEY,
    ExtraInput,
    FrameInput,
    Geometry,
    Layer,
    Level,
    Preprocessing,
    Scores,
    Target,
)
from gcpp_edge.errors import (
    ContractVersionError,
    FrameError,
    InputError,
    MethodError,
    ModelError,
    NotExplainedError,
    RuntimeFailure,
    TargetError,
)
from gcpp_edge.kernels import available, table
from gcpp_edge.methods import METHODS


def raw_map(model, frame: np.ndarray, target: int, rule: str = "gradcam++", relu: bool = True) -> np.ndarray:
    """What the method makes of the model's closed form, in NumPy."""
    features = model.features(model.input_of(frame))
    gradients = (model.classifier[target] / features[0, 0].size)[None, :, None, None]
    out = np.empty((1, *features.shape[2:]), np.float32)
    table("numpy").cam(features.astype(np.float32), gradients.astype(np.float32), rule, relu, out)
    return out[0]


@pytest.fixture
def explainer(shared_model):
    with gcpp_edge.load(shared_model.path) as opened:
        yield opened


def test_an_explanation_holds_the_network_s_answer_and_the_method_s_map(explainer, shared_model, random_frame) -> None:
    frame = random_frame()
    explanation = explainer(frame)
    logits = shared_model.logits(shared_model.input_of(frame))[0]
    best = int(logits.argmax())
    assert explanation.class_index == best
    assert explanation.label == shared_model.contract.labels[best]
    assert explanation.target == -1
    assert np.allclose(explanation.scores, logits, atol=1e-4)
    assert explanation.score == pytest.approx(logits[best], abs=1e-4)
    assert explanation.probability == pytest.approx(np.exp(logits[best]) / np.exp(logits).sum(), rel=1e-3)
    assert np.allclose(explanation.map, raw_map(shared_model, frame, best), atol=1e-4)
    assert explanation.evidence == pytest.approx(float(explanation.map.sum()), rel=1e-5)
    assert explanation.peak == explanation.map.max()
    assert explanation.frame is frame
    assert set(explanation.timings_ms) == {"preprocess", "network", "cam"}
    assert (explanation.method, explanation.mode, explanation.poles) == ("gradcam++", "paper", 0)


@pytest.mark.parametrize("isa", available())
@pytest.mark.parametrize(
    ("method", "constant"),
    [
        (name, constant)
        for name in METHODS
        for constant in (True, False)
        if (constant or not METHODS[name].needs_constant) and not METHODS[name].needs_weights
    ],
)
def test_every_method_runs_on_every_table_of_kernels(
    make_model, random_frame, monkeypatch, method: str, isa: str, constant: bool
) -> None:
    monkeypatch.setenv("GCPP_ISA", isa)
    model = make_model(constant=constant)
    with gcpp_edge.load(model.path) as explainer:
        assert explainer.runtime_name == f"ONNX Runtime CPU, kernels {isa}"
        explanation = explainer(random_frame(), 2, method=method)
    expected = raw_map(model, random_frame(), 2, METHODS[method].rule, METHODS[method].relu)
    assert np.allclose(explanation.map, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("mode", ["pytorch-grad-cam", "authors"])
@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_reference_modes_run_end_to_end(explainer, random_frame, mode: str, method: str) -> None:
    explanation = explainer(random_frame(), 2, method=method, mode=mode)
    heatmap = explanation.heatmap("input")
    assert explanation.mode == mode
    assert heatmap.max() == pytest.approx(1.0, abs=1e-4 if mode == "pytorch-grad-cam" else 0.5)


@pytest.mark.parametrize("target", [0, 6, -1, -2, -3, "beagle"])
def test_a_target_is_explained_by_index_rank_or_name(explainer, shared_model, random_frame, target) -> None:
    frame = random_frame()
    explanation = explainer(frame, target)
    order = np.argsort(-shared_model.logits(shared_model.input_of(frame))[0])
    meant = 2 if target == "beagle" else order[-target - 1] if target < 0 else target
    assert explanation.target == target
    assert explanation.class_index == meant
    assert np.allclose(explanation.map, raw_map(shared_model, frame, meant), atol=1e-4)


def test_a_batch_of_mixed_sizes_equals_its_frames_one_by_one(explainer, random_frame) -> None:
    frames = [random_frame(*size, seed=size[0]) for size in ((16, 12), (31, 7), (5, 50))]
    targets = ["beagle", -2, 0]
    together = explainer(frames, targets)
    for frame, target, explanation in zip(frames, targets, together, strict=True):
        alone = explainer(frame, target)
        assert explanation.class_index == alone.class_index
        assert np.allclose(explanation.map, alone.map, atol=1e-5)
        assert explanation.heatmap().shape == frame.shape[:2]
        assert explanation.frame is frame


def test_a_batch_of_one_is_a_list_and_an_empty_batch_an_empty_one(explainer, random_frame) -> None:
    assert len(explainer([random_frame()])) == 1
    assert explainer([]) == []
    assert explainer.scores([]).shape == (0, 7)


def test_batches_may_grow_and_shrink(explainer, random_frame) -> None:
    frames = [random_frame(seed=seed) for seed in range(5)]
    expected = [explainer(frame).map for frame in frames]
    for count in (2, 5, 1, 3):
        found = explainer(frames[:count])
        assert all(np.allclose(one.map, other, atol=1e-5) for one, other in zip(found, expected, strict=False))


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_model_of_one_batch_size_takes_any_number_of_frames(make_model, random_frame, batch: int) -> None:
    model = make_model(batch=batch)
    frames = [random_frame(seed=seed) for seed in range(3)]
    with gcpp_edge.load(model.path) as explainer:
        explanations = explainer(frames, [0, 1, 2], guided=True)
        scores = explainer.scores(frames)
    for index, (frame, explanation) in enumerate(zip(frames, explanations, strict=True)):
        assert np.allclose(explanation.map, raw_map(model, frame, index), atol=1e-4)
        assert np.allclose(scores[index], explanation.scores, atol=1e-5)


def test_scores_are_those_of_an_explanation(explainer, random_frame) -> None:
    frames = [random_frame(seed=seed) for seed in range(2)]
    assert np.allclose(explainer.scores(frames), [one.scores for one in explainer(frames)], atol=1e-5)
    assert explainer.scores(frames[0]).shape == (1, 7)


def test_an_explanation_stays_true_while_the_explainer_works_on(explainer, random_frame) -> None:
    first = explainer(random_frame(seed=1), guided=True)
    before = first.map.copy(), first.scores.copy(), first.guided()
    explainer(random_frame(seed=2), guided=True)
    explainer.close()
    for kept, now in zip(before, (first.map, first.scores, first.guided()), strict=True):
        assert np.array_equal(kept, now)


@pytest.mark.parametrize(
    ("format", "convert"),
    [
        ("rgb", lambda bgr: bgr[:, :, ::-1]),
        ("bgra", lambda bgr: np.dstack([bgr, np.full(bgr.shape[:2], 9, np.uint8)])),
        ("rgba", lambda bgr: np.dstack([bgr[:, :, ::-1], np.full(bgr.shape[:2], 9, np.uint8)])),
    ],
)
def test_the_same_picture_in_another_format_has_the_same_map(explainer, random_frame, format, convert) -> None:
    frame = random_frame()
    expected = explainer(frame, 2).map
    assert np.allclose(explainer(convert(frame), 2, format=format).map, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("format", "frame"),
    [
        ("gray", np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)),
        ("gray16", np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 100),
        ("nv12", np.arange(30 * 24, dtype=np.uint8).reshape(30, 24)),
    ],
)
def test_frames_without_colour_planes_are_explained_too(explainer, format, frame) -> None:
    height = 20
    explanation = explainer(frame, 2, format=format)
    assert explanation.heatmap().shape == (height, frame.shape[1])
    assert explanation.overlay().shape == (height, frame.shape[1], 3)


@pytest.mark.parametrize("color", ["gray", "bgr", "rgba"])
def test_networks_of_one_three_and_four_channels_are_fed_in_their_order(make_model, random_frame, color) -> None:
    channels = {"gray": 1, "bgr": 3, "rgba": 4}[color]
    still = {"color": color, "mean": (0.0,) * channels, "std": (1.0,) * channels}
    model = make_model(preprocessing=still)
    frame = random_frame()
    planes = {
        "gray": (frame @ np.array([0.114, 0.587, 0.299]))[None],
        "bgr": frame.transpose(2, 0, 1),
        "rgba": np.concatenate([frame[:, :, ::-1].transpose(2, 0, 1), np.full((1, 16, 12), 255)]),
    }
    with gcpp_edge.load(model.path) as explainer:
        explanation = explainer(frame, 1, guided=True)
        assert np.allclose(explanation.scores, model.logits(planes[color][None] / 255)[0], atol=1e-3)
        assert explanation.guided().shape == (16, 12, channels)
        assert explanation.guided_picture().shape == (16, 12, 3)


def test_pixel_values_follow_the_contract_s_mean_std_and_unit(make_model, random_frame) -> None:
    raw = {"mean": (127.0, 116.0, 104.0), "std": (128.0, 64.0, 1.0), "pixel_max": 255.0}
    model = make_model(preprocessing=raw)
    frame = random_frame()
    with gcpp_edge.load(model.path) as explainer:
        expected = model.logits(model.input_of(frame))
        assert np.allclose(explainer.scores(frame), expected, rtol=1e-4, atol=1e-3)


def test_a_letterbox_is_filled_with_the_contract_s_value(make_model) -> None:
    box = {"geometry": Geometry("letterbox", fill=50.0), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    model = make_model(preprocessing=box)
    seen = np.full((4, 12, 3), 200, np.uint8)
    whole = np.full((16, 12, 3), 50, np.uint8)
    whole[6:10] = 200
    with gcpp_edge.load(model.path) as explainer:
        assert np.allclose(explainer.scores(seen), model.logits(model.input_of(whole)), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "probability"),
    [
        ("logits", lambda x: np.exp(x) / np.exp(x).sum()),
        ("softmax", lambda x: np.exp(x) / np.exp(x).sum()),
        ("log_softmax", lambda x: np.exp(x) / np.exp(x).sum()),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
    ],
)
def test_a_probability_is_never_taken_twice(make_model, random_frame, kind, probability) -> None:
    model = make_model(kind=kind)
    logits = model.logits(model.input_of(random_frame()))[0]
    with gcpp_edge.load(model.path) as explainer:
        explanation = explainer(random_frame())
    assert np.allclose(explanation.probabilities(), probability(logits), atol=1e-4)
    best = int(logits.argmax())
    assert explanation.top(3)[0] == (best, model.contract.labels[best], pytest.approx(explanation.probability))


def test_a_float16_model_is_fed_and_read_in_float16(make_model, random_frame) -> None:
    model = make_model(dtype=np.float16)
    frame = random_frame()
    with gcpp_edge.load(model.path) as explainer:
        explanation = explainer(frame, 2, guided=True)
    expected = raw_map(model, frame, 2)
    assert np.allclose(explanation.map, expected, atol=0.02 * np.abs(expected).max())
    assert explanation.scores.dtype == explanation.guided().dtype == np.float32


@pytest.mark.parametrize("mode", ["paper", "pytorch-grad-cam", "authors"])
@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
@pytest.mark.parametrize("scale", [2.0**7, 2.0**-6])
def test_scaled_gradients_give_the_same_map(make_model, random_frame, scale, method, mode) -> None:
    plain, scaled = make_model("plain.onnx"), make_model("scaled.onnx", gradient_scale=scale)
    frame = random_frame()
    with gcpp_edge.load(plain.path) as one, gcpp_edge.load(scaled.path) as other:
        expected, found = (explainer(frame, 2, method=method, mode=mode).map for explainer in (one, other))
    assert expected.max() > 0
    assert np.allclose(found, expected, rtol=1e-5, atol=0)


def test_scaled_gradients_outlive_float16(make_model, random_frame) -> None:
    """Gradients of 4e-7 keep two bits in float16; times a power of two they are ordinary numbers."""
    small = np.random.default_rng(7).normal(size=(7, 4)) * 2e-5
    model = make_model(dtype=np.float16, classifier=small, gradient_scale=2.0**10)
    frame = random_frame()
    with gcpp_edge.load(model.path) as explainer:
        found = explainer(frame, 2).map
    expected = raw_map(model, frame, 2)
    assert expected.max() > 0
    assert np.allclose(found, expected, atol=0.02 * expected.max())


def test_weights_beside_the_file_work_at_every_level(make_model, random_frame) -> None:
    expected = make_model("whole.onnx")
    beside = make_model("beside.onnx", beside=True)
    with gcpp_edge.load(expected.path) as one, gcpp_edge.load(beside.path) as other:
        assert np.allclose(one(random_frame(), guided=True).map, other(random_frame(), guided=True).map, atol=1e-6)
        assert np.allclose(one.scores(random_frame()), other.scores(random_frame()), atol=1e-6)


def test_the_guided_level_is_loaded_when_it_is_first_asked_for(explainer, random_frame) -> None:
    plain = explainer(random_frame(), 2)
    guided = explainer(random_frame(), 2, guided=True)
    assert np.allclose(plain.map, guided.map, atol=1e-6)
    assert guided.guided().shape == (16, 12, 3)
    with pytest.raises(InputError, match="explainer.frame, guided=True."):
        plain.guided()


def test_the_guided_level_can_be_loaded_at_once(shared_model, random_frame) -> None:
    with gcpp_edge.load(shared_model.path, level="guided") as explainer:
        assert explainer(random_frame(), guided=True).guided().any()


def test_a_file_without_the_guided_level_says_how_to_get_it(make_model, random_frame) -> None:
    with gcpp_edge.load(make_model(guided=False).path) as explainer:
        assert explainer(random_frame()).map.any()
        with pytest.raises(ModelError, match="Export it again with --guided"):
            explainer(random_frame(), guided=True)


def test_threads_may_share_an_explainer(explainer, random_frame) -> None:
    frames = [random_frame(seed=seed) for seed in range(8)]
    expected = [explainer(frame, 1).map for frame in frames]
    found: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        for _ in range(5):
            found[index] = explainer(frames[index], 1).map

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[index], expected[index]) for index in range(len(frames)))


def test_after_warm_up_a_frame_allocates_its_explanation_and_nothing_else(explainer, random_frame) -> None:
    frame = random_frame(480, 640)
    for _ in range(3):
        explainer(frame)
    tracemalloc.start()
    explanation = explainer(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert explanation.map.nbytes < 1000
    assert peak < 40_000  # a copy of the frame would be 900 kB, of the input 2.3 kB in this small network


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"target": 7}, TargetError, "target 7: this model has classes 0 to 6"),
        ({"target": -4}, TargetError, "ranks -1 .best. to -3"),
        ({"target": "cat"}, TargetError, "2 classes match"),
        ({"target": "zebra crossing"}, TargetError, "no class of this name"),
        ({"target": [0, 1]}, TargetError, "one a frame .1.; found 2"),
        ({"method": "lime"}, MethodError, "Unknown method 'lime'"),
        ({"mode": "captum"}, MethodError, "Unknown mode 'captum'"),
        ({"format": "yuv"}, FrameError, "Unknown frame format"),
        ({"format": "gray"}, FrameError, "expected a gray frame"),
        ({"frames": np.zeros((4, 4, 3))}, FrameError, "found float64"),
        ({"frames": [np.zeros((4, 4, 3), np.uint8), None]}, FrameError, "^frame 1: .*found NoneType"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(explainer, random_frame, call, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        explainer(**{"frames": random_frame()} | call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "tpu"}, InputError, "Unknown device 'tpu'"),
        ({"level": "deep"}, InputError, "Unknown level 'deep'"),
        ({"method": "lime"}, MethodError, "Unknown method 'lime'"),
        ({"threads": -1}, InputError, "threads: expected 0"),
        ({"threads": 1_000_000}, InputError, "to 1024, found 1000000"),
    ],
)
def test_wrong_options_of_load_are_refused(shared_model, options, error, message) -> None:
    with pytest.raises(error, match=message):
        gcpp_edge.load(shared_model.path, **options)


def test_the_default_method_is_the_caller_s_or_else_the_file_s(make_model, random_frame) -> None:
    path = make_model(contract_changes={"method": "gradcam"}).path
    with gcpp_edge.load(path) as explainer:
        assert explainer(random_frame()).method == "gradcam"
        assert explainer(random_frame(), method="cam").method == "cam"
    with gcpp_edge.load(path, method="gradcam++-signed") as explainer:
        assert explainer(random_frame()).method == "gradcam++-signed"


def test_threads_and_spinning_are_options(shared_model, random_frame) -> None:
    with gcpp_edge.load(shared_model.path, threads=1, spin=True) as explainer:
        assert explainer(random_frame()).map.any()


def test_a_closed_explainer_says_so(shared_model, random_frame) -> None:
    explainer = gcpp_edge.load(shared_model.path)
    explainer.close()
    explainer.close()
    with pytest.raises(RuntimeFailure, match="closed. Load the model again"):
        explainer(random_frame())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(make_model, random_frame, value: float) -> None:
    classifier = np.ones((7, 4))
    classifier[3, 2] = value
    with (
        gcpp_edge.load(make_model(classifier=classifier).path) as explainer,
        pytest.raises(RuntimeFailure, match="scores are not finite"),
    ):
        explainer(random_frame())


def test_a_map_that_overflows_is_refused(make_model, random_frame) -> None:
    classifier = np.zeros((7, 4))
    classifier[0] = 3e38
    model = make_model(classifier=classifier, kind="sigmoid", preprocessing={"std": (1e-3,) * 3})
    with (
        gcpp_edge.load(model.path) as explainer,
        pytest.raises(RuntimeFailure, match="the map of layer 'conv' is not finite"),
    ):
        explainer(random_frame(), 0, method="gradcam")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "picture"}, "promises 'picture', which its graph lacks"),
        ({"layer": Layer("conv", "features", 5, (8, 6), True)}, "'activations' has the shape .* its contract says"),
        ({"layer": Layer("conv", "features", 4, (8, 6), False)}, "'gradients' has the shape .N, 4, 1, 1."),
        ({"layer": Layer("conv", "features", 4, (2, 8, 6), True)}, "explains pictures, which have two axes"),
        ({"scores": Scores("scores", 7, "margins")}, "its kind of scores is 'margins'; this version knows logits"),
        ({"preprocessing": Preprocessing(16, 12, "cmyk")}, "its colour order is 'cmyk'; this version knows rgb"),
        ({"preprocessing": Preprocessing(16, 12, geometry=Geometry("tile"))}, "its geometry is 'tile'"),
        ({"target": Target("classes", 2)}, "'target' has the shape .N. and its contract says .N, 2."),
        ({"target": Target("region", shape=(7, 8, 6))}, "'scores' has the shape .N, 7. and its contract says"),
        ({"target": Target("detection", shape=(4, 7), class_axis=1)}, "'scores' has the shape .N, 7."),
        ({"target": Target("seed", shape=(7,))}, "promises 'seed', which its graph lacks"),
        ({"target": Target("mask")}, "its target is 'mask'; this version knows class, classes"),
        (
            {"others": (Layer("early", "e", 4, (8, 6), True, "activations_2", "gradients_2"),)},
            "promises 'activations_2', which its graph lacks",
        ),
        ({"extra_inputs": (ExtraInput("gain", ("N", 3), "float32"),)}, "promises 'gain', which its graph lacks"),
        (
            {"extra_inputs": (ExtraInput("target", ("N",), "float32"),)},
            "'target' is int64 and its contract says float32",
        ),
        ({"extra_inputs": (ExtraInput("gain", ("N", "M"), "float32"),)}, "'gain' has the open shape"),
        (
            {"frame": FrameInput(16, 12)},
            "'image' has the shape [(]N, 3, 16, 12[)] and its contract says [(]N, 16, 12, 3[)]",
        ),
        ({"preprocessing": Preprocessing(16, 12, frames=4)}, "explains clips, which have three axes"),
        ({"preprocessing": Preprocessing(16, 12, "gray")}, "mean and std have 3 and 3 values, and 'gray' has 1"),
    ],
)
def test_a_contract_that_its_graph_does_not_keep_is_refused(make_model, changes, message) -> None:
    with pytest.raises(ModelError, match=message):
        gcpp_edge.load(make_model(contract_changes=changes).path)


@pytest.mark.parametrize("output", ["softmax_weights", "softmax_poles", "heatmap"])
def test_an_output_that_a_level_lists_and_the_graph_lacks_is_refused(make_model, output) -> None:
    import onnx

    model = make_model()
    levels = dict(model.contract.levels)
    levels["map"] = replace(levels["map"], outputs=(*levels["map"].outputs, output))
    graph = onnx.load(model.path)
    onnx.helper.set_model_props(graph, {METADATA_KEY: replace(model.contract, levels=levels).to_json()})
    onnx.save(graph, model.path)
    with pytest.raises(ModelError, match=f"promises '{output}', which its graph lacks"):
        gcpp_edge.load(model.path)


def test_an_input_of_another_dtype_than_the_kernels_write_is_refused(make_model) -> None:
    import onnx

    path = make_model().path
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    model.graph.node[0].input[0] = "cast"
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["cast"], to=onnx.TensorProto.FLOAT))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="'image' is uint8; expected float32 or float16"):
        gcpp_edge.load(path, level="guided")


def test_a_level_that_promises_too_much_is_refused(make_model) -> None:
    model = make_model()
    levels = model.contract.levels | {"map": Level(5, ("scores", "target_class", "activations", "gradients"))}
    path = make_model(contract_changes={"levels": levels}).path
    with pytest.raises(ModelError):
        gcpp_edge.load(path)


def test_a_text_called_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("buy milk")
    with pytest.raises(ModelError, match="not an ONNX file"):
        gcpp_edge.load(path)


def test_an_unexplained_model_says_how_to_make_one(make_model) -> None:
    import onnx

    path = make_model().path
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(NotExplainedError, match="gcpp-edge export"):
        gcpp_edge.load(path)


def test_a_newer_contract_asks_for_an_upgrade(make_model) -> None:
    with pytest.raises(ContractVersionError, match="Upgrade gcpp-edge"):
        gcpp_edge.load(make_model(contract_changes={"version": CONTRACT_VERSION + 1}).path)


def test_a_model_without_names_numbers_its_classes(make_model, random_frame) -> None:
    with gcpp_edge.load(make_model(labels=()).path) as explainer:
        assert explainer.labels == ()
        assert explainer(random_frame(), 4).label == "class 4"


def test_the_explainer_says_what_it_runs_on(explainer, shared_model) -> None:
    assert str(shared_model.path) in repr(explainer)
    assert "ONNX Runtime" in repr(explainer)
    assert explainer.contract == replace(shared_model.contract)
