"""Puts the helpers of these tests where they can be imported."""

import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# On two cores that others share, waiting threads of PyTorch cost more than they bring.
with contextlib.suppress(ImportError):
    import torch

    torch.set_num_threads(1)
