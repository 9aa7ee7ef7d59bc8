"""The C kernels as an optional extension: without a C compiler the install still works, and NumPy is used instead.

Everything else stands in pyproject.toml.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
SOURCES = ["kernels/_cpu.pyx", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("kernels/cpu/*.c"))]

# No -march=native and no -ffast-math: the files hold one #pragma per instruction set, and the table of kernels is
# chosen at run time. GCPP_CFLAGS is for sanitizers and profilers.
CFLAGS = ["-O3", "-fno-math-errno", "-Wall", "-Wextra", *os.environ.get("GCPP_CFLAGS", "").split()]

setup(
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
            extra_link_args=os.environ.get("GCPP_LDFLAGS", "").split(),
            optional=True,
        )
    ]
)
