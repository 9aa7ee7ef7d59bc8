"""The work around a network, as kernels: cam, heatmap, overlay, guided and preprocess.

`table()` gives them for the best instruction set of this machine, or for the one that GCPP_ISA names. NumPy
(reference.py) is always there and is the truth for all others. CONTRIBUTING.md says how to add one.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType

from gcpp_edge.errors import InputError
from gcpp_edge.kernels import reference
from gcpp_edge.kernels.axis import Axis
from gcpp_edge.kernels.interface import KernelTable

__all__ = ["MAX_THREADS", "Axis", "KernelTable", "available", "default_threads", "reason", "table"]

NUMPY = "numpy"
MAX_THREADS = 64


def table(isa: str | None = None, threads: int = 1) -> KernelTable:
    """The kernels for `isa`; for None what GCPP_ISA names, and without it the best that this machine has.

    threads: how many may work on one call; 0 for as many as there are cores to use, up to 4. Results are the same bits
    for any number; the NumPy ones use one.
    Raises InputError for an instruction set that is unknown or not available here, and for such a number of threads.
    """
    name = isa or os.environ.get("GCPP_ISA") or available()[0]
    if name not in available():
        source = "isa" if isa else "GCPP_ISA"
        missing = f" {reason()}" if reason() else ""
        raise InputError(f"{source}={name!r} is not available here; expected one of {', '.join(available())}.{missing}")
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads={threads} is not possible; expected 0 (a choice for this machine) to {MAX_THREADS}.")
    return _table(name, threads or default_threads())


def default_threads() -> int:
    """The cores that this process may use, up to 4: more share one memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


def available() -> tuple[str, ...]:
    """The instruction sets that this build and this machine have, best first; "numpy" is always the last."""
    compiled, _ = _compiled()
    return (*(compiled.available() if compiled else ()), NUMPY)


def reason() -> str:
    """Why the C kernels are missing, and how to get them; "" when they are there."""
    return _compiled()[1]


@cache
def _table(isa: str, threads: int) -> KernelTable:
    compiled, _ = _compiled()
    return KernelTable(isa, reference if isa == NUMPY or compiled is None else compiled.Kernels(isa, threads))


@cache
def _compiled() -> tuple[ModuleType | None, str]:
    """The extension module, or None and the reason."""
    try:
        return importlib.import_module("gcpp_edge.kernels._cpu"), ""
    except ModuleNotFoundError:
        return None, (
            "The C kernels were not built, NumPy is used: there was no working C compiler at installation. "
            "Install one (apt install gcc python3-dev) and reinstall gcpp-edge with pip --no-cache-dir."
        )
    except ImportError as error:
        return None, f"The C kernels do not load, NumPy is used: {error}. Reinstall gcpp-edge with this Python."
