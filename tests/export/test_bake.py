"""What an explained model holds: names, shapes, levels, metadata, targets; and that the network in it is unchanged."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the exported graph")

from small_models import CLASSES, classifier, one_node_model  # noqa: E402

from gcpp_edge.contract import MAX_IR, MAX_OPSET, Geometry, Preprocessing, contract_from_metadata  # noqa: E402
from gcpp_edge.errors import ExportError, LayerError, MissingRuleError, SourceError, UnsupportedGraphError  # noqa: E402
from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.scores import TargetOptions  # noqa: E402
from gcpp_edge.export.tensorrt_policy import OPERATORS  # noqa: E402


def session_of(model):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def contract_of(model):
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def run(model, image, targets):
    session = session_of(model)
    found = session.run(None, {session.get_inputs()[0].name: image, "target": np.array(targets)})
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


def pictures(count=2, dtype=np.float32, size=16):
    return np.random.default_rng(5).normal(size=(count, 3, size, size)).astype(dtype)


@dataclass(frozen=True)
class Variant:
    """A model and what its contract must say."""

    name: str
    model: dict = field(default_factory=dict)
    kind: str = "logits"
    constant: bool = True


VARIANTS = [
    Variant("logits"),
    Variant("softmax", {"ending": "Softmax"}, "softmax"),
    Variant("log softmax", {"ending": "LogSoftmax"}, "log_softmax"),
    Variant("sigmoid", {"ending": "Sigmoid"}, "sigmoid"),
    Variant("a map per class", {"head": "convolution"}, constant=False),
    Variant("a map per class, then softmax", {"head": "convolution", "ending": "Softmax"}, "softmax", False),
    Variant("an old opset", {"opset": 11, "ir_version": 6}),
    Variant("a fixed batch", {"batch": 1}),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_an_explained_model_computes_the_network_and_its_gradients(variant):
    source = classifier(**variant.model)
    model = bake(source, guided=True)
    contract = contract_of(model)
    assert (contract.scores.kind, contract.scores.classes, contract.layer.constant) == (
        variant.kind,
        CLASSES,
        variant.constant,
    )
    assert (contract.layer.tensor, contract.layer.channels, contract.layer.space) == ("body/features", 12, (6, 6))

    image = pictures()
    found = run(model, image, [-1, 2])
    single = session_of(source)
    plain = np.concatenate([single.run(None, {"image": image[i : i + 1]})[0] for i in range(2)])
    np.testing.assert_allclose(found[contract.scores.output], plain, rtol=1e-4, atol=1e-6)
    assert found["target_class"].tolist() == [plain[0].reshape(-1).argmax(), 2]
    assert found["activations"].shape == (2, 12, 6, 6)
    assert found["gradients"].shape == ((2, 12, 1, 1) if variant.constant else (2, 12, 6, 6))
    assert found["guided"].shape == image.shape
    onnx.checker.check_model(model, full_check=True)


def test_gradients_of_a_mean_and_a_linear_layer_are_its_weight_row():
    source = classifier()
    weights = next(onnx.numpy_helper.to_array(t) for t in source.graph.initializer if t.name == "head.weight")
    found = run(bake(source), pictures(), [4, 1])
    np.testing.assert_allclose(found["gradients"][:, :, 0, 0] * 36, weights[[4, 1]], rtol=1e-5)


def test_negative_targets_are_ranks():
    model = bake(classifier(), target=TargetOptions(ranks=4))
    image = pictures(1)
    order = np.argsort(-run(model, image, [0])["logits"][0]).tolist()
    assert [run(model, image, [-rank])["target_class"].item() for rank in (1, 2, 3, 4)] == order[:4]
    assert contract_of(model).ranks == 4


def test_ranks_stop_at_the_number_of_classes():
    assert contract_of(bake(classifier(), target=TargetOptions(ranks=50))).ranks == CLASSES


def test_a_batch_equals_its_pictures_one_by_one():
    model = bake(classifier(head="convolution"), guided=True)
    image, targets = pictures(5), [0, -1, 3, -2, 5]
    together = run(model, image, targets)
    for i in range(5):
        alone = run(model, image[i : i + 1], targets[i : i + 1])
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][i : i + 1], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", ["gradient", "guided", "deconvnet"])
def test_the_pixel_rule_stands_in_the_metadata(rule):
    assert contract_of(bake(classifier(), guided=True, pixel_rule=rule)).pixel_rule == rule


def test_levels_are_prefixes_of_the_nodes_that_are_enough_for_their_outputs():
    model = bake(classifier(), guided=True)
    levels = contract_of(model).levels
    assert [*levels] == ["plain", "map", "guided"]
    assert levels["plain"].nodes < levels["map"].nodes < levels["guided"].nodes == len(model.graph.node)
    assert levels["plain"].outputs == ("logits",)
    assert levels["map"].outputs == ("logits", "target_class", "activations", "gradients")
    assert levels["guided"].outputs[-1] == "guided"
    given = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    for level in levels.values():
        known = set(given)
        for node in model.graph.node[: level.nodes]:
            assert set(node.input) - {""} <= known, node.name
            known |= set(node.output)
        assert set(level.outputs) <= known
    assert levels["plain"].memory_bytes <= levels["map"].memory_bytes < levels["guided"].memory_bytes


def test_a_map_file_is_the_prefix_of_a_guided_file():
    small, large = bake(classifier()), bake(classifier(), guided=True)
    count = contract_of(large).levels["map"].nodes
    assert [node.op_type for node in small.graph.node] == [node.op_type for node in large.graph.node[:count]]


def test_files_stay_within_what_tensorrt_reads():
    model = bake(classifier(opset=13), guided=True)
    contract = contract_of(model)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", MAX_OPSET)]
    assert model.ir_version <= MAX_IR
    emitted = {node.op_type for node in model.graph.node[contract.levels["plain"].nodes :]}
    assert emitted <= OPERATORS


def test_local_paths_and_notes_are_stripped():
    source = classifier()
    source.doc_string = source.graph.doc_string = "/home/somebody/secret"
    source.graph.node[0].doc_string = "/home/somebody/model.py line 3"
    source.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody/model.py")
    assert b"somebody" not in bake(source, guided=True).SerializeToString()


def test_a_source_is_not_changed():
    source = classifier(opset=13)
    before = source.SerializeToString(deterministic=True)
    bake(source, guided=True)
    assert source.SerializeToString(deterministic=True) == before


def test_half_precision_stays_half():
    model = bake(classifier(dtype=np.float16), guided=True)
    found = run(model, pictures(dtype=np.float16), [-1, 2])
    assert {found[name].dtype for name in ("activations", "gradients")} == {np.dtype(np.float16)}
    assert found["guided"].dtype == np.float32  # what scales its backward pass has is divided out of it
    exact = run(bake(classifier(dtype=np.float32)), pictures(), [-1, 2])
    np.testing.assert_allclose(found["gradients"], exact["gradients"], rtol=2e-2, atol=1e-3)


def test_preprocessing_and_labels_travel_in_the_metadata():
    preprocessing = Preprocessing(16, 16, "bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 255.0, Geometry("crop", 0.875))
    contract = contract_of(
        bake(classifier(), preprocessing=preprocessing, labels=[f"class {i}" for i in range(CLASSES)])
    )
    assert contract.preprocessing == preprocessing
    assert contract.labels[5] == "class 5"


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("body", "body/features"), ("stem", "stem/relu"), ("body/conv", "body/conv"), ("pooled", "pooled")],
)
def test_a_layer_is_found_by_scope_or_tensor(name, tensor):
    contract = contract_of(bake(classifier(), layer=name))
    assert (contract.layer.name, contract.layer.tensor) == (name, tensor)


def reversed_first():
    lengths = helper.make_node("Constant", [], ["lengths"], value_ints=[1, 1, 1])
    return classifier(extra=[lengths, helper.make_node("ReverseSequence", ["image", "lengths"], ["stem"], name="odd")])


def with_two_images():
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, ["batch", 3, 16, 16]))
    return model


def named_target():
    model = classifier()
    for node in model.graph.node:
        node.input[:] = ["target" if name == "image" else name for name in node.input]
    model.graph.input[0].name = "target"
    return model


def inner_names():
    """Inner tensors named like ours."""
    names = {"stem/relu": "target", "pooled": "gradients", "body/conv": "target_class", "mean": "guided"}
    model = classifier()
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


def test_inner_tensors_may_have_our_names():
    expected = run(bake(classifier(), guided=True), pictures(), [0, -1])
    found = run(bake(inner_names(), guided=True), pictures(), [0, -1])
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)
    assert contract_of(bake(inner_names(), layer="gradients")).layer.channels == 8


def takes_bytes():
    model = classifier(extra=[helper.make_node("Cast", ["image"], ["stem"], to=TensorProto.FLOAT)])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


REFUSED = [
    (
        "an unknown layer",
        classifier,
        {"layer": "body/featurez"},
        LayerError,
        ["body/featurez", "Did you mean body/features"],
    ),
    ("a layer without space", classifier, {"layer": "flat"}, LayerError, ["flat", "[N,C,h,w]"]),
    ("labels that do not fit", classifier, {"labels": ["a", "b"]}, SourceError, ["2 labels for 6 classes"]),
    ("ranks of zero", classifier, {"target": TargetOptions(ranks=0)}, SourceError, ["--ranks 0"]),
    ("ranks above TopK", classifier, {"target": TargetOptions(ranks=4000)}, SourceError, ["3840"]),
    (
        "an unknown pixel rule",
        classifier,
        {"guided": True, "pixel_rule": "smooth"},
        SourceError,
        ["smooth", "deconvnet"],
    ),
    (
        "an operator without a rule",
        reversed_first,
        {"guided": True},
        MissingRuleError,
        ["ReverseSequence", '"odd"', "--layer"],
    ),
    ("two pictures", with_two_images, {}, UnsupportedGraphError, ["image (rank 4), second (rank 4)"]),
    ("a reserved name", named_target, {}, UnsupportedGraphError, ['"target"', "Rename"]),
    ("a uint8 input", takes_bytes, {}, UnsupportedGraphError, ['"image"', "uint8", "--mean"]),
    ("no class scores", lambda: one_node_model("Relu"), {}, UnsupportedGraphError, ["[N,K]", "y"]),
    (
        "no spatial layer",
        lambda: one_node_model("Flatten", output=(1, 192)),
        {},
        LayerError,
        ["no layer with a spatial extent"],
    ),
    ("an open size", lambda: classifier(size="side"), {}, SourceError, ["axis 2", "--input-size"]),
    (
        "preprocessing of another size",
        classifier,
        {"preprocessing": Preprocessing(32, 32)},
        SourceError,
        ["32x32", "16x16"],
    ),
]


@pytest.mark.parametrize(("name", "build", "options", "error", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_bad_input_is_refused_in_one_line(name, build, options, error, words):
    with pytest.raises(error) as caught:
        bake(build(), **options)
    message = str(caught.value)
    assert isinstance(caught.value, ExportError)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_an_open_size_is_fixed_by_the_input_size():
    found = run(bake(classifier(size="side"), input_size=(16, 16)), pictures(), [0, 1])
    assert found["activations"].shape == (2, 12, 6, 6)
