"""The networks that are compared: one PyTorch module and one explained file of each, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnx
import torch
from common import contract_of, network
from skimage import data

from gcpp_edge.contract import Contract, Geometry, Preprocessing
from gcpp_edge.export import explain_module
from gcpp_edge.geometry import fit_frame, input_from_frame
from gcpp_edge.inference import pixel_arithmetic
from gcpp_edge.kernels import table

NETWORKS = ("efficientnet_lite0", "resnet50", "vgg16", "mobilenet_v3_large")
FRAME_SIZE = (640, 480)  # width, height
IMAGENET = Preprocessing(
    224, 224, "rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1.0, Geometry("crop", share=224 / 256)
)


class Subject(NamedTuple):
    """A network in PyTorch, the same explained (guided level too), and the picture."""

    module: torch.nn.Module
    model: onnx.ModelProto
    contract: Contract
    frame: np.ndarray  # (480, 640, 3) uint8 BGR

    @property
    def layer(self) -> torch.nn.Module:
        """The module whose output the explained model calls its layer."""
        return self.module.get_submodule(self.contract.layer.name)


class InTwoParts(torch.nn.Module):
    """EfficientNet-Lite with a module for its last features, which peers need a hook on; the same numbers."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.features = _Features(whole)
        self.head = torch.nn.Sequential(whole._avg_pooling, torch.nn.Flatten(), whole._fc)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image))


class _Features(torch.nn.Module):
    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.whole.extract_features(image)


def subject(name: str) -> Subject:
    """The network of this name, with the weights that common.network gives it."""
    torch.manual_seed(0)
    module = network(name)
    pixels = getattr(module, "preprocessing", IMAGENET)
    module = InTwoParts(module) if name.startswith("efficientnet_lite") else module
    example = torch.randn(2, *pixels.input_shape)
    model = explain_module(module.eval(), example, preprocessing=pixels, guided=True, check=False)
    return Subject(module, model, contract_of(model), picture())


def save_model(one: Subject, folder: Path) -> Path:
    path = folder / "explained.onnx"
    onnx.save(one.model, path)
    return path


def picture() -> np.ndarray:
    """scikit-image's cat as a camera would give it, BGR."""
    return cv2.resize(cv2.cvtColor(data.chelsea(), cv2.COLOR_RGB2BGR), FRAME_SIZE)


def kernel_input(one: Subject) -> np.ndarray:
    """The network's input as our kernel makes it, (1, C, H, W) float32: what all compute the same map from."""
    pixels = one.contract.preprocessing
    rows, columns = input_from_frame(fit_frame(*one.frame.shape[:2], pixels))
    out = np.empty((1, *pixels.input_shape), np.float32)
    table().preprocess(one.frame, "bgr", rows, columns, pixels.color, *pixel_arithmetic(pixels), out[0])
    return out


def opencv_input(frame: np.ndarray, pixels: Preprocessing) -> np.ndarray:
    """The same with OpenCV and NumPy, as it is usually written; its resize rounds to uint8."""
    fit = fit_frame(*frame.shape[:2], pixels)
    resized = cv2.resize(frame, (fit.columns.resized, fit.rows.resized))
    top, left = fit.rows.offset, fit.columns.offset
    window = cv2.cvtColor(resized[top : top + pixels.height, left : left + pixels.width], cv2.COLOR_BGR2RGB)
    values = window.astype(np.float32) * np.float32(pixels.pixel_max / 255)
    values = (values - np.array(pixels.mean, np.float32)) / np.array(pixels.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])
