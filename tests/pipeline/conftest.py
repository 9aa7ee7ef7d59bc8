"""What the tests of streams share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers of these tests
