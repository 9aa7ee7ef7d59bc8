"""Memory for the kernel tests: inputs that end or begin at a forbidden page, outputs between sentinels."""

import ctypes
import mmap

import aarch64
import emulator
import numpy as np
import pytest

from gcpp_edge import kernels

COMPILED = [isa for isa in kernels.available() if isa != "numpy"]
EMULATOR = "cuda-emulator"
QEMU = {f"{isa}-qemu": isa for isa in aarch64.ISAS}
PAGE = mmap.PAGESIZE
SENTINEL = 0xA5
MARGIN = 64  # bytes on either side of an output: a whole vector and more
PROT_NONE = 0  # the mmap module does not name it


def pytest_generate_tests(metafunc):
    """Tests that take `compiled` run for every instruction set of this machine, for 64-bit ARM and for CUDA."""
    if "compiled" in metafunc.fixturenames:
        isas = [*COMPILED] or [pytest.param("none", marks=pytest.mark.skip(reason=kernels.reason()))]
        isas += [pytest.param(isa, marks=unless(aarch64.missing())) for isa in QEMU]
        isas += [pytest.param(EMULATOR, marks=unless(emulator.missing()))]
        metafunc.parametrize("compiled", isas, indirect=True)


def unless(missing):
    return pytest.mark.skipif(bool(missing), reason=missing or "there")


@pytest.fixture
def compiled(request):
    if request.param == EMULATOR:
        return emulator.table()
    return aarch64.table(QEMU[request.param]) if request.param in QEMU else kernels.table(request.param)


@pytest.fixture
def reference():
    return kernels.table("numpy")


@pytest.fixture(params=["at the end of a page", "at the start of a page"])
def guarded(request):
    """A copy of an array whose neighbour page may not be touched: reading past the array ends the process.

    AddressSanitizer does not see vector gathers and masked loads; this does.
    """
    at_end = request.param == "at the end of a page"
    return lambda array: beside_forbidden_page(np.ascontiguousarray(array), at_end)


def beside_forbidden_page(array, at_end):
    pages = -(-max(array.nbytes, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for page in (0, pages + 1):
        assert protect(ctypes.c_void_p(address + page * PAGE), ctypes.c_size_t(PAGE), PROT_NONE) == 0
    offset = PAGE + (pages * PAGE - array.nbytes if at_end else 0)
    copy = np.ndarray(array.shape, array.dtype, buffer=memory, offset=offset)
    copy[...] = array
    return copy


@pytest.fixture
def output():
    """Makes arrays for results, and fails the test if their surroundings are written.

    They lie off the alignment of vectors, or with `aligned` on it.
    """
    blocks = []

    def make(shape, dtype, aligned=False):
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        block = np.full(3 * MARGIN + dtype.itemsize + size, SENTINEL, np.uint8)
        start = MARGIN + (-block.ctypes.data % MARGIN if aligned else dtype.itemsize)
        blocks.append((block, start, start + size))
        return block[start : start + size].view(dtype).reshape(shape)

    yield make
    for block, start, stop in blocks:
        assert (block[:start] == SENTINEL).all() and (block[stop:] == SENTINEL).all(), "written outside the output"
