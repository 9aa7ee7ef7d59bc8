"""The self-check holds good gradients and catches bad ones: a check that cannot fail is none."""

import numpy as np
import pytest
from onnx import numpy_helper

pytest.importorskip("onnxruntime", reason="the self-check runs the exported graph")

from small_models import classifier

from gcpp_edge.contract import FrameInput, contract_from_metadata
from gcpp_edge.errors import SelfCheckError
from gcpp_edge.export import explain_onnx
from gcpp_edge.export.bake import bake
from gcpp_edge.export.check import check
from gcpp_edge.export.from_torch import ForwardModel


def contract_of(model):
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def figures_of(model, source):
    return check(model, contract_of(model), ForwardModel(source))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": "convolution"},
        {"ending": "Softmax"},
        {"dtype": np.float16},
        {"head": "convolution", "dtype": np.float16},
    ],
    ids=str,
)
def test_gradients_of_an_onnx_file_hold_against_finite_differences(options):
    figures = contract_of(explain_onnx(classifier(**options))).check
    assert figures["oracle"] == "finite differences"
    assert figures["error"] < figures["limit"]
    assert figures["target_dependence"] > 0


def test_layers_are_proven_independent_of_the_picture_one_by_one():
    figures = contract_of(explain_onnx(classifier(), layer=["body/features", "stem/relu"])).check
    assert figures["input_independence_proven"]
    assert figures["error"] < figures["limit"]


def test_a_target_whose_relu_is_shut_is_no_fault_of_the_gradients():
    source = classifier(head="convolution")
    figures = contract_of(explain_onnx(source, frame_input=FrameInput(20, 24))).check
    assert figures["error"] < figures["limit"]


def before_a_pooled_head(offset):
    """The layer sits before a MaxPool, as VGG's does: windows of zeros are ties, where a derivative has two sides."""
    from onnx import helper

    source = classifier()
    nodes = list(source.graph.node)[:-3]
    nodes += [
        helper.make_node("MaxPool", ["body/features"], ["last"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["last"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense.weight"], ["logits"], transB=1),
    ]
    del source.graph.node[:]
    source.graph.node.extend(nodes)
    dense = np.random.default_rng(2).normal(0, 0.1, (6, 12 * 9)).astype(np.float32)
    bias = next(tensor for tensor in source.graph.initializer if tensor.name == "body.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(12, offset, np.float32), "body.bias"))
    source.graph.initializer.append(numpy_helper.from_array(dense, "dense.weight"))
    return source


@pytest.mark.parametrize("offset", [0.0, -0.3, -0.5])  # some windows of zeros, more, most
def test_windows_of_zeros_before_a_pool_are_no_fault_of_the_gradients(offset):
    figures = contract_of(explain_onnx(before_a_pooled_head(offset))).check
    assert figures["error"] < figures["limit"]


def test_pooling_and_linear_gradients_are_proven_independent_of_the_picture():
    figures = contract_of(explain_onnx(classifier())).check
    assert figures["input_independence_proven"]
    assert figures["input_dependence"] == 0


def test_gradients_through_a_mask_depend_on_the_picture():
    figures = contract_of(explain_onnx(classifier(head="convolution"))).check
    assert not figures["input_independence_proven"]
    assert figures["input_dependence"] > 0


def spoil(model, change):
    """Puts a node between the gradients and their output."""
    for node in model.graph.node:
        node.output[:] = ["honest" if name == "gradients" else name for name in node.output]
    change(model)
    return model


def scaled(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1.05), "factor"))
    _append(model, "Mul", ["honest", "factor"])


def frozen(model):
    """As a tracer would leave them that recorded one run."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 12, 1, 1), np.float32), "recorded"))
    _append(model, "Identity", ["recorded"])


def dead(model):
    _append(model, "Sub", ["honest", "honest"])


def _append(model, operator, inputs):
    """In place of the last node's position: the map level must still end at the gradients."""
    from onnx import helper

    nodes = [*model.graph.node, helper.make_node(operator, inputs, ["gradients"], name="spoiler")]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize(
    ("change", "words"), [(scaled, "differ from finite differences"), (frozen, "differ"), (dead, "zero everywhere")]
)
def test_spoiled_gradients_are_caught(change, words):
    source = classifier()
    model = spoil(bake(source), change)
    with pytest.raises(SelfCheckError, match=words):
        figures_of(model, source)


def test_degenerate_weights_are_redrawn_for_the_check():
    source = classifier()
    for tensor in source.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(np.full(list(tensor.dims), 0.1, np.float32), tensor.name))
    figures = contract_of(explain_onnx(source)).check
    assert figures["target_dependence"] > 0


def test_weights_that_are_not_numbers_are_refused():
    source = classifier()
    for tensor in source.graph.initializer:
        if tensor.name == "head.weight":
            tensor.CopyFrom(numpy_helper.from_array(np.full(list(tensor.dims), np.nan, np.float32), tensor.name))
    with pytest.raises(SelfCheckError, match="NaN"):
        explain_onnx(source)
