"""Puts the helpers of these tests where they can be imported."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
