"""One thread that owns every CUDA object.

CUDA's contexts belong to threads, and so do PyCUDA's objects: they are freed where they were made. So the driver is
opened on a thread of its own, everything is done there, and there it is closed. A hand-over and back takes 7 µs
(two-core x86, CPython 3.11).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from gcpp_edge.errors import DeviceError

T = TypeVar("T")


class Closable(Protocol):
    """What a worker opens and closes on its thread."""

    def close(self) -> None:
        """Give everything back."""


D = TypeVar("D", bound=Closable)

_EXIT_SECONDS = 10.0  # a kernel that hangs must not keep the interpreter from leaving


class Worker(Generic[D]):
    """A thread with an open driver. `open_driver` runs on it, and what it raises is raised here.

    The driver is closed, on its thread, by `close`, when the worker is garbage collected, and when the interpreter
    leaves. A process that was forked off may not use it: CUDA does not survive that.
    """

    def __init__(self, open_driver: Callable[[], D]) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()  # its put is safe in finalizers
        self._gate, self.is_closed, self._process = threading.Lock(), False, os.getpid()
        opening = _Call(open_driver)
        # A daemon: the interpreter joins other threads before it calls the finalizer that ends this one.
        thread = threading.Thread(target=_serve, args=(self._calls, opening), name="gcpp-edge device", daemon=True)
        thread.start()
        self._thread = thread
        self._finalizer = weakref.finalize(self, _stop, self._calls, thread, self._process, _EXIT_SECONDS)
        self.driver: D = opening.answer()

    def perform(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises on the thread. Work that performs work does it at once."""
        if threading.get_ident() == self._thread.ident and os.getpid() == self._process:
            return work()
        if os.getpid() != self._process:
            raise DeviceError(
                f"This device was opened in process {self._process}; process {os.getpid()} was forked off, and CUDA "
                "does not survive a fork. Load the model there, or start processes with 'spawn'."
            )
        call = _Call(work)
        with self._gate:
            if self.is_closed:
                raise DeviceError("This device is closed. Load the model again.")
            self._calls.put(call)
        result: T = call.answer()
        return result

    def close(self) -> None:
        """Waits for the work that is going on, then closes the driver. More than once does no harm."""
        if os.getpid() != self._process:
            return
        with self._gate:
            self.is_closed = True
        if self._finalizer.detach():
            _stop(self._calls, self._thread, self._process, None)


class _Call:
    """Work on its way to the thread and back."""

    __slots__ = ("_done", "_error", "_result", "_work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = threading.Lock()  # half the cost of an Event
        self._done.acquire()

    def run(self) -> Any:
        work, self._work = self._work, None
        try:
            assert work is not None
            self._result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the work came from
            self._error = error
        del work  # before the caller goes on: what the work held may be closed next
        result = self._result
        self._done.release()
        return result

    def answer(self) -> Any:
        self._done.acquire()
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


def _serve(calls: SimpleQueue[_Call | None], opening: _Call) -> None:
    """The thread. It holds no reference to the worker, and between calls none to anything of its callers."""
    driver = opening.run()
    del opening
    if driver is None:
        return
    try:
        call = calls.get()
        while call is not None:
            call.run()
            del call
            call = calls.get()
    finally:
        driver.close()


def _stop(calls: SimpleQueue[_Call | None], thread: threading.Thread, process: int, seconds: float | None) -> None:
    if os.getpid() != process:  # a forked child has the object, but not the thread
        return
    calls.put(None)
    if threading.get_ident() != thread.ident:
        thread.join(seconds)
