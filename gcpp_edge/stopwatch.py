"""How long the steps of a frame took."""

from __future__ import annotations

from time import perf_counter


class Stopwatch:
    """Starts when it is made; `mark` ends a step and names it."""

    def __init__(self) -> None:
        self._marks = [("", perf_counter())]

    def mark(self, name: str) -> None:
        """The step of this name ends here."""
        self._marks.append((name, perf_counter()))

    def shares_ms(self, count: int) -> dict[str, float]:
        """Milliseconds of each step, divided by `count`."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return {name: 1e3 * (stop - start) / count for (_, start), (name, stop) in pairs}
