"""The comparison with peers: its tables, and that what is compared is the same. No time is asserted."""

import json

import numpy as np
import pytest
from peer_parts import table
from peer_parts.table import NAMES, SHOWN

SAVED = "benchmarks/results/peers.json"


def found(ms, correlation=1.0):
    rows = ("plain", "map", "guided", "PyTorch by hand", "Captum LayerGradCam", "pytorch-grad-cam")
    times = dict(zip(rows, ms, strict=True)) | {"Captum GuidedGradCam": 90.0, "pytorch-grad-cam guided": 120.0}
    agreement = {"correlation": correlation, "difference": 1e-6}
    return {
        "ms": times,
        "agreement": {"Captum GuidedBackprop": agreement, "pytorch-grad-cam guided": agreement},
    }


RESULT = {
    "networks": {
        "resnet50": {SHOWN: found([10, 10.5, 30, 21, 42, 84]), "1 thread": found([20, 21, 60, 30, 60, 105])},
        "efficientnet_lite0": {SHOWN: found([4, 5, 8, 10, 20, 50], correlation=0.2), "1 thread": found([1] * 6)},
    }
}


def test_a_factor_is_of_our_map_in_the_same_setting():
    resnet, lite0 = table.map_table(RESULT).splitlines()[2:]
    assert resnet.startswith("| ResNet-50 | 10.0 ms | 10.5 ms | 1.05 | 21 ms, 2.0 × | 42 ms, 4.0 × | 84 ms, 8.0 × |")
    assert resnet.endswith("| 84 ms, 8.0 × | 105 ms, 5.0 × |")
    assert lite0.endswith("50 ms, 10.0 × | 1 ms, 1.0 × |")


def test_who_computes_another_guided_image_has_no_time_in_the_table():
    resnet, lite0 = table.guided_table(RESULT).splitlines()[2:]
    assert resnet == "| ResNet-50 | 30.0 ms | 3.00 | 90 ms, 3.0 × | 120 ms, 4.0 × |"
    assert lite0 == "| EfficientNet-Lite0 | 8.0 ms | 2.00 | another image | another image |"


@pytest.fixture(scope="module")
def root(pytestconfig):
    return pytestconfig.rootpath


@pytest.fixture(scope="module")
def saved(root):
    return json.loads((root / SAVED).read_text("utf-8"))


def test_the_readme_shows_the_saved_result(root, saved):
    page = (root / "README.md").read_text("utf-8")
    assert [match[2] for match in table.MARKED.finditer(page)] == ["maps", "guided"]
    assert table.with_tables(page, saved) == page


def test_the_saved_result_has_every_network_and_its_origin(saved):
    assert set(saved["networks"]) == set(NAMES)
    assert saved["commit"] and saved["machine"]["processor"] and saved["peers"]["grad-cam"]


def test_all_compute_the_same_maps_in_the_saved_result(saved):
    for settings in saved["networks"].values():
        for found in settings.values():
            for name in ("pytorch-grad-cam", "PyTorch by hand", "Captum LayerGradCam"):
                assert found["agreement"][name]["correlation"] > 0.99999
                assert found["agreement"][name]["difference"] < 5e-6  # what the README says


@pytest.fixture(scope="module")
def peers():
    pytest.importorskip("torch", reason="what it is compared with: make test installs it")
    from gcpp_edge.export.from_torch import import_torchvision

    import_torchvision()  # also beside a torch that it was not built for; the others import it
    for name in ("captum", "pytorch_grad_cam", "cv2", "skimage"):
        pytest.importorskip(name, reason="what it is compared with: make test installs it")
    from peer_parts import peers

    return peers


def test_the_chain_in_numpy_is_the_paper_s_map(peers):
    from gcpp_edge.kernels import reference

    random = np.random.default_rng(0)
    activations = random.random((1, 6, 5, 4), np.float32)
    gradients = random.standard_normal((1, 6, 5, 4)).astype(np.float32)
    expected = np.empty((1, 5, 4), np.float32)
    reference.cam(activations, gradients, "gradcam++", True, expected, None, 1.0, None)
    np.testing.assert_allclose(peers.grad_cam_plus_plus(activations[0], gradients[0]), expected[0], rtol=1e-5)


def test_the_opencv_chain_gives_the_network_the_same_picture(peers):
    from peer_parts.subjects import IMAGENET, opencv_input, picture

    from gcpp_edge.geometry import fit_frame, input_from_frame
    from gcpp_edge.inference import pixel_arithmetic
    from gcpp_edge.kernels import table as kernels

    frame = picture()
    rows, columns = input_from_frame(fit_frame(*frame.shape[:2], IMAGENET))
    out = np.empty((3, 224, 224), np.float32)
    kernels().preprocess(frame, "bgr", rows, columns, "rgb", *pixel_arithmetic(IMAGENET), out)
    one_grey_value = 1 / 255 / min(IMAGENET.std)
    assert np.abs(opencv_input(frame, IMAGENET)[0] - out).max() < 1.01 * one_grey_value


def test_by_hand_is_autograd_through_the_whole_network(peers):
    import torch

    from gcpp_edge.contract import Layer

    class One:
        module = torch.nn.Sequential(
            torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()),
            torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(16, 5),
        )

        class contract:  # noqa: N801
            layer = Layer("0", "features", 4, (6, 6), True)

    torch.manual_seed(0)
    image = torch.randn(1, 3, 8, 8)
    activations = One.module[0](image)
    activations.retain_grad()
    One.module[1:](activations)[0].max().backward()
    expected = peers.grad_cam_plus_plus(activations[0].detach().numpy(), activations.grad[0].numpy())
    np.testing.assert_allclose(peers.ByHand(One).map(image), expected, rtol=1e-5)
