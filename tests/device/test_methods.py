"""The table of methods, and the reference modes against the peers that they reproduce."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gcpp_edge.contract import MAP, SOFTMAX_WEIGHTS, Contract
from gcpp_edge.errors import MethodError
from gcpp_edge.geometry import stretch_axis
from gcpp_edge.kernels import table
from gcpp_edge.methods import METHODS, choose_method, display_range, reference_maps

PEERS = ("pytorch-grad-cam", "authors")


def random_layer(seed: int, *, relu: bool = True, constant: bool = False, scale: float = 0.01) -> Any:
    """Activations (2, 8, 5, 6) and gradients, both float32."""
    random = np.random.default_rng(seed)
    activations = random.normal(size=(2, 8, 5, 6)).astype(np.float32)
    gradients = (scale * random.normal(size=(2, 8, *((1, 1) if constant else (5, 6))))).astype(np.float32)
    return (np.maximum(activations, 0) if relu else activations), gradients


def show(mode: str, raw_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """A raw map as its mode shows it at this size."""
    low, high = display_range(mode, raw_map, height, width)
    out = np.empty((height, width), np.float32)
    rows, columns = stretch_axis(height, raw_map.shape[0]), stretch_axis(width, raw_map.shape[1])
    table("numpy").heatmap(raw_map, rows, columns, low, high, out)
    return out


@pytest.fixture
def contract(shared_model: Any) -> Contract:
    return shared_model.contract


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_chosen_by_its_name(contract: Contract, name: str) -> None:
    level = contract.levels[MAP]
    contract = replace(contract, levels={MAP: replace(level, outputs=(*level.outputs, SOFTMAX_WEIGHTS))})
    assert choose_method(name, contract).name == name


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        (
            "scorecam",
            "paper",
            "Unknown method 'scorecam'. Known: gradcam, gradcam[+][+], gradcam.*-signed, gradcam.*-softmax, cam",
        ),
        ("gradcam", "captum", "Unknown mode 'captum'. Known: paper, pytorch-grad-cam, authors"),
        ("cam", "authors", "Mode 'authors' has no method 'cam'. It has: gradcam, gradcam[+][+]"),
        ("gradcam++-signed", "pytorch-grad-cam", "has no method 'gradcam[+][+]-signed'"),
    ],
)
def test_what_is_not_in_the_table_is_refused(contract: Contract, name: str, mode: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        choose_method(name, contract, mode)


def test_cam_is_refused_where_gradients_depend_on_the_position(contract: Contract) -> None:
    with pytest.raises(MethodError, match="needs a head of pooling [+] linear"):
        choose_method("cam", replace(contract, layer=replace(contract.layer, constant=False)))


def test_softmax_is_refused_where_the_file_does_not_compute_its_weights(contract: Contract) -> None:
    with pytest.raises(MethodError, match="Export the network again with --softmax"):
        choose_method("gradcam++-softmax", contract)


def test_cam_is_gradcam_without_its_last_relu() -> None:
    activations, gradients = random_layer(0, constant=True)
    maps = {}
    for name in ("cam", "gradcam"):
        maps[name] = np.empty((2, 5, 6), np.float32)
        table("numpy").cam(activations, gradients, METHODS[name].rule, METHODS[name].relu, maps[name])
    assert maps["cam"].min() < 0
    assert np.array_equal(np.maximum(maps["cam"], 0), maps["gradcam"])


@pytest.mark.parametrize("mode", PEERS)
def test_peers_agree_with_the_paper_on_gradcam(mode: str) -> None:
    activations, gradients = random_layer(1)
    expected = np.empty((2, 5, 6), np.float32)
    table("numpy").cam(activations, gradients, "gradcam", True, expected)
    maps = reference_maps(mode, METHODS["gradcam"], activations, gradients)
    assert np.allclose(maps, expected, atol=1e-7)


@pytest.mark.parametrize("mode", PEERS)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_constant_gradients_mean_the_same_as_repeated_ones(mode: str, method: str) -> None:
    activations, gradients = random_layer(2, constant=True)
    repeated = np.broadcast_to(gradients, activations.shape).copy()
    short = reference_maps(mode, METHODS[method], activations, gradients)
    assert np.array_equal(short, reference_maps(mode, METHODS[method], activations, repeated))


@pytest.mark.parametrize("mode", PEERS)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_dead_channels_and_zero_gradients_leave_a_map_of_zeros(mode: str, method: str) -> None:
    zeros = np.zeros((1, 3, 4, 4), np.float32)
    maps = reference_maps(mode, METHODS[method], zeros, zeros)
    assert not maps.any()
    assert not show(mode, maps[0], 8, 8).any()


@pytest.mark.parametrize("mode", ["paper", "pytorch-grad-cam"])
def test_a_flat_map_is_shown_as_zeros(mode: str) -> None:
    assert not show(mode, np.full((3, 3), 2.5, np.float32), 9, 9).any()


def test_the_authors_divide_by_the_maximum_and_keep_the_minimum() -> None:
    raw_map = np.array([[1, 2], [3, 4]], np.float32)
    assert np.allclose(show("authors", raw_map, 2, 2), raw_map / 4)


def authors_by_loops(A: np.ndarray, g: np.ndarray, score: float) -> np.ndarray:
    """One map as misc/utils.py of the authors' repository describes it, exp(S) and all: a channel at a time."""
    weights = []
    for channel, slope in zip(A.astype(np.float64), g.astype(np.float64), strict=True):
        first, second, third = (np.exp(score) * slope**power for power in (1, 2, 3))
        denominator = 2 * second + third * channel.sum()
        denominator[denominator == 0] = 1
        alpha = second / denominator
        total = alpha[first > 0].sum()
        weights.append((alpha / (total or 1) * np.maximum(first, 0)).sum())
    cam = np.maximum(np.tensordot(weights, A, 1), 0)
    return cam / cam.max()


@pytest.mark.parametrize("relu", [True, False], ids=["behind ReLU", "with negative activations"])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "by position"])
def test_authors_mode_is_their_computation(relu: bool, constant: bool) -> None:
    activations, gradients = random_layer(3, relu=relu, constant=constant)
    maps = reference_maps("authors", METHODS["gradcam++"], activations, gradients)
    repeated = np.broadcast_to(gradients, activations.shape)
    for raw_map, A, g in zip(maps, activations, repeated, strict=True):
        assert np.allclose(show("authors", raw_map, 5, 6), authors_by_loops(A, g, score=9.0), atol=1e-6)


@pytest.fixture(scope="module")
def peer(torchvision: Any) -> Any:
    """pytorch-grad-cam itself."""
    return pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam==1.5.7: it is the oracle here")


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 1e-6], ids=lambda scale: f"g ~ {scale}")
@pytest.mark.parametrize("relu", [True, False], ids=["behind ReLU", "with negative activations"])
@pytest.mark.parametrize(("method", "library"), [("gradcam", "GradCAM"), ("gradcam++", "GradCAMPlusPlus")])
def test_pytorch_grad_cam_mode_is_that_library_on_arrays(
    peer: Any, method: str, library: str, relu: bool, scale: float
) -> None:
    activations, gradients = random_layer(4, relu=relu, scale=scale)
    weights = getattr(peer, library).get_cam_weights(None, None, None, None, activations, gradients)
    cams = np.maximum((weights[:, :, None, None] * activations).sum(axis=1), 0)
    expected = peer.base_cam.scale_cam_image(peer.base_cam.scale_cam_image(cams, (33, 40)))
    for raw_map, picture in zip(
        reference_maps("pytorch-grad-cam", METHODS[method], activations, gradients), expected, strict=True
    ):
        assert np.abs(show("pytorch-grad-cam", raw_map, 40, 33) - picture).max() < 1e-4


@pytest.mark.parametrize(("method", "library"), [("gradcam", "GradCAM"), ("gradcam++", "GradCAMPlusPlus")])
def test_pytorch_grad_cam_mode_is_that_library_on_a_network(peer: Any, method: str, library: str) -> None:
    import torch

    torch.manual_seed(5)
    features = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, stride=2), torch.nn.SiLU(), torch.nn.Conv2d(6, 8, 3))
    network = torch.nn.Sequential(features, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 13 * 11, 5))
    image = torch.randn(1, 3, 32, 28)
    with getattr(peer, library)(network, [features]) as explain:
        expected = explain(image, [peer.base_cam.ClassifierOutputTarget(3)])[0]
    activations = features(image).detach().requires_grad_()
    network[1:](activations)[0, 3].backward()
    layer = activations.detach().numpy(), activations.grad.numpy()
    (raw_map,) = reference_maps("pytorch-grad-cam", METHODS[method], *layer)
    assert np.abs(show("pytorch-grad-cam", raw_map, 32, 28) - expected).max() < 1e-4
