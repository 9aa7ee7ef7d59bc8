"""The kernels at real shapes, beside memory itself and beside OpenCV.

    python benchmarks/kernels.py [--only overlay] [--rounds 30] [--threads 2] [--plot kernels.png]

Every job of a case runs in turn, round after round, in an order that moves on, so that a disturbance hits all of them;
medians are reported.
`limit` is a loop in C that reads and writes as many bytes as the case has inputs and outputs, and does nothing else:
in cache, as it is right behind the network, and with all that the core's caches held swept out before. `share` is how
much of the limit's speed the best kernel has; 1 is memory speed. `opencv` is OpenCV's and NumPy's way to the same
result (checked), on one thread and on --threads, and how many times as long it takes as our kernel on as many. Kernels
are called below their checks of arguments, which cost some microseconds more a call (`checks_us`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from common import parser_of, save
from kernel_parts.cases import Case, all_cases
from kernel_parts.memory import Memory
from kernel_parts.report import plot, print_table

from gcpp_edge import kernels

WARM_SECONDS = 0.003
TIMED_SECONDS = 0.0004  # short calls are timed several at a time
SLOW_BYTES = 3_000_000  # NumPy is timed on small work alone

Job = Callable[[], object]


def jobs_of(case: Case, memory: Memory, threads: int) -> dict[str, Job]:
    """Warm jobs of a case by name; those that begin with "cold" want a sweep before each run."""
    best = kernels.available()[0]
    jobs: dict[str, Job] = {"limit": memory.limit(case.read, case.written)}
    jobs["cold limit"] = memory.limit(case.read, case.written)
    jobs["limit, threads"] = memory.limit(case.read, case.written, threads)
    for isa in kernels.available():
        if isa != "numpy" or case.read + case.written < SLOW_BYTES:
            jobs[isa] = partial(case.run, kernels.table(isa).implementation)
    jobs["cold"] = jobs[best]
    jobs["threads"] = partial(case.run, kernels.table(best, threads).implementation)
    jobs["checked"] = partial(case.run, kernels.table(best))
    if case.opencv:
        jobs["opencv"] = with_opencv_threads(case.opencv, 1)
        jobs["opencv, threads"] = with_opencv_threads(case.opencv, threads)
    return jobs


def with_opencv_threads(work: Job, threads: int) -> Job:
    def run() -> object:
        if cv2.getNumThreads() != threads:
            cv2.setNumThreads(threads)
        return work()

    return run


def warm_up(work: Job) -> int:
    """Runs for a while, and says how often `work` fits into TIMED_SECONDS.

    As it is right behind a network: what it wrote is in cache, and its vector instructions have woken the units.
    Without the second, the first 2.4 ms of AVX2 after a pause ran at half speed on a Xeon under a hypervisor.
    """
    start, count, now = time.perf_counter(), 0, 0.0
    while count == 0 or now - start < WARM_SECONDS:
        work()
        now, count = time.perf_counter(), count + 1
    return max(1, int(TIMED_SECONDS * count / (now - start)))


def timed_ms(work: Job, memory: Memory, cold: bool) -> float:
    count = warm_up(work)
    if cold:
        memory.sweep()
        count = 1
    start = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - start) * 1000 / count


def measured(case: Case, memory: Memory, rounds: int, threads: int) -> dict[str, object]:
    require_same(case)
    jobs = jobs_of(case, memory, threads)
    samples: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(timed_ms(jobs[name], memory, name.startswith("cold")))
    ms = {name: round(statistics.median(times), 5) for name, times in samples.items()}
    return result_of(case, ms)


def require_same(case: Case) -> None:
    """What OpenCV's chain computes is what the kernel computes, or it is no comparison."""
    if case.opencv is None:
        return
    case.run(kernels.table().implementation)
    found, scale = case.opencv(), max(1.0, float(np.abs(case.out).max())) if case.name.startswith("cam") else 1.0
    distance = float(np.abs(found.astype(np.float64) - case.out).max()) / scale
    if not distance <= case.tolerance:
        raise SystemExit(f"{case.name}: OpenCV's chain is {distance:.3g} away, more than {case.tolerance}.")


def result_of(case: Case, ms: dict[str, float]) -> dict[str, object]:
    best, bytes = kernels.available()[0], case.read + case.written
    beside = {"opencv": best, "opencv, threads": "threads"}
    ratios = {name: round(ms[name] / ms[ours], 2) for name, ours in beside.items() if name in ms}
    return {
        "name": case.name,
        "read": case.read,
        "written": case.written,
        "best": best,
        "ms": ms,
        "gigabytes_per_second": {name: round(bytes / ms[name] / 1e6, 1) for name in ("limit", "cold limit", best)},
        "share": {isa: round(ms["limit"] / ms[isa], 2) for isa in kernels.available() if isa in ms},
        "cold_share": round(ms["cold limit"] / ms["cold"], 2),
        "speedup": {"limit": round(ms["limit"] / ms["limit, threads"], 2), best: round(ms[best] / ms["threads"], 2)},
        "checks_us": round(1000 * (ms["checked"] - ms[best]), 1),
        "ratio": ratios,
    }


def options_of() -> argparse.Namespace:
    parser = parser_of(__doc__, "kernels", rounds=20)
    parser.set_defaults(threads=2)
    parser.add_argument("--only", default="", help="a part of the cases' names; nothing is saved")
    parser.add_argument("--plot", type=Path, help="draw the shares of the limit into this file")
    return parser.parse_args()


def main() -> None:
    options = options_of()
    memory = Memory()
    results = []
    for case in all_cases():
        if options.only in case.name:
            results.append(measured(case, memory, options.rounds, options.threads))
            print_table(results[-1:], options.threads, head=len(results) == 1)
    if options.plot:
        plot(results, options.plot)
    if not options.only:
        save(options, "kernels", {"opencv": cv2.__version__, "cases": results})


if __name__ == "__main__":
    main()
