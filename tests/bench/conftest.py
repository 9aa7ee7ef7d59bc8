"""An explained model that lies in the repository, and a GPU that is none."""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS / "device"))  # emulated_gpu, fake_driver

pytest.importorskip("onnxruntime", reason="the model is run: pip install 'gcpp-edge[onnxruntime]'")


@pytest.fixture
def model() -> Path:
    """With the guided level, for frames of any size."""
    return TESTS / "fixtures" / "explained-v1.onnx"
