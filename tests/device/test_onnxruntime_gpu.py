"""What ONNX Runtime is told where there is a GPU: its providers are recorded, and nothing of CUDA runs."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from gcpp_edge.device.host import HostDevice
from gcpp_edge.errors import DeviceError
from gcpp_edge.runtimes import RuntimeOptions, open_runtime

GPU = SimpleNamespace(name="cuda", memory="cuda", stream=4711)


@pytest.fixture
def asked(monkeypatch):
    """The providers of each session that was opened, which then works on the CPU."""
    providers = []
    real = onnxruntime.InferenceSession

    def session(model, options, providers: list, **rest):
        found.append(providers)
        opened = real(model, options, providers=["CPUExecutionProvider"], **rest)
        opened.get_providers = lambda: list(options_of(providers))
        return opened

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


def test_a_cuda_provider_that_does_not_load_is_said_and_not_replaced_by_the_cpu(monkeypatch, shared_model) -> None:
    monkeypatch.setattr(
        onnxruntime.capi.onnxruntime_inference_collection, "check_and_normalize_provider_args", cpu_only
    )
    with pytest.raises(DeviceError, match="its CUDA provider does not load"):
        open_runtime("onnxruntime", str(shared_model.path), "small.onnx", RuntimeOptions(), GPU)


def cpu_only(*_):
    return ["CPUExecutionProvider"], [{}]


def test_libraries_of_pip_s_packages_are_loaded_before_the_session(monkeypatch, asked, shared_model, tmp_path, capfd):
    def preload(directory):
        assert not asked
        print("Failed to load something")
        loaded.append(directory)

    loaded: list[str] = []
    for name in ("cublas", "cudnn"):
        (tmp_path / "nvidia" / name / "lib").mkdir(parents=True)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
    monkeypatch.setattr("gcpp_edge.runtimes.onnxruntime.find_spec", lambda name: found)
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    open_runtime("onnxruntime", str(shared_model.path), "small.onnx", RuntimeOptions(), GPU)
    assert sorted(loaded) == [str(tmp_path / "nvidia" / name / "lib") for name in ("cublas", "cudnn")]
    assert capfd.readouterr().out == ""


def test_a_graph_of_onnx_runtime_s_own_belongs_to_one_set_of_buffers(asked, shared_model, monkeypatch) -> None:
    made = []

    class RunOptions:
        log_severity_level = 0

        def __init__(self):
            self.entries = {}
            made.append(self)

        def add_run_config_entry(self, key, value):
            self.entries[key] = value

    monkeypatch.setattr(onnxruntime, "RunOptions", RunOptions)
    options = RuntimeOptions(cuda_graph=True)
    runtime = open_runtime("onnxruntime", str(shared_model.path), "small.onnx", options, GPU)
    runtime._binding = SimpleNamespace(bind_input=lambda *given: None, bind_output=lambda *given: None)
    one, other = np.zeros((1, 3, 16, 12), np.float32), np.zeros((2, 3, 16, 12), np.float32)
    runtime._session = SimpleNamespace(run_with_iobinding=lambda *given: None)
    numbers = []
    for image in (one, other, one):
        runtime.bind("image", image)
        runtime.run()
        numbers.append(runtime._run_options.entries["gpu_graph_id"])
    assert numbers == ["1", "2", "1"]
    assert options_of(asked[0])["CUDAExecutionProvider"]["enable_cuda_graph"] == "1"
    assert all(one.entries["disable_synchronize_execution_providers"] == "1" for one in made)


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
