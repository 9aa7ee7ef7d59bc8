"""uint8 frames in: what the graph makes of them is what the kernel `preprocess` makes, and the rest is as it was."""

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import classifier

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the exported graph")

import gcpp_edge  # noqa: E402
from gcpp_edge.contract import FrameInput, Geometry, Preprocessing, contract_from_metadata  # noqa: E402
from gcpp_edge.errors import FrameError, SourceError  # noqa: E402
from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.check import check  # noqa: E402
from gcpp_edge.export.from_torch import ForwardModel  # noqa: E402
from gcpp_edge.export.scores import TargetOptions  # noqa: E402
from gcpp_edge.geometry import fit_frame, input_from_frame  # noqa: E402
from gcpp_edge.kernels import table  # noqa: E402

CLOSE = 2e-4  # in units of a pixel's value, of 255
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1, "rgba": 4, "bgra": 4}


def pooled(channels, height, width, dtype=np.float32):
    """image - 1x1 convolution - ReLU - mean - Gemm: small, and of any input."""
    generator = np.random.default_rng(1)
    weights = {"w": generator.normal(size=(4, channels, 1, 1)), "c": generator.normal(size=(5, 4))}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "c"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("image", kind, ["batch", channels, height, width])],
        [helper.make_tensor_value_info("logits", kind, ["batch", 5])],
        [numpy_helper.from_array(array.astype(dtype), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def contract_of(model):
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def run(model, watched=(), **feeds):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in watched)
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def preprocessed(frame, form, pixels):
    """By the reference kernel, (C, H, W)."""
    rows, columns = input_from_frame(fit_frame(*frame.shape[:2], pixels))
    std = np.array(pixels.std)
    scale, bias = pixels.pixel_max / 255 / std, -np.array(pixels.mean) / std
    fill = np.full(pixels.channels, pixels.geometry.fill)
    out = np.empty((pixels.channels, pixels.height, pixels.width), np.float32)
    table("numpy").preprocess(frame, form, rows, columns, pixels.color, scale, bias, fill, out)
    return out


def frames_of(frame, count=2, seed=0):
    channels = () if frame.format == "gray" else (CHANNELS[frame.format],)
    return np.random.default_rng(seed).integers(0, 256, (count, frame.height, frame.width, *channels), np.uint8)


def pixels_for(color, size, geometry, **changes):
    count = CHANNELS[color]
    mean, std = (0.485, 0.456, 0.406, 0.1)[:count], (0.229, 0.224, 0.225, 0.5)[:count]
    return Preprocessing(*size, **{"color": color, "mean": mean, "std": std, "geometry": geometry} | changes)


STRETCH, CROP, WHOLE = Geometry(), Geometry("crop", 0.875), Geometry("crop", 1.0)
BOX, GREY_BOX = Geometry("letterbox", fill=114.0), Geometry("letterbox", fill=0.0)


@dataclass(frozen=True)
class Case:
    name: str
    frame: FrameInput
    pixels: Preprocessing


CASES = [
    *(
        Case(f"{geometry.kind} {geometry.share} of {height}x{width}", FrameInput(height, width),
             pixels_for("rgb", size, geometry))
        for geometry in (STRETCH, CROP, WHOLE, BOX, GREY_BOX)
        for height, width in ((40, 60), (61, 37), (9, 7), (24, 20), (1, 1))
        for size in ((24, 20),)
    ),
    *(
        Case(f"{form} for {color}", FrameInput(31, 45, form), pixels_for(color, (16, 24), BOX))
        for form in CHANNELS
        for color in CHANNELS
    ),
    Case("raw pixel values", FrameInput(31, 45, "bgr"),
         pixels_for("bgr", (16, 16), CROP, pixel_max=255.0, mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0))),
    Case("nothing to do", FrameInput(16, 16, "rgb"),
         pixels_for("rgb", (16, 16), STRETCH, pixel_max=255.0, mean=(0.0,) * 3, std=(1.0,) * 3)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_network_sees_what_the_kernel_would_have_made(case):
    pixels = case.pixels
    source = pooled(pixels.channels, pixels.height, pixels.width)
    model = bake(source, preprocessing=pixels, frame_input=case.frame)
    contract = contract_of(model)
    assert (contract.input, contract.network_input, contract.frame) == ("frame", "image", case.frame)
    assert (contract.version, contract.preprocessing) == (2, pixels)
    assert [value.name for value in model.graph.input] == ["frame", "target"]
    frames = frames_of(case.frame)
    found = run(model, ["image"], frame=frames, target=np.array([-1, 2]))
    unit = np.array(pixels.std).reshape(-1, 1, 1) / pixels.pixel_max * 255
    expected = np.stack([preprocessed(frame, case.frame.format, pixels) for frame in frames])
    assert np.abs((found["image"] - expected) * unit).max() <= CLOSE
    plain = run(bake(source, preprocessing=pixels), image=found["image"], target=np.array([-1, 2]))
    for name, array in plain.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_uint8_meets_a_cast_first_and_levels_hold_the_preprocessing():
    model = bake(classifier(), frame_input=FrameInput(40, 30), guided=True)
    readers = [node.op_type for node in model.graph.node if "frame" in node.input]
    assert readers == ["Cast"] and model.graph.node[0].op_type == "Cast"
    levels = contract_of(model).levels
    plain = bake(classifier(), guided=True)
    added = {levels[name].nodes - level.nodes for name, level in contract_of(plain).levels.items()}
    assert len(added) == 1 and added.pop() > 0


def test_the_guided_image_is_the_gradient_at_the_networks_own_input():
    pixels = Preprocessing(16, 16, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = bake(classifier(), preprocessing=pixels, frame_input=FrameInput(33, 21), guided=True)
    found = run(model, ["image"], frame=frames_of(FrameInput(33, 21)), target=np.array([1, 3]))
    plain = bake(classifier(), preprocessing=pixels, guided=True)
    expected = run(plain, image=found["image"], target=np.array([1, 3]))
    assert found["guided"].shape == (2, 3, 16, 16) and np.any(found["guided"])
    np.testing.assert_allclose(found["guided"], expected["guided"], rtol=1e-4, atol=1e-6)


def test_a_float16_network_is_fed_float16():
    pixels = Preprocessing(16, 16, mean=(0.5,) * 3, std=(0.25,) * 3)
    frame = FrameInput(33, 21)
    model = bake(pooled(3, 16, 16, np.float16), preprocessing=pixels, frame_input=frame)
    frames = frames_of(frame)
    found = run(model, ["image"], frame=frames, target=np.array([1, 3]))["image"]
    expected = np.stack([preprocessed(each, "bgr", pixels) for each in frames])
    assert found.dtype == np.float16 and np.abs(found - expected).max() < 2e-3


def test_the_explainer_gives_the_file_its_frames_as_they_are(tmp_path):
    pixels = Preprocessing(16, 16, mean=(0.5,) * 3, std=(0.25,) * 3, geometry=BOX)
    frames = list(frames_of(FrameInput(40, 30)))
    paths = {}
    for name, given in (("framed", {"frame_input": FrameInput(40, 30)}), ("plain", {})):
        paths[name] = tmp_path / f"{name}.onnx"
        onnx.save(bake(classifier(), preprocessing=pixels, guided=True, **given), paths[name])
    with gcpp_edge.load(paths["framed"]) as framed, gcpp_edge.load(paths["plain"]) as plain:
        for found, expected in zip(
            framed(frames, [-1, 2], guided=True), plain(frames, [-1, 2], guided=True), strict=True
        ):
            assert found.class_index == expected.class_index
            np.testing.assert_allclose(found.map, expected.map, rtol=1e-3, atol=1e-5 * expected.map.max())
            np.testing.assert_allclose(found.heatmap(), expected.heatmap(), atol=1e-3)
            assert found.heatmap().shape == (40, 30)
            np.testing.assert_allclose(found.guided(), expected.guided(), rtol=1e-2, atol=1e-5)
        np.testing.assert_allclose(framed.scores(frames), plain.scores(frames), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "form"), [((41, 30, 3), "bgr"), ((40, 30, 3), "rgb"), ((40, 30), "gray"), ((40, 30, 4), "bgra")]
)
def test_other_frames_are_refused_in_one_line(tmp_path, shape, form):
    onnx.save(bake(classifier(), frame_input=FrameInput(40, 30)), tmp_path / "framed.onnx")
    expected = pytest.raises(FrameError, match="this file takes bgr frames of 40 x 30")
    with gcpp_edge.load(tmp_path / "framed.onnx") as explainer, expected as raised:
        explainer(np.zeros(shape, np.uint8), format=form)
    assert "\n" not in str(raised.value)


def test_the_self_check_feeds_frames():
    for options in ({}, {"target": TargetOptions("seed")}, {"softmax": True, "portable": "gradcam"}):
        for head in ("linear", "convolution"):
            source = classifier(head=head)
            model = bake(source, frame_input=FrameInput(40, 30, "gray"), **options)
            assert check(model, contract_of(model), ForwardModel(source))["error"] < 1e-2


def test_the_self_check_holds_a_file_of_frames_against_autograd():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    from gcpp_edge.export import explain_module

    nn = torch.nn
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(864, 5)
    )
    model = explain_module(network, torch.randn(2, 3, 16, 16), frame_input=FrameInput(40, 30), layer="1")
    figures = contract_of(model).check
    assert figures["oracle"] == "autograd" and figures["error"] < 1e-4


REFUSED = [
    ("format", classifier, FrameInput(4, 4, "nv12"), SourceError, '--frame-input: unknown format "nv12"'),
    ("no size", classifier, FrameInput(), SourceError, "--frame-input 0x0: expected"),
    ("too large", classifier, FrameInput(4, 1 << 20), SourceError, "of 1 to 32768"),
]


@pytest.mark.parametrize(("name", "model", "frame", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_frames_that_cannot_be_are_refused_in_one_line(name, model, frame, error, message):
    with pytest.raises(error, match=message) as raised:
        bake(model(), frame_input=frame)
    assert "\n" not in str(raised.value)


def test_a_tensor_that_is_named_frame_already_gives_way():
    source = classifier()
    for node in source.graph.node:
        node.input[:] = ["frame" if name == "pooled" else name for name in node.input]
        node.output[:] = ["frame" if name == "pooled" else name for name in node.output]
    frames = frames_of(FrameInput(20, 16))
    found, expected = (
        run(bake(model, frame_input=FrameInput(20, 16)), frame=frames, target=np.array([1, 2]))
        for model in (source, classifier())
    )
    np.testing.assert_array_equal(found["gradients"], expected["gradients"])


def test_uint8_is_the_dtype_of_the_input():
    (value,) = (
        value for value in bake(classifier(), frame_input=FrameInput(8, 9)).graph.input if value.name == "frame"
    )
    assert value.type.tensor_type.elem_type == TensorProto.UINT8
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [0, 8, 9, 3]
