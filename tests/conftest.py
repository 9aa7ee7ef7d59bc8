"""The tests run on the installed package, never on the folders that happen to lie beside them."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# With the root on the path, `import kernels` and `import export` would find the folders under a wrong name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# `import emulator`: the CUDA kernels on the CPU, for the tests of kernels and of devices.
sys.path.append(str(ROOT / "tests" / "kernels"))
