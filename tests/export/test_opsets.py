"""Every opset comes to ours with the same numbers; what cannot is refused by name."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

pytest.importorskip("onnxruntime", reason="ONNX Runtime runs what was normalised")

from gcpp_edge.contract import MAX_OPSET
from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.bake import bake
from gcpp_edge.export.differences import session_for
from gcpp_edge.export.normalise import normalise

NEWEST = onnx.defs.onnx_opset_version()
SHAPE = (2, 4, 6, 8)
OLD = 20  # up to here ONNX Runtime is the oracle: onnx's reference forgets how some operators were


def weights(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def scores_of(nodes, constants, opset):
    """image -> nodes -> "y" [N,4,..] -> mean over space -> Gemm."""
    all_nodes = [helper.make_node("Relu", ["image"], ["x"])]
    all_nodes += [helper.make_node(op, list(i), list(o), name=f"{op}{n}", **a) for n, (op, i, o, a) in enumerate(nodes)]
    all_nodes += [
        helper.make_node("GlobalAveragePool", ["y"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["scores"], transB=1),
    ]
    constants = {**constants, "head": weights(5, 4, seed=9), "bias": weights(5)}
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE[1:]])
    graph = helper.make_graph(
        all_nodes,
        "opsets",
        [image],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 20 else 10)


def one(operator, *constants, inputs=None, **attributes):
    named = {f"c{i}": np.asarray(array) for i, array in enumerate(constants)}
    return ((operator, inputs or ["x", *named], ["y"], attributes),), named


ONES = np.ones(4, np.float32)
NORM = (weights(4), weights(4, seed=4), weights(4, seed=5), np.abs(weights(4, seed=6)) + 0.5)
SCALES = np.array([1, 1, 2, 1.5], np.float32)
TOKENS = (("Reshape", ["x", "tokens"], ["t"], {}), ("Transpose", ["t"], ["q"], {"perm": [0, 2, 1]}))
BACK = (("Transpose", ["a"], ["b"], {"perm": [0, 2, 1]}), ("Reshape", ["b", "space"], ["y"], {}))
TOKEN_SHAPES = {"tokens": np.array([0, 4, -1]), "space": np.array([0, 4, 6, 8])}


def on_tokens(operator, inputs, constants=None, **attributes):
    """The operator on [N,L,C] tokens "q"."""
    return (*TOKENS, (operator, inputs, ["a"], attributes), *BACK), {**TOKEN_SHAPES, **(constants or {})}


def on_heads(operator, inputs, constants=None, **attributes):
    """The operator on [N,heads,L,d] "h", two heads of width two."""
    nodes = (
        ("Reshape", ["x", "heads"], ["g"], {}),
        ("Transpose", ["g"], ["h"], {"perm": [0, 1, 3, 2]}),
        (operator, inputs, ["a"], attributes),
        ("Transpose", ["a"], ["b"], {"perm": [0, 1, 3, 2]}),
        ("Reshape", ["b", "space"], ["y"], {}),
    )
    shapes = {"heads": np.array([0, 2, 2, -1]), "space": TOKEN_SHAPES["space"]}
    return nodes, {**shapes, **(constants or {})}


HALF_CIRCLE = np.linspace(0, 3, 48, dtype=np.float32).reshape(1, 48, 1)
CASES = {
    # old forms
    "upsample by an attribute": (one("Upsample", scales=SCALES.tolist(), mode="linear"), (7, 8)),
    "upsample by an input": (one("Upsample", SCALES, mode="linear"), (9,)),
    "upsample to the nearest": (one("Upsample", SCALES, mode="nearest"), (9,)),
    "resize before it had geometries": (one("Resize", SCALES, mode="linear"), (10,)),
    "batch norm": (one("BatchNormalization", *NORM), (7, 9, 14, 15, NEWEST)),
    "dropout with an attribute": (one("Dropout", ratio=0.5), (7, 10)),
    "pad by an attribute": (one("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=1.5), (7, 10)),
    "slice by attributes": (one("Slice", starts=[1, 0], ends=[5, 1000], axes=[2, 3]), (7, 9)),
    "clip by attributes": (one("Clip", min=0.2, max=1.5), (7, 10)),
    "reduce by an attribute": (one("ReduceMean", axes=[2], keepdims=1), (7, 11, 13, 17)),
    "softmax that flattens": (one("Softmax", axis=1), (7, 9, 11, 12)),
    "log softmax of an axis": (one("LogSoftmax", axis=1), (13, 17, NEWEST)),
    "sum, max and mean": (
        (
            (
                ("Sum", ["x", "c0"], ["a"], {}),
                ("Max", ["a", "x"], ["b"], {}),
                ("Min", ["b", "c0"], ["c"], {}),
                ("Mean", ["b", "c"], ["y"], {}),
            ),
            {"c0": weights(4, 1, 1)},
        ),
        (8, 13, NEWEST),
    ),
    "split by an attribute": (
        (
            (("Split", ["x"], ["a", "b"], {"axis": 1, "split": [1, 3]}), ("Concat", ["b", "a"], ["y"], {"axis": 1})),
            {},
        ),
        (7, 11),
    ),
    "squeeze and unsqueeze by attributes": (
        ((("Unsqueeze", ["x"], ["a"], {"axes": [1]}), ("Squeeze", ["a"], ["y"], {"axes": [1]})), {}),
        (7, 11, 12),
    ),
    "a convolution": (one("Conv", weights(4, 4, 3, 3), weights(4), pads=[1] * 4), (7, 11, 17, 22, NEWEST)),
    "a pool with auto_pad": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), (7, 11, 22)),
    "prelu": (one("PRelu", weights(4, 1, 1)), (7, 9, 16)),
    "instance norm": (one("InstanceNormalization", weights(4), weights(4)), (7, 22)),
    "mean variance normalisation": (one("MeanVarianceNormalization"), (9, 13)),
    "local response norm": (one("LRN", size=3), (7, 13, NEWEST)),
    "hard swish": (one("HardSwish"), (14, 22)),
    "gelu": (one("Gelu"), (20, NEWEST)),
    "group norm with a scale a group": (one("GroupNormalization", weights(2), weights(2), num_groups=2), (18, 20)),
    # new operators
    "group norm with a scale a channel": (
        one("GroupNormalization", weights(4), weights(4), num_groups=2, epsilon=1e-3),
        (21, 24, NEWEST),
    ),
    "swish": (one("Swish"), (24, NEWEST)),
    "swish with a slope": (one("Swish", alpha=1.7), (24,)),
    "swiglu": (one("SwiGLU", inputs=["x", "x"], alpha=1.3), (28,)),
    "rms norm of the last axis": (one("RMSNormalization", weights(8), epsilon=1e-3), (23, NEWEST)),
    "rms norm from an axis on": (one("RMSNormalization", weights(4, 6, 8), axis=1), (23,)),
    "attention with its own heads": (on_heads("Attention", ["h", "h", "h"]), (23, 24, NEWEST)),
    "attention of tokens": (on_tokens("Attention", ["q", "q", "q"], q_num_heads=2, kv_num_heads=2), (23, 24, NEWEST)),
    "attention with a mask that is added": (
        on_tokens("Attention", ["q", "q", "q", "m"], {"m": weights(48, 48)}, q_num_heads=2, kv_num_heads=2, scale=0.3),
        (23,),
    ),
    "attention with a mask of booleans": (
        on_tokens("Attention", ["q", "q", "q", "m"], {"m": weights(48, 48) > -1}, q_num_heads=2, kv_num_heads=2),
        (23, 24),
    ),
    "attention that looks back": (
        on_tokens("Attention", ["q", "q", "q"], q_num_heads=4, kv_num_heads=4, is_causal=1),
        (23, 24),
    ),
    "attention with fewer key heads": (
        (
            (
                *TOKENS,
                ("Slice", ["q", "c0", "c1", "c1"], ["k"], {}),
                ("Attention", ["q", "k", "k"], ["a"], {"q_num_heads": 2, "kv_num_heads": 1}),
                *BACK,
            ),
            {**TOKEN_SHAPES, "c0": np.array([0]), "c1": np.array([2])},
        ),
        (23,),
    ),  # fmt: skip
    "rotary embedding": (
        on_heads("RotaryEmbedding", ["h", "c", "s"], {"c": np.cos(HALF_CIRCLE), "s": np.sin(HALF_CIRCLE)}),
        (23,),
    ),
    "a crop to the centre": (one("CenterCropPad", np.array([4, 10]), axes=[2, 3]), (18, 20)),
    "an input cast up and down": (
        ((("Cast", ["x"], ["a"], {"to": 11}), ("CastLike", ["a", "x"], ["y"], {})), {}),
        (15, 21, NEWEST),
    ),
}
ROWS = [(name, opset) for name, (_, opsets) in CASES.items() for opset in opsets]


@pytest.mark.parametrize(("name", "opset"), ROWS, ids=[f"{name}, opset {opset}" for name, opset in ROWS])
def test_an_opset_comes_to_ours_with_the_same_numbers(name, opset):
    (nodes, constants), _ = CASES[name]
    model = scores_of(nodes, constants, opset)
    image = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    if opset <= OLD:
        expected = session_for(model).run(None, {"image": image})[0]
    else:
        expected = ReferenceEvaluator(model).run(None, {"image": image})[0]
    result = normalise(model)
    assert [entry.version for entry in result.opset_import] == [MAX_OPSET]
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(session_for(result).run(None, {"image": image})[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_what_came_to_our_opset_can_be_explained(name):
    (nodes, constants), opsets = CASES[name]
    explained = bake(scores_of(nodes, constants, opsets[-1]), layer="x", guided=True)
    image = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    outputs = session_for(explained).run(["gradients", "guided"], {"image": image, "target": np.array([0, -1])})
    assert all(np.isfinite(output).all() and output.any() for output in outputs)


TRAINING = (("BatchNormalization", ["x", "c0", "c1", "c2", "c3"], ["y", "m", "v"], {"training_mode": 1}),)
ANOTHER_ORDER = {"blocksize": 2, "mode": "CRD"}
THERE_AND_BACK = (("SpaceToDepth", ["x"], ["s"], ANOTHER_ORDER), ("DepthToSpace", ["s"], ["y"], ANOTHER_ORDER))
REFUSED = {
    "an operator that ours cannot express": (one("CumProd", np.array(2)), 26, ["CumProd0", "CumProd", "opset 26"]),
    "an attribute that ours cannot express": ((THERE_AND_BACK, {}), 28, ["SpaceToDepth0", "mode = ", "opset 20"]),
    "a batch norm of each position": (one("BatchNormalization", *NORM, spatial=0), 7, ["spatial", "later opsets"]),
    "a batch norm in training": (
        (TRAINING, {f"c{i}": array for i, array in enumerate(NORM)}),
        15,
        ["BatchNormalization0", "training mode", "evaluation mode"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_our_opset_cannot_say_is_refused_by_name(name):
    (nodes, constants), opset, words = REFUSED[name]
    with pytest.raises(UnsupportedGraphError) as caught:
        normalise(scores_of(nodes, constants, opset))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_an_opset_that_onnx_does_not_know_is_refused():
    model = scores_of(*one("Relu"), 20)
    model.opset_import[0].version = NEWEST + 1
    with pytest.raises(UnsupportedGraphError, match=f"opset {NEWEST + 1}.*up to {NEWEST}"):
        normalise(model)


def test_weights_of_four_bits_are_refused():
    nodes, constants = one("Relu")
    model = scores_of((("DequantizeLinear", ["q", "s"], ["d"], {}), ("Add", ["x", "d"], ["y"], {})), constants, 21)
    model.graph.initializer.append(helper.make_tensor("q", TensorProto.INT4, [4, 1, 1], [1, 2, 3, 4]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "s"))
    with pytest.raises(UnsupportedGraphError, match='"q" holds int4'):
        normalise(model)
