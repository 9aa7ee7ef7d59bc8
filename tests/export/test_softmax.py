"""The weights of gradcam++-softmax in the graph, held against the paper's sums and against autograd.

Two ways lead to them: behind pooling and one linear layer, three products; elsewhere the gradients of several classes.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import softmax_truth
from onnx import TensorProto, helper, numpy_helper
from small_models import classifier

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the exported graph")

from gcpp_edge.contract import CLASSES, MAP, contract_from_metadata  # noqa: E402
from gcpp_edge.errors import ExportError, SourceError, UnsupportedGraphError  # noqa: E402
from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.check import check  # noqa: E402
from gcpp_edge.export.from_torch import ForwardModel  # noqa: E402
from gcpp_edge.export.scores import TargetOptions  # noqa: E402

SPACE = (3, 4)
RANDOM = np.random.default_rng(11)


def head_model(weights, bias, head="gemm", rectifier="Relu"):
    """image [N,1,C h,w] - [N,C,h,w] - rectifier ("features") - pooling - one linear layer, or two that are one."""
    count, channels = weights.shape
    constants = {
        "w": weights,
        "wt": weights.T.copy(),
        "b": bias,
        "w4": weights[:, :, None, None],
        "1": np.eye(channels),
    }
    node = helper.make_node
    pool, flat = node("GlobalAveragePool", ["features"], ["mean"]), node("Flatten", ["mean"], ["flat"])
    tails = {
        "gemm": [pool, flat, node("Gemm", ["flat", "w", "b"], ["logits"], transB=1)],
        "matmul": [pool, flat, node("MatMul", ["flat", "wt"], ["product"]), node("Add", ["product", "b"], ["logits"])],
        "conv": [pool, node("Conv", ["mean", "w4", "b"], ["logits"])],
        "two layers": [
            pool,
            flat,
            node("MatMul", ["flat", "1"], ["inner"]),
            node("Gemm", ["inner", "w", "b"], ["logits"], transB=1),
        ],
    }
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    tensors.append(numpy_helper.from_array(np.array([0, channels, *SPACE]), "shape"))
    scores = ["batch", count, 1, 1][: 4 if head == "conv" else 2]
    graph = helper.make_graph(
        [node("Reshape", ["image", "shape"], ["maps"]), node(rectifier, ["maps"], ["features"]), *tails[head]],
        "head",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, channels * SPACE[0], SPACE[1]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, scores)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def as_image(*activations):
    """[N,1,C h,w] of maps [C,h,w] each."""
    return np.stack([maps.reshape(1, -1, SPACE[1]) for maps in activations]).astype(np.float32)


def run(model, **feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def contract_of(model):
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


@dataclass(frozen=True)
class Case:
    """Weights [K,C], bias [K], activations [C,h,w] and the class; poles that must be found there."""

    name: str
    weights: np.ndarray
    bias: np.ndarray
    image: np.ndarray
    chosen: int
    poles: int | None = None


def drawn(classes, channels=5, size=1.0, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0, size, (classes, channels)), generator.uniform(0, 2, (channels, *SPACE))


def confident(name, share, classes=7, size=0.3, chosen=3):
    """Class `chosen` with the probability 1 - share, by its bias."""
    weights, image = drawn(classes, size=size)
    scores = weights @ image.mean((1, 2))
    others = np.delete(scores, chosen)
    bias = np.zeros(classes)
    bias[chosen] = np.log(np.exp(others).sum() / share) - scores[chosen]
    return Case(name, weights, bias, image, chosen)


def at_poles():
    """Sure of class 0, beside one other: alpha = 1 / (2 - mean A t), and mean A t is 2 in the first channel."""
    weights = np.array([[1.5, 0.5, 0.25], [-0.5, -0.5, 0.75]])
    return Case("poles", weights, np.array([18.0, 0.0]), np.ones((3, *SPACE)), 0, poles=SPACE[0] * SPACE[1])


def uniform():
    """All classes equally probable."""
    weights, image = drawn(9)
    return Case("uniform", weights, -weights @ image.mean((1, 2)), image, 4)


CASES = [
    Case("random", drawn(9)[0], np.zeros(9), drawn(9)[1], 3),
    uniform(),
    Case("two classes", drawn(2)[0], np.array([0.3, 0]), drawn(2)[1], 1),
    confident("sure", 1e-2),
    confident("very sure", 1e-7),
    confident("surer than float32 can say", 1e-12),
    confident("surer than exp can say", 1e-60),
    confident("almost ruled out", 1 - 1e-6),
    Case("many classes, small weights", drawn(1000, 32, 0.03, 5)[0], np.zeros(1000), drawn(1, 32)[1], 77),
    at_poles(),
    Case("no difference at all", np.ones((4, 3)), np.zeros(4), np.ones((3, *SPACE)), 1, poles=0),
    Case("an empty channel", drawn(4)[0], np.zeros(4), drawn(4)[1] * np.array([0, 1, 1, 0, 1])[:, None, None], 0),
]


@pytest.mark.parametrize("head", ["gemm", "matmul", "conv", "two layers"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_weights_and_poles_are_those_of_the_papers_sums(case, head):
    weights, bias = case.weights.astype(np.float32), case.bias.astype(np.float32)
    image = case.image.astype(np.float32)
    model = bake(head_model(weights, bias, head), softmax=True, softmax_classes=len(bias))
    found = run(model, image=as_image(image), target=np.array([case.chosen]))
    scores = weights.astype(np.float64) @ image.astype(np.float64).mean((1, 2)) + bias
    slopes = weights[:, :, None, None].astype(np.float64) / (SPACE[0] * SPACE[1])
    expected, poles = softmax_truth.explained(image, scores, slopes, case.chosen)
    assert found["softmax_weights"].shape == (1, len(expected), 1, 1)
    np.testing.assert_allclose(
        found["softmax_weights"].ravel(), expected, rtol=1e-3, atol=3e-5 * np.abs(expected).max()
    )
    assert found["softmax_poles"].tolist() == [poles]
    assert np.abs(expected).max() > 0 or case.poles == 0
    if case.poles is not None:
        assert poles == case.poles


def test_behind_pooling_and_one_linear_layer_no_second_backward_pass_is_emitted():
    for head, expected in (("gemm", True), ("matmul", True), ("conv", True), ("two layers", False)):
        model = bake(head_model(*drawn_head(), head), softmax=True)
        products = sum(node.op_type == "Gemm" and node.name.startswith("gcpp") for node in model.graph.node)
        repeats = any(node.op_type == "TopK" and node.name.startswith("gcpp/TopK_") for node in model.graph.node)
        assert (products == 3, repeats) == (expected, not expected), head


def drawn_head(classes=6):
    weights, _ = drawn(classes)
    return weights.astype(np.float32), np.zeros(classes, np.float32)


def test_negative_sums_are_clamped_as_in_gradcam_plus_plus():
    weights, bias = drawn_head()
    image = -drawn(6)[1].astype(np.float32)
    model = bake(head_model(weights, bias, rectifier="Identity"), layer="maps", softmax=True)
    found = run(model, image=as_image(image), target=np.array([1]))
    positive = weights[1] - np.delete(weights, 1, 0).T @ others(weights, image, 1)
    np.testing.assert_allclose(found["softmax_weights"].ravel(), np.maximum(positive, 0) / 2, atol=1e-5)


def others(weights, image, chosen):
    scores = np.exp(np.delete(weights @ image.mean((1, 2)), chosen))
    return scores / scores.sum()


def test_every_class_of_top_k_gets_the_weights_that_it_gets_alone():
    model = head_model(*drawn_head())
    several = bake(model, softmax=True, target=TargetOptions(CLASSES, 3))
    single = bake(model, softmax=True)
    images = as_image(*(drawn(6, seed=seed)[1] for seed in (1, 2)))
    targets = np.array([[0, 5, 2], [3, 1, 4]])
    found = run(several, image=images, target=targets)
    assert found["softmax_weights"].shape == (2, 3, 5, 1, 1) and found["softmax_poles"].shape == (2, 3)
    for k in range(3):
        alone = run(single, image=images, target=targets[:, k])
        np.testing.assert_allclose(found["softmax_weights"][:, k], alone["softmax_weights"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_most_probable_others_stand_for_all_where_they_are_fewer(count):
    weights, bias = drawn_head(8)
    image = drawn(8, seed=4)[1].astype(np.float32)
    model = bake(head_model(weights, bias, "two layers"), softmax=True, softmax_classes=count)
    found = run(model, image=as_image(image), target=np.array([3]))
    scores = weights.astype(np.float64) @ image.mean((1, 2))
    kept = [3, *[int(k) for k in np.argsort(-scores) if k != 3][:count]]
    slopes = weights[kept, :, None, None].astype(np.float64) / (SPACE[0] * SPACE[1])
    expected, _ = softmax_truth.explained(image, scores[kept], slopes, 0)
    np.testing.assert_allclose(found["softmax_weights"].ravel(), expected, rtol=1e-4, atol=1e-6)


def test_a_rank_is_explained_as_the_class_at_that_rank():
    model = bake(classifier(head="convolution"), softmax=True)
    image = RANDOM.normal(size=(2, 3, 16, 16)).astype(np.float32)
    ranked = run(model, image=image, target=np.array([-1, -2]))
    named = run(model, image=image, target=ranked["target_class"])
    np.testing.assert_array_equal(ranked["softmax_weights"], named["softmax_weights"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("ending", ["logits", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("head", ["linear", "convolution"])
def test_weights_are_float32_of_the_logits_whatever_the_network_ends_in(head, ending, dtype):
    model = bake(classifier(head=head, ending=ending, dtype=dtype), softmax=True)
    plain = bake(classifier(head=head), softmax=True)
    image = RANDOM.normal(size=(2, 3, 16, 16)).astype(dtype)
    found = run(model, image=image, target=np.array([1, 4]))
    expected = run(plain, image=image.astype(np.float32), target=np.array([1, 4]))
    assert found["softmax_weights"].dtype == np.float32 and found["softmax_poles"].dtype == np.int64
    if dtype == np.float32:
        np.testing.assert_allclose(found["softmax_weights"], expected["softmax_weights"], rtol=1e-4, atol=1e-6)
    assert {"softmax_weights", "softmax_poles"} <= set(contract_of(model).levels[MAP].outputs)


REFUSED = [
    ("sigmoid scores", {"ending": "Sigmoid"}, {}, SourceError, "--softmax needs scores of classes that exclude"),
    ("two layers", {}, {"layer": ["body/features", "pooled"]}, SourceError, "--softmax takes one layer, found 2"),
    ("no others", {}, {"softmax_classes": 0}, SourceError, "--softmax-classes 0 is out of range"),
    ("top-k elsewhere", {"head": "convolution"}, {"target": TargetOptions(CLASSES, 2)}, UnsupportedGraphError,
     "has more behind it than pooling"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "model", "options", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_it_is_not_made_for_is_refused_in_one_line(name, model, options, error, message):
    with pytest.raises(error, match=message) as raised:
        bake(classifier(**model), softmax=True, **options)
    assert isinstance(raised.value, ExportError) and "\n" not in str(raised.value)


def test_the_self_check_passes_with_the_weights_in_the_file():
    for head in ("linear", "convolution"):
        source = classifier(head=head)
        model = bake(source, softmax=True)
        assert check(model, contract_of(model), ForwardModel(source))["error"] < 1e-2


# autograd


def autograd_derivatives(torch, network, activations, chosen):
    """dY, d2Y and d3Y along each entry of the activations, by autograd alone."""
    point = torch.tensor(activations, dtype=torch.float64, requires_grad=True)
    y = network(point[None]).softmax(1)[0, chosen]
    (first,) = torch.autograd.grad(y, point, create_graph=True)
    second, third = torch.zeros_like(point), torch.zeros_like(point)
    for index in np.ndindex(*activations.shape):
        (row,) = torch.autograd.grad(first[index], point, create_graph=True)
        second[index] = row[index]
        third[index] = torch.autograd.grad(row[index], point, retain_graph=True)[0][index]
    return float(y.detach()), [array.detach().numpy() for array in (first, second, third)]


def torch_heads(nn):
    return {
        "pooling + linear": (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)), True),
        "pooling + two layers": (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)),
            True,
        ),
        "a map per class": (nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), False),
        "flattened": (nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 5)), False),
    }


@pytest.mark.parametrize("name", ["pooling + linear", "pooling + two layers", "a map per class", "flattened"])
@pytest.mark.parametrize("sharpness", [1.0, 12.0])
def test_weights_are_those_of_autograds_third_derivatives(name, sharpness):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    from gcpp_edge.export.from_torch import TorchSource, forward_model

    torch.manual_seed(2)
    head, constant = torch_heads(torch.nn)[name]
    with torch.no_grad():
        head[-1 if hasattr(head[-1], "weight") else 0].weight.mul_(sharpness)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU())
    network = torch.nn.Sequential(body, head).eval()
    image = torch.randn(1, 3, 4, 4)
    model = bake(forward_model(TorchSource(network), image).model, layer="0", softmax=True)
    assert contract_of(model).layer.constant == constant
    with torch.no_grad():
        activations = body(image)[0].numpy()
        scores = network(image)[0]
    for chosen in (int(scores.argmax()), int(scores.argmin())):
        found = run(model, **{contract_of(model).input: image.numpy(), "target": np.array([chosen])})
        y, three = autograd_derivatives(torch, network[1].double(), activations, chosen)
        network.float()
        three = [softmax_truth.exact(array) for array in three]
        expected, poles = softmax_truth.weights(activations, three, softmax_truth.exact(y * (1 - y)).item())
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found["softmax_weights"].ravel(), expected, rtol=1e-3, atol=1e-4 * scale)
        assert found["softmax_poles"].tolist() == [poles]
