"""The TensorRT runtime, driven on modules that imitate releases 10.3 and 11: what it asks for, and what it does."""

import enum
import gc
import logging
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import Fake, FakeGpuDevice, Gpu, HostBuffer

import gcpp_edge
from gcpp_edge.backends import BACKENDS
from gcpp_edge.device.host import HostDevice
from gcpp_edge.engine_store import engine_folder
from gcpp_edge.errors import GcppError, InputError, MissingDependencyError, ModelError, RuntimeFailure
from gcpp_edge.runtimes import RuntimeOptions, TensorInfo, open_runtime
from gcpp_edge.runtimes.tensorrt_library import load_library


@pytest.fixture(params=["10.3.0", "11.4.1"])
def fake(request, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return install(monkeypatch, Fake(request.param))


def install(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> Fake:
    monkeypatch.setitem(sys.modules, "tensorrt", fake.module())
    return fake


@pytest.fixture
def device() -> FakeGpuDevice:
    return FakeGpuDevice()


def opened(model: Any, device: Any, **options: Any) -> Any:
    return open_runtime("tensorrt", str(model.path), "small.onnx", RuntimeOptions(**options), device)


def bind(runtime: Any, image: np.ndarray, target: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Everything that the runtime lists, by name."""
    arrays = {"image": image} | ({} if target is None else {"target": target})
    for info in runtime.outputs:
        arrays[info.name] = np.full([len(image) if side is None else side for side in info.shape], 7, info.dtype)
    for name, array in arrays.items():
        runtime.bind(name, HostBuffer(array))
    return arrays


def image_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 16, 12)).astype(np.float32)


# what a release is asked for


def test_strong_types_are_asked_for_and_nothing_that_is_gone(fake, device, shared_model) -> None:
    opened(shared_model, device)
    (flags,) = [call[1] for call in fake.calls if call[0] == "create_network"]
    assert flags == (0b10 if fake.major == 10 else 0b01)  # without EXPLICIT_BATCH, and where 11 has its bit


@pytest.mark.parametrize(("tf32", "call"), [(False, "clear_flag"), (True, "set_flag")])
def test_tf32_is_off_unless_it_is_asked_for(fake, device, shared_model, tf32: bool, call: str) -> None:
    opened(shared_model, device, tf32=tf32)
    assert (call, "TF32") in fake.calls


def test_kernels_for_the_shapes_at_hand_are_made_before_the_first_run_where_that_can_be_asked_for(
    fake, device, shared_model, monkeypatch
) -> None:
    opened(shared_model, device).close()
    strategies = enum.Enum("DynamicShapesKernelSpecializationStrategy", ["LAZY", "EAGER", "NONE"])
    module = fake.module()
    module.DynamicShapesKernelSpecializationStrategy = strategies  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    opened(shared_model, device).close()
    assert [call[1] for call in fake.calls if call[0] == "kernels"] == [None, strategies.EAGER]


@pytest.mark.parametrize("works", [True, False], ids=["it can", "sizes hang on the data"])
def test_an_engine_that_allocates_nothing_as_it_runs_is_asked_for_first(
    fake, device, shared_model, monkeypatch, works: bool
) -> None:
    module = fake.module()
    module.BuilderFlag = enum.Enum("BuilderFlag", ["TF32", "REQUIRE_USER_ALLOCATION"])  # type: ignore[attr-defined]
    build = module.Builder.build_serialized_network

    def picky(builder: Any, network: Any, config: Any) -> Any:
        flags = [call for call in fake.calls if call[1:] == ("REQUIRE_USER_ALLOCATION",)]
        return None if flags[-1][0] == "set_flag" and not works else build(builder, network, config)

    monkeypatch.setattr(module.Builder, "build_serialized_network", picky)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    opened(shared_model, device).close()
    asked = [call[0] for call in fake.calls if call[1:] == ("REQUIRE_USER_ALLOCATION",)]
    assert asked == (["set_flag"] if works else ["set_flag", "clear_flag"])


def test_levels_of_a_file_share_what_was_timed(fake, device, make_model) -> None:
    model = make_model()
    for level in ("plain", "map"):
        opened(model, device, level=level).close()
    assert [call[1:] for call in fake.calls if call[0] == "timing_cache"] == [(b"", False), (b"t", False)]


def test_damaged_timings_are_measured_again(fake, device, make_model) -> None:
    model = make_model()
    opened(model, device, level="plain").close()
    (path,) = engine_folder().glob("*.timings")
    path.write_bytes(b"damaged")
    opened(model, device, level="map").close()
    assert [call[1] for call in fake.calls if call[0] == "timing_cache"] == [b"", b""]


def test_one_logger_serves_everything(fake, device, make_model) -> None:
    """The fake refuses a second one, as TensorRT ignores it."""
    opened(make_model("a.onnx"), device).close()
    opened(make_model("b.onnx", guided=False), device).close()


# what it computes


@pytest.mark.parametrize("level", ["plain", "map", "guided"])
def test_a_level_has_its_tensors_and_no_others(fake, device, shared_model, level: str) -> None:
    runtime = opened(shared_model, device, level=level)
    assert runtime.name == f"TensorRT {fake.version}"
    assert runtime.inputs[0] == TensorInfo("image", (None, 3, 16, 12), np.dtype(np.float32))
    assert [info.name for info in runtime.inputs][1:] == ([] if level == "plain" else ["target"])
    assert tuple(info.name for info in runtime.outputs) == shared_model.contract.levels[level].outputs


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_run_fills_the_buffers_of_its_caller(fake, device, shared_model, count: int) -> None:
    runtime = opened(shared_model, device, max_batch=4)
    assert runtime.max_batch == 4
    image = image_of(count)
    arrays = bind(runtime, image, np.arange(count))
    runtime.run()
    assert np.allclose(arrays["scores"], shared_model.logits(image), atol=1e-4)
    assert arrays["target_class"].tolist() == list(range(count))
    assert np.allclose(arrays["activations"], shared_model.features(image), atol=1e-5)


def test_the_plain_level_runs_without_its_target(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device, level="plain", max_batch=3)
    for count in (3, 1, 2):
        image = image_of(count, count)
        arrays = bind(runtime, image)
        runtime.run()
        assert np.allclose(arrays["scores"], shared_model.logits(image), atol=1e-4)
    assert [buffer.shape for buffer in device.allocated] == [(3,)]  # what TensorRT wants an address for


def test_a_file_of_one_batch_needs_no_profile(fake, device, make_model) -> None:
    model = make_model(batch=2)
    runtime = opened(model, device, max_batch=8)
    assert runtime.max_batch is None and runtime.inputs[0].shape == (2, 3, 16, 12)
    image = image_of(2)
    arrays = bind(runtime, image, np.array([0, 1]))
    runtime.run()
    assert np.allclose(arrays["scores"], model.logits(image), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_precision_is_what_the_file_says(fake, device, make_model, dtype) -> None:
    runtime = opened(make_model(dtype=dtype), device)
    assert {info.dtype for info in (*runtime.inputs, *runtime.outputs)} == {np.dtype(dtype), np.dtype(np.int64)}


def test_weights_beside_the_file_are_found(fake, device, make_model) -> None:
    model = make_model(beside=True)
    runtime = opened(model, device)
    image = image_of(1)
    arrays = bind(runtime, image, np.array([0]))
    runtime.run()
    assert np.allclose(arrays["scores"], model.logits(image), atol=1e-4)


def test_the_bytes_of_a_model_run_too_and_are_not_kept(fake, device, shared_model) -> None:
    data = shared_model.path.read_bytes()
    runtime = open_runtime("tensorrt", data, "small.onnx", RuntimeOptions(), device)
    arrays = bind(runtime, image_of(1), np.array([0]))
    runtime.run()
    assert np.allclose(arrays["scores"], shared_model.logits(image_of(1)), atol=1e-4)
    assert not engine_folder().exists()


def test_outputs_that_nobody_binds_are_left_alone(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device)
    target_class = np.array([-9])
    runtime.bind("image", HostBuffer(image_of(1)))
    runtime.bind("target", HostBuffer(np.array([1])))
    runtime.bind("target_class", HostBuffer(target_class))
    runtime.run()
    assert target_class == [1]


def test_work_goes_to_the_stream_of_the_device(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device)
    bind(runtime, image_of(1), np.array([0]))
    runtime.run()
    assert [call[1] for call in fake.calls if call[0] == "stream"] == [77]


def test_binding_the_same_buffer_again_costs_nothing(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device)
    buffer = HostBuffer(image_of(1))
    runtime.bind("image", buffer)
    before = len(fake.calls)
    runtime.bind("image", buffer)
    assert len(fake.calls) == before


def test_a_second_run_only_enqueues(fake, device, shared_model) -> None:
    """Nothing else may happen in a frame that is recorded as a CUDA graph."""
    runtime = opened(shared_model, device)
    bind(runtime, image_of(1), np.array([0]))
    runtime.run()
    fake.calls.clear()
    runtime.run()
    assert fake.calls == [("execute_async_v3",), ("stream", 77)]


# a second slot


def test_a_twin_runs_beside_on_bindings_and_a_stream_of_its_own(fake, device, shared_model) -> None:
    first = opened(shared_model, device, level="plain")
    slot = FakeGpuDevice()
    slot.stream = 78
    second = first.twin(slot)
    one, two = image_of(1, 1), image_of(1, 2)
    from_first, from_second = bind(first, one), bind(second, two)
    first.run()
    second.run()
    assert np.allclose(from_first["scores"], shared_model.logits(one), atol=1e-4)
    assert np.allclose(from_second["scores"], shared_model.logits(two), atol=1e-4)
    assert [call[1] for call in fake.calls if call[0] == "stream"] == [77, 78]
    assert fake.calls.count(("deserialize_cuda_engine",)) == 1
    assert fake.calls.count(("build_serialized_network",)) == 1


@pytest.mark.parametrize("first_to_go", [0, 1])
def test_contexts_go_before_the_engine_and_the_engine_before_the_runtime(
    fake, device, shared_model, first_to_go: int
) -> None:
    runtimes = [opened(shared_model, device, level="plain")]
    runtimes.append(runtimes[0].twin(device))
    bind(runtimes[1 - first_to_go], image_of(1))
    runtimes[first_to_go].close()
    assert fake.gone == ["context"]
    runtimes[1 - first_to_go].run()  # the other one goes on
    for runtime in runtimes:
        runtime.close()
        runtime.close()
    gc.collect()
    assert fake.gone == ["context", "context", "engine", "runtime"]
    assert device.allocated == []


def test_a_closed_runtime_says_so(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device)
    runtime.close()
    for act in (runtime.run, lambda: runtime.twin(device), lambda: runtime.bind("image", HostBuffer(image_of(1)))):
        with pytest.raises(RuntimeFailure, match=r"^small\.onnx: closed\. Load it again\.$"):
            act()


# what does not fit


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("image", np.zeros((1, 3, 16, 24), np.float32)[..., ::2], "must be C-contiguous"),
        ("image", np.zeros((1, 3, 16, 13), np.float32), r"takes float32 \(N, 3, 16, 12\)"),
        ("image", np.zeros((1, 3, 16), np.float32), r"takes float32 \(N, 3, 16, 12\)"),
        ("image", np.zeros((1, 3, 16, 12), np.float64), "as float64"),
        ("image", np.zeros((5, 3, 16, 12), np.float32), "a batch of 5; the engine was built for 1 to 4"),
        ("image", np.zeros((0, 3, 16, 12), np.float32), "a batch of 0; the engine was built for 1 to 4"),
        ("nothing", np.zeros(1, np.float32), "cannot bind 'nothing'. The engine has 'image', 'target', 'scores'"),
    ],
    ids=["gaps", "a size", "axes", "a dtype", "too many", "none", "an unknown name"],
)
def test_a_buffer_that_does_not_fit_is_refused(fake, device, shared_model, name, array, message) -> None:
    runtime = opened(shared_model, device, max_batch=4)
    with pytest.raises(RuntimeFailure, match=f"^small.onnx: .*{message}"):
        runtime.bind(name, HostBuffer(array))


def test_an_output_that_is_too_small_is_refused_before_it_is_written(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device, max_batch=4)
    bind(runtime, image_of(1), np.array([0]))
    runtime.bind("image", HostBuffer(image_of(2)))
    runtime.bind("target", HostBuffer(np.array([0, 1])))
    with pytest.raises(RuntimeFailure, match=r"bound to 'scores' is \(1, 7\); a batch of 2 gives \(2, 7\)"):
        runtime.run()


def test_batches_that_do_not_agree_are_refused(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device, max_batch=4)
    bind(runtime, image_of(2), np.array([0]))
    with pytest.raises(RuntimeFailure, match=r"batches of different sizes: \{'image': 2, 'target': 1\}"):
        runtime.run()


def test_a_forgotten_input_is_named(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device)
    runtime.bind("image", HostBuffer(image_of(1)))
    with pytest.raises(RuntimeFailure, match="nothing is bound to the input 'target'"):
        runtime.run()


# None and False at each step


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        ("Builder", RuntimeFailure, r"does not start \(no driver\)\. Is there a GPU"),
        ("parse", ModelError, r"cannot load it \(node 'head': no driver\)"),
        ("add_optimization_profile", RuntimeFailure, r"refuses the batch 1 \(no driver\)"),
        ("build_serialized_network", RuntimeFailure, r"cannot build it \(no driver\)"),
        ("Runtime", RuntimeFailure, r"does not start \(no driver\)"),
        ("deserialize_cuda_engine", RuntimeFailure, r"cannot load its engine \(no driver\)"),
        ("host memory", RuntimeFailure, "wants 'image' in host memory"),
        ("create_execution_context", RuntimeFailure, r"cannot make room for running the engine \(no driver\)"),
    ],
)
def test_a_step_that_fails_is_an_error_with_the_reason_of_tensorrt(
    fake, device, shared_model, call: str, kind: type[GcppError], message: str
) -> None:
    fake.refuse[call] = "no\n  driver"
    with pytest.raises(kind, match=message) as error:
        opened(shared_model, device)
    assert "\n" not in str(error.value) and "a warning" not in str(error.value)
    assert not list(engine_folder().glob("*.engine")) or call == "create_execution_context"


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address"])
def test_a_binding_that_tensorrt_refuses_is_a_runtime_failure(fake, device, shared_model, call: str) -> None:
    runtime = opened(shared_model, device)
    fake.refuse[call] = "bad address"
    with pytest.raises(RuntimeFailure, match=r"does not take 'image' \(bad address\)"):
        runtime.bind("image", HostBuffer(image_of(1)))


def test_a_run_that_fails_carries_the_log(fake, device, shared_model) -> None:
    runtime = opened(shared_model, device)
    bind(runtime, image_of(1), np.array([0]))
    fake.refuse["execute_async_v3"] = "an illegal memory access"
    with pytest.raises(RuntimeFailure, match=r"^small\.onnx: TensorRT \S+ failed \(an illegal memory access\)\.$"):
        runtime.run()


def test_a_twin_that_finds_no_room_leaves_the_first_at_work(fake, device, shared_model) -> None:
    first = opened(shared_model, device, level="plain")
    for call in ("create_execution_context", "set_optimization_profile_async"):
        fake.refuse[call] = "out of memory"
        with pytest.raises(RuntimeFailure, match="out of memory"):
            first.twin(device)
        fake.refuse.clear()
    bind(first, image_of(1))
    first.run()


def test_a_promise_that_the_graph_does_not_keep_is_a_model_error(fake, device, make_model) -> None:
    import onnx

    model = make_model()
    graph = onnx.load(model.path)
    del graph.graph.output[-1]
    onnx.save(graph, model.path)
    with pytest.raises(ModelError, match="promises 'guided', which its graph lacks"):
        opened(model, device, level="guided")


def test_what_is_not_an_onnx_file_is_a_model_error(fake, device) -> None:
    with pytest.raises(
        ModelError, match=r"^cat\.onnx: TensorRT \S+ cannot load it \(Failed to parse the ONNX model\.\)"
    ):
        open_runtime("tensorrt", b"not a model", "cat.onnx", RuntimeOptions(), device)


def test_warnings_go_to_the_logging_of_python(fake, device, shared_model, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gcpp_edge.tensorrt")
    fake.refuse["build_serialized_network"] = "too large"
    with pytest.raises(RuntimeFailure):
        opened(shared_model, device)
    assert "WARNING: a warning is no reason" in caplog.text and "ERROR: too large" in caplog.text


def test_a_device_without_a_gpu_is_refused(fake, shared_model) -> None:
    with pytest.raises(InputError, match="not on the device 'cpu'"):
        opened(shared_model, HostDevice())


# under an explainer


class Addressed(np.ndarray):
    """An array that says where it lies."""

    address = property(lambda self: self.ctypes.data)


class HostAsGpu(HostDevice):
    """The host's memory and kernels, for the runtime of a GPU."""

    name, stream, gpu = "cuda", 77, Gpu()

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return super().allocate(shape, dtype).view(Addressed)


@pytest.mark.parametrize("guided", [False, True])
def test_an_explanation_is_that_of_the_cpu(fake, shared_model, random_frame, monkeypatch, guided: bool) -> None:
    devices = {"cuda": HostAsGpu, "cpu": HostDevice}
    monkeypatch.setattr("gcpp_edge.explainer.open_device", lambda name, stream, threads: devices[name]())
    monkeypatch.setitem(BACKENDS, "tensorrt", BACKENDS["tensorrt"]._replace(why_not=lambda: ""))
    with (
        gcpp_edge.load(shared_model.path, device="tensorrt") as on_gpu,
        gcpp_edge.load(shared_model.path, device="cpu") as on_cpu,
    ):
        assert on_gpu.runtime_name.startswith(f"TensorRT {fake.version}, kernels ")
        for frames in ([random_frame(seed=1)], [random_frame(seed=2), random_frame(seed=3)]):
            for found, expected in zip(on_gpu(frames, guided=guided), on_cpu(frames, guided=guided), strict=True):
                assert found.class_index == expected.class_index
                assert np.allclose(found.map, expected.map, atol=1e-6)
                if guided:
                    assert np.allclose(found.guided(), expected.guided(), atol=1e-6)
            assert np.allclose(on_gpu.scores(frames), on_cpu.scores(frames), atol=1e-6)


# which TensorRT


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("8.6.1", "TensorRT 8.6.1 is older than 10.0, the first that is driven here. Install 10.3 or newer."),
        ("9.3.0.post12", "TensorRT 9.3.0.post12 is older than 10.0"),
        ("10.2.0", "TensorRT 10.2.0 is refused: .*a bug.* Install 10.3 or newer."),
        ("10.2.0.post1", "TensorRT 10.2.0.post1 is refused"),
    ],
)
def test_a_release_that_is_not_good_is_refused_with_the_reason(monkeypatch, version: str, message: str) -> None:
    install(monkeypatch, Fake(version))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependencyError, match=message):
        load_library()


@pytest.mark.parametrize("version", ["10.0.1", "10.1.0", "10.3.0.30", "10.13.3.9", "11.0.0", "12.1"])
def test_every_other_release_is_taken(monkeypatch, version: str) -> None:
    install(monkeypatch, Fake(version))
    assert load_library().title == f"TensorRT {version}"


def test_tensorrt_for_rtx_is_taken_where_the_other_cannot_be(monkeypatch) -> None:
    install(monkeypatch, Fake("8.6.1"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", Fake("1.7.1").module())
    assert load_library().title == "TensorRT for RTX 1.7.1"


def test_without_any_it_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr("gcpp_edge.runtimes.tensorrt_library.is_installed", lambda flavour: False)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"^TensorRT is not installed\. .*JetPack.*pip install tensorrt"):
        load_library()


def test_a_release_without_the_flags_of_others_is_driven_too(monkeypatch, device, shared_model) -> None:
    """What is not there is not asked for."""
    fake = Fake("12.0")
    module = install(monkeypatch, fake).module()
    module.NetworkDefinitionCreationFlag = SimpleNamespace()
    module.BuilderFlag = SimpleNamespace()
    del module.IProgressMonitor
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    features = load_library().features
    assert not (features.strongly_typed_flag or features.tf32_flag or features.progress_monitor)
    runtime = opened(shared_model, FakeGpuDevice(Gpu("another")))
    bind(runtime, image_of(1), np.array([0]))
    runtime.run()
