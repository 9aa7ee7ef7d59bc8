"""Clips: what a call gave as one, or as a batch of them.

A clip is an array (T, H, W, 3), as its format has it with the time in front, or a list or tuple of T frames of one
size. A batch is a list or tuple of clips.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gcpp_edge.errors import FrameError
from gcpp_edge.frames import Frame, check_frame, list_frames

_FLAT = ("gray", "gray16", "nv12")  # frames of two axes


def list_clips(clips: Any, format: str) -> tuple[list[Any], bool]:
    """The clips of a call, and whether they came as a batch."""
    list_frames((), format)  # refuses an unknown format
    is_batch = isinstance(clips, (list, tuple)) and all(_is_clip(one, format) for one in clips)
    return (list(clips), True) if is_batch else ([clips], False)


def check_clip(clip: Any, format: str, count: int, where: str) -> list[Frame]:
    """The frames of a clip, as the kernels take them. FrameError unless there are `count`, all of one size."""
    if not isinstance(clip, (list, tuple, np.ndarray)):
        raise FrameError(f"{where}: expected a clip of {count} {format} frames, found {type(clip).__name__}.")
    if isinstance(clip, np.ndarray) and not _is_clip(clip, format):
        raise FrameError(
            f"{where}: expected a clip of {count} {format} frames, found one array {clip.shape}; this model explains "
            "clips. Pass an array with the time as its first axis, or a list of frames."
        )
    if len(clip) != count:
        raise FrameError(f"{where}: expected a clip of {count} frames, found {len(clip)}. Pick {count} of them.")
    frames = [check_frame(frame, format, f"{where}, frame {index}") for index, frame in enumerate(clip)]
    if len({frame.shape for frame in frames}) > 1:
        raise FrameError(f"{where}: expected frames of one size, found {frames[0].shape} and others.")
    return frames


def _is_clip(value: Any, format: str) -> bool:
    axes = 2 if format in _FLAT else 3
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > axes)
