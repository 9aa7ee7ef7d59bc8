"""Frames of any pace, as a video of constant rate has them."""

from __future__ import annotations

FASTEST_FPS, USUAL_FPS = 240.0, 30.0
LONGEST_GAP_S = 10.0  # longer ones are left out: an hour without a camera is no hour of one picture
_TOLERANCE = 0.75  # of a slot, by which a frame may be early or late and still gets the one that is next


def rate_of(fps: float) -> float:
    """Frames a second for a video of a source that says this; a usual rate where it says nothing sensible."""
    return fps if 1 <= fps <= FASTEST_FPS else USUAL_FPS


class Slots:
    """Says for each frame how many slots of a video have passed since the one before.

    By timestamps, so that the video plays in real time: 1 where frames come as fast as the video runs, more where some
    were dropped, 0 for one that came too soon. Where time stands still, goes back or leaps (a file that starts over, a
    clock that is set), it goes on with the next slot.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._slot = -1
        self._origin = self._last = 0.0

    def step(self, timestamp: float) -> int:
        """Slots from the frame before to this one; 1 for the first."""
        gap, self._last = timestamp - self._last, timestamp
        following = self._slot + 1
        if following == 0 or not 0 < gap <= LONGEST_GAP_S:
            self._origin = timestamp - following / self._fps
        place = (timestamp - self._origin) * self._fps
        # cameras are not steady: rounding alone would drop and repeat frames at the edge between two slots
        slot = following if abs(place - following) < _TOLERANCE else max(self._slot, round(place))
        passed, self._slot = slot - self._slot, slot
        return passed
