"""What importing loads: the device half needs NumPy alone."""

import pytest

BLOCKED = ("torch", "onnx", "onnxscript", "tensorrt", "tensorrt_rtx", "pycuda", "cv2", "typer", "rich", "PIL")

BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked in this test", name=name)

sys.meta_path.insert(0, Blocker())
"""

LOADED = """
import sys
import gcpp_edge
third_party = {name.partition(".")[0] for name, module in list(sys.modules.items())
               if any(part in (getattr(module, "__file__", None) or "") for part in ("site-packages", "dist-packages"))}
print(*sorted(name for name in third_party if not name.startswith(("_", "gcpp_edge"))))
"""


def device_modules(root):
    """Every module of the device half but the command line, which may need its extra."""
    for folder, package in (("gcpp_edge", "gcpp_edge"), ("kernels", "gcpp_edge.kernels")):
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root / folder).with_suffix("").parts
            if parts[0] != "cli":
                yield ".".join([package, *(part for part in parts if part != "__init__")])


def test_every_module_of_the_device_half_imports_without_the_extras(root, python):
    modules = list(device_modules(root))
    assert "gcpp_edge.kernels.reference" in modules
    python("-I", "-c", BLOCKER + "".join(f"import {module}\n" for module in modules))


@pytest.mark.parametrize("module", BLOCKED)
def test_the_blocker_blocks(module, python):
    code = f"try:\n import {module}\nexcept ModuleNotFoundError as error:\n assert 'blocked' in str(error)\n"
    python("-I", "-c", BLOCKER + code + "else:\n raise SystemExit('not blocked')")


def test_importing_gcpp_edge_loads_numpy_and_nothing_else(python):
    assert set(python("-I", "-c", LOADED).split()) <= {"numpy"}
