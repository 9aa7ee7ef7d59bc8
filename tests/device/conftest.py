"""A small explained model, made by hand: what the device half is tested on without the exporter.

    image -> Conv 2x2 stride 2 -> ReLU (features) -> mean -> Gemm -> scores

Its gradients are known in closed form: dS_c/dA_k = classifier[c, k] / (h w), the same at every position.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcpp_edge.contract import METADATA_KEY, Contract, Layer, Level, Preprocessing, Scores

onnx = pytest.importorskip("onnx", reason="the tests' model is made with onnx: pip install 'gcpp-edge[onnxruntime]'")
pytest.importorskip("onnxruntime", reason="the tests' model is run: pip install 'gcpp-edge[onnxruntime]'")

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers of these tests

CLASSES = 7
CHANNELS = 4
LABELS = ("tabby cat", "tiger cat", "beagle", "crane", "crane", "espresso", "rest, sleep")
LAST_NODES = {"logits": None, "softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid"}


@dataclass(frozen=True)
class SmallModel:
    """The model on disk and its weights: everything to compute by hand what it should answer."""

    path: Path
    contract: Contract
    filters: np.ndarray
    bias: np.ndarray
    classifier: np.ndarray

    def features(self, image: np.ndarray) -> np.ndarray:
        """(N, CHANNELS, h, w) of an input (N, C, H, W)."""
        patches = np.lib.stride_tricks.sliding_window_view(image, (2, 2), axis=(2, 3))[:, :, ::2, ::2]
        return np.maximum(np.einsum("nchwij,kcij->nkhw", patches, self.filters) + self.bias[:, None, None], 0)

    def logits(self, image: np.ndarray) -> np.ndarray:
        return self.features(image).mean(axis=(2, 3)) @ self.classifier.T

    def input_of(self, frame: np.ndarray) -> np.ndarray:
        """The input of an RGB-trained network from a BGR frame of its own size."""
        pixels = self.contract.preprocessing
        scaled = frame[:, :, ::-1] / 255 * pixels.pixel_max
        return ((scaled - pixels.mean) / pixels.std).transpose(2, 0, 1)[None]


def build_small_model(
    path: Path,
    *,
    kind: str = "logits",
    constant: bool = True,
    dtype: type = np.float32,
    batch: int | str = "N",
    size: tuple[int, int] = (16, 12),
    guided: bool = True,
    labels: tuple[str, ...] = LABELS,
    preprocessing: dict[str, Any] | None = None,
    beside: bool = False,
    classifier: np.ndarray | None = None,
    gradient_scale: float = 1.0,
    contract_changes: dict[str, Any] | None = None,
) -> SmallModel:
    """Write the model and say what is in it. `beside`: weights in a file of their own. `batch`: int fixes it.

    gradient_scale: what the stored gradients are multiplied by, and the guided image with them.
    """
    pixels = Preprocessing(*size, **{"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)} | (preprocessing or {}))
    random = np.random.default_rng(7)
    filters = random.normal(size=(CHANNELS, pixels.channels, 2, 2))
    bias = random.normal(size=CHANNELS) + 1
    classifier = random.normal(size=(CLASSES, CHANNELS)) * 3 if classifier is None else classifier
    space = (size[0] // 2, size[1] // 2)
    weights = {
        "filters": filters,
        "bias": bias,
        "classifier": classifier,
        "positions": np.array(space[0] * space[1] / gradient_scale),
    }
    initializers = [onnx.numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items()]
    integers = {"ranks": [3], "minus_one": -1, "zero": 0, "deepest": 2, "axis_1": [1], "space_axes": [2, 3]}
    initializers += [onnx.numpy_helper.from_array(np.array(v, np.int64), k) for k, v in integers.items()]
    levels = {"plain": _plain_nodes(kind), "map": _map_nodes(constant), "guided": _guided_nodes() if guided else []}
    names = [output for output, nodes in levels.items() if nodes]
    contract = _contract(pixels, space, kind, constant, labels, levels, names)
    contract = replace(contract, layer=replace(contract.layer, gradient_scale=gradient_scale))
    contract = replace(contract, **contract_changes or {})
    float_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    image = [batch, pixels.channels, *size]
    gradient_space = (1, 1) if constant else space
    shapes = {
        "scores": [batch, CLASSES],
        "activations": [batch, CHANNELS, *space],
        "gradients": [batch, CHANNELS, *gradient_space],
        "guided": image,
    }
    graph = onnx.helper.make_graph(
        [node for nodes in levels.values() for node in nodes],
        "small",
        [
            onnx.helper.make_tensor_value_info("image", float_type, image),
            onnx.helper.make_tensor_value_info("target", onnx.TensorProto.INT64, [batch]),
        ],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [batch])
            if name == "target_class"
            else onnx.helper.make_tensor_value_info(name, float_type, shapes[name])
            for name in contract.levels[names[-1]].outputs
        ],
        initializers,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path, save_as_external_data=beside, location=path.stem + ".data", size_threshold=64)
    return SmallModel(path, contract, filters, bias, classifier)


def _contract(pixels, space, kind, constant, labels, levels, names) -> Contract:
    outputs = ("scores",), ("target_class", "activations", "gradients"), ("guided",)
    ends, promised, count = {}, (), 0
    for name, added in zip(names, outputs, strict=False):
        count += len(levels[name])
        promised += added
        ends[name] = Level(count, promised)
    return Contract(
        input="image",
        preprocessing=pixels,
        scores=Scores("scores", CLASSES, kind),
        layer=Layer("conv", "features", CHANNELS, space, constant),
        levels=ends,
        ranks=3,
        labels=labels,
    )


def _plain_nodes(kind: str) -> list[Any]:
    node = onnx.helper.make_node
    logits = "scores" if kind == "logits" else "logits"
    nodes = [
        node("Conv", ["image", "filters", "bias"], ["before"], strides=[2, 2]),
        node("Relu", ["before"], ["features"]),
        node("ReduceMean", ["features"], ["pooled"], axes=[2, 3], keepdims=0),
        node("Gemm", ["pooled", "classifier"], [logits], transB=1),
    ]
    return nodes if kind == "logits" else [*nodes, node(LAST_NODES[kind], [logits], ["scores"])]


def _map_nodes(constant: bool) -> list[Any]:
    node = onnx.helper.make_node
    rows = "gradients" if constant else "rows_4d"
    nodes = [
        node("Identity", ["features"], ["activations"]),
        node("TopK", ["scores", "ranks"], ["top_scores", "top_classes"], axis=1),
        node("Sub", ["minus_one", "target"], ["rank"]),
        node("Clip", ["rank", "zero", "deepest"], ["rank_in_range"]),
        node("Unsqueeze", ["rank_in_range", "axis_1"], ["rank_2d"]),
        node("GatherElements", ["top_classes", "rank_2d"], ["ranked_2d"], axis=1),
        node("Squeeze", ["ranked_2d", "axis_1"], ["ranked"]),
        node("Less", ["target", "zero"], ["is_rank"]),
        node("Where", ["is_rank", "ranked", "target"], ["target_class"]),
        node("Gather", ["classifier", "target_class"], ["row"], axis=0),
        node("Div", ["row", "positions"], ["row_per_position"]),
        node("Unsqueeze", ["row_per_position", "space_axes"], [rows]),
    ]
    if not constant:
        nodes += [node("Shape", ["features"], ["extent"]), node("Expand", [rows, "extent"], ["gradients"])]
    return nodes


def _guided_nodes() -> list[Any]:
    node = onnx.helper.make_node
    return [
        node("Relu", ["gradients"], ["positive"]),
        node("Sign", ["features"], ["mask"]),
        node("Mul", ["positive", "mask"], ["masked"]),
        node("ConvTranspose", ["masked", "filters"], ["guided"], strides=[2, 2]),
    ]


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., SmallModel]:
    """build_small_model in this test's folder."""

    def make(name: str = "small.onnx", **options: Any) -> SmallModel:
        return build_small_model(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def shared_model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """The default model, for tests that only read it."""
    return build_small_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture
def random_frame() -> Callable[..., np.ndarray]:
    def make(height: int = 16, width: int = 12, channels: int = 3, seed: int = 0) -> np.ndarray:
        shape = (height, width, channels) if channels else (height, width)
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)

    return make


@pytest.fixture(scope="session")
def torchvision() -> Any:
    """torchvision, also where its compiled operators do not load (a torch built for another device)."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    schemas = {
        "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    }
    for name, schema in schemas.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)
    return pytest.importorskip("torchvision", reason="torchvision is the oracle here")
