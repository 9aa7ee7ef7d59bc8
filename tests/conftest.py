"""The tests run on the installed package, never on the folders that happen to lie beside them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# With the root on the path, `import kernels` and `import export` would find the folders under a wrong name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# `import emulator`: the CUDA kernels on the CPU, for the tests of kernels and of devices.
sys.path.append(str(ROOT / "tests" / "kernels"))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For what is loaded once for many tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCPP_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the user's: cuts and engines of tests do not belong there."""
    monkeypatch.setenv("GCPP_EDGE_CACHE", str(tmp_path / "cache"))
