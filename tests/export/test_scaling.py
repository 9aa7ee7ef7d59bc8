"""The scale of a half-precision backward pass: planned, baked in, and divided out again."""

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the exported graph")

from small_models import classifier
from test_bake import contract_of, run

from gcpp_edge.contract import Layer
from gcpp_edge.errors import SelfCheckError
from gcpp_edge.export import explain_onnx
from gcpp_edge.export.bake import BakeOptions, Rescale, bake
from gcpp_edge.export.differences import relative
from gcpp_edge.export.differentiate import MARKER
from gcpp_edge.export.fidelity import check_half, compare, error_notes, noise, range_notes, samples
from gcpp_edge.export.normalise import normalise
from gcpp_edge.export.precision import to_precision
from gcpp_edge.export.rounding import as_rounded
from gcpp_edge.export.scaling import TOP, bake_half, plan, probing

PLANS = [
    ("a seed alone", [("logits", 1.0)], {"logits": 2.0**TOP}),
    ("what stays in the upper part is left alone", [("logits", 1.0), ("a", 0.1), ("b", 0.5)], {"logits": 2.0**TOP}),
    ("what shrinks is brought back", [("logits", 1.0), ("a", 2.0**-20)], {"logits": 2.0**TOP, "a": 2.0**14}),
    ("in steps", [("x", 2.0**-20), ("y", 2.0**-20)], {"x": 2.0**14, "y": 2.0**14}),
    ("what grows is brought down", [("logits", 1.0), ("a", 64.0)], {"logits": 2.0**TOP, "a": 2.0**-6}),
    ("silence has no scale", [("logits", 0.0), ("a", math.inf)], {}),
]


@pytest.mark.parametrize(("name", "parts", "expected"), PLANS, ids=[row[0] for row in PLANS])
def test_gradients_are_kept_in_the_upper_part_of_the_range(name, parts, expected):
    assert plan(parts) == expected


def with_weights(names, factor):
    """The small classifier, some of its weights times a factor."""
    source = classifier()
    for tensor in source.graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    return source


def halved(model, precision="fp16", **options):
    return bake_half(model, precision, samples, BakeOptions(guided=True, **options))


def outputs(model, image, targets):
    """Activations, gradients and image as float64, the gradients unscaled."""
    found = run(as_rounded(model), image, targets)
    layer = contract_of(model).layer
    return {
        "activations": found["activations"].astype(np.float64),
        "gradients": found["gradients"].astype(np.float64) / layer.gradient_scale,
        "guided": found["guided"].astype(np.float64),
    }


def test_factors_multiply_gradients_and_are_divided_out_of_the_picture():
    source = classifier(head="convolution")
    rescale = Rescale({"logits": 2.0**6, "body/features": 2.0**3}, {"logits": 2.0**5, "pooled": 2.0**-2})
    image = np.random.default_rng(5).normal(size=(2, 3, 16, 16)).astype(np.float32)
    plain, scaled = bake(source, guided=True), bake(source, guided=True, rescale=rescale)
    assert contract_of(scaled).layer.gradient_scale == 2.0**9
    expected, found = run(plain, image, [-1, 2]), run(scaled, image, [-1, 2])
    np.testing.assert_allclose(found["gradients"], expected["gradients"] * 2.0**9, rtol=1e-5)
    np.testing.assert_allclose(found["guided"], expected["guided"], rtol=1e-4, atol=1e-6)


def test_factors_beyond_the_layer_do_not_scale_it():
    model = bake(classifier(), layer="body/features", guided=True, rescale=Rescale({"logits": 8.0, "pooled": 4.0}))
    assert contract_of(model).layer.gradient_scale == 8.0


def test_markers_leave_the_numbers_alone():
    source = normalise(classifier(head="convolution"))
    options = BakeOptions(guided=True)
    marked = bake(source, replace(options, rescale=probing(source, options)))
    names = [node.doc_string for node in marked.graph.node if node.name.startswith(MARKER)]
    assert names[0] == "logits" and {"body/features", "pooled", "stem/relu"} <= set(names)
    image = np.random.default_rng(5).normal(size=(2, 3, 16, 16)).astype(np.float32)
    expected, found = run(bake(source, options), image, [0, 1]), run(marked, image, [0, 1])
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("factor", [1.0, 1e-3, 100.0], ids="times {:g}".format)
def test_float16_holds_gradients_however_small_or_large_they_are(factor):
    """The classifier's weights, and with them all gradients, times a factor."""
    made = halved(with_weights(["head.weight"], factor))
    image = np.random.default_rng(6).normal(size=(2, 3, 16, 16)).astype(np.float16)
    expected = outputs(made.reference, image.astype(np.float32), [1, 2])
    found = outputs(made.model, image, [1, 2])
    for name, value in expected.items():
        assert np.abs(value).max() > 0
        assert relative(found[name], value) < 3e-3, name  # 11 bits, a few layers deep
    assert max(made.scales.lost.values()) < 1e-3


def test_without_scales_such_gradients_are_lost():
    """What the scales are for: the same graph, seeded with one."""
    source = with_weights(["head.weight"], 1e-4)
    made = halved(source)
    image = np.random.default_rng(6).normal(size=(1, 3, 16, 16)).astype(np.float16)
    expected = outputs(made.reference, image.astype(np.float32), [1])["gradients"]
    bare = bake(to_precision(normalise(source), "fp16"), guided=True)
    assert relative(outputs(bare, image, [1])["gradients"], expected) > 5e-3
    assert relative(outputs(made.model, image, [1])["gradients"], expected) < 3e-3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("head", ["linear", "convolution"])
def test_what_leaves_the_file(precision, head):
    """float32 scores and image; float16 activations and gradients, or float32 where they were bfloat16."""
    made = halved(classifier(head=head), precision)
    onnx.checker.check_model(made.model, full_check=True)
    dtypes = {value.name: value.type.tensor_type.elem_type for value in made.model.graph.output}
    inner = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    assert dtypes == {
        "logits": TensorProto.FLOAT,
        "target_class": TensorProto.INT64,
        "activations": inner,
        "gradients": inner,
        "guided": TensorProto.FLOAT,
    }
    assert made.model.opset_import[0].version == (20 if precision == "fp16" else 22)
    layer: Layer = contract_of(made.model).layer
    assert (layer.gradient_scale == 1) == (precision == "bf16")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_check_holds_half_precision_against_float32(precision):
    contract = contract_of(explain_onnx(classifier(), precision=precision, guided=True))
    figures = contract.check["half"]
    assert figures["precision"] == precision
    assert 0 < figures["error"] < (2e-3 if precision == "fp16" else 2e-2)  # 11 and 8 bits
    assert ("guided_lost" in figures) == (precision == "fp16")


@pytest.mark.parametrize(("precision", "error", "told"), [("fp16", 0.049, 0), ("fp16", 0.059, 1), ("bf16", 0.059, 0)])
def test_gradients_that_are_further_off_than_usual_are_told_and_kept(precision, error, told):
    notes = error_notes({"precision": precision, "error": error})
    assert len(notes) == told and all("5.9e-02 on noise" in note and "--fidelity" in note for note in notes)


def test_gradients_that_no_rounding_explains_are_refused():
    made = halved(classifier())
    (layer,) = contract_of(made.reference).layers
    wrong = replace(made, reference=with_flipped_gradients(made.reference, layer.gradients))
    with pytest.raises(SelfCheckError, match="Gradients in fp16 differ from float32 by .* --precision bf16"):
        check_half(wrong, "fp16", samples(contract_of(made.model)))


def with_flipped_gradients(model, name):
    """The model, whose output of this name has the other sign."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    node = next(node for node in result.graph.node if name in node.output)
    node.output[list(node.output).index(name)] = "straight"
    for other in result.graph.node:
        other.input[:] = ["straight" if one == name else one for one in other.input]
    result.graph.node.append(onnx.helper.make_node("Neg", ["straight"], [name]))
    return result


def overflowing():
    """Weights in range, and features beyond it."""
    return with_weights(["stem.weight", "body.weight"], 3000)


def test_an_overflow_is_named_with_its_tensor_and_advice():
    made = halved(overflowing())
    with pytest.raises(SelfCheckError, match='Tensor "body/[a-z]+" leaves fp16.*--precision bf16'):
        check_half(made, "fp16", samples(contract_of(made.model)))
    assert "leave the range of float16" in range_notes(made)[0]
    fine = halved(overflowing(), "bf16")
    assert check_half(fine, "bf16", samples(contract_of(fine.model)))["error"] < 2e-2


def test_fidelity_compares_maps_and_classes():
    made = halved(classifier(head="convolution"))
    found = compare(made, noise(contract_of(made.model)))
    assert [one.picture for one in found] == ["noise 1", "noise 2", "noise 3"]
    assert all(one.same_class and one.correlation > 0.9999 and 0 < one.difference < 0.02 for one in found)
