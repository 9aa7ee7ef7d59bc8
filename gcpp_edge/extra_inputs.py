"""Inputs of the network besides the picture: checked, and shared out among the frames of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import Contract, ExtraInput
from gcpp_edge.errors import InputError, ShapeError

Inputs = Mapping[str, Any]


class ExtraValues(NamedTuple):
    """by_frame: for each frame, by name, with a batch of one. shared: what has no batch, as a whole.

    Both are empty for networks without further inputs.
    """

    by_frame: list[dict[str, NDArray[Any]]]
    shared: dict[str, NDArray[Any]]


_NONE = ExtraValues([], {})


def resolve_inputs(inputs: Inputs | None, count: int, contract: Contract) -> ExtraValues:
    """The values for `count` frames. Raises InputError for missing and unknown names, ShapeError for wrong arrays.

    An input with a batch is given without it, for all frames, or with one of `count`.
    """
    entries = contract.extra_inputs
    if not entries and not inputs:
        return _NONE
    given = dict(inputs or {})
    names = [entry.name for entry in entries]
    if missing := [name for name in names if name not in given]:
        raise InputError(f"inputs: this network also needs {_text(missing)}. Pass inputs={{{missing[0]!r}: array}}.")
    if unknown := [name for name in given if name not in names]:
        known = _text(names) if names else "none besides the picture"
        raise InputError(f"inputs: this network has no input {_text(unknown)}. Its further inputs: {known}.")
    values = ExtraValues([{} for _ in range(count)], {})
    for entry in entries:
        array = _checked(entry, given[entry.name], count)
        if not entry.has_batch:
            values.shared[entry.name] = array
        elif array.ndim == len(entry.shape):
            for index in range(count):
                values.by_frame[index][entry.name] = array[index : index + 1]
        else:
            for frame in values.by_frame:
                frame[entry.name] = array[None]
    return values


def _checked(entry: ExtraInput, value: Any, count: int) -> NDArray[Any]:
    array = np.asarray(value)
    dtype = np.dtype(entry.dtype)
    shapes = [entry.shape[1:], (count, *entry.shape[1:])] if entry.has_batch else [entry.shape]
    if array.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ShapeError(f"inputs: {entry.name!r} must have the shape {expected}; found {array.shape}.")
    if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ShapeError(f"inputs: {entry.name!r} must hold {dtype}; found {array.dtype}.")
    return array.astype(dtype, copy=False)


def _text(names: list[str]) -> str:
    return ", ".join(map(repr, names))
