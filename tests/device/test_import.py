"""What `import gcpp_edge` costs and pulls in, in an interpreter of its own."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "cv2", "matplotlib", "scipy", "tensorrt", "pycuda")


def run_isolated(code: str) -> str:
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("statement", ["import gcpp_edge", "from gcpp_edge import load, Explainer, Explanation, Box"])
def test_the_device_half_imports_numpy_alone(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    assert run_isolated(code).strip() == "[]"


def test_the_device_half_imports_where_everything_else_is_blocked() -> None:
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({HEAVY}))\n"
        "import gcpp_edge, gcpp_edge.explainer, gcpp_edge.methods, gcpp_edge.device.host, gcpp_edge.level_cache\n"
        "import gcpp_edge.runtimes.onnxruntime\n"
        "print(all(hasattr(gcpp_edge, name) for name in gcpp_edge.__all__))"
    )
    assert run_isolated(code).strip() == "True"


def test_a_plain_import_does_not_even_load_numpy() -> None:
    """So it takes milliseconds. The time itself is measured in benchmarks/, not here."""
    assert run_isolated("import gcpp_edge, sys\nprint('numpy' in sys.modules)").strip() == "False"


def test_an_unknown_name_is_an_attribute_error() -> None:
    import gcpp_edge

    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = gcpp_edge.lode  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    import gcpp_edge

    assert gcpp_edge.__version__ == version("gcpp-edge")
