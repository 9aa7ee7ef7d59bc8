"""Large weights, held beside a light graph for as long as it is worked on.

protobuf serialises nothing above 2 GB, ONNX's helpers in C++ serialise, and every copy of a model copies its weights.
So a large initializer is a placeholder in the graph (external data that lie in no file), and its array is in a store:
that of PyTorch's parameter or of the mapped file, not a copy. A model does not keep its store alive: ForwardModel does,
and must live as long as what was made from it.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from gcpp_edge.errors import SourceError

LARGE_ELEMENTS = 64  # constants above this never steer shapes, and ONNX's helpers are spared them
LARGE_BYTES = 2**16  # initializers from this on leave the graph
LOCATION = f"gcpp-edge-memory-{uuid.uuid4().hex}"  # no file can name it

_numbers = itertools.count()
_stores: WeakValueDictionary[str, WeightStore] = WeakValueDictionary()


class WeightStore:
    """Arrays behind the placeholders of one network, which nobody changes. files: those that some are mapped from."""

    def __init__(self) -> None:
        self.name = f"{LOCATION}/{next(_numbers)}"
        self.files: set[Path] = set()
        self._arrays: dict[str, np.ndarray] = {}
        _stores[self.name] = self

    def tensor(self, array: np.ndarray, name: str) -> TensorProto:
        """An initializer: a placeholder where the array is large, which is then kept and not copied."""
        if array.size <= LARGE_ELEMENTS or array.nbytes < LARGE_BYTES:
            return numpy_helper.from_array(array, name)
        key = f"{self.name}/{len(self._arrays)}"
        self._arrays[key] = stored(array)
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        result = TensorProto(name=name, data_type=dtype, dims=array.shape, data_location=TensorProto.EXTERNAL)
        result.external_data.add(key="location", value=key)
        return result

    def array(self, placeholder: TensorProto) -> np.ndarray:
        return self._arrays[_location(placeholder)]

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Drops at its end what was added inside."""
        before = len(self._arrays)
        try:
            yield
        finally:
            for key in list(self._arrays)[before:]:
                del self._arrays[key]


def weights_of(model: ModelProto) -> WeightStore | None:
    """The store behind a model's placeholders; None where it has none."""
    stores = (_store_behind(tensor) for tensor in model.graph.initializer)
    return next((store for store in stores if store is not None), None)


def initializer_maker(model: ModelProto) -> Callable[[np.ndarray, str], TensorProto]:
    """Makes an initializer of an array and a name, beside the model where its other weights are."""
    store = weights_of(model)
    return numpy_helper.from_array if store is None else store.tensor


def scratch(model: ModelProto) -> AbstractContextManager[None]:
    """A block whose models, made from this one, nobody keeps: their weights are dropped at its end."""
    store = weights_of(model)
    return nullcontext() if store is None else store.scratch()


def placeholders(model: ModelProto) -> list[TensorProto]:
    """The initializers whose arrays are in the store."""
    return [tensor for tensor in model.graph.initializer if is_placeholder(tensor)]


def is_placeholder(tensor: TensorProto) -> bool:
    """Whether a tensor's array is in a store."""
    return _location(tensor).startswith(LOCATION)


def array_of(tensor: TensorProto) -> np.ndarray:
    """The array of an initializer, placeholder or not."""
    store = _store_behind(tensor)
    return np.asarray(numpy_helper.to_array(tensor)) if store is None else store.array(tensor)


def whole(tensor: TensorProto) -> TensorProto:
    """The tensor with its data in it."""
    if not is_placeholder(tensor):
        return tensor
    data = array_of(tensor).tobytes()
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=data)


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order, which are not copied."""
    return array.reshape(-1).view(np.uint8).data


def stored(array: np.ndarray) -> np.ndarray:
    """The array in C order, aligned, and in the byte order of ONNX: the same one wherever it is so already."""
    return np.require(array, array.dtype.newbyteorder("<"), ["C", "A"])


def _location(tensor: TensorProto) -> str:
    if tensor.data_location != TensorProto.EXTERNAL:
        return ""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _store_behind(tensor: TensorProto) -> WeightStore | None:
    location = _location(tensor)
    if not location.startswith(LOCATION):
        return None
    store = _stores.get(location.rpartition("/")[0])
    if store is None:
        raise SourceError(f'The weights of "{tensor.name}" are gone: keep the ForwardModel that the model came from.')
    return store


# between a light model and a whole one


def set_aside(model: ModelProto) -> tuple[ModelProto, WeightStore]:
    """A light copy of a model, and the store of its large weights; those of Constant nodes become initializers."""
    store = WeightStore()
    nodes = [node for node in model.graph.node if not _is_large_constant(node)]
    light = without_initializers(model, nodes)
    light.graph.initializer.extend(_aside(store, tensor) for tensor in model.graph.initializer)
    for node in model.graph.node:
        if _is_large_constant(node):
            tensor = _aside(store, node.attribute[0].t)
            tensor.name = node.output[0]
            light.graph.initializer.append(tensor)
    return light, store


def _aside(store: WeightStore, tensor: TensorProto) -> TensorProto:
    if not _is_large(tensor) or tensor.data_location == TensorProto.EXTERNAL:
        return tensor
    array = numpy_helper.to_array(tensor)
    if helper.np_dtype_to_tensor_dtype(array.dtype) != tensor.data_type:  # a type that NumPy lacks is left alone
        return tensor
    return store.tensor(array, tensor.name)


def _is_large(tensor: TensorProto) -> bool:
    return int(np.prod(list(tensor.dims), dtype=np.int64)) > LARGE_ELEMENTS


def _is_large_constant(node: NodeProto) -> bool:
    return node.op_type == "Constant" and any(entry.name == "value" and _is_large(entry.t) for entry in node.attribute)


def filled(model: ModelProto) -> ModelProto:
    """A model that stands alone: every placeholder with its data. Serialising it works below 2 GB."""
    result = without_initializers(model)
    result.graph.initializer.extend(whole(tensor) for tensor in model.graph.initializer)
    return result


def without_large_constants(model: ModelProto) -> ModelProto:
    """A light copy for ONNX's helpers in C++: large initializers become graph inputs of the same type."""
    result = without_initializers(model)
    declared = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if not _is_large(tensor):
            result.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            result.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return result


def put_back(light: ModelProto, model: ModelProto) -> ModelProto:
    """What a helper made of without_large_constants(model), with the large initializers that it lacked."""
    large = {tensor.name: tensor for tensor in model.graph.initializer if _is_large(tensor)}
    inputs = [value for value in light.graph.input if value.name not in large]
    del light.graph.input[:]
    light.graph.input.extend(inputs)
    light.graph.initializer.extend(large.values())
    return light


def without_initializers(model: ModelProto, nodes: Iterable[NodeProto] | None = None) -> ModelProto:
    """A copy without its initializers, and with these nodes in place of its own."""
    result = ModelProto()
    _merge(model, result, "graph")
    _merge(model.graph, result.graph, "node", "initializer")
    result.graph.name = result.graph.name or "graph"
    result.graph.node.extend(model.graph.node if nodes is None else nodes)
    return result


def _merge(source: Any, target: Any, *without: str) -> None:
    """Copies the fields of a protobuf message but those: CopyFrom would copy all weights first."""
    for field, value in source.ListFields():
        if field.name in without:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            getattr(target, field.name).CopyFrom(value)


def digest(model: ModelProto) -> str:
    """sha256 of a model and its weights, the same in every process."""
    light = without_initializers(model)
    arrays = []
    for tensor in model.graph.initializer:
        entry = light.graph.initializer.add()
        entry.CopyFrom(tensor)
        if is_placeholder(tensor):
            entry.ClearField("external_data")
            arrays.append(array_of(tensor))
    result = hashlib.sha256(light.SerializeToString(deterministic=True))
    for array in arrays:
        result.update(bytes_of(array))
    return result.hexdigest()
