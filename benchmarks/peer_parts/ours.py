"""What gcpp-edge does for the same frame, and whether all compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import cut, session_of

from gcpp_edge import Explainer
from gcpp_edge.colormaps import palette_bgr
from gcpp_edge.contract import MAP, PLAIN
from gcpp_edge.explanation import UNSEEN_DIM
from gcpp_edge.geometry import fit_frame, frame_from_map, input_from_frame
from gcpp_edge.inference import pixel_arithmetic
from gcpp_edge.kernels import table
from peer_parts.peers import ByHand, Captum, PytorchGradCam, Run, normalised, postprocessing
from peer_parts.subjects import Subject, kernel_input

TARGET = "target"


def plain(one: Subject, threads: int, spins: bool) -> Run:
    """The floor: our kernel for the picture, then a bare session of the plain network, into its own buffers."""
    session = session_of(cut(one.model, one.contract.levels[PLAIN]), threads, spins)
    pixels, kernels = one.contract.preprocessing, table(threads=threads)
    image = np.empty((1, *pixels.input_shape), np.float32)
    rows, columns = input_from_frame(fit_frame(*one.frame.shape[:2], pixels))
    arithmetic = pixel_arithmetic(pixels)
    binding = session.io_binding()
    binding.bind_cpu_input(one.contract.input, image)
    binding.bind_output(one.contract.scores.output, "cpu")

    def run() -> None:
        kernels.preprocess(one.frame, "bgr", rows, columns, pixels.color, *arithmetic, image[0])
        session.run_with_iobinding(binding)

    return run


def map_and_overlay(one: Subject, explainer: Explainer) -> Run:
    out = np.empty_like(one.frame)
    return lambda: explainer(one.frame).overlay(out=out)


def guided(one: Subject, explainer: Explainer) -> Run:
    """The overlay and Guided Grad-CAM++."""
    out = np.empty_like(one.frame)

    def run() -> object:
        explanation = explainer(one.frame, guided=True)
        return explanation.overlay(out=out), explanation.guided()

    return run


def layer_arrays(one: Subject, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Activations (C, h, w) and gradients (C, h, w or 1, 1) of the best class."""
    session, layer = session_of(cut(one.model, one.contract.levels[MAP]), 1), one.contract.layer
    feeds = {one.contract.input: image, TARGET: np.array([-1], np.int64)}
    activations, gradients = session.run([layer.activations, layer.gradients], feeds)
    return activations[0], gradients[0] / np.float32(layer.gradient_scale)


def postprocessing_pair(one: Subject, threads: int) -> tuple[Run, Run]:
    """From activations and gradients to the overlay: our kernels; OpenCV and NumPy."""
    activations, gradients = layer_arrays(one, kernel_input(one))
    kernels, fit = table(threads=threads), fit_frame(*one.frame.shape[:2], one.contract.preprocessing)
    rows, columns = frame_from_map(fit, *activations.shape[1:])
    map = np.empty((1, *activations.shape[1:]), np.float32)
    out, palette, limits = np.empty_like(one.frame), palette_bgr("jet"), np.empty((1, 2), np.float32)

    def run() -> None:
        kernels.cam(activations[None], gradients[None], "gradcam++", True, map)
        kernels.range(map, False, limits)
        kernels.overlay(one.frame, map[0], rows, columns, 0, 1, palette, 0.5, UNSEEN_DIM, out, limits[0])

    return run, postprocessing(one, activations, gradients)


def agreement(one: Subject, explainer: Explainer) -> dict[str, dict[str, float]]:
    """How far peers and we are apart on the same input: `correlation`, and `difference`, of the largest value.

    The maps of pytorch-grad-cam are held against our mode that computes as it does; those of the others against the
    paper's, and guided images against ours without the map.
    """
    image = torch.from_numpy(kernel_input(one))
    library, captum = PytorchGradCam(one), Captum(one)
    theirs = explainer(one.frame, mode="pytorch-grad-cam").heatmap("input")
    plain = explainer(one.frame, method="gradcam").map
    detail = explainer(one.frame, guided=True).drawing.guided
    pairs: dict[str, Callable[[], tuple[Any, Any]]] = {
        "pytorch-grad-cam": lambda: (library.map(image), theirs),
        "PyTorch by hand": lambda: (normalised(ByHand(one).map(image)), normalised(explainer(one.frame).map)),
        "Captum LayerGradCam": lambda: (normalised(captum.map(image)), normalised(plain)),
        "pytorch-grad-cam guided": lambda: (library.image(image).transpose(2, 0, 1), detail),
        "Captum GuidedBackprop": lambda: (captum.image(image), detail),
    }
    return {name: _apart(*make()) for name, make in pairs.items()}


def _apart(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    largest = float(np.abs(expected).max())
    correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    difference = float(np.abs(found - expected).max()) / largest
    return {"correlation": round(float(correlation), 6), "difference": float(f"{difference:.2g}")}
