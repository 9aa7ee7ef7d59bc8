"""Every kind of explained file, from the exporter to the explanation, held against autograd."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge.contract import CLASSES, DETECTION, REGION, SEED, Geometry, Preprocessing
from gcpp_edge.errors import FrameError, GcppError, InputError, MethodError, ShapeError, TargetError
from gcpp_edge.fusion import map_at
from gcpp_edge.geometry import fit_frame, frame_edges
from gcpp_edge.kernels import table
from gcpp_edge.regions import region_on_grid

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: pip install 'gcpp-edge[export]'")
onnx = pytest.importorskip("onnx", reason="the exporter needs onnx: pip install 'gcpp-edge[export]'")
pytest.importorskip("onnxscript", reason="the exporter needs onnxscript: pip install 'gcpp-edge[export]'")

nn = torch.nn
SIZE = 16
PIXELS = Preprocessing(SIZE, SIZE, "rgb", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


class Classifier(nn.Module):
    """Two stages, the second before a head whose gradients vary over space."""

    def __init__(self, dimensions: int = 2) -> None:
        super().__init__()
        conv, pool = (nn.Conv2d, nn.MaxPool2d) if dimensions == 2 else (nn.Conv3d, nn.MaxPool3d)
        self.first = nn.Sequential(conv(3, 6, 3, stride=2, padding=1), nn.SiLU())
        self.second = nn.Sequential(conv(6, 8, 3, padding=1), nn.ReLU())
        self.pool, self.classes = pool(2), nn.LazyLinear(5)

    def forward(self, image: Any) -> Any:
        return self.classes(self.pool(self.second(self.first(image))).flatten(1))


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.classes = nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, image: Any) -> Any:
        return nn.functional.interpolate(self.classes(self.down(image)), size=image.shape[2:], mode="bilinear")


class Detector(nn.Module):
    """Boxes and sigmoid scores of 16 cells, [N, 4 + 3, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Any) -> Any:
        features = self.body(image)
        return torch.cat([self.boxes(features).flatten(2).exp(), self.scores(features).flatten(2).sigmoid()], 1)


class Exported(NamedTuple):
    network: Any
    explainer: Any


def export(folder: Any, network: Any, pixels: Preprocessing = PIXELS, clip: int = 0, **fields: Any) -> Exported:
    """The network with weights of its own, and its explainer."""
    from gcpp_edge.export import explain_module

    example = torch.randn(2, 3, *([clip] if clip else []), SIZE, SIZE)
    network(example)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, (parameter[0].numel() if parameter.dim() > 1 else 4) ** -0.5, generator=generator)
    path = folder / "model.onnx"
    onnx.save(explain_module(network.eval(), example, preprocessing=pixels, **fields), path)
    return Exported(network, gcpp_edge.load(path))


def options(kind: str, count: int = 1, **fields: Any) -> Any:
    from gcpp_edge.export.scores import TargetOptions

    return TargetOptions(kind, count, **fields)


def frame_of(seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*(shape or (SIZE, SIZE)), 3), np.uint8)


def tensor_of(frame: np.ndarray) -> Any:
    """A frame of the input's own size, or a clip, as the network sees it."""
    scaled = (frame[..., ::-1] / 255 - PIXELS.mean) / PIXELS.std
    return torch.from_numpy(np.moveaxis(scaled, -1, 0).astype(np.float32))[None].requires_grad_()


def maps_by_autograd(network: Any, image: Any, layers: list[str], scalar: Any, rule: str = "gradcam++") -> list[Any]:
    """Raw maps of the layers for scalar(output), by PyTorch's gradients and the kernels' NumPy truth."""
    seen = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        for name in layers
    ]
    output = network(image)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(scalar(output), [seen[name] for name in layers])
    maps = []
    for name, gradient in zip(layers, gradients, strict=True):
        activations = seen[name].detach().numpy()
        maps.append(np.empty((1, *activations.shape[2:]), np.float32))
        table("numpy").cam(activations, np.ascontiguousarray(gradient.numpy()), rule, True, maps[-1])
    return [one[0] for one in maps]


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert expected.max() > 0
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * expected.max()


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("classes")
    return export(folder, Classifier(), layer="second", guided=True, target=options(CLASSES, 3))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tmp_path_factory.mktemp("region"), Segmenter(), layer="down", target=options(REGION))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    fields = {"layer": "body", "target": options(DETECTION, first_class=4)}
    return export(tmp_path_factory.mktemp("detection"), Detector(), **fields)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tmp_path_factory.mktemp("seed"), Classifier(), layer="second", target=options(SEED))


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    class Deep(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())

    return export(tmp_path_factory.mktemp("layers"), Deep(), layer=["second", "first"])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tmp_path_factory.mktemp("clip"), Classifier(3), clip=6, layer="second", guided=True)


def test_the_best_classes_come_from_one_pass(classes: Exported) -> None:
    frame = frame_of()
    order = classes.network(tensor_of(frame))[0].argsort(descending=True).tolist()[:3]
    found = classes.explainer.classes(frame)
    assert [one.class_index for one in found] == order
    assert [one.target for one in found] == [-1, -2, -3]
    for one in found:
        index = one.class_index
        (expected,) = maps_by_autograd(classes.network, tensor_of(frame), ["second"], lambda out, i=index: out[0, i])
        assert_same(one.map, expected)
        assert one.score == pytest.approx(float(classes.network(tensor_of(frame))[0, index].detach()), abs=1e-4)


def test_chosen_classes_of_a_batch_equal_single_calls(classes: Exported) -> None:
    frames = [frame_of(1), frame_of(2, 20, 30)]
    together = classes.explainer.classes(frames, [4, -1], guided=True)
    assert [[one.target for one in row] for row in together] == [[4, -1]] * 2
    for frame, row in zip(frames, together, strict=True):
        for target, one in zip([4, -1], row, strict=True):
            alone = classes.explainer(frame, target, guided=True)
            assert alone.class_index == one.class_index
            assert_same(one.map, alone.map)
            assert np.allclose(one.guided(), alone.guided(), atol=1e-5)
    first, second = together[0]
    assert np.abs(first.guided() - second.guided()).max() > 0


@pytest.mark.parametrize("mode", ["pytorch-grad-cam", "authors"])
def test_reference_modes_take_each_class_s_gradients(classes: Exported, mode: str) -> None:
    found = classes.explainer.classes(frame_of(), [0, 1, 2], mode=mode)
    for one in found:
        assert np.allclose(one.map, classes.explainer(frame_of(), one.class_index, mode=mode).map, rtol=1e-4, atol=1e-7)


def test_a_region_is_averaged_onto_the_output_s_grid(segmenter: Exported) -> None:
    frame = frame_of()
    mask = np.zeros((SIZE, SIZE), bool)
    mask[3:9, 5:] = True
    explanation = segmenter.explainer(frame, 2, region=mask)
    where = torch.from_numpy(mask)
    image = tensor_of(frame)
    (expected,) = maps_by_autograd(segmenter.network, image, ["down"], lambda out: out[0, 2][where].sum())
    assert_same(explanation.map, expected)
    means = segmenter.network(image)[0][:, where].mean(1).detach().numpy()
    assert np.allclose(explanation.scores, means, atol=1e-4)
    assert explanation.probability == pytest.approx(np.exp(means[2]) / np.exp(means).sum(), rel=1e-3)
    for same in (mask.astype(np.uint8) * 255, mask.astype(np.float32)):
        assert_same(segmenter.explainer(frame, 2, region=same).map, expected)


def test_without_a_region_the_class_is_explained_where_it_wins(segmenter: Exported) -> None:
    frame = frame_of(1)
    output = segmenter.network(tensor_of(frame))[0]
    best = int(torch.bincount(output.argmax(0).flatten()).argmax())
    explanation = segmenter.explainer(frame)
    where = output.argmax(0) == best
    (expected,) = maps_by_autograd(segmenter.network, tensor_of(frame), ["down"], lambda out: out[0, best][where].sum())
    assert explanation.class_index == best
    assert_same(explanation.map, expected)


def test_regions_of_a_batch_are_each_frame_s_own(segmenter: Exported) -> None:
    frames = [frame_of(1), frame_of(2, 32, 48)]
    masks = [None, np.pad(np.ones((16, 24), bool), ((0, 16), (0, 24)))]
    together = segmenter.explainer(frames, [1, 2], region=masks)
    for frame, target, mask, one in zip(frames, [1, 2], masks, together, strict=True):
        assert_same(one.map, segmenter.explainer(frame, target, region=mask).map)


def test_scores_of_a_segmenter_are_the_segmentation(segmenter: Exported) -> None:
    found = segmenter.explainer.scores([frame_of(1), frame_of(2)])
    expected = segmenter.network(torch.cat([tensor_of(frame_of(1)), tensor_of(frame_of(2))])).detach().numpy()
    assert found.shape == (2, 4, SIZE, SIZE)
    assert np.allclose(found, expected, atol=1e-4)
    assert segmenter.explainer.scores([]).shape == (0, 4, SIZE, SIZE)


@pytest.mark.parametrize(("target", "detection"), [(1, 5), (2, -1), (None, None), (-2, -2)])
def test_a_class_of_a_detection_is_explained(detector: Exported, target: Any, detection: Any) -> None:
    frame = frame_of(3)
    chances = detector.network(tensor_of(frame))[0, 4:].detach()
    rank = -1 if detection is None else detection
    order = (chances.amax(0) if target is None or target < 0 else chances[target]).argsort(descending=True)
    index = rank if rank >= 0 else int(order[-rank - 1])
    column = chances[:, index].argsort(descending=True)
    asked = -1 if target is None else target
    wanted = asked if asked >= 0 else int(column[-asked - 1])
    explanation = detector.explainer(frame, target, detection=detection)
    assert (explanation.detection, explanation.class_index) == (index, wanted)
    assert np.allclose(explanation.scores, chances[:, index], atol=1e-5)
    assert explanation.probability == pytest.approx(float(chances[wanted, index]), abs=1e-5)
    (expected,) = maps_by_autograd(
        detector.network, tensor_of(frame), ["body"], lambda out: torch.logit(out[0, 4 + wanted, index])
    )
    assert_same(explanation.map, expected)


def test_detections_of_a_batch_are_each_frame_s_own(detector: Exported) -> None:
    frames = [frame_of(1), frame_of(2)]
    found = detector.explainer(frames, [0, 1], detection=[3, 7])
    assert [(one.class_index, one.detection) for one in found] == [(0, 3), (1, 7)]


def test_a_seed_is_explained_without_a_class(seeded: Exported) -> None:
    frame, seed = frame_of(), np.array([0, 2, -1, 0, 0.5])
    explanation = seeded.explainer(frame, seed=seed)
    weights = torch.from_numpy(seed).float()
    (expected,) = maps_by_autograd(seeded.network, tensor_of(frame), ["second"], lambda out: (out[0] * weights).sum())
    assert_same(explanation.map, expected)
    assert (explanation.class_index, explanation.label, explanation.target) == (-1, "seed", "seed")
    assert np.allclose(explanation.scores, seeded.network(tensor_of(frame)).detach()[0], atol=1e-4)
    assert "probability" not in repr(explanation)
    for ask in (lambda e: e.score, lambda e: e.probability, lambda e: e.top(), lambda e: e.probabilities()):
        with pytest.raises(InputError, match="a seed was explained"):
            ask(explanation)


def test_a_list_of_seeds_has_one_a_frame(seeded: Exported) -> None:
    seeds = [np.eye(5)[1], np.eye(5)[3]]
    together = seeded.explainer([frame_of(1)] * 2, seed=seeds)
    for seed, one in zip(seeds, together, strict=True):
        assert_same(one.map, seeded.explainer(frame_of(1), seed=seed).map)


def resized(raw: np.ndarray, size: int) -> np.ndarray:
    image = torch.from_numpy(raw)[None, None]
    return nn.functional.interpolate(image, size=(size, size), mode="bilinear")[0, 0].numpy()


def test_layers_are_fused_by_the_mean_of_their_normalised_maps(layered: Exported) -> None:
    frame = frame_of()
    explanation = layered.explainer(frame, 1)
    raw = maps_by_autograd(layered.network, tensor_of(frame), ["second", "first"], lambda out: out[0, 1])
    assert list(explanation.layer_maps) == ["second", "first"]
    for found, expected in zip(explanation.layer_maps.values(), raw, strict=True):
        assert_same(found, expected)
    scaled = [resized((one - one.min()) / (one.max() - one.min()), 8) for one in raw]
    assert np.allclose(explanation.map, np.mean(scaled, axis=0), atol=1e-4)
    assert explanation.evidence == pytest.approx(float(raw[0].sum()), rel=1e-3)
    assert explanation.peak == pytest.approx(float(raw[0].max()), rel=1e-3)
    assert explanation.heatmap("input").shape == (SIZE, SIZE)


@pytest.mark.parametrize(("method", "library"), [("gradcam", "GradCAM"), ("gradcam++", "GradCAMPlusPlus")])
def test_fused_layers_in_pytorch_grad_cam_mode_are_that_library_s(
    torchvision: Any, layered: Exported, method: str, library: str
) -> None:
    peer = pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam==1.5.7: it is the oracle here")
    network = layered.network
    with getattr(peer, library)(network, [network.second, network.first]) as cam:
        expected = cam(tensor_of(frame_of()), [peer.base_cam.ClassifierOutputTarget(1)])[0]
    explanation = layered.explainer(frame_of(), 1, method=method, mode="pytorch-grad-cam")
    assert np.abs(explanation.heatmap("input") - expected).max() < 1e-4


def test_a_clip_has_a_map_with_time(clips: Exported) -> None:
    clip = frame_of(0, 6, SIZE, SIZE)
    explanation = clips.explainer(clip, 2, guided=True)
    (expected,) = maps_by_autograd(clips.network, tensor_of(clip), ["second"], lambda out: out[0, 2])
    assert expected.shape == (3, 8, 8)
    assert_same(explanation.map, expected)
    heatmaps = explanation.heatmap()
    assert heatmaps.shape == (6, SIZE, SIZE)
    assert heatmaps.max() <= 1
    assert np.array_equal(explanation.heatmap(index=4), heatmaps[4])
    assert np.array_equal(explanation.heatmap(index=-1), heatmaps[5])
    assert explanation.overlay().shape == clip.shape
    assert np.array_equal(explanation.overlay(index=1), explanation.overlay()[1])
    assert explanation.guided().shape == (6, SIZE, SIZE, 3)
    assert explanation.guided_picture(index=2).shape == (SIZE, SIZE, 3)
    assert explanation.evidence == pytest.approx(float(expected.sum()), rel=1e-3)
    assert all(box.share <= 1 for box in explanation.boxes(index=3))


def test_a_clip_s_map_is_linear_in_time(clips: Exported) -> None:
    raw = np.array([0.0, 1.0, 4.0], np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)
    found = [float(map_at(raw, index, 6)[0, 0]) for index in range(6)]
    assert found == pytest.approx([0, 0.25, 0.75, 1.75, 3.25, 4])
    out = np.empty((6, SIZE, SIZE), np.float32)
    explanation = clips.explainer(frame_of(0, 6, SIZE, SIZE))
    assert explanation.heatmap(out=out) is out
    assert np.array_equal(out, explanation.heatmap())


def test_a_stream_explains_the_latest_frames_as_a_clip_and_shows_the_last_of_them(clips: Exported) -> None:
    frames = [frame_of(seed, 20, 30) for seed in range(9)]
    frames[7:7] = [frame_of(9, 12, 12)]  # another size: a new clip begins
    with clips.explainer.stream(frames, policy="all", target=1) as stream:
        found = list(stream)
        report = stream.report()
    assert [one.capture.id for one in found] == [5, 6] and (report.captured, report.skipped) == (10, 8)
    for one in found:
        last = one.capture.id
        expected = clips.explainer(frames[last - 5 : last + 1], 1).picture(-1)
        assert_same(one.map, expected.map)
        assert one.frame is not None and np.array_equal(one.overlay(), expected.overlay())


def test_a_clip_of_a_stream_has_the_frames_that_carry_a_map_too(clips: Exported) -> None:
    frames = [frame_of(seed, 20, 30) for seed in range(12)]
    with clips.explainer.stream(frames, policy="all", target=1, every=3) as stream:
        found = list(stream.results())
    fresh = [result.capture.id for result in found if result.is_fresh]
    assert len(fresh) >= 2 and stream.report().carried >= 3
    for result in found:
        if result.is_fresh:
            last = result.capture.id
            assert_same(result.explanation.map, clips.explainer(frames[last - 5 : last + 1], 1).picture(-1).map)


def test_a_stream_has_no_place_for_a_seed(seeded: Exported) -> None:
    with pytest.raises(InputError, match="gradient of the caller"):
        seeded.explainer.stream([frame_of()])


def test_clips_come_as_arrays_as_lists_and_as_batches(clips: Exported) -> None:
    one, other = frame_of(1, 6, 20, 30), frame_of(2, 6, SIZE, SIZE)
    alone = [clips.explainer(clip, 1) for clip in (one, other)]
    assert_same(clips.explainer(list(one), 1).map, alone[0].map)
    for batch in ([one, other], [list(one), other], (one, other)):
        for found, expected in zip(clips.explainer(batch, 1), alone, strict=True):
            assert_same(found.map, expected.map)
    assert clips.explainer([]) == []
    assert clips.explainer.scores(one).shape == (1, 5)


@pytest.mark.parametrize(
    ("kind", "frames", "call", "error", "words"),
    [
        ("classes", None, {"region": np.ones((16, 16))}, TargetError, "region: not taken by this model"),
        ("classes", None, {"detection": 0}, TargetError, "--target detection"),
        ("classes", None, {"seed": np.ones(5)}, TargetError, "seed: not taken"),
        ("segmenter", None, {"region": np.ones((3, 3))}, ShapeError, r"\(16, 16\) of the frame's size"),
        ("segmenter", None, {"region": np.zeros((16, 16), bool)}, InputError, "region: empty"),
        ("segmenter", None, {"region": -np.ones((16, 16))}, InputError, "weights of 0 or more"),
        ("segmenter", None, {"region": [None, None]}, TargetError, "one a frame .1.; found 2"),
        ("segmenter", None, {"region": "left"}, ShapeError, "found str"),
        ("detector", None, {"detection": 16}, TargetError, "detections 0 to 15, and ranks -1 .best. to -3"),
        ("detector", None, {"detection": -4}, TargetError, "detection -4"),
        ("detector", None, {"detection": True}, TargetError, "an index or a negative rank"),
        ("detector", None, {"detection": 0.5}, TargetError, "an index or a negative rank"),
        ("seeded", None, {}, TargetError, r"Pass seed=array of shape \(5,\)"),
        ("seeded", None, {"target": 1}, TargetError, "target: not taken by this model, which explains a gradient"),
        ("seeded", None, {"seed": np.ones(4)}, ShapeError, r"of shape \(5,\).* found float64 \(4,\)"),
        ("seeded", None, {"seed": np.full(5, np.nan)}, TargetError, "NaN"),
        ("clips", frame_of(), {}, FrameError, "this model explains clips"),
        ("clips", frame_of(0, 5, 16, 16), {}, FrameError, "a clip of 6 frames, found 5"),
        ("clips", [frame_of()] * 5 + [frame_of(0, 4, 4)], {}, FrameError, "frames of one size"),
        ("clips", frame_of(0, 6, 16, 16), {"mode": "authors"}, MethodError, "this model explains clips"),
        ("classes", None, {"inputs": {"gain": 1}}, InputError, "no input 'gain'"),
    ],
)
def test_what_a_file_does_not_take_is_refused_in_one_line(
    request: Any, kind: str, frames: Any, call: dict[str, Any], error: type[GcppError], words: str
) -> None:
    explainer = request.getfixturevalue(kind).explainer
    with pytest.raises(error, match=words) as caught:
        explainer(frame_of() if frames is None else frames, **call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("targets", [[0, 1, 2, 3], [], 3, [7]])
def test_too_many_and_unknown_classes_are_refused(classes: Exported, targets: Any) -> None:
    with pytest.raises(TargetError):
        classes.explainer.classes(frame_of(), targets)


def test_a_file_of_one_target_has_no_classes_from_one_pass(seeded: Exported) -> None:
    with pytest.raises(TargetError, match="--top-k"):
        seeded.explainer.classes(frame_of())


def test_pictures_of_what_is_no_clip_are_refused(classes: Exported, clips: Exported) -> None:
    with pytest.raises(InputError, match="one picture, not a clip"):
        classes.explainer(frame_of()).heatmap(index=0)
    explanation = clips.explainer(frame_of(0, 6, 16, 16))
    with pytest.raises(InputError, match="0 to 5, found 6"):
        explanation.overlay(index=6)
    with pytest.raises(InputError, match="of which picture"):
        explanation.boxes()


@pytest.mark.parametrize("geometry", [Geometry(), Geometry("crop", 0.8), Geometry("letterbox")])
@pytest.mark.parametrize("size", [(16, 16), (31, 57), (50, 20), (9, 5)])
def test_a_region_s_cell_is_the_mean_over_the_part_of_the_frame_that_it_shows(
    geometry: Geometry, size: tuple[int, int]
) -> None:
    """The mask as a function of area, sampled on a grid so fine that its mean is the integral."""
    mask = np.random.default_rng(0).uniform(size=size)
    fit = fit_frame(*size, Preprocessing(20, 24, geometry=geometry))
    found = region_on_grid(mask, fit, 5, 4)
    fine = 400
    edges = frame_edges(fit.rows, 5), frame_edges(fit.columns, 4)
    steps = (np.arange(fine) + 0.5) / fine
    places = [[low + (high - low) * steps for low, high in zip(e, e[1:], strict=False)] for e in edges]
    for row, ys in enumerate(places[0]):
        for column, xs in enumerate(places[1]):
            inside = [(p >= 0) & (p < n) for p, n in zip((ys, xs), size, strict=True)]
            y, x = ys[inside[0]].astype(int), xs[inside[1]].astype(int)
            assert found[row, column] == pytest.approx(mask[y[:, None], x].sum() / fine**2, abs=5e-3)


def conditioned(path: Any, gain: list[Any]) -> Any:
    """image -> Conv -> Relu -> times gain -> mean -> Gemm, explained; `gain` is a second input of this shape."""
    from gcpp_edge.export import explain_onnx

    random = np.random.default_rng(5)
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = {"filters": random.normal(size=(8, 3, 3, 3)), "classifier": random.normal(size=(5, 8))}
    tensors = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensors.append(onnx.numpy_helper.from_array(np.array([2, 3]), "space"))
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["image", "filters"], ["before"], strides=[2, 2]),
            node("Relu", ["before"], ["features"]),
            node("Unsqueeze", ["gain", "space"], ["gain_4d"]),
            node("Mul", ["features", "gain_4d"], ["gained"]),
            node("GlobalAveragePool", ["gained"], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"]),
            node("Gemm", ["flat", "classifier"], ["scores"], transB=1),
        ],
        "conditioned",
        [info("image", onnx.TensorProto.FLOAT, ["N", 3, SIZE, SIZE]), info("gain", onnx.TensorProto.FLOAT, gain)],
        [info("scores", onnx.TensorProto.FLOAT, ["N", 5])],
        tensors,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(explain_onnx(model, preprocessing=PIXELS, layer="features"), path)
    return gcpp_edge.load(path)


def test_further_inputs_are_given_by_name(tmp_path: Any) -> None:
    explainer = conditioned(tmp_path / "by_frame.onnx", ["N", 8])
    frames, gains = [frame_of(1), frame_of(2), frame_of(1)], np.random.default_rng(0).uniform(0.5, 2, (3, 8))
    gains[2] = 0
    gains[2, 3] = 1
    together = explainer(frames, 1, inputs={"gain": gains})
    for frame, gain, one in zip(frames, gains, together, strict=True):
        alone = explainer(frame, 1, inputs={"gain": gain.astype(np.float32)})
        assert np.allclose(one.scores, alone.scores, atol=1e-5)
        assert np.allclose(one.map, alone.map, atol=1e-6)
        assert np.allclose(explainer.scores(frame, inputs={"gain": gain}), alone.scores, atol=1e-5)
    assert np.abs(together[0].scores - together[2].scores).max() > 0.1


def test_further_inputs_without_a_batch_are_shared(tmp_path: Any) -> None:
    whole, shared = (conditioned(tmp_path / f"{name}.onnx", [name, 8]) for name in ("N", 1))
    gain = np.linspace(0.5, 2, 8, dtype=np.float32)
    frames = [frame_of(1), frame_of(2)]
    expected = whole(frames, 1, inputs={"gain": gain})
    found = shared(frames, 1, inputs={"gain": gain[None]})
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.map, other.map, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        (None, InputError, "also needs 'gain'"),
        ({}, InputError, "also needs 'gain'"),
        ({"gain": np.ones(8), "bias": 1}, InputError, "no input 'bias'. Its further inputs: 'gain'"),
        ({"gain": np.ones(7)}, ShapeError, r"'gain' must have the shape \(8,\) or \(1, 8\); found \(7,\)"),
        ({"gain": np.ones(8, complex)}, ShapeError, "must hold float32; found complex128"),
        ({"gain": "much"}, ShapeError, r"found \(\)"),
    ],
)
def test_wrong_further_inputs_are_refused_in_one_line(tmp_path: Any, inputs: Any, error: type, words: str) -> None:
    explainer = conditioned(tmp_path / "conditioned.onnx", ["N", 8])
    for call in (explainer, explainer.scores):
        with pytest.raises(error, match=words) as caught:
            call(frame_of(), inputs=inputs)
        assert "\n" not in str(caught.value)
