"""The tests run on the installed package, never on the folders that happen to lie beside them."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# With the root on the path, `import kernels` and `import export` would find the folders under a wrong name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# `import emulator`: the CUDA kernels on the CPU, for the tests of kernels and of devices.
sys.path.append(str(ROOT / "tests" / "kernels"))


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the user's: cuts and engines of tests do not belong there."""
    monkeypatch.setenv("GCPP_EDGE_CACHE", str(tmp_path / "cache"))
