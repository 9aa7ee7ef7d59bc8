"""TensorRT for RTX parses and builds what is exported; what it refuses, the policy names before it does.

No GPU is needed, and none is used: nothing here runs an engine.
"""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tensorrt_builder import activations_of, complaints_of
from tensorrt_forms import FORMS, model_of

torch = pytest.importorskip("torch", reason="PyTorch is needed to export the networks")

import test_recurrent  # noqa: E402
import test_targets  # noqa: E402
from small_models import classifier  # noqa: E402
from test_vjp import CASES, forward_of, with_backward  # noqa: E402

from gcpp_edge.contract import CLASSES, FrameInput, Geometry, Preprocessing  # noqa: E402
from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.emit import STEEP  # noqa: E402
from gcpp_edge.export.from_torch import TorchSource, forward_model, import_torchvision  # noqa: E402
from gcpp_edge.export.graph import Graph  # noqa: E402
from gcpp_edge.export.lowering import TUNED  # noqa: E402
from gcpp_edge.export.normalise import normalise  # noqa: E402
from gcpp_edge.export.scores import TargetOptions  # noqa: E402
from gcpp_edge.export.tensorrt_policy import TOPK_LIMIT, concerns  # noqa: E402
from gcpp_edge.methods import METHODS  # noqa: E402

BOXED = Preprocessing(16, 16, mean=(0.5,) * 3, std=(0.25,) * 3, geometry=Geometry("letterbox"))

# networks


def efficientnet_lite0():
    lite = pytest.importorskip("efficientnet_lite_pytorch", reason="EfficientNet-Lite0 comes from this package")
    return lite.EfficientNet.from_name("efficientnet-lite0")


def torchvision_model(name, **options):
    import_torchvision()
    from torchvision.models import get_model

    return get_model(name, weights=None, num_classes=10, **options)


def short_densenet():
    """DenseNet with three layers a block; 121 build as well, in a minute."""
    import_torchvision()
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=12, block_config=(3, 3, 3, 3), num_init_features=16, num_classes=10)


def short_convnext():
    """ConvNeXt with one block a stage."""
    import_torchvision()
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    stages = [
        CNBlockConfig(32, 64, 1),
        CNBlockConfig(64, 96, 1),
        CNBlockConfig(96, 128, 1),
        CNBlockConfig(128, None, 1),
    ]
    return ConvNeXt(stages, num_classes=10)


NETWORKS = {
    "efficientnet_lite0": (efficientnet_lite0, 64),
    "resnet18": (lambda: torchvision_model("resnet18"), 64),
    "mobilenet_v3_small": (lambda: torchvision_model("mobilenet_v3_small"), 64),
    "squeezenet1_1": (lambda: torchvision_model("squeezenet1_1"), 64),
    "efficientnet_b0": (lambda: torchvision_model("efficientnet_b0"), 64),
    "densenet": (short_densenet, 64),
    "googlenet": (lambda: torchvision_model("googlenet", init_weights=False, aux_logits=False), 64),
    "convnext": (short_convnext, 64),
    "shufflenet_v2_x0_5": (lambda: torchvision_model("shufflenet_v2_x0_5"), 64),
    "regnet_y_400mf": (lambda: torchvision_model("regnet_y_400mf"), 64),
    "mnasnet0_5": (lambda: torchvision_model("mnasnet0_5"), 64),
    "alexnet": (lambda: torchvision_model("alexnet"), 224),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_an_explained_network_is_built(name):
    make, size = NETWORKS[name]
    forward = forward_model(TorchSource(make().eval()), torch.zeros(2, 3, size, size))
    assert complaints_of(bake(forward.model)) == []
    for form in TUNED.values():
        assert complaints_of(bake(forward.model, guided=True, lowerings=form)) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("ending", ["logits", "Softmax", "Sigmoid"])
def test_a_small_classifier_is_built(dtype, batch, ending):
    assert complaints_of(bake(classifier(ending, batch=batch, dtype=dtype), guided=True)) == []


@pytest.mark.parametrize("case", test_targets.CASES, ids=lambda case: case.name)
def test_every_kind_of_target_and_layer_is_built(case):
    forward = forward_model(TorchSource(case.network.float().eval()), torch.zeros(case.shape))
    assert complaints_of(bake(forward.model, guided=True, **case.options)) == []


EXTRAS = [
    ("softmax behind pooling", {}, {"softmax": True}),
    ("softmax elsewhere", {"head": "convolution"}, {"softmax": True, "softmax_classes": 3}),
    ("softmax in float16", {"dtype": np.float16}, {"softmax": True}),
    ("softmax of two classes at once", {}, {"softmax": True, "target": TargetOptions(CLASSES, 2)}),
    *((f"portable {name}", {}, {"portable": name, "softmax": True}) for name in METHODS),
    ("portable of odd size", {"size": 23, "head": "convolution"}, {"portable": "gradcam++-signed"}),
    ("portable of two layers", {}, {"portable": "gradcam++", "layer": ["body/features", "stem/relu"]}),
    ("portable of two classes", {}, {"portable": "gradcam++", "target": TargetOptions(CLASSES, 2)}),
    *((f"frames {form}", {}, {"frame_input": FrameInput(40, 30, form)}) for form in ("bgr", "rgba", "gray")),
    ("frames in a letterbox", {}, {"frame_input": FrameInput(40, 30), "preprocessing": BOXED}),
    ("frames of float16", {"dtype": np.float16}, {"frame_input": FrameInput(40, 30)}),
]


@pytest.mark.parametrize(("name", "model", "options"), EXTRAS, ids=[row[0] for row in EXTRAS])
def test_what_the_graph_computes_besides_gradients_is_built(name, model, options):
    assert complaints_of(bake(classifier(**model), **options)) == []


@pytest.mark.parametrize("ranks", [1, 5, TOPK_LIMIT])
def test_ranks_of_a_large_classifier_are_built(ranks):
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "head": generator.normal(size=(5000, 8)).astype(np.float32),
    }
    nodes = [
        ("Conv", ["x", "w"], ["features"], {}),
        ("Relu", ["features"], ["a"], {}),
        ("GlobalAveragePool", ["a"], ["mean"], {}),
        ("Flatten", ["mean"], ["flat"], {}),
        ("Gemm", ["flat", "head"], ["scores"], {"transB": 1}),
    ]
    model = model_of(nodes, {"x": (TensorProto.FLOAT, ["batch", 3, 16, 16])}, weights, "scores")
    assert complaints_of(bake(model, target=TargetOptions(ranks=ranks))) == []


def test_a_step_keeps_its_slope_in_the_parsed_network():
    model = bake(classifier(), guided=True, lowerings=TUNED["gpu"])
    slopes = [abs(layer.alpha) for layer in activations_of(model, "HARD_SIGMOID")]
    assert slopes == [STEEP, STEEP]


# rules


def single(case):
    """The case in float32."""
    constants = {
        name: array.astype(np.float32) if np.asarray(array).dtype == np.float64 else array
        for name, array in case.constants.items()
    }
    types = {TensorProto.DOUBLE: TensorProto.FLOAT}
    nodes = tuple(
        (op, i, o, {k: types.get(v, v) if k == "to" else v for k, v in a.items()}) for op, i, o, a in case.nodes
    )
    return replace(case, constants=constants, nodes=nodes)


def without_refused(model):
    """The model with inputs in place of the nodes that the policy names, so that the rest can be built."""
    graph, result = Graph(model), onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        if not concerns(graph, [node]):
            result.graph.node.append(node)
            continue
        for value in map(graph.value, node.output):
            result.graph.input.append(helper.make_tensor_value_info(value.name, value.dtype, list(value.shape)))
    made = {value.name for value in result.graph.input}
    kept = [value for value in result.graph.output if value.name not in made]
    del result.graph.output[:]
    result.graph.output.extend(kept)
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_backward_pass_of_a_rule_is_built(case):
    forward = forward_of(single(case), TensorProto.FLOAT)
    named, complaints = concerns(Graph(forward), forward.graph.node), complaints_of(forward)
    assert bool(named) == bool(complaints), f"the policy says {named}, TensorRT {complaints}"
    backward, _ = with_backward(forward)
    assert complaints_of(without_refused(backward)) == []


@pytest.mark.parametrize("name", test_recurrent.CASES)
def test_the_backward_pass_of_a_recurrent_layer_is_built(name):
    operator, state, options = test_recurrent.CASES[name]
    backward, _ = with_backward(normalise(test_recurrent.network(operator, state, **options)))
    for dim in (dim for value in backward.graph.input for dim in value.type.tensor_type.shape.dim):
        if dim.dim_param:  # "N", or "3N" for the seed: the builder would take them for two sizes
            dim.dim_value = 2 * int(dim.dim_param[:-1] or 1)
    assert complaints_of(backward) == []


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_refused_as_the_policy_says(form):
    complaints = complaints_of(model_of(form.nodes, form.inputs, form.constants))
    assert bool(complaints) == bool(form.refused), complaints
