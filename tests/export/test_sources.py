"""Everything that can be exported, by the string that a user types; and the two Python calls."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="PyTorch sources need PyTorch")
pytest.importorskip("onnxruntime", reason="the self-check runs the exported graph")

from small_models import classifier  # noqa: E402

from gcpp_edge.contract import Geometry, Preprocessing, contract_from_metadata  # noqa: E402
from gcpp_edge.errors import ExportError, LayerError, SourceError  # noqa: E402
from gcpp_edge.export import explain_module, explain_onnx, export_file, inspect_coverage, list_layers  # noqa: E402
from gcpp_edge.export.sources import load_source, read_labels  # noqa: E402


class Small(torch.nn.Module):
    """In-place and functional ReLUs, a shared weight, frozen parameters."""

    def __init__(self, classes=4):
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(inplace=True))
        self.body = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(8, classes)
        for parameter in self.stem.parameters():
            parameter.requires_grad_(False)

    def forward(self, x):
        x = self.stem(x)
        x = torch.nn.functional.relu(self.body(torch.relu(self.body(x))))
        return self.head(self.drop(x.mean((2, 3))))


def make_small():
    torch.manual_seed(0)
    return Small()


def contract_of(model):
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def test_a_module_is_explained():
    contract = contract_of(explain_module(make_small(), torch.randn(1, 3, 24, 20), guided=True, labels=list("abcd")))
    assert contract.check["oracle"] == "autograd"
    assert contract.check["error"] < 1e-5
    assert (contract.preprocessing.height, contract.preprocessing.width) == (24, 20)
    assert contract.layer.channels == 8
    assert contract.labels == ("a", "b", "c", "d")


class Ending(torch.nn.Module):
    """Small with something behind its scores, or beside them."""

    def __init__(self, ending):
        super().__init__()
        self.body, self.ending = make_small(), ending

    def forward(self, x):
        return self.ending(self.body(x))


ENDINGS = {
    "softmax": (lambda s: torch.softmax(s, 1), "softmax"),
    "log softmax": (lambda s: torch.log_softmax(s, 1), "log_softmax"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "one sigmoid": (lambda s: torch.sigmoid(s[:, :1]), "sigmoid"),
    "scores behind other outputs": (lambda s: (s.reshape(-1, 2, 2), s), "logits"),
    "scores in a dict": (lambda s: {"scores": s}, "logits"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_module_is_explained_at_its_logits_whatever_its_ending(name):
    ending, kind = ENDINGS[name]
    contract = contract_of(explain_module(Ending(ending), torch.randn(2, 3, 16, 16), guided=True))
    assert contract.scores.kind == kind
    assert contract.check["oracle"] == "autograd"
    assert contract.check["error"] < 1e-5


@pytest.mark.parametrize("example", [np.zeros((1, 3, 16, 16), np.float32), torch.zeros(3, 16, 16), (torch.zeros(1),)])
def test_an_example_that_is_no_batch_of_pictures_is_refused(example):
    with pytest.raises(SourceError, match="example_input"):
        explain_module(make_small(), example)


@pytest.mark.parametrize("model", [b"onnx", None, 3])
def test_what_is_no_onnx_model_is_refused(model):
    with pytest.raises(SourceError, match="explain_onnx takes"):
        explain_onnx(model)


def test_a_module_in_training_mode_is_exported_for_inference():
    network = make_small().train()
    model = explain_module(network, torch.randn(2, 3, 16, 16))
    assert not network.training
    assert "Dropout" not in {node.op_type for node in model.graph.node}


def test_layers_have_the_names_of_their_modules():
    contract = contract_of(explain_module(make_small(), torch.randn(2, 3, 16, 16), layer="stem"))
    assert contract.layer.name == "stem"
    assert "Relu" in contract.layer.tensor.capitalize()


def test_an_unknown_module_names_the_nearest():
    with pytest.raises(LayerError, match="Did you mean stem"):
        explain_module(make_small(), torch.randn(2, 3, 16, 16), layer="stemm")


def test_an_onnx_file_is_explained_without_torch(tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save(classifier(), path)
    code = f"""
        import sys
        sys.modules["torch"] = None
        from gcpp_edge.export import export_file
        report = export_file({str(path)!r}, {str(tmp_path / "out.onnx")!r}, guided=True)
        print(report.contract.check["oracle"], report.contract.source_name, len(report.contract.source_sha256))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["finite", "differences", "small.onnx", "64"], done.stderr


def test_a_torch_export_file_is_explained(tmp_path):
    batch = torch.export.Dim("batch")
    program = torch.export.export(make_small().eval(), (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "small.pt2")
    report = export_file(str(tmp_path / "small.pt2"), tmp_path / "out.onnx")
    assert report.contract.check["error"] < 1e-5
    assert report.contract.source_name == "small.pt2"


def test_a_callable_of_a_package_is_explained_with_its_own_preprocessing(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        textwrap.dedent("""
        import torch
        from gcpp_edge.contract import Preprocessing

        def tiny():
            features = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
            network = torch.nn.Sequential(*features, torch.nn.Flatten(), torch.nn.Linear(4, 2))
            network.preprocessing = Preprocessing(20, 24, "bgr", (1.0, 2.0, 3.0), (2.0, 2.0, 2.0), 255.0)
            network.labels = ("cat", "dog")
            return network
        """)
    )
    monkeypatch.chdir(tmp_path)
    report = export_file("my_networks:tiny", tmp_path / "out.onnx", std=[4.0])
    assert report.contract.preprocessing.color == "bgr"
    assert report.contract.preprocessing.std == (4.0, 4.0, 4.0)
    assert (report.contract.preprocessing.height, report.contract.preprocessing.width) == (20, 24)
    assert report.contract.labels == ("cat", "dog")
    assert report.notes == ()


def test_a_torchvision_network_brings_its_preprocessing_labels_and_weights(tmp_path):
    from gcpp_edge.export.from_torch import import_torchvision

    import_torchvision()
    from torchvision.models import get_model

    network = get_model("mobilenet_v3_small", weights=None)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "w.pth")
    report = export_file(
        "torchvision:mobilenet_v3_small", tmp_path / "out.onnx", weights=tmp_path / "w.pth", input_size=(64, 64)
    )
    contract = report.contract
    assert contract.preprocessing.geometry == Geometry("crop", 0.875)
    assert contract.preprocessing.mean == (0.485, 0.456, 0.406)
    assert contract.preprocessing.height == 64
    assert contract.labels[285] == "Egyptian cat"
    assert [*report.seconds] == ["load", "differentiate", "check", "write"]


def test_a_timm_network_brings_its_preprocessing(tmp_path):
    pytest.importorskip("timm", reason="timm: sources need timm")
    report = export_file("timm:lcnet_050", tmp_path / "out.onnx", input_size=(64, 64), labels="imagenet")
    assert report.contract.preprocessing.geometry.kind == "crop"
    assert report.contract.preprocessing.mean == (0.485, 0.456, 0.406)
    assert report.contract.labels[967] == "espresso"


def test_layers_of_a_source_are_listed_with_the_default_marked(tmp_path):
    onnx.save(classifier(), tmp_path / "small.onnx")
    layers = list_layers(str(tmp_path / "small.onnx"))
    assert [layer.tensor for layer in layers] == ["stem/norm", "stem/relu", "pooled", "body/conv", "body/features"]
    assert [layer.tensor for layer in layers if layer.default] == ["body/features"]


def test_the_layers_whose_gradients_are_constant_are_marked(tmp_path):
    layers = list_layers(small_file(tmp_path))
    assert [layer.tensor for layer in layers if layer.constant] == ["body/features"]


def test_coverage_says_what_blocks_a_network_before_any_export(tmp_path):
    lengths = onnx.helper.make_node("Constant", [], ["lengths"], value_ints=[1, 1, 1])
    odd = onnx.helper.make_node("ReverseSequence", ["image", "lengths"], ["stem"], name="odd")
    odd = classifier(extra=[lengths, odd])
    found = inspect_coverage(write(tmp_path / "odd.onnx", odd.SerializeToString()))
    states = {entry.operator: (entry.count, entry.state) for entry in found.operators}
    assert states["Conv"] == (2, "rule")
    assert states["ReverseSequence"] == (1, "missing")
    assert found.layer == "body"
    assert found.map == ""
    assert "ReverseSequence" in found.guided


def test_coverage_of_a_known_network_blocks_nothing(tmp_path):
    found = inspect_coverage(small_file(tmp_path), layer="stem")
    assert (found.layer, found.map, found.guided) == ("stem", "", "")
    assert {entry.state for entry in found.operators} == {"rule"}


class Positions(torch.nn.Module):
    """A large summand between two transpositions, which ONNX Runtime moves: it then transposes the summand."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = torch.nn.Conv2d(3, 96, 4, 4), torch.nn.Linear(96, 5)
        self.positions = torch.nn.Parameter(torch.randn(1, 256, 96))  # 96 kB: weights.py stores it

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(torch.nn.functional.relu(x).transpose(1, 2).mean(2))


def test_a_summand_that_the_runtime_transposes_is_explained():
    assert contract_of(explain_module(Positions(), torch.randn(2, 3, 64, 64))).check["oracle"] == "autograd"


class Windows(torch.nn.Module):
    """Attention within windows of a grid, with an axis of its own for them."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Linear(8, 5)
        self.bias = torch.nn.Parameter(torch.randn(2, 1, 4, 4))

    def forward(self, x):
        x = self.patches(x)
        tokens = x.flatten(2).transpose(1, 2).reshape(-1, 2, 4, 2, 4).permute(0, 3, 1, 2, 4)  # [N,heads,windows,T,C]
        mask = self.bias.expand(tokens.shape[0], 2, 2, 4, 4)
        mixed = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, mask)
        return self.head(mixed.permute(0, 2, 3, 1, 4).reshape(-1, 8, 8).mean(1))


def test_attention_with_a_fifth_axis_is_explained():
    attention = torch.nn.functional.scaled_dot_product_attention
    explained = explain_module(Windows(), torch.randn(2, 3, 8, 16))
    assert contract_of(explained).layer.name == "patches"  # windows [2 N,heads,T,C] are no pictures
    assert torch.nn.functional.scaled_dot_product_attention is attention


class Bounds(torch.nn.Module):
    """Two clamps of one tensor with bounds that are numbers of the network (Gemma's): the exporter forgets some."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Linear(8, 3)
        for name, bound in (("low", -1.0), ("high", 2.0), ("lower", -1.0), ("higher", 2.0)):
            self.register_buffer(name, torch.tensor(bound))

    def forward(self, x):
        x = self.stem(x)
        both = [torch.clamp(x, self.low, self.high), torch.sin(torch.clamp(x, self.lower, self.higher))]
        return self.head(torch.cat(both, 1).mean((2, 3)))


def test_bounds_that_are_numbers_of_the_network_are_kept():
    contract = contract_of(explain_module(Bounds(), torch.randn(1, 3, 12, 12), guided=True))
    assert contract.check["error"] < 1e-5


def test_a_fixed_batch_of_an_exported_program_is_freed(tmp_path):
    program = torch.export.export(make_small().eval(), (torch.randn(1, 3, 16, 16),))
    torch.export.save(program, tmp_path / "fixed.pt2")
    export_file(str(tmp_path / "fixed.pt2"), tmp_path / "out.onnx")
    model = onnx.load(tmp_path / "out.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def write(path, data):
    path.write_bytes(data)
    return str(path)


REFUSED = {
    "no such form": (lambda folder: "resnet50", {}, ["torchvision:NAME", "resnet50"]),
    "no such network": (lambda folder: "torchvision:resnet51", {}, ["resnet51", "resnet50"]),
    "no such module": (lambda folder: "no_such_package:network", {}, ["no_such_package"]),
    "no such callable": (lambda folder: "gcpp_edge.contract:network", {}, ["gcpp_edge.contract", "network"]),
    "a callable of something else": (lambda folder: "gcpp_edge.contract:Geometry", {}, ["Geometry", "torch.nn.Module"]),
    "no such onnx file": (lambda folder: str(folder / "none.onnx"), {}, ["none.onnx", "No such file"]),
    "a text file called .onnx": (lambda folder: write(folder / "text.onnx", b"hello there"), {}, ["text.onnx", "ONNX"]),
    "a truncated onnx file": (
        lambda folder: write(folder / "cut.onnx", classifier().SerializeToString()[:300]),
        {},
        ["cut.onnx", "ONNX"],
    ),
    "an explained file": (
        lambda folder: write(folder / "done.onnx", explain_onnx(classifier(), check=False).SerializeToString()),
        {},
        ["done.onnx", "already"],
    ),
    "a damaged pt2 file": (
        lambda folder: write(folder / "bad.pt2", b"PK nothing"),
        {},
        ["bad.pt2", "torch.export.save"],
    ),
    "weights for an onnx file": (lambda folder: small_file(folder), {"weights": "w.pth"}, ["--weights"]),
    "no such weights": (lambda folder: "torchvision:resnet18", {"weights": "none.pth"}, ["none.pth", "no such"]),
    "weights that are no weights": (
        lambda folder: "torchvision:resnet18",
        {"weights": __file__},
        ["state dict", "torch.save"],
    ),
    "a mean above the pixels": (
        lambda folder: small_file(folder),
        {"mean": [104, 117, 123]},
        ["123", "--pixel-max 255"],
    ),
    "two means": (lambda folder: small_file(folder), {"mean": [0.1, 0.2]}, ["--mean", "2", "3 channels"]),
    "a std of zero": (lambda folder: small_file(folder), {"std": [0.0]}, ["--std"]),
    "an unknown colour order": (lambda folder: small_file(folder), {"color": "hsv"}, ["hsv", "bgr"]),
    "an unknown geometry": (lambda folder: small_file(folder), {"geometry": "zoom"}, ["zoom", "letterbox"]),
    "a share of two": (lambda folder: small_file(folder), {"geometry": "crop", "share": 2.0}, ["--share"]),
    "a share of nothing": (lambda folder: small_file(folder), {"geometry": "crop", "share": 1e-9}, ["--share"]),
    "a share without a crop": (lambda folder: small_file(folder), {"share": 0.9}, ["--share", "--geometry crop"]),
    "a fill of 999": (lambda folder: small_file(folder), {"geometry": "letterbox", "fill": 999.0}, ["--fill", "255"]),
    "a fill that is no number": (lambda folder: small_file(folder), {"fill": float("nan")}, ["--fill"]),
    "a mean that is no number": (lambda folder: small_file(folder), {"mean": [float("nan")]}, ["--mean", "finite"]),
    "an infinite std": (lambda folder: small_file(folder), {"std": [float("inf")]}, ["--std", "finite"]),
    "a grey picture for three channels": (lambda folder: small_file(folder), {"color": "gray"}, ["--color gray", "3"]),
    "labels of an object": (
        lambda folder: small_file(folder),
        {"labels": ["{"]},
        ["1 labels for 6"],
    ),
    "no labels": (lambda folder: small_file(folder), {"labels": ""}, ["No labels"]),
    "a callable that raises": (lambda folder: "textwrap:indent", {}, ["textwrap:indent", "without arguments"]),
    "weights that are a list": (
        lambda folder: "torchvision:resnet18",
        {"weights": lambda folder: saved(folder / "list.pth", [1, 2])},
        ["list.pth", "expected a state dict"],
    ),
    "a size for a traced program": (
        lambda folder: write(folder / "net.pt2", b"PK"),
        {"input_size": (64, 64)},
        ["--input-size", ".pt2"],
    ),
    "no such labels": (lambda folder: small_file(folder), {"labels": "none.txt"}, ["none.txt"]),
}


def saved(path, value):
    torch.save(value, path)
    return path


def small_file(folder):
    return write(folder / "small.onnx", classifier().SerializeToString())


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_source_is_refused_in_one_line_and_writes_nothing(name, tmp_path):
    source, options, words = REFUSED[name]
    options = {key: value(tmp_path) if callable(value) else value for key, value in options.items()}
    output = tmp_path / "out.onnx"
    with pytest.raises(ExportError) as caught:
        export_file(source(tmp_path), output, **options)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert not output.exists()
    assert not [entry for entry in os.listdir(tmp_path) if entry.startswith(".")]


def test_a_missing_output_folder_is_named(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        export_file(small_file(tmp_path), tmp_path / "none" / "out.onnx")


@pytest.mark.parametrize("output", ["", ".", "small.onnx", "link.onnx", "pipe"])
def test_an_output_that_would_destroy_something_is_refused(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = small_file(tmp_path)
    (tmp_path / "link.onnx").symlink_to("small.onnx")
    os.mkfifo(tmp_path / "pipe")
    before = (tmp_path / "small.onnx").read_bytes()
    with pytest.raises(SourceError) as caught:
        export_file(source, output)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "small.onnx").read_bytes() == before


def test_the_suffix_may_be_in_capitals(tmp_path):
    write(tmp_path / "SMALL.ONNX", classifier().SerializeToString())
    assert export_file(str(tmp_path / "SMALL.ONNX"), tmp_path / "out.onnx").bytes > 0


def test_external_data_outside_the_folder_is_refused(tmp_path):
    model = classifier()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    with pytest.raises(SourceError, match="outside"):
        load_source(write(tmp_path / "outside.onnx", model.SerializeToString()))


def test_external_data_beside_the_file_is_read(tmp_path):
    onnx.save(
        classifier(), tmp_path / "beside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    report = export_file(str(tmp_path / "beside.onnx"), tmp_path / "out.onnx")
    assert report.contract.check["error"] < 1e-2
    assert np.isfinite(report.bytes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("cat\ndog\n", ("cat", "dog")), ('["cat", "dog"]', ("cat", "dog")), ("\n cat \n\n", ("cat",))],
)
def test_labels_are_lines_or_a_json_list(text, expected, tmp_path):
    (tmp_path / "labels.txt").write_text(text)
    assert read_labels(tmp_path / "labels.txt") == expected


def test_imagenet_labels_are_built_in():
    labels = read_labels("imagenet")
    assert (len(labels), labels[104], labels[285], labels[967]) == (1000, "wallaby", "Egyptian cat", "espresso")


def test_what_was_assumed_about_pixels_is_noted(tmp_path):
    report = export_file(small_file(tmp_path), tmp_path / "out.onnx")
    assert report.contract.preprocessing == Preprocessing(16, 16)
    assert "assumed" in report.notes[0]
