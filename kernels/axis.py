"""One axis of an axis-aligned map from a destination grid to a source grid."""

from __future__ import annotations

from typing import NamedTuple


class Axis(NamedTuple):
    """Where the pixels of a destination axis lie on a source axis, with half-pixel centres.

    source = (d + 0.5) * scale + offset - 0.5 for the destination pixels d in [start, stop), clamped to [0, n - 1].
    A destination pixel outside [start, stop) has no source: it is unseen, or filled.
    """

    scale: float
    offset: float
    start: int
    stop: int

    def seen(self, destination_size: int, source_size: int) -> tuple[int, int]:
        """[start, stop) cut to the destination; empty where the source is."""
        if source_size == 0:
            return 0, 0
        start = min(max(self.start, 0), destination_size)
        return start, min(max(self.stop, start), destination_size)
