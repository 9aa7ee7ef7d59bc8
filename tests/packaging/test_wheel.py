"""A wheel beside NumPy and nothing else, and the settings that wheels are released with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it on Python 3.10


@pytest.fixture
def wheel(checkout, tmp_path, python):
    """Built without a network; the sources are gone."""
    for module in ("Cython", "setuptools", "wheel", "pip"):
        pytest.importorskip(module, reason=f"a build without isolation needs {module}")
    arguments = ("--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", tmp_path, checkout)
    python("-I", "-m", "pip", "wheel", *arguments, env={**os.environ, "GCPP_NVCC": "", "GCPP_CFLAGS": "-O1"})
    shutil.rmtree(checkout)
    (made,) = tmp_path.glob("*.whl")
    return made


@pytest.fixture
def bare(tmp_path, python):
    """The Python of an environment that has this one's NumPy and nothing else."""
    folder = tmp_path / "bare"
    python("-I", "-m", "venv", "--without-pip", folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    packages = Path(numpy.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):
        if (packages / name).exists():
            (site / name).symlink_to(packages / name)
    return folder / "bin" / "python"


@pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler here")
def test_a_wheel_works_beside_numpy_alone(wheel, bare, root, tmp_path, python):
    assert not wheel.name.endswith("-none-any.whl")
    python("-I", "-m", "pip", "--quiet", "--python", bare, "install", "--no-deps", "--no-index", wheel)
    script = root / "tests" / "packaging" / "bare_install.py"
    found = subprocess.run([bare, "-I", script], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "scalar numpy" in found.stdout
    command = subprocess.run([bare.parent / "gcpp-edge", "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert command.returncode == 2 and "pip install 'gcpp-edge[cli]'" in command.stderr


def test_wheels_are_built_for_every_python_from_the_oldest_on_and_looked_at(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    wheels, oldest = settings["tool"]["cibuildwheel"], settings["project"]["requires-python"]
    assert wheels["build"] == [f"cp3{minor}-*" for minor in range(10, 15)] and oldest == ">=3.10"
    for place in wheels["test-command"].split():
        if place.startswith("{project}"):
            assert (root / place.replace("{project}/", "")).exists(), place
