"""The C kernels as a 64-bit ARM core runs them: cross-compiled, under qemu-user, over the memory of NumPy arrays.

    import aarch64                           # tests/conftest.py puts it on the path

    if aarch64.missing(): ...                # why it cannot be run here, "" if it can
    aarch64.table("neon")                    # a KernelTable on NumPy arrays; or "scalar"

Arrays go to a child process (server.c), and what was written comes back. There they lie at the same offset in a page,
between pages that may not be touched; inputs are read-only, and the surroundings of outputs are looked at. What ends
the process is a KernelError here, and the next call has a new one. GCPP_AARCH64_CC names the compiler,
GCPP_AARCH64_CFLAGS adds flags, such as a sanitizer's. The first use compiles (some seconds) into build/, named by what
was compiled.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gcpp_edge import kernels
from gcpp_edge.kernels import KernelTable, reference
from gcpp_edge.kernels.arguments import address_of

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[2] / "build" / "aarch64"
SOURCES = Path(kernels.__file__).parent
FLAGS = ["-O3", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
QEMU = "qemu-aarch64"
ISAS = ("neon", "scalar")
PAGE = 4096  # of server.c
STATUS = {-1: "no memory", -2: "no such kernel or instruction set", -3: "written outside an array"}
DTYPES = {"f": 0, "e": 1, "B": 2}
RULES = ("gradcam", "gradcam++", "gradcam++-signed")
FORMATS = ("bgr", "rgb", "bgra", "rgba", "gray", "gray16", "nv12")


class KernelError(Exception):
    """A kernel that crashed, or wrote where it may not."""


def missing() -> str:
    """Why the kernels cannot be run for 64-bit ARM here; "" where they can."""
    if platform.machine() == "aarch64":
        return "this machine is 64-bit ARM itself"
    packages = {compiler(): "gcc-aarch64-linux-gnu libc6-dev-arm64-cross", QEMU: "qemu-user"}
    absent = [program for program in packages if not shutil.which(program)]
    install = " ".join(packages[program] for program in absent)
    return f"{' and '.join(absent)} not found: apt install {install}" if absent else ""


def compiler() -> str:
    """The C compiler for 64-bit ARM."""
    return os.environ.get("GCPP_AARCH64_CC") or "aarch64-linux-gnu-gcc"


@cache
def table(isa: str) -> KernelTable:
    """The kernels for `isa` on NumPy arrays."""
    return KernelTable(f"{isa}-qemu", Kernels(isa))


class Request:
    """What a kernel is asked: arrays as blocks of memory, and arguments that refer to them."""

    def __init__(self, kernel: str, isa: str, written: list[Any], read: list[Any]) -> None:
        self.head = struct.pack("<16s16s", kernel.encode(), isa.encode())
        self.written = [_span(array) for array in written if array is not None]
        # an input that is overwritten in place lies in the block of the output
        self.blocks = self.written + [_span(array) for array in read if not self._block_of(_span(array)[0])]
        self.arguments = b""

    def integers(self, *values: int) -> Request:
        self.arguments += struct.pack(f"<{len(values)}q", *map(int, values))
        return self

    def reals(self, *values: float) -> Request:
        self.arguments += struct.pack(f"<{len(values)}d", *values)
        return self

    def array(self, array: Any) -> Request:
        if array is None:
            return self.integers(-1, 0)
        address = address_of(array)
        found = [i for i, (start, stop) in enumerate(self.blocks) if start <= address < max(stop, start + 1)]
        return self.integers(found[0], address - self.blocks[found[0]][0])

    def axis(self, axis: Any, destination: int, source: int) -> Request:
        return self.reals(axis.scale, axis.offset).integers(*axis.seen(destination, source))

    def map(self, map: Any, rows: Any, columns: Any, limits: tuple[float, float], size: tuple[int, ...]) -> Request:
        self.array(map).integers(*map.shape)
        self.axis(rows, size[0], map.shape[0]).axis(columns, size[1], map.shape[1])
        return self.reals(*limits)

    def picture(self, pixels: Any) -> Request:
        return self.array(pixels).integers(*pixels.shape, pixels.strides[0])

    def encoded(self) -> bytes:
        parts = [self.head, struct.pack("<q", len(self.blocks))]
        for i, (start, stop) in enumerate(self.blocks):
            parts += [struct.pack("<3q", start % PAGE, stop - start, i < len(self.written))]
            parts += [ctypes.string_at(start, stop - start)]
        return b"".join([*parts, self.arguments])

    def _block_of(self, address: int) -> bool:
        return any(start <= address < stop for start, stop in self.written)


class Kernels:
    """The kernels for one instruction set, as _cpu.pyx has them; in a process of their own or in that of all tests."""

    def __init__(self, isa: str, process: Server | None = None) -> None:
        self.isa = isa
        self.server = process or server()

    def cam(self, activations, gradients, rule, relu, out, weights=None, gradient_scale=1.0, poles=None) -> None:
        request = Request("cam", self.isa, [out, weights, poles], [activations, gradients])
        for array in (activations, gradients, out, weights, poles):
            request.array(array)
        targets = gradients.shape[1] if gradients.ndim > activations.ndim else 1
        positions = int(np.prod(activations.shape[2:]))
        constant = int(np.prod(gradients.shape[gradients.ndim - activations.ndim + 2 :])) != positions
        request.integers(activations.shape[0], targets, activations.shape[1], positions)
        request.integers(DTYPES[activations.dtype.char], DTYPES[gradients.dtype.char], RULES.index(rule))
        self.server.run(request.integers(constant, relu).reals(gradient_scale))

    def range(self, map, zero_low, out) -> None:
        reference.range(map, zero_low, out)

    def heatmap(self, map, rows, columns, low, high, out, limits=None) -> None:
        request = Request("heatmap", self.isa, [out], [map])
        request.map(map, rows, columns, _limits(low, high, limits), out.shape)
        self.server.run(request.array(out).integers(DTYPES[out.dtype.char], *out.shape))

    def overlay(self, frame, map, rows, columns, low, high, palette, alpha, dim, out, limits=None) -> None:
        request = Request("overlay", self.isa, [out], [frame, map, palette])
        request.map(map, rows, columns, _limits(low, high, limits), frame.shape)
        self.server.run(request.picture(frame).array(palette).reals(alpha, dim).picture(out))

    def guided(self, map, rows, columns, low, high, image, out, limits=None) -> None:
        request = Request("guided", self.isa, [out], [map, image])
        request.map(map, rows, columns, _limits(low, high, limits), out.shape[1:])
        self.server.run(request.array(image).integers(DTYPES[image.dtype.char]).array(out).integers(*out.shape))

    def preprocess(self, frame, format, rows, columns, color, scale, bias, fill, out) -> None:
        request = Request("preprocess", self.isa, [out], [frame, scale, bias, fill])
        height, width = frame.shape[0] * 2 // 3 if format == "nv12" else frame.shape[0], frame.shape[1]
        request.array(frame).integers(frame.strides[0], height, width, FORMATS.index(format), FORMATS.index(color))
        request.axis(rows, out.shape[1], height).axis(columns, out.shape[2], width)
        request.array(scale).array(bias).array(fill).array(out)
        self.server.run(request.integers(*out.shape[1:], DTYPES[out.dtype.char]))


class Server:
    """The child process. One request at a time; a new process where one ended. options: of qemu."""

    def __init__(self, program: Path, options: tuple[str, ...] = ()) -> None:
        self.command = [QEMU, *options, str(program)]
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, request: Request) -> None:
        with self.lock:
            process = self._running()
            try:
                process.stdin.write(request.encoded())
                process.stdin.flush()
                (status,) = struct.unpack("<i", self._read(4))
                for start, stop in request.written:
                    ctypes.memmove(start, self._read(stop - start), stop - start)
            except (BrokenPipeError, EOFError):
                with suppress(BrokenPipeError):  # what it did not take
                    process.stdin.close()
                raise KernelError(f"the kernel ended with status {process.wait()}; stderr says more") from None
        if status:
            raise KernelError(STATUS.get(status, str(status)))

    def close(self) -> None:
        """End the process; the next request has a new one."""
        if self.process is not None:
            self.process.communicate()

    def _running(self) -> Any:
        if self.process is None or self.process.poll() is not None:
            environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, env=environment)
        return self.process

    def _read(self, size: int) -> bytes:
        found = self.process.stdout.read(size)
        if len(found) != size:
            raise EOFError
        return found


@cache
def server() -> Server:
    """The process that all tables share."""
    return Server(program())


def program() -> Path:
    """The server of these sources, from an earlier run or compiled now."""
    extra = os.environ.get("GCPP_AARCH64_CFLAGS", "").split()
    sources = [HERE / "server.c", *sorted(SOURCES.glob("cpu/*.c"))]
    command = [compiler(), *FLAGS, *extra, f"-I{SOURCES}", f"-I{SOURCES / 'cpu'}", *map(str, sources)]
    path = BUILD / f"server-{_digest(command)}"
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            made = Path(folder) / path.name
            result = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True)
            if result.returncode:
                raise AssertionError(f"the kernels do not compile for 64-bit ARM:\n{result.stderr}")
            made.replace(path)
    return path


def _digest(command: list[str]) -> str:
    digest = hashlib.sha256(" ".join(command).encode())
    for file in sorted([HERE / "server.c", *SOURCES.glob("*.h"), *SOURCES.glob("cpu/*.h"), *SOURCES.glob("cpu/*.c")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _limits(low: float, high: float, limits: Any) -> tuple[float, float]:
    return (low, high) if limits is None else tuple(map(float, limits))


def _span(array: Any) -> tuple[int, int]:
    """The addresses from the first byte of an array to behind its last one, rows upwards too."""
    address = address_of(array)
    if array.size == 0:
        return address, address
    ways = [stride * (size - 1) for stride, size in zip(array.strides, array.shape, strict=True)]
    return address + sum(min(way, 0) for way in ways), address + sum(max(way, 0) for way in ways) + array.itemsize
