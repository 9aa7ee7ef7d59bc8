"""What a stream counts. Every frame that was captured is in exactly one of the others, or still under way."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from gcpp_edge.pipeline.events import Trouble

BUCKETS_MS = (1, 2, 5, 10, 20, 33, 50, 100, 200, 500, 1000, 2000, 5000)
WINDOW = 1000  # latest latencies that percentiles are taken of
KEPT = 100  # latest troubles that are kept word for word
STATES = OPENING, RUNNING, STALLED, LOST, ENDED = "opening", "running", "stalled", "lost", "ended"  # of a source
FATES = ("explained", "carried", "stale", "skipped", "failed")  # what becomes of a frame: a counter of Report each


@dataclass
class OfSink:
    """Results that a sink was handed: written, or dropped since it was slow. broken: why it was closed early."""

    written: int = 0
    dropped: int = 0
    broken: str = ""


@dataclass
class Latencies:
    """Milliseconds from a frame's arrival to its map: percentiles of the latest, and counts in buckets of all.

    buckets[i]: of at most BUCKETS_MS[i] and more than the one before; the last of more than all of them.
    """

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    total_ms: float = 0.0

    def add(self, milliseconds: float) -> None:
        """Count one."""
        self.recent.append(milliseconds)
        self.buckets[bisect_left(BUCKETS_MS, milliseconds)] += 1
        self.total_ms += milliseconds

    def copy(self) -> Latencies:
        """One of its own. Pages and windows ask for a report with every frame, and deepcopy took half a millisecond."""
        return Latencies(self.recent.copy(), self.buckets.copy(), self.total_ms)

    def percentile(self, percent: float) -> float:
        """By nearest rank among the latest; 0 where there is none."""
        ordered = sorted(self.recent)
        return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)] if ordered else 0.0


@dataclass
class Report:
    """What has happened in a stream.

    captured = explained + carried + stale + skipped + failed + under_way.

    captured: frames that the source gave. explained: with a map of their own. carried: with an earlier frame's map
    (every). stale: dropped for a newer one (policy latest). skipped: left out to keep to a rate (max_fps), left when
    the stream was stopped, or of a clip that was not complete. failed: the explainer refused them. under_way: not
    done yet. unreadable: frames that the source could not read, which have no id. reconnects: times that the source
    was lost and found again. stalls: times that nothing came for longer than expected. resets: times that smoothing
    began anew. seconds: since the first frame. fps: frames a second that got a map, over the latest seconds.
    """

    captured: int = 0
    explained: int = 0
    carried: int = 0
    stale: int = 0
    skipped: int = 0
    failed: int = 0
    under_way: int = 0
    unreadable: int = 0
    reconnects: int = 0
    stalls: int = 0
    resets: int = 0
    events: int = 0
    monitor_failures: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    source_state: str = OPENING
    latencies: Latencies = field(default_factory=Latencies)
    sinks: dict[str, OfSink] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON, latencies as p50, p90, p99 and mean in milliseconds."""
        found = {name: value for name, value in vars(self).items() if name not in ("latencies", "sinks", "troubles")}
        count = sum(self.latencies.buckets)
        latency = {f"p{percent}": self.latencies.percentile(percent) for percent in (50, 90, 99)}
        latency["mean"] = self.latencies.total_ms / count if count else 0.0
        return found | {
            "latency_ms": latency,
            "sinks": {name: asdict(one) for name, one in self.sinks.items()},
            "troubles": [trouble._asdict() for trouble in self.troubles],
        }
