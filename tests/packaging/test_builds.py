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
    sources = [
        file for pattern in ("*.c", "*.h", "*.cu", "*.pyx", "*.pyi") for file in (checkout / "kernels").rglob(pattern)
    ]
    assert {str(file.relative_to(checkout)) for file in sources} <= names
    available, reason = install(python, archive, tmp_path / "site", GCPP_CFLAGS="-O0")
    assert available[-2:] == ["scalar", "numpy"] and reason == ""


NVCC = """#!/bin/sh
echo "$@" >> "$0.log"
if [ "$1" = --list-gpu-code ]; then echo sm_75 sm_87 sm_900; exit; fi
while [ "$1" != -o ]; do shift; done
echo made > "$2"
"""


@pytest.fixture
def nvcc(tmp_path):
    """A compiler that writes a fatbin of its own, and a log of how it was called."""
    script = tmp_path / "nvcc"
    script.write_text(NVCC)
    script.chmod(0o755)
    return script


def compilations(nvcc):
    return [line for line in Path(f"{nvcc}.log").read_text().splitlines() if "-fatbin" in line]


def installed_cuda(site):
    return {path.name: path for path in (site / "gcpp_edge" / "kernels" / "cuda").iterdir()}


def test_the_cuda_kernels_are_compiled_where_nvcc_is_and_only_when_they_changed(checkout, tmp_path, python, nvcc):
    for site in ("first", "second"):
        install(python, checkout, tmp_path / site, CC="false", GCPP_NVCC=str(nvcc))
        found = installed_cuda(tmp_path / site)
        assert found["gcpp.fatbin"].read_text() == "made\n" and "gcpp.cu" in found
    (once,) = compilations(nvcc)
    assert "code=sm_75" in once and "code=sm_87" in once and "code=compute_87" in once and "sm_90" not in once
    source = checkout / "kernels/cuda/gcpp.cu"
    source.write_text(source.read_text() + "/* changed */\n")
    install(python, checkout, tmp_path / "third", CC="false", GCPP_NVCC=str(nvcc), GCPP_CUDA_ARCHS="87")
    again = compilations(nvcc)[-1]
    assert len(compilations(nvcc)) == 2 and "code=sm_87" in again and "sm_75" not in again


def test_an_nvcc_that_fails_breaks_no_install_and_leaves_no_old_fatbin(checkout, tmp_path, python, nvcc):
    install(python, checkout, tmp_path / "good", CC="false", GCPP_NVCC=str(nvcc))
    source = checkout / "kernels/cuda/gcpp.cu"
    source.write_text(source.read_text() + "/* changed */\n")
    for name in ("false", str(tmp_path / "nowhere")):
        available, _ = install(python, checkout, tmp_path / "bad", CC="false", GCPP_NVCC=name, GCPP_CUDA_ARCHS="87")
        assert available == ["numpy"] and "gcpp.fatbin" not in installed_cuda(tmp_path / "bad")
        shutil.rmtree(tmp_path / "bad")
