"""The C kernels as an optional extension, and the CUDA kernels as an optional fatbin.

Without a C compiler the install still works, and NumPy is used instead; without nvcc the CUDA kernels are compiled
where they run. Everything else stands in pyproject.toml.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SOURCES = ["kernels/_cpu.pyx", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("kernels/cpu/*.c"))]

# No -march=native and no -ffast-math: the files hold one #pragma per instruction set, and the table of kernels is
# chosen at run time. GCPP_CFLAGS is for sanitizers and profilers.
CFLAGS = ["-O3", "-pthread", "-fno-math-errno", "-Wall", "-Wextra", *os.environ.get("GCPP_CFLAGS", "").split()]

# Turing to Blackwell, with the boards: 87 Orin, 110 Thor. What a toolkit does not know is left out.
CUDA_ARCHS = (75, 80, 86, 87, 89, 90, 100, 110, 120)


class BuildWithFatbin(build_py):
    """Makes kernels/cuda/gcpp.fatbin first, so that it is there as package data."""

    def run(self):
        for missing in {"gcpp.fatbin", "made_from.json"} - make_fatbin():  # an earlier build's may lie there
            (Path(self.build_lib) / "gcpp_edge" / "kernels" / "cuda" / missing).unlink(missing_ok=True)
        super().run()


def make_fatbin():
    """Names of the files that there are now: the fatbin and a note of what it was made from.

    Compiles the CUDA kernels where nvcc is, unless they are there already, of these sources and architectures.
    GCPP_NVCC names nvcc, empty for none; GCPP_CUDA_ARCHS the architectures ("87" or "80,90"). A failure is reported and
    breaks nothing: the kernels are then compiled where they run.
    """
    cuda = runpy.run_path(str(ROOT / "kernels" / "cuda_sources.py"))
    fatbin, made_from = cuda["FATBIN"], cuda["MADE_FROM"]
    nvcc = find_nvcc()
    try:
        wanted = {"sources": cuda["digest"](), "archs": chosen_archs(nvcc)} if nvcc else None
        if wanted and fatbin.exists() and made_from.exists() and json.loads(made_from.read_text()) == wanted:
            return {fatbin.name, made_from.name}
        for stale in (made_from, fatbin):
            stale.unlink(missing_ok=True)
        if wanted:
            print(f"compiling CUDA kernels for {', '.join(f'sm_{arch}' for arch in wanted['archs'])}", file=sys.stderr)
            command = fatbin_command(nvcc, wanted["archs"], fatbin)
            subprocess.run(command, check=True, capture_output=True, text=True)
            made_from.write_text(json.dumps(wanted))
            return {fatbin.name, made_from.name}
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"no CUDA kernels are built: {error}\n{getattr(error, 'stderr', '') or ''}", file=sys.stderr)
    return set()


def find_nvcc():
    """What GCPP_NVCC names, else nvcc on the path or in its usual place; "" for none."""
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin") or ""
    return os.environ.get("GCPP_NVCC", found)


def chosen_archs(nvcc):
    """The architectures to compile for: what is asked for, else what this nvcc knows of ours."""
    if asked := os.environ.get("GCPP_CUDA_ARCHS"):
        return sorted(int(arch) for arch in asked.replace(",", " ").split())
    known = subprocess.run([nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True).stdout.split()
    archs = [arch for arch in CUDA_ARCHS if f"sm_{arch}" in known]
    if not archs:
        raise ValueError(f"{nvcc} knows none of the architectures {CUDA_ARCHS}")
    return archs


def fatbin_command(nvcc, archs, output):
    """Machine code for each architecture, and PTX of the newest for what comes after it."""
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    codes.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    flags = ["-std=c++17", "-O3", "--threads=0", "-Xfatbin=-compress-all"]
    return [nvcc, *flags, *codes, "-fatbin", "-o", str(output), str(ROOT / "kernels" / "cuda" / "gcpp.cu")]


setup(
    cmdclass={"build_py": BuildWithFatbin},
    ext_modules=[
        Extension(
            "gcpp_edge.kernels._cpu",
            sources=SOURCES,
            depends=[
                "kernels/arithmetic.h",
                *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("kernels/cpu/*.h"))),
            ],
            include_dirs=["kernels", "kernels/cpu"],
            extra_compile_args=CFLAGS,
            extra_link_args=["-pthread", *os.environ.get("GCPP_LDFLAGS", "").split()],
            optional=True,
        )
    ],
)
