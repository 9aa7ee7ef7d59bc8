"""What ONNX Runtime is told where there is a GPU: its providers are recorded, and nothing of CUDA runs."""

from types import SimpleNamespace

import onnxruntime
import pytest

from gcpp_edge.device.host import HostDevice
from gcpp_edge.runtimes import RuntimeOptions, open_runtime

GPU = SimpleNamespace(name="cuda", memory="cuda", stream=4711)


@pytest.fixture
def asked(monkeypatch):
    """The providers of each session that was opened, which then works on the CPU."""
    providers = []
    real = onnxruntime.InferenceSession

    def session(model, options, providers: list, **rest):
        found.append(providers)
        return real(model, options, providers=["CPUExecutionProvider"], **rest)

    found = providers
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return providers


def options_of(providers):
    return dict(one if isinstance(one, tuple) else (one, {}) for one in providers)


@pytest.mark.parametrize("tf32", [False, True])
def test_cuda_works_on_the_device_s_stream_with_the_precision_asked_for(asked, shared_model, tf32) -> None:
    runtime = open_runtime("onnxruntime", str(shared_model.path), "small.onnx", RuntimeOptions(tf32=tf32), GPU)
    (found,) = map(options_of, asked)
    assert list(found) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert found["CUDAExecutionProvider"]["user_compute_stream"] == "4711"
    assert found["CUDAExecutionProvider"]["use_tf32"] == str(int(tf32))
    assert runtime.name == "ONNX Runtime CUDA" and not runtime.has_twins


def test_engines_of_onnx_runtime_are_kept_under_the_digest_of_their_model(asked, make_model) -> None:
    models = [make_model(), make_model("other.onnx", kind="softmax")]
    for model in (*models, models[0]):
        runtime = open_runtime("onnxruntime-tensorrt", str(model.path), str(model.path), RuntimeOptions(), GPU)
        assert runtime.name == "ONNX Runtime CUDA with TensorRT"
    chosen = [options_of(one)["TensorrtExecutionProvider"] for one in asked]
    prefixes = [one["trt_engine_cache_prefix"] for one in chosen]
    assert prefixes[0] == prefixes[2] != prefixes[1]
    assert chosen[0]["trt_engine_cache_enable"] == "1"
    assert list(options_of(asked[0]))[1:] == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_without_a_gpu_it_is_the_cpu_all_the_same(asked, shared_model) -> None:
    open_runtime("onnxruntime-tensorrt", str(shared_model.path), "small.onnx", RuntimeOptions(), HostDevice()).close()
    assert asked == [["CPUExecutionProvider"]]
