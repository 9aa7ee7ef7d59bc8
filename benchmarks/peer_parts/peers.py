"""What the peers do for one frame, as their users write it: uint8 frame in, finished picture out.

pytorch-grad-cam and Captum work on a PyTorch module with hooks. "by hand" is the least that Grad-CAM++ costs in
PyTorch: parameters frozen, and a backward pass that ends at the layer. Captum has no Grad-CAM++: its Grad-CAM, which
is less work, stands in.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import cv2
import numpy as np
import torch

from gcpp_edge.export.from_torch import import_torchvision
from peer_parts.subjects import Subject, opencv_input

import_torchvision()  # also beside a torch that it was not built for; pytorch-grad-cam imports it

from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam  # noqa: E402
from pytorch_grad_cam import GradCAMPlusPlus, GuidedBackpropReLUModel  # noqa: E402
from pytorch_grad_cam.utils.image import show_cam_on_image  # noqa: E402

Run = Callable[[], object]


def tensor_of(one: Subject) -> torch.Tensor:
    return torch.from_numpy(opencv_input(one.frame, one.contract.preprocessing))


def blended(frame: np.ndarray, map: np.ndarray) -> np.ndarray:
    """The coloured map over the frame; map: (h, w) float32 in [0, 1], of any size."""
    resized = cv2.resize(map, frame.shape[1::-1])
    colours = cv2.applyColorMap(np.uint8(255 * resized), cv2.COLORMAP_JET)
    return cv2.addWeighted(frame, 0.5, colours, 0.5, 0)


def normalised(map: np.ndarray) -> np.ndarray:
    low, high = map.min(), map.max()
    return (map - low) / (high - low) if high > low else np.zeros_like(map)


def grad_cam_plus_plus(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """The paper's map in NumPy: (C, h, w) both -> (h, w), raw. As in docs/method.md."""
    sums = np.maximum(activations.sum(axis=(1, 2), keepdims=True), 0)
    weights = (np.maximum(gradients, 0) / (2 + sums * gradients)).sum(axis=(1, 2))
    return np.maximum((weights[:, None, None] * activations).sum(axis=0), 0)


def forward(one: Subject) -> Run:
    """PyTorch eager: the scores alone."""

    def run() -> object:
        with torch.inference_mode():
            return one.module(tensor_of(one))

    return run


class ByHand:
    """Grad-CAM++ in plain PyTorch with one hook: only the layers behind the map are differentiated."""

    def __init__(self, one: Subject) -> None:
        self._module = copy.deepcopy(one.module).requires_grad_(False)
        self._module.get_submodule(one.contract.layer.name).register_forward_hook(self._keep)

    def _keep(self, module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        self._activations = output.detach().requires_grad_()
        return self._activations.clone()  # what follows may work in place

    def map(self, image: torch.Tensor) -> np.ndarray:
        """(h, w), raw."""
        score = self._module(image)[0].max()
        (gradients,) = torch.autograd.grad(score, self._activations)
        return grad_cam_plus_plus(self._activations[0].detach().numpy(), gradients[0].numpy())


def by_hand(one: Subject) -> Run:
    hooked = ByHand(one)
    return lambda: blended(one.frame, normalised(hooked.map(tensor_of(one))))


class PytorchGradCam:
    """GradCAMPlusPlus and the guided backpropagation of pytorch-grad-cam, as in its README."""

    def __init__(self, one: Subject) -> None:
        module = copy.deepcopy(one.module)
        self._cam = GradCAMPlusPlus(module, [module.get_submodule(one.contract.layer.name)])
        self._guided = GuidedBackpropReLUModel(copy.deepcopy(one.module))

    def map(self, image: torch.Tensor) -> np.ndarray:
        """(H, W) in [0, 1]."""
        return self._cam(input_tensor=image, targets=None)[0]

    def image(self, image: torch.Tensor) -> np.ndarray:
        """(H, W, C)."""
        return self._guided(image.detach().clone())


def pytorch_grad_cam(one: Subject) -> tuple[Run, Run]:
    """The overlay; the overlay and Guided Grad-CAM++."""
    peer = PytorchGradCam(one)

    def overlay(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        map = peer.map(image)
        pixels = np.float32(one.frame) / 255
        return map, show_cam_on_image(pixels, cv2.resize(map, one.frame.shape[1::-1]), use_rgb=False)

    def guided() -> object:
        image = tensor_of(one)
        map, picture = overlay(image)
        return picture, peer.image(image) * map[:, :, None]

    return lambda: overlay(tensor_of(one)), guided


class Captum:
    """LayerGradCam, GuidedBackprop and GuidedGradCam."""

    def __init__(self, one: Subject) -> None:
        module = copy.deepcopy(one.module)
        for part in module.modules():
            if getattr(part, "inplace", False):
                part.inplace = False  # Captum's hooks refuse tensors that are worked on in place
        self._module = module
        layer = module.get_submodule(one.contract.layer.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._cam, self._product = LayerGradCam(module, layer), GuidedGradCam(module, layer)
            self._guided = GuidedBackprop(module)

    def map(self, image: torch.Tensor) -> np.ndarray:
        """Grad-CAM, (h, w), raw."""
        found = self._cam.attribute(image, self._best(image), relu_attributions=True)
        return found[0, 0].detach().numpy()

    def image(self, image: torch.Tensor) -> np.ndarray:
        """Guided backpropagation, (C, H, W)."""
        return self._quietly(self._guided, image)

    def product(self, image: torch.Tensor) -> np.ndarray:
        """Guided Grad-CAM, (C, H, W)."""
        return self._quietly(self._product, image)

    def _quietly(self, method: GuidedBackprop | GuidedGradCam, image: torch.Tensor) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says every time that it sets hooks, and the gradient of the input
            return method.attribute(image.detach().requires_grad_(), self._best(image))[0].detach().numpy()

    def _best(self, image: torch.Tensor) -> int:
        with torch.inference_mode():
            return int(self._module(image)[0].argmax())


def captum(one: Subject) -> tuple[Run, Run, Run]:
    """The overlay of its Grad-CAM; its guided backpropagation; its Guided Grad-CAM."""
    peer = Captum(one)
    return (
        lambda: blended(one.frame, normalised(peer.map(tensor_of(one)))),
        lambda: peer.image(tensor_of(one)),
        lambda: peer.product(tensor_of(one)),
    )


def postprocessing(one: Subject, activations: np.ndarray, gradients: np.ndarray) -> Run:
    """From activations and gradients, (C, h, w), to the overlay, with OpenCV and NumPy."""
    gradients = np.broadcast_to(gradients, activations.shape)
    return lambda: blended(one.frame, normalised(grad_cam_plus_plus(activations, gradients)))
