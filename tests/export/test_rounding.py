"""A half-precision model as a float32 one that rounds after every node: as a runtime that keeps to its types."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the rounding model")

from small_models import classifier  # noqa: E402
from test_bake import contract_of, run  # noqa: E402

from gcpp_edge.export.bake import BakeOptions, bake_normal  # noqa: E402
from gcpp_edge.export.normalise import normalise  # noqa: E402
from gcpp_edge.export.precision import to_precision  # noqa: E402
from gcpp_edge.export.rounding import as_rounded  # noqa: E402


def explained(precision, head="linear"):
    return bake_normal(to_precision(normalise(classifier(head=head)), precision), BakeOptions(guided=True))


def product_model():
    """x * 300 * 300 / 1000 in float16."""
    constants = {"many": 300, "few": 1 / 1000}
    nodes = [("x", "many", "y"), ("y", "many", "z"), ("z", "few", "w")]
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT16, [2]) for name in ("x", "w")}
    graph = helper.make_graph(
        [helper.make_node("Mul", [left, right], [result]) for left, right, result in nodes],
        "product",
        [value["x"]],
        [value["w"]],
        [numpy_helper.from_array(np.array(number, np.float16), name) for name, number in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_what_overflows_between_two_nodes_is_seen():
    session = ort.InferenceSession(as_rounded(product_model()).SerializeToString())
    (found,) = session.run(None, {"x": np.array([0.5, 1], np.float16)})
    np.testing.assert_allclose(found, [45, np.inf], rtol=1e-2)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("head", ["linear", "convolution"])
def test_it_computes_what_the_onnx_reference_does_with_half_tensors(precision, head):
    """The reference evaluator adds up in another order, and in half precision: a unit of the last place apart.

    On a picture where no maximum is tied and no ReLU stands at zero: there the two may take different sides.
    """
    model = explained(precision, head)
    onnx.checker.check_model(model, full_check=True)
    dtype = np.float16 if precision == "fp16" else np.float32
    image = np.random.default_rng(6).normal(size=(2, 3, 16, 16)).astype(dtype)
    names = [output.name for output in model.graph.output]
    expected = ReferenceEvaluator(model).run(None, {"image": image, "target": np.array([-1, 2])})
    found = run(as_rounded(model), image, [-1, 2])
    unit = 2.0**-8 if precision == "bf16" else 2.0**-10
    for name, value in zip(names, expected, strict=True):
        value = value.astype(np.float64)
        np.testing.assert_allclose(found[name], value, atol=4 * unit * np.abs(value).max(), err_msg=name)


def test_its_levels_are_prefixes_that_give_what_they_promise():
    model = as_rounded(explained("fp16", "convolution"))
    contract = contract_of(model)
    given = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    for level in contract.levels.values():
        known = set(given)
        for node in model.graph.node[: level.nodes]:
            assert set(node.input) - {""} <= known, node.name
            known |= set(node.output)
        assert set(level.outputs) <= known
    expected = contract_of(explained("fp16", "convolution"))
    assert replace(contract, levels=expected.levels) == expected
