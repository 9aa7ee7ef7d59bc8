"""What is measured: kernels at the shapes of real networks and frames, and OpenCV's way to the same result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from gcpp_edge.kernels import Axis

RANDOM = np.random.default_rng(0)
PALETTE = RANDOM.integers(0, 256, (256, 3), dtype=np.uint8)
CAM_SHAPES = [(1280, 7, 7), (2048, 7, 7), (512, 14, 14), (256, 56, 56), (512, 8, 7, 7)]
CAM_FORMS = [("float32", False), ("float32", True), ("float16", False)]  # of the tensors; constant gradients
SIZES = {"1080p": (1080, 1920), "480p": (480, 640)}
MEAN, STD = np.float32([123.7, 116.3, 103.5]), np.float32([58.4, 57.1, 57.4])
EQUAL_BYTES = 2  # OpenCV rounds at every step
EQUAL_FLOATS = 0.04  # half a byte over the standard deviation, twice


@dataclass(frozen=True)
class Case:
    """One kernel at one shape.

    run: calls the kernel of a table's implementation. read, written: bytes that must cross, inputs and outputs once.
    opencv: the same through OpenCV and NumPy, where people would write it so; returns its result. out: what run wrote.
    tolerance: how far the two may lie apart: a chain that computes something else is no comparison.
    """

    name: str
    read: int
    written: int
    run: Callable[[Any], object]
    out: np.ndarray
    opencv: Callable[[], np.ndarray] | None = None
    tolerance: float = 0


def stretch(source: tuple[int, int], destination: tuple[int, int]) -> tuple[Axis, Axis]:
    rows, columns = (Axis(s / d, 0.0, 0, d) for s, d in zip(source, destination, strict=True))
    return rows, columns


def cam_case(space: tuple[int, ...], dtype: str, constant: bool, rule: str = "gradcam++") -> Case:
    channels, *sizes = space
    activations = np.abs(RANDOM.standard_normal((1, *space))).astype(dtype)
    gradients = RANDOM.standard_normal((1, channels, *[1 if constant else size for size in sizes])).astype(dtype)
    out = np.empty((1, *sizes), np.float32)

    def opencv() -> np.ndarray:
        a, g = activations.reshape(channels, -1), gradients.reshape(channels, -1)
        weights = (np.maximum(g, 0) / (2 + np.maximum(a.sum(axis=1, keepdims=True), 0) * g)).sum(axis=1)
        return np.maximum(weights * (a.shape[1] if constant else 1) @ a, 0).reshape(out.shape)

    name = f"cam {rule} {'x'.join(map(str, space))} {dtype}{' constant gradients' if constant else ''}"
    numpy_can = rule == "gradcam++" and dtype == "float32"
    run = lambda kernels: kernels.cam(activations, gradients, rule, True, out)  # noqa: E731
    bytes = activations.nbytes + gradients.nbytes
    return Case(name, bytes, out.nbytes, run, out, opencv if numpy_can else None, tolerance=1e-2)


def heatmap_case(size: str, dtype: str, map_size: int = 7) -> Case:
    map, out = small_map(map_size), np.empty(SIZES[size], dtype)
    axes = stretch(map.shape, out.shape)

    def opencv() -> np.ndarray:
        wide = cv2.resize(map, out.shape[::-1], interpolation=cv2.INTER_LINEAR)
        return wide if dtype == "float32" else cv2.convertScaleAbs(wide, alpha=255)

    run = lambda kernels: kernels.heatmap(map, *axes, 0.0, 1.0, out)  # noqa: E731
    name = f"heatmap {map_size}x{map_size} to {size} {dtype}"
    return Case(name, 0, out.nbytes, run, out, opencv, EQUAL_BYTES if dtype == "uint8" else 1e-5)


def small_map(size: int) -> np.ndarray:
    """Smooth, as maps are, from 0 to 1."""
    coarse = cv2.resize(RANDOM.random((4, 4), np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray((coarse - coarse.min()) / (coarse.max() - coarse.min()))


def overlay_case(size: str, channels: int, map_size: int) -> Case:
    frame = RANDOM.integers(0, 256, (*SIZES[size], channels), dtype=np.uint8)
    map, out = small_map(map_size), np.empty_like(frame)
    axes = stretch(map.shape, frame.shape[:2])
    colors = np.ascontiguousarray(cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_JET)[:, 0])

    def opencv() -> np.ndarray:
        wide = cv2.resize(map, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        colored = cv2.applyColorMap(cv2.convertScaleAbs(wide, alpha=255), cv2.COLORMAP_JET)
        return cv2.addWeighted(frame, 0.5, colored, 0.5, 0)

    return Case(
        f"overlay {map_size}x{map_size} on {size}, {channels} channels",
        frame.nbytes,
        out.nbytes,
        lambda kernels: kernels.overlay(frame, map, *axes, 0.0, 1.0, colors, 0.5, 0.5, out),
        out,
        opencv if channels == 3 else None,
        tolerance=2 + EQUAL_BYTES,  # a step of the palette more, where OpenCV's value rounds to the other side
    )


def guided_case(size: int, dtype: str) -> Case:
    image, map = RANDOM.standard_normal((3, size, size)).astype(dtype), small_map(7)
    out, axes = np.empty(image.shape, np.float32), stretch(map.shape, image.shape[1:])

    def opencv() -> np.ndarray:
        wide = cv2.resize(map, (size, size), interpolation=cv2.INTER_LINEAR)
        return np.stack([cv2.multiply(plane, wide) for plane in image])

    run = lambda kernels: kernels.guided(map, *axes, 0.0, 1.0, image, out)  # noqa: E731
    name, chain = f"guided 3x{size}x{size} {dtype}", opencv if dtype == "float32" else None
    return Case(name, image.nbytes, out.nbytes, run, out, chain, tolerance=1e-4)


def preprocess_case(format: str, size: str, side: int, dtype: str = "float32") -> Case:
    height, width = SIZES[size]
    planes = {"bgr": (3,), "bgra": (4,)}.get(format, ())
    frame = RANDOM.integers(0, 256, (height * 3 // 2 if format == "nv12" else height, width, *planes), dtype=np.uint8)
    out, scale, bias = np.empty((3, side, side), dtype), 1 / STD, -MEAN / STD
    axes = stretch((height, width), (side, side))

    def opencv() -> np.ndarray:
        resized = cv2.resize(frame, (side, side), interpolation=cv2.INTER_LINEAR)
        values = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).astype(np.float32)
        cv2.subtract(values, (*map(float, MEAN), 0.0), values)
        cv2.divide(values, (*map(float, STD), 1.0), values)
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    touched = int(frame.nbytes * min(1, 2 * side / height))  # two frame rows for each row of the input
    return Case(
        f"preprocess {format} {size} to {side}x{side} {dtype}",
        touched,
        out.nbytes,
        lambda kernels: kernels.preprocess(frame, format, *axes, "rgb", scale, bias, bias, out),
        out,
        opencv if format == "bgr" and dtype == "float32" else None,
        EQUAL_FLOATS,
    )


def all_cases() -> list[Case]:
    cams = [cam_case(shape, *form) for shape in CAM_SHAPES for form in CAM_FORMS]
    cams += [cam_case((1280, 7, 7), "float32", False, rule) for rule in ("gradcam", "gradcam++-signed")]
    maps = [heatmap_case(size, dtype) for size in SIZES for dtype in ("float32", "uint8")]
    maps += [overlay_case(size, channels, 7) for size in SIZES for channels in (3, 4)]
    maps.append(overlay_case("1080p", 3, 56))
    guided = [guided_case(side, dtype) for side in (224, 640) for dtype in ("float32", "float16")]
    pictures = [preprocess_case(format, "1080p", 224) for format in ("bgr", "bgra", "nv12", "gray")]
    pictures.append(preprocess_case("bgr", "1080p", 224, "float16"))
    pictures += [preprocess_case("bgr", size, side) for size, side in (("480p", 224), ("480p", 640), ("1080p", 640))]
    return [*cams, *maps, *guided, *pictures]
