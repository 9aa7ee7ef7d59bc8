"""Working in arrays that are there: a copy into an earlier one, and checks that make none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]


def kept(values: Array, old: Array | None, dtype: DTypeLike = np.float32) -> Array:
    """A copy of the values: in `old` where it has their shape and this dtype, else in an array of its own."""
    if old is None or not matches(old, values.shape, dtype):
        return np.array(values, dtype, order="C")
    np.copyto(old, values, casting="same_kind")
    return old


def matches(array: Array | None, shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Whether there is an array, of this shape and dtype."""
    return array is not None and array.shape == shape and array.dtype == dtype


def is_finite(values: Array) -> bool:
    """Whether no value is NaN or infinite; minimum and maximum pass NaN on. For floats, and no array is made."""
    return not values.size or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def is_below_infinity(values: Array) -> bool:
    """Whether no value is NaN or plus infinity."""
    return not values.size or bool(values.max() < np.inf)
