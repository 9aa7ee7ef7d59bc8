"""Forms of operators that TensorRT takes or refuses: one table for the policy and for TensorRT for RTX itself.

A form that is refused stands beside its nearest neighbour that is taken.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gcpp_edge.export.tensorrt_policy import TOPK_LIMIT


@dataclass(frozen=True)
class Form:
    """A model of few nodes from inputs to "y"; `refused` is what the policy says of it, or None where it is taken."""

    name: str
    refused: str | None
    nodes: tuple
    inputs: dict
    constants: dict


def form(name, refused, operator, constants=(), shape=(1, 4, 8, 8), dtype=TensorProto.FLOAT, inputs=None, **attributes):
    """A form of a single node y = operator(x, *constants)."""
    named = {f"c{i}": np.asarray(array) for i, array in enumerate(constants)}
    nodes = ((operator, inputs or ["x", *named], ["y"], attributes),)
    return Form(name, refused, nodes, {"x": (dtype, list(shape))}, named)


def quantized(name, refused, point, dtype=np.int8, scale=0.1):
    nodes = (("QuantizeLinear", ["x", "s", "z"], ["q"], {}), ("DequantizeLinear", ["q", "s", "z"], ["y"], {}))
    constants = {"s": np.float32(scale), "z": np.array(point, dtype)}
    return Form(name, refused, nodes, {"x": (TensorProto.FLOAT, [1, 4])}, constants)


def weights(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def model_of(nodes, inputs, constants, output="y"):
    made = [helper.make_node(op, list(i), list(o), name=f"{op}{n}", **a) for n, (op, i, o, a) in enumerate(nodes)]
    graph = helper.make_graph(
        made,
        "form",
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=output)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


FLOAT, UINT8, BOOL, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.BOOL, TensorProto.INT64
THREE, TWICE = {"kernel_shape": [3, 3]}, np.array([1, 1, 2, 2], np.float32)
SCALED = {"inputs": ["x", "", "c0"], "mode": "linear"}
FORMS = [
    form("conv padded", None, "Conv", [weights(3, 4, 3, 3)], pads=[1, 0, 2, 1], **THREE),
    form("conv with negative pads", "pads below 0", "Conv", [weights(3, 4, 3, 3)], pads=[-1, 0, 0, 0], **THREE),
    form("conv over four axes", "three axes", "Conv", [weights(3, 4, 1, 1, 1, 1)], (1, 4, 2, 2, 2, 2)),
    form("transposed conv strided", None, "ConvTranspose", [weights(4, 3, 3, 3)], strides=[2, 2], **THREE),
    form("transposed conv dilated", None, "ConvTranspose", [weights(4, 3, 3, 3)], dilations=[2, 2], **THREE),
    form(
        "transposed conv strided and dilated",
        "strides and dilations",
        "ConvTranspose",
        [weights(4, 3, 3, 3)],
        strides=[2, 2],
        dilations=[2, 2],
        **THREE,
    ),
    form("transposed conv, negative pads", "pads below 0", "ConvTranspose", [weights(4, 3, 3, 3)], pads=[-1] * 4),
    form("average pool dilated", "dilations", "AveragePool", dilations=[2, 2], **THREE),
    form("max pool dilated", "dilations", "MaxPool", dilations=[2, 2], **THREE),
    form("norm pool of 2", None, "LpPool", p=2, **THREE),
    form("norm pool of 3", "norms but", "LpPool", p=3, **THREE),
    form("matrices times a vector", None, "MatMul", [weights(8)]),
    form("a vector times a matrix", None, "MatMul", [weights(8, 3)], (8,)),
    form("a vector times matrices", "a vector times a stack", "MatMul", [weights(2, 8, 3)], (8,)),
    Form(
        "max pool with indices",
        "indices",
        (("MaxPool", ["x"], ["y", "i"], THREE), ("Cast", ["i"], ["j"], {"to": FLOAT})),
        {"x": (FLOAT, [1, 4, 8, 8])},
        {},
    ),
    form("response norm over 5", None, "LRN", size=5),
    form("response norm over 4", "even or above 15", "LRN", size=4),
    form("response norm over 17", "even or above 15", "LRN", size=17),
    Form(
        f"top {TOPK_LIMIT}",
        None,
        (("TopK", ["x", "k"], ["y", "i"], {}),),
        {"x": (FLOAT, [1, 5000])},
        {"k": np.array([TOPK_LIMIT])},
    ),
    Form(
        f"top {TOPK_LIMIT + 1}",
        f"more than {TOPK_LIMIT}",
        (("TopK", ["x", "k"], ["y", "i"], {}),),
        {"x": (FLOAT, [1, 5000])},
        {"k": np.array([TOPK_LIMIT + 1])},
    ),
    form("resize by stretching", None, "Resize", [TWICE], **SCALED),
    form("resize by cubics", None, "Resize", [TWICE], inputs=["x", "", "c0"], mode="cubic"),
    form(
        "resize of a crop",
        "from a crop",
        "Resize",
        [np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32), TWICE],
        inputs=["x", "c0", "c1"],
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
    ),
    form(
        "resize by symmetry",
        "by symmetry",
        "Resize",
        [TWICE],
        coordinate_transformation_mode="half_pixel_symmetric",
        **SCALED,
    ),
    form("resize with antialiasing", "antialiasing", "Resize", [TWICE / 2 + 0.5 * (TWICE == 1)], antialias=1, **SCALED),
    form(
        "resize that keeps the aspect",
        "aspect ratio",
        "Resize",
        [np.array([5, 6])],
        inputs=["x", "", "", "c0"],
        mode="linear",
        axes=[2, 3],
        keep_aspect_ratio_policy="not_larger",
    ),
    *(
        form(
            f"resize to sizes of space, batch {batch}",
            refused,
            "Resize",
            [np.array([16, 16])],
            (batch, 4, 8, 8),
            inputs=["x", "", "", "c0"],
            mode="linear",
            axes=[2, 3],
        )
        for batch, refused in ((2, None), ("N", "beside an open batch"))
    ),
    quantized("quantized around 0", None, 0),
    quantized("quantized around 3", "zero points", 3),
    quantized("quantized to bytes around 128", "zero points", 128, np.uint8),
    quantized("quantized by a scale of 0", "scales", 0, scale=0),
    form("bytes cast", None, "Cast", dtype=UINT8, to=FLOAT),
    form("bytes transposed", "uint8", "Transpose", dtype=UINT8),
    form("bytes cropped", "uint8", "Slice", [np.array([0]), np.array([1]), np.array([1])], dtype=UINT8),
    form("shorts", "int16", "Cast", dtype=TensorProto.INT16, to=FLOAT),
    form("maximum of integers", None, "Max", inputs=["x", "x"], dtype=INT64),
    form("maximum of bools", "bool", "ReduceMax", dtype=BOOL),
    form("sum of integers", None, "ReduceSum", [np.array([1])], dtype=INT64),
    form("ceiling of integers", "int64", "Ceil", dtype=INT64),
    Form(
        "sum over an axis that is given later",
        "computed",
        (("ReduceSum", ["x", "a"], ["y"], {}),),
        {"x": (FLOAT, [1, 4]), "a": (INT64, [1])},
        {},
    ),
    Form(
        "scatter",
        None,
        (("ScatterND", ["x", "i", "u"], ["y"], {}),),
        {"x": (FLOAT, [4, 3]), "i": (INT64, [2, 1]), "u": (FLOAT, [2, 3])},
        {},
    ),
    Form(
        "scatter by sums",
        "reduction",
        (("ScatterND", ["x", "i", "u"], ["y"], {"reduction": "add"}),),
        {"x": (FLOAT, [4, 3]), "i": (INT64, [2, 1]), "u": (FLOAT, [2, 3])},
        {},
    ),
    Form(
        "max unpooling",
        "not in its list",
        (("MaxUnpool", ["x", "i"], ["y"], {"kernel_shape": [2, 2], "strides": [2, 2]}),),
        {"x": (FLOAT, [1, 1, 2, 2]), "i": (INT64, [1, 1, 2, 2])},
        {},
    ),
    form("columns to image", "not in its list", "Col2Im", [np.array([5, 5]), np.array([2, 2])], (1, 8, 16)),
    form("determinant", "not in its list", "Det", shape=(3, 3)),
]
