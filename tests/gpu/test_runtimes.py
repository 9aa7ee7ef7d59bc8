"""ONNX Runtime on CUDA and TensorRT against ONNX Runtime on the CPU: the same explanation from the same file."""

import numpy as np
import pytest

import gcpp_edge

pytestmark = pytest.mark.gpu

TOLERANCE = 1e-3  # of the largest value, in float32 without TF32


def near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_maps_scores_and_guided_images_equal_the_cpus(gpu, explained, frame):
    with gcpp_edge.load(explained, device="cpu") as cpu, gcpp_edge.load(explained, device=gpu) as other:
        want, got = cpu(frame, guided=True), other(frame, guided=True)
        assert got.class_index == want.class_index
        for name in ("scores", "map"):
            near(getattr(got, name), getattr(want, name))
        near(got.heatmap(), want.heatmap())
        near(got.guided(), want.guided())
        assert np.abs(got.overlay().astype(int) - want.overlay()).mean() < 1


def test_pictures_made_on_the_gpu_equal_the_cpus(gpu, explained, frame):
    with gcpp_edge.load(explained, device="cpu") as cpu, gcpp_edge.load(explained, device=gpu) as other:
        want, got = (one(frame, make=("heatmap", "overlay")).made for one in (cpu, other))
        near(got["heatmap"], want["heatmap"])
        assert (np.abs(got["overlay"].astype(int) - want["overlay"]).max(axis=-1) > 1).mean() < 0.02


def test_a_stream_of_frames_gives_each_its_own_answer_in_order(gpu, explained):
    frames = np.random.default_rng(6).integers(0, 256, (12, 20, 30, 3), np.uint8)
    with gcpp_edge.load(explained, device="cpu") as cpu, gcpp_edge.load(explained, device=gpu) as other:
        for picture, found in zip(frames, other.each(frames), strict=True):
            near(found.map, cpu(picture).map)


def test_every_frame_gets_its_own_answer(gpu, explained):
    """What a graph recorded for the first frame must not stand in the answer for the next."""
    frames = np.random.default_rng(5).integers(0, 256, (6, 20, 30, 3), np.uint8)
    with gcpp_edge.load(explained, device="cpu") as cpu, gcpp_edge.load(explained, device=gpu) as other:
        for picture in (*frames, *frames):
            near(other(picture).map, cpu(picture).map)


def test_a_target_changes_the_map(gpu, explained, frame):
    with gcpp_edge.load(explained, device="cpu") as cpu, gcpp_edge.load(explained, device=gpu) as other:
        for target in (0, 1, -2):
            near(other(frame, target).map, cpu(frame, target).map)


def test_the_explainer_says_what_it_runs_on(gpu, explained):
    with gcpp_edge.load(explained, device=gpu) as explainer:
        assert explainer.backend == gpu
        assert "cuda" in explainer.runtime_name.lower() or "tensorrt" in explainer.runtime_name.lower()
