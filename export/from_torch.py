"""From a PyTorch module to a forward ONNX model, and the autograd oracle for the self-check.

The only file that imports torch for exporting, and it does so when called.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from gcpp_edge import contract
from gcpp_edge.contract import MAX_OPSET
from gcpp_edge.errors import GcppError, MissingDependencyError, SourceError
from gcpp_edge.export.weights import WeightStore, is_placeholder

INPUT = "input"


@dataclass
class TorchSource:
    """A network from PyTorch with what is known about its use. `network`: an nn.Module or an ExportedProgram."""

    network: Any
    preprocessing: contract.Preprocessing | None = None
    labels: tuple[str, ...] = ()
    name: str = ""


@dataclass
class ForwardModel:
    """A forward ONNX model and, for the self-check, the program that it was made from.

    weights: the large ones, where they are not in the model (weights.py); they are there while this is kept.
    """

    model: ModelProto
    program: Any = None
    weights: WeightStore | None = None


def import_torch() -> ModuleType:
    """The torch module, or MissingDependencyError with the install line."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingDependencyError(
            "PyTorch is needed for this source and is not installed: pip install 'gcpp-edge[export]'"
        ) from error


def import_torchvision() -> ModuleType:
    """torchvision, also without its compiled operators: classifiers need none, but its import looks for two."""
    torch = import_torch()
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise MissingDependencyError("torchvision is not installed: pip install torchvision --no-deps") from error
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise SourceError(f"torchvision does not import: {error}") from error
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_libraries.append(library)  # a library that is collected takes its schemas along
    return importlib.import_module("torchvision")


_kept_libraries: list[Any] = []


def torchvision_source(name: str, weights: Path | None) -> TorchSource:
    """`torchvision:NAME`: preprocessing and labels as the published weights document them."""
    models = importlib.import_module(f"{import_torchvision().__name__}.models")
    try:
        network = models.get_model(name, weights=None, **_quick_init(name))
    except ValueError as error:
        near = (
            ", ".join(n for n in models.list_models() if n.startswith(name[:4]))
            or "see torchvision.models.list_models()"
        )
        raise SourceError(f'torchvision has no model "{name}". Nearest: {near}.') from error
    load_weights(network, weights)
    preprocessing, labels = _published(models, name)
    return TorchSource(network, preprocessing, labels if _classes(network, labels) else (), f"torchvision:{name}")


def _quick_init(name: str) -> dict[str, bool]:
    """Their truncated-normal initialisation takes minutes and is overwritten anyway."""
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _published(models: ModuleType, name: str) -> tuple[contract.Preprocessing | None, tuple[str, ...]]:
    weights = models.get_model_weights(name).DEFAULT
    transforms, labels = weights.transforms(), tuple(weights.meta.get("categories", ()))
    try:
        crop, resize = transforms.crop_size[0], transforms.resize_size[0]
        mean, std = tuple(transforms.mean), tuple(transforms.std)
    except (AttributeError, TypeError, IndexError):
        return None, labels
    geometry = contract.Geometry("crop", share=crop / resize)
    return contract.Preprocessing(crop, crop, "rgb", mean, std, 1.0, geometry), labels


def _classes(network: Any, labels: tuple[str, ...]) -> bool:
    """Whether the last linear layer or 1x1 convolution has one output a label."""
    sizes = [getattr(m, "out_features", getattr(m, "out_channels", None)) for m in network.modules()]
    return len(labels) in sizes


def timm_source(name: str, weights: Path | None) -> TorchSource:
    """`timm:NAME`: preprocessing from the model's pretrained configuration."""
    import_torchvision()
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise MissingDependencyError("timm is not installed: pip install timm --no-deps") from error
    try:
        network = timm.create_model(name, pretrained=False)
    except RuntimeError as error:
        near = ", ".join(timm.list_models(f"{name[:5]}*")[:5]) or "none"
        raise SourceError(f'timm has no model "{name}". Nearest: {near} (timm.list_models() has all).') from error
    load_weights(network, weights)
    return TorchSource(network, _timm_preprocessing(network), (), f"timm:{name}")


def _timm_preprocessing(network: Any) -> contract.Preprocessing | None:
    configuration = getattr(network, "pretrained_cfg", None) or {}
    size = configuration.get("input_size")
    if not size:
        return None
    channels, height, width = size
    color = contract.COLOR_OF_CHANNELS.get(channels)
    if color is None:
        return None
    geometry = contract.Geometry("crop", share=float(configuration.get("crop_pct") or 1.0))
    mean, std = configuration.get("mean", (0.0,) * channels), configuration.get("std", (1.0,) * channels)
    return contract.Preprocessing(height, width, color, tuple(mean), tuple(std), 1.0, geometry)


def callable_source(path: str, weights: Path | None) -> TorchSource:
    """`package.module:callable` that returns an nn.Module; its attributes `preprocessing` and `labels` are used."""
    torch = import_torch()
    module_name, _, attribute = path.partition(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` would find it
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise SourceError(f'Cannot import "{module_name}" of source "{path}": {error}.') from error
    except AttributeError as error:
        raise SourceError(f'Module "{module_name}" has no "{attribute}".') from error
    finally:
        sys.path.pop(0)
    network = factory if isinstance(factory, torch.nn.Module) else _called(factory, path)
    if not isinstance(network, torch.nn.Module):
        raise SourceError(f'"{path}" gave {type(network).__name__}; expected a torch.nn.Module.')
    load_weights(network, weights)
    preprocessing = getattr(network, "preprocessing", None)
    known = preprocessing if isinstance(preprocessing, contract.Preprocessing) else None
    return TorchSource(network, known, tuple(getattr(network, "labels", ())), path)


def _called(factory: Any, path: str) -> Any:
    try:
        return factory()
    except GcppError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise SourceError(f'"{path}" could not be called without arguments: {_root_cause(error)}') from error


def program_source(path: Path) -> TorchSource:
    """A `.pt2` file written by torch.export.save."""
    torch = import_torch()
    try:
        return TorchSource(torch.export.load(path), name=path.name)
    except Exception as error:  # a damaged archive raises anything from zipfile to pickle errors
        raise SourceError(
            f"{path}: not a torch.export file ({_first_line(error)}). Write it with torch.export.save."
        ) from error


def load_weights(network: Any, path: Path | None) -> None:
    """Loads a state dict from a file, with weights_only=True: a pickle could run code. No file: nothing happens."""
    if path is None:
        return
    torch = import_torch()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such weights file.") from error
    except Exception as error:  # unpickling a damaged or foreign file raises many kinds
        raise SourceError(
            f"{path}: not a state dict that loads safely ({_first_line(error)}). "
            "Save model.state_dict() with torch.save."
        ) from error
    state = next((state[key] for key in ("state_dict", "model") if isinstance(state, dict) and key in state), state)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise SourceError(f"{path}: holds {type(state).__name__}; expected a state dict. Save model.state_dict().")
    prefix = "module."
    state = {key[len(prefix) :] if key.startswith(prefix) else key: value for key, value in state.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SourceError(f"{path}: the weights do not fit the network: {' '.join(lines[1:3])[:300]}") from error


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return re.sub(r"\x1b\[[0-9;]*m", "", line)  # PyTorch colours some of its messages


def forward_model(source: TorchSource, example: Any, *others: Any) -> ForwardModel:
    """The forward ONNX model of a PyTorch network, with a symbolic batch where the network allows it.

    example: a tensor [N,C,H,W] or [N,C,T,H,W]. others: further inputs, whose first axis is the batch too. Modules are
    put into evaluation mode. Raises SourceError.
    """
    torch = import_torch()
    if not isinstance(source.network, torch.nn.Module):
        return _exported(torch, source.network, ())
    network = source.network.eval()
    # torch.export takes a size of 1 as fixed
    pairs = tuple(torch.cat([each, each]) if each.shape[0] < 2 else each for each in (example, *others))
    batch = torch.export.Dim("batch")
    try:
        return _exported(torch, network, pairs, dynamic_shapes=tuple({0: batch} for _ in pairs))
    except SourceError:
        with contextlib.suppress(SourceError):  # a network that fixes its batch: normalise.py frees what it can
            return _exported(torch, network, tuple(each[:1] for each in pairs))
        raise


def _exported(torch: ModuleType, network: Any, arguments: tuple[Any, ...], **options: Any) -> ForwardModel:
    """The ONNX model, with PyTorch's own memory as its weights, and the decomposed torch.export program behind it."""
    with _quiet(), torch.no_grad(), _attention_of_rank_four(torch):
        try:
            result = torch.onnx.export(
                network,
                arguments,
                dynamo=True,
                opset_version=MAX_OPSET,
                input_names=[INPUT],
                verbose=False,
                external_data=False,
                **options,
            )
        except Exception as error:  # the exporter wraps anything that a model's code can raise
            raise SourceError(f"PyTorch could not export the network: {_root_cause(error)}") from error
        model, store = _light(result.model)
    return ForwardModel(model, result.exported_program, store)


def _light(program: Any) -> tuple[ModelProto, WeightStore]:
    """The ONNX model of an onnx_ir one, which loses its large weights: `model_proto` would copy all of them."""
    _register_constants(program.graph)
    store, beside = WeightStore(), []
    for value in program.graph.initializers.values():
        array = None if value.const_value is None else value.const_value.numpy()
        if array is not None and helper.np_dtype_to_tensor_dtype(array.dtype) == value.const_value.dtype:
            tensor = store.tensor(array, value.name)
            if is_placeholder(tensor):
                value.const_value = None  # what has none is left out
                beside.append(tensor)
    model: ModelProto = importlib.import_module("onnx_ir").to_proto(program)
    model.graph.initializer.extend(beside)
    return model, store


def _register_constants(graph: Any) -> None:
    """Makes initializers of constants that nodes read and the exporter's clean-up forgot (bounds of Gemma's clamps)."""
    for value in [value for node in graph for value in node.inputs if value is not None]:
        if value.const_value is not None and value.producer() is None and value.name not in graph.initializers:
            graph.register_initializer(value)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first_line(error)}"


@contextlib.contextmanager
def _attention_of_rank_four(torch: ModuleType) -> Iterator[None]:
    """PyTorch's ONNX exporter takes attention over [N,heads,T,C] alone: leading axes are merged (Hiera has a fifth)."""
    functional = torch.nn.functional
    attention = functional.scaled_dot_product_attention

    def merged(query: Any, key: Any, value: Any, attn_mask: Any = None, *rest: Any, **options: Any) -> Any:
        if query.dim() == 4:
            return attention(query, key, value, attn_mask, *rest, **options)
        if attn_mask is not None:
            attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
            attn_mask = attn_mask.reshape(-1, *attn_mask.shape[-3:])
        four = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        return attention(*four, attn_mask, *rest, **options).reshape(*query.shape[:-1], value.shape[-1])

    functional.scaled_dot_product_attention = merged
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attention


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and warns about its own internals; neither is for our user."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def autograd_gradients(
    program: Any, tensor: str, logits: str, feeds: list[dict[str, np.ndarray]], seeds: list[np.ndarray]
) -> list[np.ndarray] | None:
    """Gradients at an ONNX tensor by autograd, [K,*tensor.shape[1:]] a sample, or None where PyTorch has none such.

    The exporter names ONNX tensors after the values of the program, so the program can be run with two of them watched:
    the logits that it returns may be probabilities, or not its first result. feeds: the network's inputs in order, a
    batch of one each since a program may fix its batch. seeds: the gradients at the logits, [K,*logits.shape[1:]].
    """
    torch = import_torch()
    module = program.module()
    if not {tensor, logits} <= {node.name for node in module.graph.nodes}:
        return None
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # their gradients would cost as much again

    class Watcher(torch.fx.Interpreter):  # type: ignore[misc, name-defined]
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            if node.name == tensor:
                self.layer = result = result.detach().requires_grad_()
            if node.name == logits:
                self.logits = result
            return result

    gradients = []
    for inputs, rows in zip(feeds, seeds, strict=True):
        watcher = Watcher(module)
        watcher.run(*(torch.from_numpy(array) for array in inputs.values()))
        explained = [(watcher.logits[0] * torch.from_numpy(row).to(watcher.logits.dtype)).sum() for row in rows]
        found = [torch.autograd.grad(score, watcher.layer, retain_graph=True)[0][0].numpy() for score in explained]
        gradients.append(np.stack(found))
    return gradients
