"""Which kernels are there, which are chosen, and that they run side by side."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gcpp_edge import kernels
from gcpp_edge.errors import InputError
from gcpp_edge.kernels import Axis

ORDER = ("avx512vbmi", "avx512", "avx2", "neon", "scalar", "numpy")


def chosen_with(gcpp_isa):
    """Exit status, stdout and stderr of a fresh process that asks for the table."""
    environment = {name: value for name, value in os.environ.items() if name != "GCPP_ISA"}
    if gcpp_isa is not None:
        environment["GCPP_ISA"] = gcpp_isa
    code = "from gcpp_edge import kernels; print(kernels.table().isa)"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_available_is_in_order_and_ends_with_numpy():
    found = kernels.available()
    assert found[-1] == "numpy" and list(found) == [isa for isa in ORDER if isa in found]


def test_there_is_a_reason_exactly_where_c_is_missing():
    assert bool(kernels.reason()) == (kernels.available() == ("numpy",))


@pytest.mark.parametrize("isa", kernels.available())
def test_gcpp_isa_forces_an_instruction_set(isa):
    result = chosen_with(isa)
    assert result.stdout.strip() == isa, result.stderr


def test_without_gcpp_isa_the_best_is_chosen():
    assert chosen_with(None).stdout.strip() == kernels.available()[0]
    assert chosen_with("").stdout.strip() == kernels.available()[0]


def test_an_unknown_gcpp_isa_is_refused_with_what_is_there():
    result = chosen_with("avx9")
    assert result.returncode and "GCPP_ISA='avx9' is not available here" in result.stderr
    assert ", ".join(kernels.available()) in result.stderr


def test_an_unknown_isa_is_refused_with_what_is_there():
    with pytest.raises(InputError, match="isa='neon9' is not available here; expected one of"):
        kernels.table("neon9")


def test_a_table_is_made_once():
    assert kernels.table("numpy") is kernels.table("numpy")


def test_kernels_run_in_many_threads_at_once(compiled):
    values = np.random.default_rng(0).standard_normal((7, 7)).astype(np.float32)
    axes = (Axis(7 / 300, 0.0, 0, 300), Axis(7 / 400, 0.0, 0, 400))

    def heatmap(_):
        out = np.empty((300, 400), np.float32)
        compiled.heatmap(values, *axes, -1.0, 1.0, out)
        return out

    expected = heatmap(0)
    with ThreadPoolExecutor(4) as pool:
        assert all((found == expected).all() for found in pool.map(heatmap, range(32)))
