"""A checkout to build from, so that no build touches this one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("gcpp_edge", "export", "kernels")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a build needs, without anything built."""
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("*.so", "*.fatbin", "made_from.json", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, tmp_path / "checkout" / folder, ignore=ignored)
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path / "checkout")
    return tmp_path / "checkout"


@pytest.fixture(scope="session")
def python():
    """Runs Python in a fresh process and returns its stdout; fails the test with its stderr."""

    def run(*arguments, **options):
        result = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
