"""Small classifiers built by hand in ONNX, for everything that needs no real network."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CLASSES = 6


def classifier(
    ending="logits", opset=20, batch="batch", size=16, head="linear", dtype=np.float32, seed=0, extra=(), ir_version=10
):
    """Conv - BatchNorm - ReLU - MaxPool - Conv - ReLU ("features") - pooling - Gemm, or a 1x1 convolution per class.

    ending: "logits", "Softmax", "LogSoftmax" or "Sigmoid". batch: a name, or 1 for a fixed one. extra: nodes put first,
    from "image" to "input of the stem".
    """
    generator = np.random.default_rng(seed)

    def draw(*shape):
        fan_in = int(np.prod(shape[1:])) or 1
        return generator.normal(0, (2 / fan_in) ** 0.5, shape).astype(dtype)

    constants = {
        "stem.weight": draw(8, 3, 3, 3),
        "norm.scale": generator.uniform(0.5, 1.5, 8).astype(dtype),
        "norm.bias": generator.normal(0, 0.2, 8).astype(dtype),
        "norm.mean": generator.normal(0, 0.2, 8).astype(dtype),
        "norm.var": generator.uniform(0.5, 1.5, 8).astype(dtype),
        "body.weight": draw(12, 8, 3, 3),
        "body.bias": generator.normal(0, 0.2, 12).astype(dtype),
    }
    first = "stem" if extra else "image"
    nodes = [
        *extra,
        helper.make_node("Conv", [first, "stem.weight"], ["stem/conv"], name="stem", pads=[1] * 4),
        helper.make_node(
            "BatchNormalization", ["stem/conv", *(f"norm.{n}" for n in ("scale", "bias", "mean", "var"))], ["stem/norm"]
        ),
        helper.make_node("Relu", ["stem/norm"], ["stem/relu"]),
        helper.make_node("MaxPool", ["stem/relu"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node(
            "Conv", ["pooled", "body.weight", "body.bias"], ["body/conv"], name="body", kernel_shape=[3, 3]
        ),
        helper.make_node("Relu", ["body/conv"], ["body/features"], name="features"),
    ]
    if head == "linear":
        constants |= {"head.weight": draw(CLASSES, 12), "head.bias": generator.normal(0, 0.2, CLASSES).astype(dtype)}
        nodes += [
            helper.make_node("GlobalAveragePool", ["body/features"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], name="head", transB=1),
        ]
        shape = [batch, CLASSES]
    else:
        constants |= {"head.weight": draw(CLASSES, 12, 1, 1)}
        nodes += [
            helper.make_node("Conv", ["body/features", "head.weight"], ["per_class"], kernel_shape=[1, 1]),
            helper.make_node("Relu", ["per_class"], ["per_class/relu"]),
            helper.make_node("GlobalAveragePool", ["per_class/relu"], ["logits"]),
        ]
        shape = [batch, CLASSES, 1, 1]
    output = "logits"
    if ending != "logits":
        nodes.append(helper.make_node(ending, ["logits"], ["scores"], **({} if ending == "Sigmoid" else {"axis": 1})))
        output = "scores"
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", element, [batch, 3, size, size])],
        [helper.make_tensor_value_info(output, element, shape)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def one_node_model(operator, shape=(1, 3, 8, 8), output=None, opset=20, **attributes):
    """A model of a single node, for graphs that must be refused."""
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(output or shape))
    graph = helper.make_graph(
        [helper.make_node(operator, ["image"], ["y"], name="only", **attributes)], "one", [x], [y]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
