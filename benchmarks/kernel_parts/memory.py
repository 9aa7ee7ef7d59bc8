"""The limit: this machine's memory, streamed by a loop that does nothing else (memory.c)."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

LINE = 64  # bytes
SWEPT_BYTES = 96 << 20  # more than a core's own caches, and than its usual share of the last one


class Memory:
    """Streams as many bytes as a kernel moves, on buffers of its own."""

    def __init__(self) -> None:
        self._stream = _compiled()
        self._swept = np.ones(SWEPT_BYTES, np.uint8)
        self._pool = ThreadPoolExecutor(16)

    def limit(self, read: int, written: int, threads: int = 1) -> Callable[[], None]:
        """Reads and writes so many bytes, in their proportion, each thread a part."""
        parts = [_buffers(read // threads, written // threads) for _ in range(threads)]
        jobs = [(part[0].ctypes.data, read // threads, part[1].ctypes.data, written // threads) for part in parts]

        def run(parts: object = parts) -> None:  # the buffers live as long as the job
            waiting = [self._pool.submit(self._stream, *job) for job in jobs[1:]]
            self._stream(*jobs[0])
            for job in waiting:
                job.result()

        return run

    def sweep(self) -> None:
        """Reads a lot: what a core held in its caches is in memory again."""
        self._stream(self._swept.ctypes.data, self._swept.nbytes, 0, 0)


def _buffers(read: int, written: int) -> list[np.ndarray]:
    buffers = []
    for size in (read, written):
        block = np.ones(size + 2 * LINE, np.uint8)
        start = -block.ctypes.data % LINE
        buffers.append(block[start : start + size + LINE])
    return buffers


def _compiled() -> Callable[..., int]:
    source = Path(__file__).with_name("memory.c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "memory.so"
        flags = ["-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", "-Wno-psabi"]
        plain = [flag for flag in flags if "vector-width" not in flag]  # x86's alone
        for chosen in (flags, plain):
            result = subprocess.run(["gcc", *chosen, "-o", str(library), str(source)], capture_output=True, text=True)
            if result.returncode == 0:
                break
        else:
            raise SystemExit(f"The limit is measured in C, and gcc does not compile it here:\n{result.stderr}")
        stream = ctypes.CDLL(str(library)).stream
    stream.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
    stream.restype = ctypes.c_uint64
    return stream
