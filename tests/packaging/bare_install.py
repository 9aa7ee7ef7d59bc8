"""Looks at an installed wheel: `python tests/packaging/bare_install.py`, in an environment that has it and NumPy.

Every kernel of every instruction set of the machine gives the numbers that are written here, worked out by hand. Ends
with an error at the first thing that is wrong.
"""

import sys
from pathlib import Path

import numpy as np

import gcpp_edge
from gcpp_edge import kernels
from gcpp_edge.kernels import Axis, _cpu

MODEL = Path(__file__).resolve().parent.parent / "fixtures" / "explained-v2.onnx"
TWICE = Axis(0.5, 0.0, 0, 4)  # two pixels under four: at 0, 0.25, 0.75 and 1
SHADES = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def check_that_it_is_the_installed_package() -> None:
    for module in (gcpp_edge, kernels, _cpu):
        assert Path(module.__file__).is_relative_to(sys.prefix), f"{module.__file__} is not in {sys.prefix}"


def check_cam(table: kernels.KernelTable) -> None:
    activations = np.array([[[[1, 2], [3, 4]]]], np.float32)  # ΣA = 10
    gradients = np.array([[[[1, 0], [-1, 0.5]]]], np.float32)
    out, weights = np.empty((1, 2, 2), np.float32), np.empty((1, 1), np.float32)
    for dtype in (np.float32, np.float16):
        table.cam(activations.astype(dtype), gradients.astype(dtype), "gradcam++", True, out, weights)
        np.testing.assert_allclose(weights, [[1 / 12 + 0.5 / 7]], rtol=1e-6)
        np.testing.assert_allclose(out, weights * activations[0], rtol=1e-6)


def check_maps(table: kernels.KernelTable) -> None:
    map = np.array([[0, 4], [4, 8]], np.float32)
    wide = np.array([0, 0.25, 0.75, 1])
    expected = (wide[:, None] + wide) / 2
    heatmap, shades = np.empty((4, 4), np.float32), np.empty((4, 4), np.uint8)
    table.heatmap(map, TWICE, TWICE, 0.0, 8.0, heatmap)
    np.testing.assert_allclose(heatmap, expected, atol=1e-6)
    table.heatmap(map, TWICE, TWICE, 0.0, 8.0, shades)
    np.testing.assert_allclose(shades, 255 * expected, atol=0.51)
    frame, blend = np.full((4, 4, 3), 100, np.uint8), np.empty((4, 4, 3), np.uint8)
    table.overlay(frame, map, TWICE, TWICE, 0.0, 8.0, SHADES, 0.5, 1.0, blend)
    np.testing.assert_allclose(blend, np.repeat((50 + shades / 2)[..., None], 3, axis=2), atol=0.51)
    image, product = np.full((2, 4, 4), -2, np.float32), np.empty((2, 4, 4), np.float32)
    table.guided(map, TWICE, TWICE, 0.0, 8.0, image, product)
    np.testing.assert_allclose(product, [-2 * expected] * 2, atol=1e-6)


def check_preprocess(table: kernels.KernelTable) -> None:
    frame = np.array([[[10, 20, 30], [50, 60, 70]]] * 2, np.uint8)  # blue, green, red
    out = np.empty((3, 4, 4), np.float32)
    table.preprocess(frame, "bgr", TWICE, TWICE, "rgb", np.full(3, 0.5), np.full(3, -1), np.zeros(3), out)
    for plane, (left, right) in zip(out, [(30, 70), (20, 60), (10, 50)], strict=True):
        row = left + (right - left) * np.array([0, 0.25, 0.75, 1])
        np.testing.assert_allclose(plane, [row * 0.5 - 1] * 4, rtol=1e-6)


def check_that_loading_says_what_is_missing() -> None:
    try:
        gcpp_edge.load(MODEL, device="cpu", level="guided")
    except gcpp_edge.errors.MissingDependencyError as error:
        assert "pip install 'gcpp-edge[onnxruntime]'" in str(error), error
    else:
        raise AssertionError("a model was loaded without ONNX Runtime")


def main() -> None:
    check_that_it_is_the_installed_package()
    for isa in kernels.available():
        for check in (check_cam, check_maps, check_preprocess):
            check(kernels.table(isa))
    check_that_loading_says_what_is_missing()
    print("kernels:", *kernels.available())


if __name__ == "__main__":
    main()
