"""Runs one function in a process of its own, so that what it breaks or eats up ends with it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
EVERY_SECONDS = 0.2


def apart(function: Callable[[str], Row], name: str, seconds: float, gigabytes: float) -> Row:
    """What function(name) returns, or a row that names what it died of. Forked: imports are not paid again."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(name)), daemon=True)
    start = time.perf_counter()
    process.start()
    sender.close()
    died = ""
    while not receiver.poll(EVERY_SECONDS) and process.is_alive() and not died:
        if time.perf_counter() - start > seconds:
            died = f"not done after {seconds:.0f} s"
        elif _resident_gigabytes(process.pid) > gigabytes:
            died = f"needs more than {gigabytes:g} GB"
    if died:
        process.kill()
    try:
        row: Row = receiver.recv()
    except EOFError:
        process.join()
        row = {"network": name, "verdict": "failed", "reason": died or f"process ended with {process.exitcode}"}
        row["seconds"] = round(time.perf_counter() - start, 1)
    process.join()
    return row


def _resident_gigabytes(pid: int | None) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:  # it has just ended, or this is no Linux
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0 kB")
    return int(line.split()[1]) / 2**20
