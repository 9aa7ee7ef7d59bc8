"""Files of every past contract version still load and give what they gave."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the explained models")

import gcpp_edge
from gcpp_edge.contract import CONTRACT_VERSION

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def test_every_version_has_a_fixture():
    names = sorted(path.stem for path in FIXTURES.glob("explained-v*.onnx"))
    assert names == [f"explained-v{version}" for version in range(1, CONTRACT_VERSION + 1)]


@pytest.mark.parametrize("version", range(1, CONTRACT_VERSION + 1))
def test_an_old_file_gives_what_it_gave(version):
    path = FIXTURES / f"explained-v{version}.onnx"
    expected = np.load(path.with_suffix(".npz"))
    with gcpp_edge.load(path) as explainer:
        explanation = explainer(expected["frame"], target=2, guided=True)
        if "maps" in expected:  # of all classes that the file explains in one pass
            maps = [one.map for one in explainer.classes(expected["frame"])]
            np.testing.assert_allclose(maps, expected["maps"], rtol=1e-3, atol=1e-5)
    assert explanation.label == "class 2"
    np.testing.assert_allclose(explanation.scores, expected["scores"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explanation.map, expected["map"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        explanation.guided(), expected["guided"], rtol=1e-3, atol=1e-4 * np.abs(expected["guided"]).max()
    )
