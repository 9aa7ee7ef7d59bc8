"""The tests run on the installed package, never on the folders that happen to lie beside them."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# With the root on the path, `import kernels` and `import export` would find the folders under a wrong name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
