"""The contract of every device: a place for buffers, and its kernels."""

import numpy as np
import pytest
from fake_driver import FakeDriver

import gcpp_edge
from gcpp_edge import kernels
from gcpp_edge.device import open_device
from gcpp_edge.device.cuda import open_on
from gcpp_edge.errors import DeviceError, InputError, MissingDependencyError


class NoKernels:
    """Of a GPU that is asked for none."""

    def __init__(self, *_: object) -> None:
        self.cam = self.heatmap = self.overlay = self.guided = self.preprocess = self.range = None


OPENERS = {
    "cpu": lambda: open_device("cpu"),
    "cuda": lambda: open_device("cuda"),
    "cuda without a gpu": lambda: open_on(FakeDriver, lambda _: b"image", NoKernels),
}


@pytest.fixture(params=OPENERS)
def device(request):
    try:
        opened = OPENERS[request.param]()
    except (MissingDependencyError, DeviceError, ModuleNotFoundError) as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_what_is_uploaded_comes_back(device, shape, dtype) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)

    def work() -> None:
        buffer = device.allocate(shape, np.dtype(dtype))
        assert not device.download(buffer).any()
        device.upload(array, buffer)
        found = device.download(buffer)
        assert found.shape == shape
        assert found.dtype == dtype
        assert np.array_equal(found, array)
        device.free(buffer)

    device.perform(work)


def test_a_part_of_the_batch_is_a_buffer_too(device) -> None:
    def work() -> None:
        buffer = device.allocate((4, 3), np.dtype(np.float32))
        device.upload(np.ones((2, 3), np.float32), buffer[:2])
        assert device.download(buffer).sum() == 6

    device.perform(work)


def test_a_frame_goes_in_and_comes_out(device) -> None:
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::2]

    def one_frame() -> np.ndarray:
        staged = device.stage("frame", frame)
        buffers = []

        def work() -> None:
            buffers[:] = [device.send(staged)]
            device.fetch(buffers[0])

        device.replay("key", work)
        return device.download(buffers[0]).copy()

    assert np.array_equal(device.perform(one_frame), frame)
    assert np.array_equal(device.perform(one_frame), frame)
    device.close()


def test_every_slot_is_a_device(device) -> None:
    assert device.slot(0) is device
    for number in range(device.slots):
        slot = device.slot(number)
        assert device.perform(lambda slot=slot: slot.download(slot.allocate((2,), np.dtype(np.int64))).sum()) == 0


def test_host_buffers_begin_on_a_cache_line() -> None:
    device = open_device("cpu")
    for size in (1, 3, 1000):
        assert device.allocate((size,), np.dtype(np.float16)).ctypes.data % 64 == 0


@pytest.mark.parametrize("isa", kernels.available())
def test_the_environment_chooses_the_kernels(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCPP_ISA", isa)
    assert open_device("cpu").kernels.isa == isa


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="Unknown device 'tpu'. Known: cpu, cuda"):
        open_device("tpu")


@pytest.mark.parametrize("threads, used", [(1, 1), (2, 2), (0, kernels.default_threads()), (1000, kernels.MAX_THREADS)])
def test_the_host_gives_its_kernels_so_many_threads(threads, used) -> None:
    assert open_device("cpu", None, threads).kernels is kernels.table(threads=used)


def test_an_explainers_threads_are_its_kernels_too(shared_model) -> None:
    with gcpp_edge.load(shared_model.path, device="cpu", threads=2) as explainer:
        assert explainer._device.kernels is kernels.table(threads=2)
