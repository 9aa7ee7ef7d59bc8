"""Buffers on a GPU, with host memory in its place: views, and what other libraries see."""

import ctypes
import gc
import weakref

import numpy as np
import pytest

from gcpp_edge.device import dlpack
from gcpp_edge.device.buffer import Allocation, CudaBuffer
from gcpp_edge.errors import DeviceError


class Owner:
    dlpack_device = (dlpack.HOST, 0)
    stream = 7
    is_open = True

    def __init__(self) -> None:
        self.handed: list[int | None] = []

    def hand_over(self, stream: int | None) -> None:
        self.handed.append(stream)


def buffer_of(array: np.ndarray) -> CudaBuffer:
    allocation = Allocation(Owner(), array.ctypes.data, array.nbytes)
    return CudaBuffer(allocation, allocation.address, array.shape, array.dtype)


def seen(buffer: CudaBuffer) -> np.ndarray:
    """What lies at the buffer's address."""
    raw = (ctypes.c_uint8 * buffer.nbytes).from_address(buffer.address)
    return np.frombuffer(raw, buffer.dtype).reshape(buffer.shape)


ARRAY = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
VIEWS = [
    np.s_[1],
    np.s_[-1],
    np.s_[0:1],
    np.s_[1:],
    np.s_[:2],
    np.s_[:],
    np.s_[1, 2],
    np.s_[1, 1:3],
    np.s_[1, 2, 0:1],
    np.s_[0:1, 1:2],
    np.s_[1:2, 0, 1:3],
    np.s_[0, :, :],
    np.s_[:, :],
    np.s_[1, 2, 3, 4],
    np.s_[np.int64(1)],
]


@pytest.mark.parametrize("key", VIEWS, ids=str)
def test_a_view_is_what_numpy_gives(key) -> None:
    view, expected = buffer_of(ARRAY)[key], ARRAY[key]
    assert view.shape == expected.shape
    assert np.array_equal(seen(view), expected)


@pytest.mark.parametrize("key", [np.s_[2:], np.s_[1:1], np.s_[5:9]], ids=str)
def test_an_empty_view_has_no_elements(key) -> None:
    assert buffer_of(ARRAY)[key].shape == ARRAY[key].shape
    assert buffer_of(ARRAY)[key].nbytes == 0


@pytest.mark.parametrize("key", [2, -3, (0, 3), np.s_[::2], np.s_[:, 0], np.s_[0:2, 1:2], (0, 0, 0, 0, 0)], ids=str)
def test_what_is_not_there_or_not_contiguous_is_refused(key) -> None:
    with pytest.raises(IndexError):
        buffer_of(ARRAY)[key]


def test_a_buffer_describes_itself_as_numpy_does() -> None:
    buffer = buffer_of(ARRAY)
    for name in ("shape", "dtype", "ndim", "size", "nbytes", "strides"):
        assert getattr(buffer, name) == getattr(ARRAY, name)
    assert len(buffer) == len(ARRAY)
    assert buffer.flags.c_contiguous
    assert buffer.flags.writeable
    assert buffer.flags.aligned
    assert [part.address for part in buffer] == [buffer[0].address, buffer[1].address]
    with pytest.raises(TypeError, match="without axes"):
        len(buffer[0, 0, 0, 0])


def test_numpy_does_not_mistake_it_for_a_sequence() -> None:
    with pytest.raises(TypeError, match="device.download"):
        np.asarray(buffer_of(ARRAY))


def test_a_view_keeps_the_allocation_alive() -> None:
    buffer = buffer_of(ARRAY)
    view, allocation = buffer[1, 0:2], buffer.allocation
    del buffer
    assert view.allocation is allocation


def test_the_cuda_array_interface_names_address_type_and_stream() -> None:
    view = buffer_of(ARRAY)[1]
    assert view.__cuda_array_interface__ == {
        "shape": (3, 4, 5),
        "typestr": "<f4",
        "data": (ARRAY[1].ctypes.data, False),
        "strides": None,
        "version": 3,
        "stream": 7,
    }


def test_freed_memory_is_not_handed_out() -> None:
    buffer = buffer_of(ARRAY)
    buffer.allocation.is_freed = True
    with pytest.raises(DeviceError, match="was freed"):
        _ = buffer.__cuda_array_interface__
    with pytest.raises(DeviceError, match="was freed"):
        buffer.__dlpack__()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int64, np.bool_])
def test_numpy_reads_it_through_dlpack(dtype) -> None:
    array = (np.arange(24) % 2).reshape(2, 3, 4).astype(dtype)
    found = np.from_dlpack(buffer_of(array)[1])
    assert found.dtype == dtype
    assert np.array_equal(found, array[1])
    assert np.shares_memory(found, array)


def test_pytorch_reads_and_writes_it_through_dlpack() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the consumer here")
    array = ARRAY.copy()
    tensor = torch.from_dlpack(buffer_of(array)[1])
    tensor += 1
    assert np.array_equal(array[1], ARRAY[1] + 1)


def test_the_memory_lives_until_the_consumer_is_done() -> None:
    buffer = buffer_of(ARRAY)
    alive = weakref.ref(buffer)
    consumer = np.from_dlpack(buffer)
    del buffer
    gc.collect()
    assert alive() is not None
    del consumer
    gc.collect()
    assert alive() is None
    assert not dlpack._exported


def test_a_capsule_that_nobody_takes_lets_go() -> None:
    buffer = buffer_of(ARRAY)
    alive = weakref.ref(buffer)
    capsule = buffer.__dlpack__()
    del buffer
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


def test_the_consumers_stream_waits_unless_it_says_not_to() -> None:
    buffer = buffer_of(ARRAY)
    owner = buffer.allocation.owner
    for stream in (-1, None, 1, 42):
        buffer.__dlpack__(stream=stream)
    assert owner.handed == [None, 1, 42]


def test_copies_and_other_devices_are_refused() -> None:
    with pytest.raises(BufferError):
        buffer_of(ARRAY).__dlpack__(copy=True)
    with pytest.raises(BufferError):
        buffer_of(ARRAY).__dlpack__(dl_device=(2, 0))


def test_what_others_export_is_read() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the producer here")
    tensor = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)[:, 1:3]
    capsule = tensor.__dlpack__()
    found = dlpack.from_capsule(capsule)
    assert found == (tensor.data_ptr(), (dlpack.HOST, 0), (2, 2, 3), (12, 3, 1), np.dtype(np.uint8))
