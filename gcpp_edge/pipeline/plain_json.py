"""JSON that every reader takes: lines in a file, and messages to a browser."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np


def json_text(value: Any) -> str:
    """The value as one line of strict JSON, in ASCII: what is not a finite number becomes null.

    Numbers and arrays of NumPy become plain ones, named tuples objects.
    """
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
