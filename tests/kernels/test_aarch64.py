"""The build for 64-bit ARM: what its process catches, and that all of it compiles. The other files hold its numbers."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import aarch64
import numpy as np
import pytest

from gcpp_edge import kernels
from gcpp_edge.kernels import Axis

SOURCES = Path(kernels.__file__).parent
STRICT = ["-O2", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}", f"-I{SOURCES / 'cpu'}"]
CLANG = ["clang", "--target=aarch64-linux-gnu"]

needs_qemu = pytest.mark.skipif(bool(aarch64.missing()), reason=aarch64.missing() or "there")
needs_compiler = pytest.mark.skipif(not shutil.which(aarch64.compiler()), reason=f"no {aarch64.compiler()}")


def heatmap(table, out):
    table.heatmap(np.ones((3, 3), np.float32), Axis(0.5, 0.0, 0, 6), Axis(0.5, 0.0, 0, 6), 0.0, 2.0, out)
    return out


@needs_qemu
def test_an_instruction_set_of_another_machine_is_not_there():
    with pytest.raises(aarch64.KernelError, match="no such kernel or instruction set"):
        heatmap(aarch64.Kernels("avx2"), np.empty((6, 6), np.float32))


@needs_qemu
def test_reading_past_an_array_ends_the_process_and_the_next_call_has_a_new_one():
    channel, out = np.zeros((1, 1, 8), np.float32), np.empty((1, 8), np.float32)
    request = aarch64.Request("cam", "neon", [out], [channel, channel])
    for array in (channel, channel, out, None, None):
        request.array(array)
    request.integers(1, 1, 10_000, 8, 0, 0, 0, 0, 1).reals(1.0)  # ten thousand channels where one is
    with pytest.raises(aarch64.KernelError, match="ended with status"):
        aarch64.server().run(request)
    assert (heatmap(aarch64.table("neon"), np.empty((6, 6), np.float32)) == 0.5).all()


@needs_qemu
def test_writing_past_an_array_is_noticed():
    out = np.empty(64, np.float32)[:35]
    with pytest.raises(aarch64.KernelError, match="written outside an array"):
        heatmap(aarch64.Kernels("scalar"), np.lib.stride_tricks.as_strided(out, (6, 6), (20, 4)))


@pytest.mark.parametrize("command", [[aarch64.compiler()], CLANG], ids=["gcc", "clang"])
@pytest.mark.parametrize("source", sorted(SOURCES.glob("cpu/*.c")), ids=lambda path: path.name)
def test_the_kernels_compile_without_a_warning(command, source, tmp_path):
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]}")
    result = subprocess.run(
        [*command, *STRICT, "-c", source, "-o", tmp_path / "made.o"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@needs_compiler
def test_the_extension_compiles_and_has_every_instruction_set(tmp_path):
    pytest.importorskip("Cython")
    binding = SOURCES / "_cpu.pyx"
    if not binding.exists():
        pytest.skip("an installed package has no _cpu.pyx")
    generated, made = tmp_path / "_cpu.c", tmp_path / "_cpu.so"
    subprocess.run([sys.executable, "-m", "cython", "-3", str(binding), "-o", str(generated)], check=True)
    # the host's Python.h: both machines are LP64 and little-endian, and its pyconfig.h says nothing else of them
    headers = {sysconfig.get_path(name) for name in ("include", "platinclude")}
    includes = [f"-I{folder}" for folder in (*headers, SOURCES, SOURCES / "cpu")]
    flags = ["-O1", "-shared", "-fPIC", *includes]
    sources = [str(generated), *map(str, sorted(SOURCES.glob("cpu/*.c")))]
    result = subprocess.run([aarch64.compiler(), *flags, *sources, "-o", str(made)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    names = made.read_bytes()
    assert b"\0neon\0" in names and b"\0scalar\0" in names and b"PyInit__cpu" in names
