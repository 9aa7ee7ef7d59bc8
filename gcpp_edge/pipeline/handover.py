"""From one thread to the next: a bounded queue that waits for room, or gives up what is oldest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition
from time import monotonic
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Handover(Generic[Item]):
    """At most `size` items on their way, in order.

    replaces: a newcomer pushes out the oldest where there is no room, and nobody waits (the newest wins); else whoever
    puts waits for room (back-pressure). Every item comes out once: of `take`, or as the answer of the `put` that
    it had to give way to.
    """

    def __init__(self, size: int, replaces: bool) -> None:
        self._items: deque[Item] = deque()
        self._size, self._replaces = size, replaces
        self._changed = Condition()
        self._is_closed = False

    def put(self, item: Item, timeout: float | None = None) -> Item | None:
        """Hand it over. Returns what nobody will get for it: the oldest item, or itself after `close` or `timeout`."""
        with self._changed:
            if not self._replaces:
                self._changed.wait_for(lambda: self._is_closed or len(self._items) < self._size, timeout)
            if self._is_closed or (not self._replaces and len(self._items) >= self._size):
                return item
            given_up = self._items.popleft() if len(self._items) >= self._size else None
            self._items.append(item)
            self._changed.notify_all()
            return given_up

    def take(self, timeout: float | None = None) -> Item | None:
        """The next item, waited for; None where it has ended, or nothing came in time (`has_ended` tells which)."""
        end = None if timeout is None else monotonic() + timeout
        with self._changed:
            while not self._items and not self._is_closed:
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[Item]:
        while (item := self.take()) is not None:
            yield item

    @property
    def has_ended(self) -> bool:
        """Whether it was closed and emptied."""
        with self._changed:
            return self._is_closed and not self._items

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is let in."""
        with self._changed:
            return self._is_closed

    def close(self) -> None:
        """Let nothing more in; what is there still comes out. More than once does no harm."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
