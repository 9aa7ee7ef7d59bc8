"""What the graph computes beyond gradients, in half precision: gradients that are scaled there, and float32 sums."""

import numpy as np
import onnxruntime as ort
import pytest
from small_models import classifier

from gcpp_edge.contract import FrameInput, contract_from_metadata
from gcpp_edge.export import explain_onnx


def run(model, **feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    types = {entry.name: entry.type for entry in session.get_inputs()}
    cast = {n: a.astype(np.float16) if types[n] == "tensor(float16)" else a for n, a in feeds.items()}
    return dict(zip(names, session.run(None, cast), strict=True))


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "gradcam++-signed", "gradcam++-softmax"])
@pytest.mark.parametrize("head", ["linear", "convolution"])
def test_weights_and_heatmap_are_those_of_float32_but_for_rounding(head, method):
    source, given = classifier(head=head), {"softmax": True, "portable": method, "check": False}
    half, full = explain_onnx(source, precision="fp16", **given), explain_onnx(source, **given)
    feeds = {
        "image": np.random.default_rng(3).normal(size=(2, 3, 16, 16)).astype(np.float32),
        "target": np.array([1, 4]),
    }
    found, expected = run(half, **feeds), run(full, **feeds)
    assert found["softmax_weights"].dtype == found["heatmap"].dtype == np.float32
    scale = np.abs(expected["softmax_weights"]).max()
    assert np.abs(found["softmax_weights"] - expected["softmax_weights"]).max() < 2e-2 * scale
    assert np.abs(found["heatmap"] - expected["heatmap"]).max() < 2e-2


def test_a_half_precision_file_takes_frames_and_passes_its_check():
    model = explain_onnx(classifier(), precision="fp16", frame_input=FrameInput(40, 30))
    contract = contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})
    assert contract.frame == FrameInput(40, 30) and "half" in contract.check
