"""Real networks, exported, and built to engines by the product's own code: TensorRT for RTX needs no GPU for that."""

import logging
from functools import cache
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="the networks come from PyTorch: pip install 'gcpp-edge[export]'")
pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT for RTX is not installed; `make test` installs it where it has wheels"
)

from gcpp_edge.contract import HEATMAP  # noqa: E402
from gcpp_edge.engine_store import Gpu  # noqa: E402
from gcpp_edge.export import explain_onnx  # noqa: E402
from gcpp_edge.export.from_torch import TorchSource, forward_model, import_torchvision  # noqa: E402
from gcpp_edge.export.weights import filled  # noqa: E402
from gcpp_edge.export.write import write_model  # noqa: E402
from gcpp_edge.model_file import read_model_file  # noqa: E402
from gcpp_edge.runtimes.tensorrt import obtain_engine, options_for  # noqa: E402
from gcpp_edge.runtimes.tensorrt_build import Batch  # noqa: E402
from gcpp_edge.runtimes.tensorrt_library import TENSORRT_RTX, usable  # noqa: E402

pytestmark = pytest.mark.slow

CAPABILITY = "8.6"  # Ampere's, which Jetson Orin's is nearest to


def torchvision_network(name: str) -> Any:
    import_torchvision()
    from torchvision.models import get_model

    return get_model(name, weights=None, num_classes=10)


def efficientnet_lite0() -> Any:
    lite = pytest.importorskip("efficientnet_lite_pytorch", reason="EfficientNet-Lite0 comes from this package")
    return lite.EfficientNet.from_name("efficientnet-lite0")


def narrow_vgg16() -> Any:
    """VGG-16 with linear layers of 256: its own hold 120 million weights, and are no other kind of node."""
    network = torchvision_network("vgg16")
    linear = torch.nn.Linear
    network.classifier[0], network.classifier[3] = linear(512 * 7 * 7, 256), linear(256, 256)
    network.classifier[6] = linear(256, 10)
    return network


NETWORKS = {
    "resnet50": lambda: torchvision_network("resnet50"),
    "efficientnet_lite0": efficientnet_lite0,
    "vgg16": narrow_vgg16,
    "mobilenet_v3_large": lambda: torchvision_network("mobilenet_v3_large"),
}


@cache
def forward_of(name: str) -> Any:
    """The network as PyTorch exports it, with any batch."""
    torch.manual_seed(0)
    forward = forward_model(TorchSource(NETWORKS[name]().eval()), torch.zeros(2, 3, 64, 64))
    return filled(forward.model)


class Form(NamedTuple):
    """What is exported, and the levels of it that are built."""

    options: dict[str, Any]
    levels: tuple[str, ...]


FORMS = {
    "float32": Form({"guided": True}, ("plain", "map", "guided")),
    "portable": Form({"portable": "gradcam++"}, ("map",)),
    "fp16": Form({"guided": True, "precision": "fp16"}, ("plain", "map", "guided")),
}


@pytest.mark.parametrize(("name", "form"), [(name, form) for name in NETWORKS for form in FORMS])
def test_every_level_of_a_network_is_built(name: str, form: str, tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING, "gcpp_edge.engine_cache")
    options, levels = FORMS[form]
    write_model(explain_onnx(forward_of(name), check=False, **options), tmp_path / "model.onnx")
    file = read_model_file(tmp_path / "model.onnx")
    library = usable(TENSORRT_RTX)
    sizes = []
    for level in levels:
        wanted = options_for(file, level, Batch(1, 1, 4), False, (CAPABILITY,))
        _, entry, is_new = obtain_engine(library, file, wanted, Gpu("", (CAPABILITY,)), load=False)
        outputs = [tensor["name"] for tensor in entry.document["outputs"]]
        assert is_new and outputs == [name for name in file.contract.levels[level].outputs if name != HEATMAP]
        floats = {tensor["dtype"] for tensor in entry.document["outputs"] if tensor["dtype"] != "int64"}
        assert floats <= ({"float16", "float32"} if form == "fp16" else {"float32"})
        assert obtain_engine(library, file, wanted, Gpu("", (CAPABILITY,)), load=False)[2] is False
        sizes.append(entry.document["engine"]["bytes"])
    assert not [record for record in caplog.records if record.name == "gcpp_edge.engine_cache"]
    assert sizes == sorted(sizes)  # each level holds the one below it
