"""A small explained model, and a watch over threads that are left behind."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import gcpp_edge

sys.path.insert(0, str(Path(__file__).parent))  # for what the tests of this folder share

from scripted import MODEL, WAIT_S

pytest.importorskip("onnxruntime", reason="streams run on ONNX Runtime: pip install 'gcpp-edge[onnxruntime]'")


@pytest.fixture(scope="session")
def explainer() -> Iterator[gcpp_edge.Explainer]:
    with gcpp_edge.load(MODEL, device="cpu", threads=1) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread.name.startswith("gcpp-") and thread not in before]
    for thread in left:
        thread.join(WAIT_S)
    assert not [thread.name for thread in left if thread.is_alive()]
