"""The CUDA kernels on the CPU: compiled as C++, a fiber a thread, over the memory of NumPy arrays.

    import emulator                          # tests/conftest.py puts it on the path

    if emulator.missing(): ...               # why it cannot be built here, "" if it can
    emulator.launch(name, grid, block, shared_bytes, arguments)    # as the device's launch; addresses are the host's
    emulator.table()                         # a KernelTable on NumPy arrays

The first use compiles (some seconds) into build/, named by what was compiled. A launch that CUDA would refuse or hang
in raises LaunchError. GCPP_CFLAGS adds flags, such as a sanitizer's; CXX names the compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

import numpy as np

from gcpp_edge import kernels
from gcpp_edge.kernels import KernelTable
from gcpp_edge.kernels.arguments import address_of
from gcpp_edge.kernels.cuda_table import CudaKernels, Size

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[2] / "build" / "emulator"
SOURCES = Path(kernels.__file__).parent
FLAGS = ["-std=c++17", "-O2", "-g1", "-fPIC", "-shared", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas"]  # unroll
NAN = 0xFF  # the byte of which a float is NaN: scratch memory that is read before it is written shows

_kept = threading.local()


class LaunchError(Exception):
    """A launch that CUDA would refuse, or that would never end."""


def missing() -> str:
    """Why there is no emulator here; "" where there is one."""
    return "" if shutil.which(_compiler()) else f"no C++ compiler ({_compiler()}) to build the CUDA emulator with"


def launch(name: str, grid: Size, block: Size, shared_bytes: int, arguments: bytes, *, backwards: bool = False) -> None:
    """Run a kernel to its end, its blocks and threads in order or backwards. `arguments`: its one struct."""
    message = ctypes.create_string_buffer(512)
    sizes = ctypes.c_uint * 3
    failed = _library().gcpp_emulator_launch(
        name.encode(),
        sizes(*grid),
        sizes(*block),
        shared_bytes,
        arguments,
        len(arguments),
        backwards,
        message,
        len(message),
    )
    if failed:
        raise LaunchError(message.value.decode())


def scratch(size: int) -> int:
    """The address of that many bytes, until the thread asks again."""
    _kept.block = np.full(size, NAN, np.uint8)
    return address_of(_kept.block)


@cache
def table(backwards: bool = False) -> KernelTable:
    """The CUDA kernels on NumPy arrays."""

    def launch_in_order(name: str, grid: Size, block: Size, shared_bytes: int, arguments: bytes) -> None:
        launch(name, grid, block, shared_bytes, arguments, backwards=backwards)

    return KernelTable("cuda-emulator", CudaKernels(launch_in_order, scratch, address_of))


def _compiler() -> str:
    return os.environ.get("CXX") or "g++"


@cache
def _library() -> ctypes.CDLL:
    path = _built()
    library = ctypes.CDLL(str(path))
    library.gcpp_emulator_launch.argtypes = [
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_uint),
        ctypes.POINTER(ctypes.c_uint),
        ctypes.c_uint,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]
    return library


def _built() -> Path:
    """The shared library of these sources, from an earlier run or compiled now."""
    extra = os.environ.get("GCPP_CFLAGS", "").split()
    command = [_compiler(), *FLAGS, *extra, *(f"-I{SOURCES / part}" for part in ("", "cpu", "cuda"))]
    path = BUILD / f"emulator-{_digest(command)}.so"
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            made = Path(folder) / path.name
            result = subprocess.run(
                [*command, "-o", str(made), str(HERE / "emulator.cpp")], capture_output=True, text=True
            )
            if result.returncode:
                raise AssertionError(f"the CUDA emulator does not compile:\n{result.stderr}")
            made.replace(path)
    return path


def _digest(command: list[str]) -> str:
    digest = hashlib.sha256(" ".join(command).encode())
    files = [*HERE.glob("*.cpp"), *HERE.glob("*.h"), *SOURCES.glob("*.h"), *SOURCES.glob("cpu/*.h")]
    for file in sorted([*files, *SOURCES.glob("cuda/*.h"), *SOURCES.glob("cuda/*.cu")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
