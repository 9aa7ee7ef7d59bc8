"""Builds from a copy of the checkout, with and without a C compiler. They need no network."""

import os
import shutil
import tarfile
from pathlib import Path

import numpy
import pytest

for module in ("Cython", "setuptools", "wheel", "pip"):
    pytest.importorskip(module, reason=f"builds without isolation need {module}")

REPORT = """
import sys
sys.path[:0] = sys.argv[1:]
import gcpp_edge, gcpp_edge.kernels, gcpp_edge.export.vjp
assert gcpp_edge.kernels.__file__.startswith(sys.argv[1]), gcpp_edge.kernels.__file__
print(*gcpp_edge.kernels.available())
print(gcpp_edge.kernels.reason())
"""


def install(python, source, target, **environment):
    """A normal install into a folder of its own; (instruction sets, reason) as the installed package tells them."""
    arguments = ("--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--target", target, source)
    python("-I", "-m", "pip", "install", *arguments, env={**os.environ, "GCPP_NVCC": "", **environment})
    # -S: an editable install beside NumPy would lend its own kernels
    site = Path(numpy.__file__).parent.parent
    available, reason = python("-I", "-S", "-c", REPORT, target, site).split("\n")[:2]
    return available.split(), reason


def test_without_a_compiler_the_install_works_and_says_that_numpy_is_used(checkout, tmp_path, python):
    available, reason = install(python, checkout, tmp_path / "site", CC="false")
    assert available == ["numpy"]
    assert "no working C compiler" in reason and "reinstall" in reason


@pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler here")
def test_the_sdist_holds_the_sources_of_the_kernels_and_builds_them(checkout, tmp_path, python):
    code = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    python("-c", code, cwd=checkout)
    (archive,) = (checkout / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    sources = [file for pattern in ("*.c", "*.h", "*.pyx", "*.pyi") for file in (checkout / "kernels").rglob(pattern)]
    assert {str(file.relative_to(checkout)) for file in sources} <= names
    available, reason = install(python, archive, tmp_path / "site", GCPP_CFLAGS="-O0")
    assert available[-2:] == ["scalar", "numpy"] and reason == ""
