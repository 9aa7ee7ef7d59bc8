"""Files that others wrote: all networks that the onnx package ships for its own backend tests.

Their weights are one number over and over, made by ConstantOfShape; the self-check draws them anew and holds the
gradients against finite differences.
"""

from pathlib import Path

import onnx
import onnx.backend.test
import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the self-check")

from gcpp_edge.export import explain_onnx
from gcpp_edge.export.api import contract_of

FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
FILES = sorted(path.name for path in FOLDER.glob("*.onnx"))
LARGE = ("light_bvlc_alexnet.onnx", "light_zfnet512.onnx", "light_vgg19.onnx")  # up to 0.6 GB of weights
LAYERS = {  # channels and space of the layer that is chosen, and whether its gradients are constant
    "light_bvlc_alexnet.onnx": (256, (12, 12), False),
    "light_densenet121.onnx": (1024, (7, 7), True),
    "light_inception_v1.onnx": (1024, (6, 6), False),
    "light_inception_v2.onnx": (1024, (7, 7), False),
    "light_resnet50.onnx": (2048, (7, 7), False),
    "light_shufflenet.onnx": (544, (7, 7), False),
    "light_squeezenet.onnx": (512, (13, 13), False),
    "light_vgg19.onnx": (512, (14, 14), False),
    "light_zfnet512.onnx": (512, (12, 12), False),
}


def test_all_files_are_known():
    assert set(FILES) == set(LAYERS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in FILES]
)
def test_a_file_exports_and_its_gradients_hold(name):
    described = contract_of(explain_onnx(onnx.load(FOLDER / name), guided=name not in LARGE))
    layer = described.layer
    assert (layer.channels, tuple(layer.space), layer.constant) == LAYERS[name]
    assert described.check["oracle"] == "finite differences"
    assert described.check["error"] <= described.check["limit"]
    assert described.check["target_dependence"] > 0.1
