"""One sink with its thread: whatever it does, it never stops the stream."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock, Thread

from gcpp_edge.errors import GcppError
from gcpp_edge.pipeline.handover import Handover
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Sink
from gcpp_edge.pipeline.tally import Tally

_log = logging.getLogger(__name__)
RECORDER_SIZE = 8  # results that may wait for a file; a viewer wants none but the newest
PATIENCE_S = 10.0  # that a stream with policy "all" waits for a recorder which takes nothing


class Outlet:
    """Hands results to a sink.

    waits: a recorder gets every result, and the stream waits for it (policy "all"); else results that it is too slow
    for are dropped. on_broken: called once the sink cannot be used any more.
    """

    def __init__(self, sink: Sink, waits: bool, tally: Tally, on_broken: Callable[[], None]) -> None:
        self.sink = sink
        self._waits = waits and not sink.is_viewer
        self._tally, self._counts = tally, tally.of_sink(sink.name)
        self._on_broken = on_broken
        self._results: Handover[Result] = Handover(1 if sink.is_viewer else RECORDER_SIZE, replaces=not self._waits)
        self._lock, self._in_hand = Lock(), 0
        self.thread = Thread(target=self._work, name=f"gcpp-sink {sink.name}", daemon=True)
        self.thread.start()

    @property
    def is_broken(self) -> bool:
        """Whether the sink was closed early."""
        return bool(self._counts.broken)

    def give(self, result: Result) -> None:
        """Hand it on: at once, or where the sink must have every result, when it has room."""
        if self._results.put(result, PATIENCE_S if self._waits else None) is None:
            return
        self._tally.count_in(self._counts, "dropped")
        if self._waits and not self._results.is_closed:
            self._break(f"took nothing for {PATIENCE_S:.0f} s")

    def finish(self) -> None:
        """Let it work off what it has; returns at once. `join` waits."""
        self._results.close()

    def join(self, timeout: float) -> None:
        """Wait until the sink is closed; one that hangs is left behind, with what it had as dropped."""
        self.thread.join(timeout)
        if not self.thread.is_alive():
            return
        self._break(f"did not finish within {timeout:.0f} s, and was left behind")
        with self._lock:
            left, self._in_hand = self._in_hand, 0
        self._tally.count_in(self._counts, "dropped", left + sum(1 for _ in self._results))

    def _work(self) -> None:
        try:
            for result in self._results:
                if self.is_broken:
                    self._tally.count_in(self._counts, "dropped")
                else:
                    self._write(result)
        except (GcppError, OSError) as error:
            self._break(str(error))
        except Exception as error:  # noqa: BLE001  a defect of one sink must not end the stream
            _log.exception("sink %s", self.sink.name)
            self._break(f"{type(error).__name__}: {error}")
        finally:
            self._results.close()
            self._close()
            self._tally.count_in(self._counts, "dropped", sum(1 for _ in self._results))

    def _write(self, result: Result) -> None:
        fate, self._in_hand = "dropped", 1
        try:
            self.sink.write(result)
            fate = "written"
        finally:
            with self._lock:
                held, self._in_hand = self._in_hand, 0
            self._tally.count_in(self._counts, fate, held)  # of one that was left behind it was counted

    def _close(self) -> None:
        try:
            self.sink.close()
        except (GcppError, OSError) as error:
            self._break(str(error))
        except Exception as error:  # noqa: BLE001  as above
            _log.exception("sink %s", self.sink.name)
            self._break(f"{type(error).__name__}: {error}")
        remark = getattr(self.sink, "remark", "")
        if remark:
            self._tally.tell(self.sink.name, remark)

    def _break(self, reason: str) -> None:
        if self.is_broken:
            return
        self._counts.broken = reason
        self._results.close()
        text = reason.removeprefix(f"{self.sink.name}: ").rstrip(".")
        self._on_broken()
        self._tally.tell(self.sink.name, f"{text}. It is left out from here on.")
