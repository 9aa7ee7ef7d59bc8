"""The heatmap in the graph, held against the kernels on the same activations and gradients."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from small_models import classifier

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the exported graph")
torch = pytest.importorskip("torch", reason="PyTorch makes some of the networks")

import gcpp_edge  # noqa: E402
from gcpp_edge.contract import CLASSES, HEATMAP, MAP, REGION, Layer, contract_from_metadata  # noqa: E402
from gcpp_edge.errors import MethodError, SourceError  # noqa: E402
from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.check import check  # noqa: E402
from gcpp_edge.export.emit import Emitter  # noqa: E402
from gcpp_edge.export.from_torch import ForwardModel, TorchSource, forward_model  # noqa: E402
from gcpp_edge.export.graph import Graph, Value  # noqa: E402
from gcpp_edge.export.portable import PORTABLE, Maps, exact_scale, heatmap  # noqa: E402
from gcpp_edge.export.scores import TargetOptions  # noqa: E402
from gcpp_edge.fusion import fuse, fused_grid, map_at  # noqa: E402
from gcpp_edge.geometry import stretch_axis  # noqa: E402
from gcpp_edge.kernels import table  # noqa: E402
from gcpp_edge.methods import METHODS, PAPER  # noqa: E402

nn = torch.nn
CLOSE = 1e-4


def run(model, **feeds):
    if any(feed.dtype == np.float16 for feed in feeds.values()):
        # ONNX Runtime's CPU computes in float32 and drops casts to float16 and back, but for those at the outputs
        found = ReferenceEvaluator(model).run(None, feeds)
        return dict(zip([output.name for output in model.graph.output], found, strict=True))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def contract_of(model):
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def kernels_map(method, layers, size):
    """The heatmap [*size] that the device makes of (activations, gradients) [C,*space] of each layer."""
    raws, entry = [], METHODS[method]
    for layer in layers:
        maps, slopes = (np.ascontiguousarray(array[None]) for array in layer)
        raws.append(np.empty((1, *maps.shape[2:]), np.float32))
        table("numpy").cam(maps, slopes, entry.rule, entry.relu, raws[-1])
    raws = [raw[0] for raw in raws]
    raw = raws[0]
    if len(raws) > 1:
        raw = np.empty(fused_grid([each.shape for each in raws], PAPER, size), np.float32)
        fuse(raws, PAPER, raw)
    low, high = float(raw.min()), float(raw.max())
    if len(size) == 3:
        return np.stack([shown(map_at(raw, index, size[0]), low, high, size[1:]) for index in range(size[0])])
    return shown(raw, low, high, size)


def shown(raw, low, high, size):
    out = np.empty(size, np.float32)
    rows, columns = (stretch_axis(pixels, cells) for pixels, cells in zip(size, raw.shape, strict=True))
    table("numpy").heatmap(np.ascontiguousarray(raw), rows, columns, low, high, out)
    return out


class Clip(nn.Module):
    """A network of clips [N,3,6,16,16]; features of 3 x 8 x 8."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.Conv3d(6, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())

    def forward(self, x):
        return self.head(self.first(x))


class Enlarger(nn.Module):
    """Features larger than the input: their heatmap is made smaller."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.ConvTranspose2d(3, 6, 3, stride=2), nn.SiLU())
        self.head = nn.Sequential(nn.MaxPool2d(8), nn.Flatten(), nn.Linear(6 * 4 * 3, 5))

    def forward(self, x):
        return self.head(self.first(x))


def exported(network, shape):
    torch.manual_seed(4)
    network = network()
    return forward_model(TorchSource(network.eval()), torch.randn(2, *shape)).model


@dataclass(frozen=True)
class Case:
    name: str
    model: object
    shape: tuple = (3, 16, 16)
    options: dict = field(default_factory=dict)
    feeds: dict = field(default_factory=lambda: {"target": np.array([-1, 2])})
    methods: tuple = tuple(METHODS)
    dtype: type = np.float32


VARYING = tuple(name for name, method in METHODS.items() if not method.needs_constant)
WITHOUT_WEIGHTS = tuple(name for name in VARYING if not METHODS[name].needs_weights)
TOP = {"target": np.array([[-1, 2], [0, 5]])}
CASES = [
    Case("constant gradients", lambda: classifier()),
    Case("one for each position", lambda: classifier(head="convolution"), methods=VARYING),
    Case("float16", lambda: classifier(dtype=np.float16), dtype=np.float16),
    Case("a size that its scale does not hit", lambda: classifier(size=23), (3, 23, 23)),
    Case("before the rectifier: negative sums", lambda: classifier(), options={"layer": "body/conv"}, methods=VARYING),
    Case("made smaller", lambda: exported(Enlarger, (3, 16, 12)), (3, 16, 12), {"layer": "first"}, methods=VARYING),
    Case("top-k, constant", lambda: classifier(), options={"target": TargetOptions(CLASSES, 2)}, feeds=TOP),
    Case("top-k", lambda: classifier(head="convolution"), options={"target": TargetOptions(CLASSES, 2)}, feeds=TOP,
         methods=WITHOUT_WEIGHTS),
    Case("two layers", lambda: classifier(), options={"layer": ["body/features", "stem/relu"]},
         methods=WITHOUT_WEIGHTS),
    Case("a clip", lambda: exported(Clip, (3, 6, 16, 16)), (3, 6, 16, 16), {"layer": "first"}, methods=VARYING),
]  # fmt: skip


@pytest.mark.parametrize(("case", "method"), [(case, name) for case in CASES for name in case.methods],
                         ids=lambda value: value if isinstance(value, str) else value.name)  # fmt: skip
def test_the_heatmap_is_the_kernels_within_one_ten_thousandth(case, method):
    softmax = {"softmax": True} if METHODS[method].needs_weights else {}
    model = bake(case.model(), method=method, portable=method, **softmax, **case.options)
    contract = contract_of(model)
    assert contract.method == method and HEATMAP in contract.levels[MAP].outputs
    image = np.random.default_rng(8).normal(size=(2, *case.shape)).astype(case.dtype)
    found = run(model, **{contract.input: image}, **case.feeds)
    rows = found["target_class"].shape
    size = case.shape[1:]
    assert found[HEATMAP].shape == (*rows, *size) and found[HEATMAP].dtype == np.float32
    peak = 0.0
    for place in np.ndindex(*rows):
        weighed = ["softmax_weights" if softmax else layer.gradients for layer in contract.layers]
        layers = [
            (found[layer.activations][place[0]], found[name][place])
            for layer, name in zip(contract.layers, weighed, strict=True)
        ]
        expected = kernels_map(method, layers, size)
        peak = max(peak, expected.max())
        assert np.abs(found[HEATMAP][place] - expected).max() <= CLOSE
        assert found[HEATMAP].min() >= 0 and found[HEATMAP].max() <= 1
    assert peak > 0.3


def test_a_region_has_a_heatmap_too():
    class Segmenter(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
            self.classes = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return nn.functional.interpolate(self.classes(self.down(x)), size=x.shape[2:], mode="bilinear")

    model = bake(exported(Segmenter, (3, 16, 16)), target=TargetOptions(REGION), layer="down", portable="gradcam++")
    image = np.random.default_rng(8).normal(size=(1, 3, 16, 16)).astype(np.float32)
    found = run(model, **{contract_of(model).input: image}, target=np.array([1]), region=-np.ones((1, 16, 16), "f4"))
    expected = kernels_map("gradcam++", [(found["activations"][0], found["gradients"][0])], (16, 16))
    assert np.abs(found[HEATMAP][0] - expected).max() <= CLOSE and expected.max() > 0.3


@pytest.mark.parametrize("method", METHODS)
def test_a_flat_map_and_one_that_overflows_are_zero_not_nan(method):
    model = bake(classifier(), portable=method, softmax=True)
    for image in (np.full((1, 3, 16, 16), -1e4, np.float32), np.full((1, 3, 16, 16), np.nan, np.float32)):
        shown_map = run(model, image=image, target=np.array([1]))[HEATMAP]
        assert np.isfinite(shown_map).all() and shown_map.min() >= 0 and shown_map.max() <= 1
    (stem,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) == [8, 3, 3, 3])
    stem.CopyFrom(numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), stem.name))
    flat = run(model, image=np.zeros((1, 3, 16, 16), np.float32), target=np.array([1]))
    assert np.ptp(flat["activations"], axis=(2, 3)).max() == 0 and not flat[HEATMAP].any()


def test_poles_of_the_signed_method_are_left_out_as_in_the_kernels():

    shapes = {"A": ["N", 3, 2, 2], "g": ["N", 3, 2, 2]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = Graph(helper.make_model(helper.make_graph([], "maps", inputs, [])))
    emit = Emitter(graph)
    A, g = (Value(name, tuple(shape), TensorProto.FLOAT) for name, shape in shapes.items())
    layer = Layer("l", "l", 3, (2, 2), False, gradient_scale=4.0)
    out = heatmap(emit, "gradcam++-signed", [Maps(layer, A, g)], (6, 6))
    made = helper.make_graph(emit.nodes, "maps", inputs, [helper.make_tensor_value_info(out.name, 1, ["N", 6, 6])],
                             emit.initializers)  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    activations = np.random.default_rng(0).uniform(0, 1, (1, 3, 2, 2)).astype(np.float32)
    activations[0, 0] = [[0.5, 0.5], [0.25, 0.75]]
    gradients = np.random.default_rng(1).normal(size=(1, 3, 2, 2)).astype(np.float32)
    gradients[0, 0, 0, 0] = -1.0  # sum A is 2: a pole
    found = run(model, A=activations, g=4 * gradients)[out.name]
    expected = kernels_map("gradcam++-signed", [(activations[0], gradients[0])], (6, 6))
    assert np.abs(found[0] - expected).max() <= CLOSE and expected.max() > 0.3


def test_every_method_is_portable():
    assert list(PORTABLE) == list(METHODS)


@pytest.mark.parametrize(("source", "destination"), [(7, 224), (10, 224), (13, 299), (12, 381), (55, 227), (224, 7)])
def test_a_scale_gives_its_size_whether_it_is_rounded_to_float32_or_not(source, destination):
    scale = exact_scale(source, destination)
    assert int(scale * source) == int(np.float32(scale) * np.float32(source)) == destination
    assert abs(scale - destination / source) < 1e-6 * scale


REFUSED = [
    ("unknown", {"portable": "scorecam"}, SourceError, 'Unknown method "scorecam"; expected one of gradcam'),
    ("unknown default", {"method": "scorecam"}, SourceError, 'Unknown method "scorecam"'),
    ("softmax without its weights", {"portable": "gradcam++-softmax"}, SourceError, "needs --softmax too"),
    ("a default without its weights", {"method": "gradcam++-softmax"}, MethodError, "with --softmax"),
    ("cam where it means nothing", {"portable": "cam", "layer": "stem/relu"}, MethodError, "needs a head of pooling"),
]


@pytest.mark.parametrize(("name", "options", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_computed_is_refused_in_one_line(name, options, error, message):
    with pytest.raises(error, match=message) as raised:
        bake(classifier(), **options)
    assert "\n" not in str(raised.value)


def test_the_self_check_passes_with_a_heatmap_in_the_file():
    source = classifier()
    model = bake(source, portable="gradcam++", softmax=True)
    assert check(model, contract_of(model), ForwardModel(source))["error"] < 1e-2


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("a clip", "two layers", "top-k")],
                         ids=lambda case: case.name)  # fmt: skip
def test_the_explainer_loads_a_file_with_a_heatmap(case, tmp_path):
    model = bake(case.model(), portable="gradcam++", **case.options)
    (tmp_path / "portable.onnx").write_bytes(model.SerializeToString())
    with gcpp_edge.load(tmp_path / "portable.onnx") as explainer:
        assert HEATMAP in explainer.contract.levels[MAP].outputs
