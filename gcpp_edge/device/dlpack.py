"""DLPack, by hand: device memory as a capsule that other libraries read, and theirs read here.

Source: dmlc.github.io/dlpack/latest/c_api.html, DLManagedTensor (the unversioned one, which every consumer takes).
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, PYFUNCTYPE, Structure, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from gcpp_edge.errors import FrameError

HOST, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType

_NAME = b"dltensor"  # a capsule keeps the pointer, not a copy
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}


class _Device(Structure):
    _fields_ = [("type", c_int32), ("number", c_int32)]


class _DataType(Structure):
    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class _Tensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device", _Device),
        ("ndim", c_int32),
        ("dtype", _DataType),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class _ManagedTensor(Structure):
    _fields_ = [("tensor", _Tensor), ("context", c_void_p), ("deleter", c_void_p)]


_new = PYFUNCTYPE(ctypes.py_object, c_void_p, c_char_p, c_void_p)(("PyCapsule_New", ctypes.pythonapi))
_pointer = PYFUNCTYPE(c_void_p, ctypes.py_object, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_dying_pointer = PYFUNCTYPE(c_void_p, c_void_p, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_dying_is_valid = PYFUNCTYPE(ctypes.c_int, c_void_p, c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))

_exported: dict[int, tuple[Any, ...]] = {}  # by address of the managed tensor, until its consumer deletes it


def _delete(managed: int) -> None:
    _exported.pop(managed, None)


def _drop_unconsumed(capsule: int) -> None:
    """A consumer renames the capsule, and then deletes the tensor itself."""
    if _dying_is_valid(capsule, _NAME):
        _exported.pop(_dying_pointer(capsule, _NAME), None)


_deleter = ctypes.CFUNCTYPE(None, c_void_p)(_delete)
_destructor = PYFUNCTYPE(None, c_void_p)(_drop_unconsumed)


def to_capsule(
    address: int, device: tuple[int, int], shape: tuple[int, ...], dtype: np.dtype[Any], owner: object
) -> object:
    """A DLPack capsule of C-contiguous memory; `owner` lives until the consumer is done with it."""
    if dtype.kind not in _CODES:
        raise BufferError(f"DLPack has no type for {dtype}.")
    sizes = (c_int64 * len(shape))(*shape)
    managed = _ManagedTensor()
    tensor = managed.tensor
    tensor.data, tensor.device = address, _Device(*device)
    tensor.ndim, tensor.shape = len(shape), sizes
    tensor.dtype = _DataType(_CODES[dtype.kind], 8 * dtype.itemsize, 1)
    managed.deleter = ctypes.cast(_deleter, c_void_p)
    place = ctypes.addressof(managed)
    _exported[place] = (managed, sizes, owner)
    return _new(place, _NAME, ctypes.cast(_destructor, c_void_p))


class Tensor(NamedTuple):
    """What a capsule holds. strides: bytes. It lives as long as the capsule."""

    address: int
    device: tuple[int, int]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


def from_capsule(capsule: object) -> Tensor:
    """What another library's capsule holds; it is not consumed. Raises FrameError for types that NumPy has not."""
    managed = _ManagedTensor.from_address(_pointer(capsule, _NAME))
    tensor = managed.tensor
    dtype, rank = tensor.dtype, tensor.ndim
    if dtype.code not in _KINDS or dtype.lanes != 1 or dtype.bits % 8:
        raise FrameError(f"A DLPack array of type {dtype.code}, {dtype.bits} bits, {dtype.lanes} lanes is no frame.")
    item = dtype.bits // 8
    shape = tuple(tensor.shape[:rank])
    if tensor.strides:
        strides = tuple(item * step for step in tensor.strides[:rank])
    else:
        strides = tuple(item * int(np.prod(shape[axis + 1 :])) for axis in range(rank))
    address = (tensor.data or 0) + tensor.byte_offset
    return Tensor(
        address, (tensor.device.type, tensor.device.number), shape, strides, np.dtype(f"{_KINDS[dtype.code]}{item}")
    )
