"""What can be explained: K classes at once, regions, detections, seeds; several layers, clips and tokens.

Every case is a small PyTorch network. Its export is held against autograd in float64, at every layer and at the pixels,
for seeds that the test works out itself.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is needed to compare with autograd")

from float64_evaluator import run_float64  # noqa: E402

from gcpp_edge.contract import CLASSES, DETECTION, REGION, SEED, contract_from_metadata  # noqa: E402
from gcpp_edge.errors import ExportError, LayerError, SourceError, UnsupportedGraphError  # noqa: E402
from gcpp_edge.export import explain_module  # noqa: E402
from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.check import check  # noqa: E402
from gcpp_edge.export.differences import session_for  # noqa: E402
from gcpp_edge.export.from_torch import TorchSource, forward_model  # noqa: E402
from gcpp_edge.export.probes import map_of  # noqa: E402
from gcpp_edge.export.scores import TargetOptions  # noqa: E402

nn = torch.nn


class Classifier(nn.Module):
    """Two stages, pooled."""

    def __init__(self, dimensions=2):
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        pool = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dimensions]
        self.first = nn.Sequential(conv(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.second = nn.Sequential(conv(6, 8, 3, stride=2, padding=1), nn.SiLU())
        self.head = nn.Sequential(nn.Conv2d(8, 8, 1) if dimensions == 2 else nn.Identity(), nn.Tanh())
        self.pool, self.classes = pool(1), nn.Linear(8, 5)

    def forward(self, x):
        return self.classes(self.pool(self.head(self.second(self.first(x)))).flatten(1))


class Segmenter(nn.Module):
    """Down and up again, with two outputs."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU()
        )
        self.classes = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        low = self.classes(self.down(x))
        return nn.functional.interpolate(low, size=x.shape[2:], mode="bilinear"), low.mean((2, 3))


class Detector(nn.Module):
    """A YOLO-like head: boxes and sigmoid scores of all cells in one tensor [N,4+K,A], or [N,A,4+K]."""

    def __init__(self, last=False, sigmoid=True):
        super().__init__()
        self.last, self.sigmoid = last, sigmoid
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.SiLU())
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        features = self.body(x)
        scores = self.scores(features).flatten(2)
        scores = scores.sigmoid() if self.sigmoid else scores
        out = torch.cat([self.boxes(features).flatten(2).exp(), scores], 1)
        return out.transpose(1, 2) if self.last else out


class Transformer(nn.Module):
    """Patches, a class token and `registers`, two blocks; classified by the class token or by the mean of the grid."""

    def __init__(self, pooled=False, registers=0):
        super().__init__()
        self.pooled, self.extra = pooled, 1 + registers
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.tokens = nn.Parameter(torch.randn(1, self.extra, 8))
        self.blocks = nn.ModuleList([Block(8) for _ in range(2)])
        self.norm, self.classes = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        grid = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), grid], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.classes(x[:, self.extra :].mean(1) if self.pooled else x[:, 0])


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        y = self.norm1(x)
        x = x + (self.query(y) @ self.key(y).transpose(1, 2)).softmax(-1) @ self.value(y)
        return x + self.mlp(self.norm2(x))


class ChannelsLast(nn.Module):
    """Features as [N,h,w,C], as Swin keeps them."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8)
        self.mix, self.classes = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        x = self.norm(x + torch.nn.functional.gelu(self.mix(x)) ** 2)
        return self.classes(x.mean((1, 2)))


class Windowed(nn.Module):
    """Attention within windows, which lie in the batch: [4 N,4,8]."""

    def __init__(self):
        super().__init__()
        self.patches, self.mix, self.classes = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        n = x.shape[0]
        windows = x.reshape(n, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(n * 4, 4, 8)
        windows = (windows @ self.mix(windows).transpose(1, 2)).softmax(-1) @ windows
        x = windows.reshape(n, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(n, 4, 4, 8)
        return self.classes(x.mean((1, 2)))


@dataclass(frozen=True)
class Case:
    """A network, what is asked for, what the contract must say, and the seed at the logits that this means."""

    name: str
    network: object
    options: dict = field(default_factory=dict)
    layers: tuple = ()  # (name, space, layout, skip, constant) of each
    shape: tuple = (2, 3, 16, 16)
    feeds: dict = field(default_factory=dict)
    seed: object = None  # of the output(s) of the network: [N,K,...] scalars' gradients


def one_hot(*indices):
    """For [N,classes] outputs: row n explains the classes indices[n]."""

    def seed(output):
        result = torch.zeros(len(indices), len(indices[0]), *output.shape[1:], dtype=output.dtype)
        for n, row in enumerate(indices):
            for k, index in enumerate(row):
                result[n, k, index] = 1
        return result

    return seed


def region_seed(output):
    """Class 1 over the left half, and class 2 where it wins."""
    result = torch.zeros(2, 1, *output.shape[1:], dtype=output.dtype)
    result[0, 0, 1, :, :8] = 1
    result[1, 0, 2] = (output[1].argmax(0) == 2).to(output.dtype)
    return result


def detection_seed(last, sigmoid):
    def seed(output):
        table = output if last else output.transpose(1, 2)
        marks = torch.zeros_like(table)
        best = int(table[1, :, 4 + 2].argmax())
        for n, index, column in ((0, 5, 4 + 1), (1, best, 4 + 2)):
            p = table[n, index, column]
            marks[n, index, column] = 1 / (p * (1 - p)) if sigmoid else 1
        return (marks if last else marks.transpose(1, 2))[:, None]

    return seed


LEFT = np.concatenate(
    [np.broadcast_to(np.arange(16) < 8, (1, 16, 16)).astype(np.float32), -np.ones((1, 16, 16), np.float32)]
)
GIVEN = np.random.default_rng(3).normal(size=(2, 5))
FIRST, LAST, TOKENS = "channels_first", "channels_last", "tokens"
CASES = [
    Case(
        "one class",
        Classifier(),
        {},
        (("head", (4, 4), FIRST, 0, True),),
        feeds={"target": np.array([1, 3])},
        seed=one_hot([1], [3]),
    ),
    Case(
        "three classes at once, behind a pooled head",
        Classifier(),
        {"target": TargetOptions(CLASSES, 3)},
        (("head", (4, 4), FIRST, 0, True),),
        feeds={"target": np.array([[0, 1, 4], [3, 2, 3]])},
        seed=one_hot([0, 1, 4], [3, 2, 3]),
    ),
    Case(
        "two classes at once, through masks, and two layers",
        Classifier(),
        {"target": TargetOptions(CLASSES, 2), "layer": ["second", "first"]},
        (("second", (4, 4), FIRST, 0, False), ("first", (8, 8), FIRST, 0, False)),
        feeds={"target": np.array([[0, 1], [3, 2]])},
        seed=one_hot([0, 1], [3, 2]),
    ),
    Case(
        "two layers",
        Classifier(),
        {"layer": ["first", "head"]},
        (("first", (8, 8), FIRST, 0, False), ("head", (4, 4), FIRST, 0, True)),
        feeds={"target": np.array([1, 3])},
        seed=one_hot([1], [3]),
    ),
    Case(
        "a clip",
        Classifier(3),
        {},
        (("head", (2, 4, 4), FIRST, 0, True),),
        (2, 3, 6, 16, 16),
        {"target": np.array([1, 3])},
        one_hot([1], [3]),
    ),
    Case(
        "a clip, before the non-linearity's mask",
        Classifier(3),
        {"layer": "first"},
        (("first", (3, 8, 8), FIRST, 0, False),),
        (2, 3, 6, 16, 16),
        {"target": np.array([1, 3])},
        one_hot([1], [3]),
    ),
    Case(
        "a segmentation's region",
        Segmenter(),
        {"target": TargetOptions(REGION)},
        (("down", (3, 3), FIRST, 0, False),),
        feeds={"target": np.array([1, 2]), "region": LEFT},
        seed=region_seed,
    ),
    *(
        Case(
            f"a detection, classes {'last' if last else 'first'}, {'sigmoid' if sigmoid else 'raw'}",
            Detector(last, sigmoid),
            {"target": TargetOptions(DETECTION, first_class=4)},
            (("body", (4, 4), FIRST, 0, False),),
            feeds={"target": np.array([1, 2]), "detection": np.array([5, -1])},
            seed=detection_seed(last, sigmoid),
        )
        for last in (False, True)
        for sigmoid in (False, True)
    ),
    Case(
        "the caller's own seed",
        Classifier(),
        {"target": TargetOptions(SEED)},
        (("head", (4, 4), FIRST, 0, True),),
        feeds={"seed": GIVEN},
        seed=lambda output: torch.from_numpy(GIVEN)[:, None],
    ),
    Case(
        "tokens with a class token: before the last attention",
        Transformer(),
        {},
        (("blocks.0", (4, 4), TOKENS, 1, False),),
        feeds={"target": np.array([1, 3])},
        seed=one_hot([1], [3]),
    ),
    Case(
        "tokens with registers, by module",
        Transformer(registers=3),
        {"layer": "blocks.1.norm1"},
        (("blocks.1.norm1", (4, 4), TOKENS, 4, False),),
        feeds={"target": np.array([1, 3])},
        seed=one_hot([1], [3]),
    ),
    Case(
        "tokens whose mean is classified",
        Transformer(pooled=True),
        {},
        (("norm", (4, 4), TOKENS, 1, True),),
        feeds={"target": np.array([1, 3])},
        seed=one_hot([1], [3]),
    ),
    Case(
        "two classes at once of tokens",
        Transformer(),
        {"target": TargetOptions(CLASSES, 2)},
        (("blocks.0", (4, 4), TOKENS, 1, False),),
        feeds={"target": np.array([[0, 1], [3, 2]])},
        seed=one_hot([0, 1], [3, 2]),
    ),
    Case(
        "two classes at once, through windows",
        Windowed(),
        {"target": TargetOptions(CLASSES, 2), "layer": "permute"},
        (("permute", (4, 4), LAST, 0, False),),
        feeds={"target": np.array([[0, 1], [3, 2]])},
        seed=one_hot([0, 1], [3, 2]),
    ),
    Case(
        "channels last",
        ChannelsLast(),
        {},
        (("norm", (4, 4), LAST, 0, True),),
        feeds={"target": np.array([1, 3])},
        seed=one_hot([1], [3]),
    ),
]


def redrawn(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.normal_(0, fan_in**-0.5, generator=generator)
    return network.eval()


def contract_of(model):
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def autograd(program, tensors, image, seed):
    """Gradients [N,K,...] at the tensors of the program, for the scalars <seed, first output>."""
    module, seen = program.module(), {}

    class Watcher(torch.fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            if node.name in tensors:
                seen[node.name] = result
            return result

    image = image.clone().requires_grad_()
    output = Watcher(module).run(image)
    output = output[0] if isinstance(output, (tuple, list)) else output
    seeds = seed(output.detach())
    found = {name: [] for name in [*tensors, "guided"]}
    for k in range(seeds.shape[1]):
        wanted = [*(seen[name] for name in tensors), image]
        gradients = torch.autograd.grad((output * seeds[:, k]).sum(), wanted, retain_graph=True)
        for name, gradient in zip(found, gradients, strict=True):
            found[name].append(gradient.numpy())
    return {name: np.stack(rows, 1) for name, rows in found.items()}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def exported(request):
    """The case, a picture, its forward model in float64 and the explained one."""
    case = request.param
    network = redrawn(case.network).double()
    image = torch.randn(case.shape, generator=torch.Generator().manual_seed(1)).double()
    forward = forward_model(TorchSource(network), image)
    return case, image, forward, bake(forward.model, guided=True, pixel_rule="gradient", **case.options)


def test_the_contract_says_what_is_explained(exported):
    case, _, _, model = exported
    contract = contract_of(model)
    assert contract.target.kind == case.options.get("target", TargetOptions()).kind
    found = [(layer.name, layer.space, layer.layout, layer.skip, layer.constant) for layer in contract.layers]
    assert tuple(found) == case.layers


def test_gradients_equal_autograd_in_float64(exported):
    case, image, forward, model = exported
    contract = contract_of(model)
    found = run_float64(model, {contract.input: image.numpy(), **case.feeds})
    truth = autograd(forward.program, [layer.tensor for layer in contract.layers], image, case.seed)
    count = 1 if contract.target.kind != CLASSES else contract.target.count
    for layer in contract.layers:
        expected = map_of(layer, truth[layer.tensor])
        stored = found[layer.gradients].reshape(
            2, count, layer.channels, *found[layer.gradients].shape[-len(layer.space) :]
        )
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(np.broadcast_to(stored, expected.shape), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found["guided"].reshape(truth["guided"].shape), truth["guided"], rtol=1e-6, atol=1e-9)


def test_the_self_check_holds_by_autograd_and_by_differences(exported):
    case, _, _, _ = exported
    network = case.network.float()
    forward = forward_model(TorchSource(network), torch.randn(case.shape))
    model = bake(forward.model, **case.options)
    by_autograd = check(model, contract_of(model), forward)
    assert by_autograd["oracle"] == "autograd"
    forward.program = None
    assert check(model, contract_of(model), forward)["oracle"] == "finite differences"


class Conditioned(nn.Module):
    """A picture and a vector in, class scores and features out."""

    def __init__(self):
        super().__init__()
        self.first, self.gate, self.classes = nn.Conv2d(3, 6, 3), nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x, vector):
        x = self.first(x).relu() * self.gate(vector).sigmoid()[:, :, None, None]
        return self.classes(x.mean((2, 3))), x.mean(1)


def test_a_network_may_have_several_inputs_and_outputs():
    network = redrawn(Conditioned())
    image, vector = torch.randn(2, 3, 16, 16), torch.randn(2, 4)
    model = explain_module(network, (image, vector), guided=True, pixel_rule="gradient")
    contract = contract_of(model)
    assert [(entry.name, entry.shape, entry.dtype) for entry in contract.extra_inputs] == [
        ("vector", ("N", 4), "float32")
    ]
    assert (contract.input, contract.version, contract.check["oracle"]) == ("input", 2, "autograd")
    feeds = {"input": image.numpy(), "vector": vector.numpy(), "target": np.array([1, 2])}
    found = dict(zip([o.name for o in model.graph.output], session_for(model).run(None, feeds), strict=True))
    point = image.clone().requires_grad_()
    scores, features = network(point, vector)
    expected = torch.autograd.grad(scores[[0, 1], [1, 2]].sum(), point)[0]
    np.testing.assert_allclose(found[contract.levels["plain"].outputs[1]], features.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["guided"], expected, rtol=1e-3, atol=1e-5)


def test_ranks_are_resolved_for_each_of_several_classes():
    network = redrawn(Classifier())
    image = torch.randn(2, 3, 16, 16)
    model = bake(forward_model(TorchSource(network.double()), image.double()).model, target=TargetOptions(CLASSES, 2))
    found = run_float64(model, {"input": image.double().numpy(), "target": np.array([[-1, -2], [3, -1]])})
    order = np.argsort(-network(image.double()).detach().numpy(), axis=1)
    assert found["target_class"].tolist() == [[order[0, 0], order[0, 1]], [3, order[1, 0]]]


def test_the_best_detection_is_that_of_the_best_class():
    network = redrawn(Detector())
    image = torch.randn(2, 3, 16, 16).double()
    forward = forward_model(TorchSource(network.double()), image)
    model = bake(forward.model, target=TargetOptions(DETECTION, first_class=4))
    found = run_float64(model, {"input": image.numpy(), "target": np.array([-1, -1]), "detection": np.array([-1, -2])})
    scores = network(image).detach().numpy()[:, 4:].transpose(0, 2, 1)
    order = np.argsort(-scores.max(2), axis=1)
    assert found["detection_index"].tolist() == [order[0, 0], order[1, 1]]
    rows = scores[[0, 1], found["detection_index"]]
    assert found["target_class"].tolist() == rows.argmax(1).tolist()
    np.testing.assert_allclose(found["selected_scores"], rows, rtol=1e-5)


def test_a_region_is_given_or_is_where_the_class_wins():
    network = redrawn(Segmenter())
    image = torch.randn(2, 3, 16, 16).double()
    model = bake(forward_model(TorchSource(network.double()), image).model, target=TargetOptions(REGION))
    found = run_float64(model, {"input": image.numpy(), "target": np.array([-1, 0]), "region": LEFT[::-1].copy()})
    maps = network(image)[0].detach().numpy()
    areas = (maps.argmax(1)[0][..., None] == np.arange(4)).sum((0, 1))
    assert found["target_class"].tolist() == [areas.argmax(), 0]
    where = maps[0].argmax(0) == areas.argmax()
    np.testing.assert_allclose(found["selected_scores"][0], maps[0][:, where].mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["selected_scores"][1], maps[1][:, :, :8].mean((1, 2)), rtol=1e-5)


REFUSED = [
    (
        "more classes at once than there are",
        Classifier(),
        {"target": TargetOptions(CLASSES, 9, ranks=9)},
        SourceError,
        "--top-k 9",
    ),
    ("a region of a classifier", Classifier(), {"target": TargetOptions(REGION)}, UnsupportedGraphError, "[N,K,h,w]"),
    (
        "detections of a classifier",
        Classifier(),
        {"target": TargetOptions(DETECTION)},
        UnsupportedGraphError,
        "detections",
    ),
    ("an unknown kind", Classifier(), {"target": TargetOptions("mask")}, SourceError, '"mask"'),
    ("an unknown output", Classifier(), {"target": TargetOptions(SEED, output="x")}, SourceError, 'no output "x"'),
    (
        "classes beyond the axis",
        Detector(),
        {"target": TargetOptions(DETECTION, first_class=7)},
        SourceError,
        "--first-class 7",
    ),
    ("a class of a segmenter's maps", Detector(), {}, UnsupportedGraphError, "--target"),
    ("the same layer twice", Classifier(), {"layer": ["first", "first"]}, SourceError, "different layers"),
    ("an unknown layer among known ones", Classifier(), {"layer": ["first", "frst"]}, LayerError, "first"),
    (
        "a grid that tokens do not fit",
        Transformer(),
        {"layer": "blocks.0", "token_grid": (5, 5)},
        LayerError,
        "--token-grid",
    ),
]


@pytest.mark.parametrize(("name", "network", "options", "error", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_explained_is_refused_in_one_line(name, network, options, error, words):
    forward = forward_model(TorchSource(redrawn(network.float())), torch.randn(2, 3, 16, 16))
    with pytest.raises(ExportError, match=None) as caught:
        bake(forward.model, **options)
    assert isinstance(caught.value, error)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
