"""benchmarks/arm_instructions.py: what it counts is the kernels' own."""

import aarch64
import arm_instructions
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(bool(aarch64.missing()), reason=aarch64.missing() or "there")


def test_neon_needs_a_third_of_the_instructions_for_an_overlay():
    case = next(case for case in arm_instructions.CASES if case.name.startswith("overlay"))
    row = arm_instructions.row_of(case, aarch64.program())
    assert 1 < row["neon"] < row["scalar"] / 3


def test_the_c_library_and_the_server_are_not_counted():
    def empty(table, size):
        zeros = np.zeros((1, size, 0), np.float32)
        table.cam(zeros, zeros, "gradcam", True, np.empty((1, 0), np.float32))

    assert 0 < arm_instructions.count(empty, 1, "neon", aarch64.program()) < 500
