"""The newest result of a stream, and what is encoded of it: once for all viewers, and only when one of them waits.

Everything but `_attempt` runs in one event loop; drawing and encoding in one thread beside it. Nothing is queued: a
viewer holds the number of what it has, and asks for something newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

from gcpp_edge.errors import GcppError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.result import Result


class Closing(Exception):
    """The server is ending: whoever waits is to say goodbye."""


class Bell:
    """Wakes everybody who waits for something new."""

    def __init__(self) -> None:
        self._next, self._is_closed = asyncio.Event(), False

    def ring(self) -> None:
        """Wake all."""
        self._next.set()
        if not self._is_closed:
            self._next = asyncio.Event()

    def close(self) -> None:
        """Wake all for the last time."""
        self._is_closed = True
        self.ring()

    async def until(self, is_there: Callable[[], bool]) -> None:
        """Return when it is there. Raises Closing at the end."""
        while not self._is_closed:
            if is_there():
                return
            await self._next.wait()
        raise Closing


class Picture(NamedTuple):
    """One encoded overlay. number: of its result."""

    number: int
    capture: Capture
    content: bytes


class Newest:
    """The newest result and its encodings.

    number: counts results from 1; 0 before the first. encodes: pictures that were encoded for streams. failed: is told
    in one line why a result could not be drawn, once for each run of such results.
    """

    def __init__(
        self, bell: Bell, drawing: Executor, quality: int, max_fps: float, failed: Callable[[str], None]
    ) -> None:
        self.number, self.encodes = 0, 0
        self.result: Result | None = None
        self._bell, self._drawing, self._quality, self._failed = bell, drawing, quality, failed
        self._interval, self._due = 1 / max_fps, 0.0
        self._picture: Picture | None = None
        self._undrawable = 0  # number of the latest result that could not be encoded
        self._is_failing = False  # of the drawing thread alone: what was drawn last could not be
        self._encoding: asyncio.Task[None] | None = None
        self._texts: tuple[int, asyncio.Future[str]] | None = None

    def put(self, result: Result) -> None:
        """Take a newer result."""
        self.result, self.number = result, self.number + 1
        self._bell.ring()

    async def picture(self, after: int) -> Picture:
        """The newest encoded picture of a number above `after`, waited for. Raises Closing.

        An encoding that is under way is joined, so that viewers out of step cost no encodings of their own.
        """
        while True:
            if self._picture is not None and self._picture.number > after:
                return self._picture
            if self._encoding is None:
                await self._bell.until(lambda: self.number > max(after, self._undrawable))
                self._encoding = self._encoding or asyncio.ensure_future(self._encode())  # others woke as well
            await asyncio.shield(self._encoding)

    async def text(self, write: Callable[[Result, int], str]) -> tuple[int, str]:
        """The newest result as `write` puts it, and its number; written once for all who ask in the same way."""
        assert self.result is not None
        if self._texts is None or self._texts[0] != self.number:
            loop = asyncio.get_running_loop()
            self._texts = self.number, loop.run_in_executor(self._drawing, write, self.result, self.number)
        number, written = self._texts
        return number, await asyncio.shield(written)

    async def drawn(self, draw: Callable[[Result], bytes]) -> tuple[Capture, bytes] | None:
        """What `draw` makes of the newest result, for one who asks once; None where there is none to be had."""
        result = self.result
        if result is None:
            return None
        content = await asyncio.get_running_loop().run_in_executor(self._drawing, self._attempt, draw, result)
        return None if content is None else (result.capture, content)

    async def _encode(self) -> None:
        """Encode what is newest once the rate allows. Half an interval of credit lets frames jitter."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(max(0.0, self._due - self._interval / 2 - loop.time()))
            self._due = max(self._due, loop.time()) + self._interval
            number, result = self.number, self.result
            assert result is not None
            content = await loop.run_in_executor(
                self._drawing, self._attempt, lambda result: result.jpeg(self._quality), result
            )
            if content is None:
                self._undrawable = number
            else:
                self.encodes += 1
                self._picture = Picture(number, result.capture, content)
        finally:
            self._encoding = None

    def _attempt(self, draw: Callable[[Result], bytes], result: Result) -> bytes | None:
        try:
            content = draw(result)
        except (GcppError, opencv().error) as error:
            if not self._is_failing:
                self._failed(f"frame {result.capture.id} cannot be drawn: {error}")
            self._is_failing = True
            return None
        self._is_failing = False
        return content
