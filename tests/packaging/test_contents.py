"""What is packaged: every package, and all that a build needs."""

import sys
from fnmatch import fnmatch

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it on Python 3.10

MAPPED = {"gcpp_edge": "gcpp_edge", "export": "gcpp_edge.export", "kernels": "gcpp_edge.kernels"}


@pytest.fixture(scope="module")
def setuptools_table(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]


def packages_on_disk(root):
    for folder, package in MAPPED.items():
        for file in sorted((root / folder).rglob("__init__.py")):
            yield ".".join([package, *file.parent.relative_to(root / folder).parts])


def test_every_folder_with_an_init_is_in_packages(root, setuptools_table):
    assert sorted(setuptools_table["packages"]) == sorted(packages_on_disk(root))


def test_every_data_file_of_a_package_is_package_data(root, setuptools_table):
    data = setuptools_table["package-data"]
    for folder, package in MAPPED.items():
        for suffix in (".h", ".c", ".cu", ".pyi", ".txt", ".json"):
            for file in (root / folder).rglob(f"*{suffix}"):
                name = str(file.relative_to(root / folder))
                patterns = data.get(package, [])
                assert any(fnmatch(name, pattern) for pattern in patterns), f"{folder}/{name} would not be installed"


def test_the_package_says_that_it_is_typed(root, setuptools_table):
    assert (root / "gcpp_edge/py.typed").exists() and "py.typed" in setuptools_table["package-data"]["gcpp_edge"]
