"""Nine networks that others designed: activations, gradients and pixel images equal PyTorch's autograd.

All parameters are redrawn and BatchNorm calibrated. Exported in float64 the graph must equal autograd to EXACT. In
float32, through ONNX Runtime, the bar is max(1e-4, 3 x PyTorch's own float32-against-float64 error) of the largest
value. That error comes from kinks that flip, which is a matter of chance in one picture: so PyTorch's own is the worst
of its convolution back ends over several pairs of pictures, the tested one among them.
"""

from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is needed to compare with autograd")
ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the exported graph")

from autograd_oracle import explained, redrawn, relative_errors  # noqa: E402
from float64_evaluator import run_float64  # noqa: E402

from gcpp_edge.contract import contract_from_metadata  # noqa: E402
from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.from_torch import TorchSource, forward_model, import_torchvision  # noqa: E402
from gcpp_edge.export.weights import filled  # noqa: E402


@dataclass(frozen=True)
class Case:
    name: str
    layer: str  # what the exporter must choose by itself
    channels: int
    constant: bool
    size: int = 96
    watch: str | None = None  # module of the layer; None for what enters global pooling
    others: int = 3  # pairs of further pictures that PyTorch's own error is taken from


CASES = [
    Case("efficientnet_lite0", "hardtanh_32", 1280, True),
    Case("resnet50", "layer4", 2048, True),
    Case("vgg16", "features.29", 512, False, 224, "features.29", others=0),
    Case("mobilenet_v2", "features", 1280, True),
    Case("mobilenet_v3_large", "features", 960, True),
    Case("squeezenet1_1", "features", 512, False, 96, "features"),
    Case("densenet121", "relu_120", 1024, True),
    Case("googlenet", "inception5b", 1024, True),
    Case("convnext_tiny", "features", 768, True),
]
TARGETS = [3, 271]
EXACT = 1e-7  # HardSigmoid's slope of 1/6 is a float32 attribute; the networks without it are exact to 1e-9


def build(name, size):
    if name == "efficientnet_lite0":
        lite = pytest.importorskip("efficientnet_lite_pytorch", reason="EfficientNet-Lite0 comes from this package")
        network = lite.EfficientNet.from_name("efficientnet-lite0")
    else:
        import_torchvision()
        from torchvision.models import get_model

        extra = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        network = get_model(name, weights=None, **extra)
    return redrawn(network, size)


def pictures(size, count=1, seed=2):
    """Pairs of pictures, [2,3,size,size]."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn(2, 3, size, size, generator=generator)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def network(request):
    """The case, its module, a picture, and the forward model in float32 and float64.

    Their ForwardModels live as long as the fixture: they hold the weights.
    """
    case = request.param
    module = build(case.name, case.size)
    image = next(pictures(case.size, seed=1))
    double = forward_model(TorchSource(module.double()), image.double())
    single = forward_model(TorchSource(module.float()), image)
    yield case, module, image, single.model, double.model
    del double, single


def run(model, image):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(filled(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(None, {session.get_inputs()[0].name: image.numpy(), "target": np.array(TARGETS)})
    return dict(zip(names, found, strict=True))


def contract_of(model):
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def named(module, image, rule, watch):
    """What autograd says: the pixel image under a rule, and under the plain one activations and gradients too."""
    activations, gradients, pixel = explained(module, image, TARGETS, rule, watch)
    plain = {"activations": activations, "gradients": gradients} if rule == "gradient" else {}
    return {**plain, "guided": pixel}


def backends(module, image, rule, watch):
    """The same in float32, once for each of PyTorch's convolution back ends."""
    yield named(module, image, rule, watch)
    with torch.backends.mkldnn.flags(enabled=False):
        yield named(module, image, rule, watch)
    module.to(memory_format=torch.channels_last)
    yield named(module, image, rule, watch)
    module.to(memory_format=torch.contiguous_format)


def own_errors(module, pairs, truths, rule, watch):
    """PyTorch's own float32 error by output: the worst over back ends and pairs of pictures."""
    worst = dict.fromkeys(truths[0], 0.0)
    for pair, truth in zip(pairs, truths, strict=True):
        for found in backends(module.float(), pair, rule, watch):
            for name, value in truth.items():
                worst[name] = max(worst[name], relative_errors(found[name], value)[0])
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["gradient", "guided", "deconvnet"])
def test_a_network_equals_autograd(network, rule):
    case, module, image, single, double = network
    pairs = [image, *pictures(case.size, count=case.others)]
    truths = [named(module.double(), pair.double(), rule, case.watch) for pair in pairs]
    truth = truths[0]
    assert all(np.abs(value).max() > 0 for value in truth.values())

    feeds = {"input": image.double().numpy(), "target": np.array(TARGETS)}
    exact = run_float64(bake(double, guided=True, pixel_rule=rule), feeds)
    for name, value in truth.items():
        error, _ = relative_errors(np.broadcast_to(exact[name], value.shape), value)
        assert error <= EXACT, f"{name} in float64: {error:.1e}"

    found = run(bake(single, guided=True, pixel_rule=rule), image)
    own = own_errors(module, pairs, truths, rule, case.watch)
    for name, value in truth.items():
        error, l2 = relative_errors(np.broadcast_to(found[name], value.shape), value)
        print(f"{case.name} {rule} {name}: {error:.1e} (L2 {l2:.1e}; PyTorch's own {own[name]:.1e})")
        assert error <= max(1e-4, 3 * own[name]), f"{name} in float32: {error:.1e}, PyTorch's own {own[name]:.1e}"


@pytest.mark.slow
def test_the_default_layer_is_the_last_features_before_pooling(network):
    case, _, _, single, _ = network
    layer = contract_of(bake(single)).layer
    assert (layer.name, layer.channels, layer.constant) == (case.layer, case.channels, case.constant)
