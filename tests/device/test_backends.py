"""Which backend a model runs on, and what is said of those that cannot be used."""

import logging

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge import backends
from gcpp_edge.backends import AUTO, BACKENDS, backends_for
from gcpp_edge.errors import DeviceError, InputError


def can_try(monkeypatch, name, reason=""):
    monkeypatch.setitem(BACKENDS, name, BACKENDS[name]._replace(why_not=lambda: reason))


def test_auto_goes_from_the_fastest_to_what_is_always_there() -> None:
    assert backends_for(AUTO) == ("tensorrt", "cuda", "cpu")


def test_a_name_is_itself() -> None:
    assert backends_for("cuda") == ("cuda",)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="Unknown device 'tpu'. Known: auto, tensorrt, cuda, cuda-tensorrt, cpu."):
        backends_for("tpu")


def test_an_explainer_says_what_it_runs_on_and_why_not_on_others(shared_model, monkeypatch) -> None:
    can_try(monkeypatch, "tensorrt", "no TensorRT")
    can_try(monkeypatch, "cuda", "no GPU")
    with gcpp_edge.load(shared_model.path) as explainer:
        assert explainer.backend == "cpu"
        assert explainer.passed_over == {"tensorrt": "no TensorRT", "cuda": "no GPU"}


def test_what_was_asked_for_by_name_passes_nothing_over(shared_model) -> None:
    with gcpp_edge.load(shared_model.path, device="cpu") as explainer:
        assert explainer.passed_over == {}


def test_a_gpu_that_cannot_be_opened_is_passed_over_with_its_reason(shared_model, monkeypatch, caplog) -> None:
    def no_device(name, stream, threads):
        if name == "cuda":
            raise DeviceError("the GPU was lost")
        return real(name, stream, threads)

    real = gcpp_edge.explainer.open_device
    monkeypatch.setattr(gcpp_edge.explainer, "open_device", no_device)
    can_try(monkeypatch, "tensorrt")
    can_try(monkeypatch, "cuda")
    with caplog.at_level(logging.WARNING), gcpp_edge.load(shared_model.path) as explainer:
        assert explainer.backend == "cpu"
        assert explainer.passed_over == dict.fromkeys(("tensorrt", "cuda"), "the GPU was lost")
    assert "not on cuda: the GPU was lost" in caplog.text


def test_a_gpu_that_was_asked_for_and_is_not_there_is_one_line(shared_model, monkeypatch) -> None:
    can_try(monkeypatch, "tensorrt", "there is no NVIDIA driver")
    with pytest.raises(DeviceError, match="^device='tensorrt' cannot be used here: there is no NVIDIA driver.$"):
        gcpp_edge.load(shared_model.path, device="tensorrt")


def test_a_gpu_that_was_asked_for_is_not_replaced(shared_model, monkeypatch) -> None:
    can_try(monkeypatch, "cuda")

    def no_device(name, stream, threads):
        raise DeviceError("the GPU was lost")

    monkeypatch.setattr(gcpp_edge.explainer, "open_device", no_device)
    with pytest.raises(DeviceError, match="the GPU was lost"):
        gcpp_edge.load(shared_model.path, device="cuda")


@pytest.mark.parametrize("name", ["tensorrt", "cuda"])
def test_without_a_driver_the_question_costs_no_import(name, monkeypatch) -> None:
    def no_library(name):
        raise OSError(name)

    monkeypatch.setattr(backends, "CDLL", no_library)
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    assert BACKENDS[name].why_not() == "there is no NVIDIA driver (libcuda.so.1)"


def test_frames_one_after_the_other_are_explained_as_single_ones(shared_model, random_frame) -> None:
    frames = [random_frame(seed=seed) for seed in range(3)]
    with gcpp_edge.load(shared_model.path) as explainer:
        found = list(explainer.each(iter(frames), "beagle"))
        for frame, explanation in zip(frames, found, strict=True):
            assert explanation.frame is frame
            assert explanation.target == "beagle"
            np.testing.assert_array_equal(explanation.map, explainer(frame, "beagle").map)


def test_no_frames_give_no_explanations(shared_model) -> None:
    with gcpp_edge.load(shared_model.path) as explainer:
        assert list(explainer.each([])) == []
