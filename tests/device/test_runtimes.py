"""The contract of every runtime: buffers of the caller in, buffers of the caller out."""

import sys

import numpy as np
import pytest

from gcpp_edge.device import open_device
from gcpp_edge.errors import InputError, MissingDependencyError, ModelError, RuntimeFailure
from gcpp_edge.runtimes import RuntimeOptions, TensorInfo, open_runtime


@pytest.fixture(params=["onnxruntime"])
def runtime(request, shared_model):
    opened = open_runtime(
        request.param, str(shared_model.path), "small.onnx", RuntimeOptions(threads=1), open_device("cpu")
    )
    yield opened
    opened.close()


def outputs_for(runtime, count: int) -> dict[str, np.ndarray]:
    return {
        info.name: np.full([count if side is None else side for side in info.shape], 7, info.dtype)
        for info in runtime.outputs
    }


def bind(runtime, image: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    buffers = outputs_for(runtime, len(image)) | {"image": image, "target": target}
    for name, buffer in buffers.items():
        runtime.bind(name, buffer)
    return buffers


def test_inputs_and_outputs_are_listed_with_an_open_batch(runtime) -> None:
    assert runtime.inputs == (
        TensorInfo("image", (None, 3, 16, 12), np.dtype(np.float32)),
        TensorInfo("target", (None,), np.dtype(np.int64)),
    )
    assert [info.name for info in runtime.outputs][:2] == ["scores", "target_class"]
    assert runtime.outputs[0].shape == (None, 7)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_run_fills_the_buffers_of_its_caller(runtime, shared_model, count: int) -> None:
    image = np.random.default_rng(count).normal(size=(count, 3, 16, 12)).astype(np.float32)
    buffers = bind(runtime, image, np.arange(count))
    runtime.run()
    assert np.allclose(buffers["scores"], shared_model.logits(image), atol=1e-4)
    assert buffers["target_class"].tolist() == list(range(count))
    assert np.allclose(buffers["activations"], shared_model.features(image), atol=1e-5)


def test_a_run_raises_and_drops_no_error_on_its_way(runtime) -> None:
    bind(runtime, np.zeros((1, 3, 16, 12), np.float32), np.array([0]))
    raised = []
    sys.setprofile(lambda frame, event, argument: raised.append(argument) if event == "c_exception" else None)
    try:
        runtime.run()
    finally:
        sys.setprofile(None)
    assert raised == []


def test_a_bound_input_is_read_anew_at_each_run(runtime, shared_model) -> None:
    image = np.zeros((1, 3, 16, 12), np.float32)
    buffers = bind(runtime, image, np.array([0]))
    runtime.run()
    image[...] = 1
    runtime.run()
    assert np.allclose(buffers["scores"], shared_model.logits(image), atol=1e-4)


def test_another_buffer_takes_the_place_of_the_first(runtime) -> None:
    image = np.zeros((1, 3, 16, 12), np.float32)
    first = bind(runtime, image, np.array([0]))
    second = bind(runtime, image, np.array([2]))
    runtime.run()
    assert second["target_class"] == [2]
    assert first["target_class"] == [7]


def test_outputs_that_nobody_binds_are_left_alone(runtime) -> None:
    runtime.bind("image", np.zeros((1, 3, 16, 12), np.float32))
    runtime.bind("target", np.array([1]))
    target_class = np.array([-9])
    runtime.bind("target_class", target_class)
    runtime.run()
    assert target_class == [1]


def test_a_buffer_outlives_its_caller_s_name(runtime) -> None:
    buffers = bind(runtime, np.ones((1, 3, 16, 12), np.float32), np.array([0]))
    scores = buffers["scores"]
    del buffers
    runtime.run()
    assert np.isfinite(scores).all()
    assert (scores != 7).any()


@pytest.mark.parametrize(
    ("name", "buffer", "message"),
    [
        ("image", np.zeros((1, 3, 16, 13), np.float32)[..., ::2], "must be C-contiguous"),
        ("image", np.zeros((1, 3, 16, 13), np.float32), "ONNX Runtime failed"),
        ("image", np.zeros((1, 3, 16, 12), np.float64), "ONNX Runtime failed"),
        ("nothing", np.zeros(1, np.float32), "cannot bind 'nothing'"),
    ],
    ids=["gaps", "a wrong size", "a wrong dtype", "an unknown name"],
)
def test_a_buffer_that_does_not_fit_is_a_runtime_failure(runtime, name, buffer, message) -> None:
    bind(runtime, np.zeros((1, 3, 16, 12), np.float32), np.array([0]))
    with pytest.raises(RuntimeFailure, match=f"^small.onnx: .*{message}"):
        runtime.bind(name, buffer)
        runtime.run()


def test_a_closed_runtime_says_so_and_closes_twice(runtime) -> None:
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        runtime.run()
    with pytest.raises(RuntimeFailure, match="closed"):
        runtime.bind("image", np.zeros((1, 3, 16, 12), np.float32))


@pytest.mark.parametrize("name", ["onnxruntime"])
def test_a_model_that_the_runtime_cannot_read_is_a_model_error_with_the_file_s_name(name: str) -> None:
    with pytest.raises(ModelError, match=r"^cat.onnx: .*cannot load it \([^\n]+\)\.$"):
        open_runtime(name, b"not a model", "cat.onnx", RuntimeOptions(), open_device("cpu"))


def test_a_damaged_model_leaves_standard_output_alone(capfd: pytest.CaptureFixture[str], shared_model) -> None:
    damaged = shared_model.path.read_bytes().replace(b"image", b"im\xff\xfee")  # a tensor's name that is no UTF-8
    with pytest.raises(ModelError, match="cannot load it"):
        open_runtime("onnxruntime", damaged, "cat.onnx", RuntimeOptions(), open_device("cpu"))
    assert capfd.readouterr() == ("", "")


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch, shared_model) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gcpp-edge\[onnxruntime\]'"):
        open_runtime("onnxruntime", str(shared_model.path), "small.onnx", RuntimeOptions(), open_device("cpu"))


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="Unknown runtime 'caffe'. Known: onnxruntime, onnxruntime-tensorrt, tensorrt"):
        open_runtime("caffe", b"", "small.onnx", RuntimeOptions(), open_device("cpu"))


def test_a_refused_model_leaves_stderr_quiet(capfd: pytest.CaptureFixture[str], runtime) -> None:
    bind(runtime, np.zeros((1, 3, 16, 13), np.float32), np.array([0]))
    with pytest.raises(RuntimeFailure):
        runtime.run()
    assert capfd.readouterr().err == ""
