"""What happened to the machine while something was measured: clocks, other processes, throttling.

A reading is taken before and one after; clocks are looked at in between. `root` is the root of the file system.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gcpp_edge.bench.gpu_clock import GpuClock
from gcpp_edge.bench.machine import CPUS, ROOT, allowed_cores, mhz_now, number, read_text

LEAST_S = 0.5  # of the cores' time: the kernel counts it in hundredths of a second
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Conditions:
    """Of a run. cores: that we may use.

    busy, others, steal: shares of their time, 0 to 1: spent by us, by other processes, and taken by the hypervisor.
    mhz, gpu_mhz: the clock of the fastest core and of the GPU, as they were seen while it ran. slowed: what slowed the
    machine down, and how often. load: the load average of the last minute before the run.
    """

    cores: int = 0
    load: float = 0.0
    busy: float = 0.0
    others: float = 0.0
    steal: float = 0.0
    mhz: tuple[float, ...] = ()
    gpu_mhz: tuple[float, ...] = ()
    slowed: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Rounded."""
        figures = {name: round(getattr(self, name), 4) for name in ("load", "busy", "others", "steal")}
        clocks = {name: [round(each, 1) for each in getattr(self, name)] for name in ("mhz", "gpu_mhz")}
        return asdict(self) | figures | clocks


class Reading(NamedTuple):
    """Counters of the kernel. Seconds, summed over our cores. events: counts that only rise, by what they mean."""

    total_s: float
    idle_s: float
    steal_s: float
    own_s: float
    events: dict[str, int]


class Watch:
    """Reads the counters when it is made and when it is done; `look` in between, and at the end, notes the clocks."""

    def __init__(self, load: float, with_gpu: bool = False, root: Path = ROOT) -> None:
        self._load, self._root = load, root
        self._gpu = GpuClock(root) if with_gpu else None
        self._mhz: list[float] = []
        self._gpu_mhz: list[float] = []
        self._gpu_slowed: Counter[str] = Counter()
        self._looked_at = 0.0
        self._first = read(root)

    def look(self, every_s: float = 0.25, clock: Callable[[], float] = time.perf_counter) -> None:
        """Note the clocks, at most every so often: asking costs the cores time."""
        if self._mhz and clock() - self._looked_at < every_s:
            return
        self._looked_at = clock()
        self._note()

    def _note(self) -> None:
        self._mhz.append(mhz_now(self._root))
        if self._gpu is not None:
            self._gpu_mhz.append(self._gpu.mhz())
            self._gpu_slowed.update(f"the GPU's {reason}" for reason in self._gpu.slowed_by())

    def done(self) -> Conditions:
        """What happened since."""
        self._note()
        last, first = read(self._root), self._first
        total = last.total_s - first.total_s
        idle, steal, own = (getattr(last, name) - getattr(first, name) for name in ("idle_s", "steal_s", "own_s"))
        parts = own, total - idle - steal - own, steal
        busy, others, stolen = (min(max(part / total, 0.0), 1.0) if total >= LEAST_S else 0.0 for part in parts)
        slowed = {name: count - first.events.get(name, 0) for name, count in last.events.items()}
        slowed |= self._gpu_slowed
        return Conditions(
            cores=len(allowed_cores()),
            load=self._load,
            busy=busy,
            others=others,
            steal=stolen,
            mhz=tuple(filter(None, self._mhz)),
            gpu_mhz=tuple(filter(None, self._gpu_mhz)),
            slowed={name: count for name, count in slowed.items() if count > 0},
        )


def load_average(root: Path = ROOT) -> float:
    """Of the last minute: how many threads ran or waited; 0 where nothing says."""
    return number((read_text(root / "proc/loadavg").split() or ["0"])[0])


def read(root: Path = ROOT) -> Reading:
    """The counters now."""
    total = idle = steal = 0.0
    cores = set(allowed_cores())
    for line in read_text(root / "proc/stat").splitlines():
        found = re.match(r"cpu(\d+) (.*)", line)
        if found and int(found[1]) in cores:
            ticks = [int(value) for value in found[2].split()[:8]]  # behind them guests, which users hold already
            total += sum(ticks)
            idle += sum(ticks[3:5])
            steal += sum(ticks[7:8])
    total_s, idle_s, steal_s = (value / _TICKS_A_SECOND for value in (total, idle, steal))
    return Reading(total_s, idle_s, steal_s, time.process_time(), _events(root))


def _events(root: Path) -> dict[str, int]:
    hot = 0
    for core in allowed_cores():
        hot += int(number(read_text(root / CPUS / f"cpu{core}/thermal_throttle/core_throttle_count")))
    events = {"heat": hot, "the processor-time limit of its container": _quota(root)}
    currents = sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))  # of a Jetson
    events["over-current"] = sum(int(number(read_text(path))) for path in currents)
    board = read_text(root / "sys/devices/platform/soc/soc:firmware/get_throttled").strip()  # of a Raspberry Pi
    if re.fullmatch(r"[0-9a-fA-F]+", board) and int(board, 16) & 0xF:
        events["low voltage or heat"] = 1
    return events


def _quota(root: Path) -> int:
    """How often a container's quota has stopped its processes."""
    for place in ("sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu/cpu.stat"):
        found = re.search(r"^nr_throttled (\d+)$", read_text(root / place), re.MULTILINE)
        if found:
            return int(found[1])
    return 0
