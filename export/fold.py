"""Folds what does not depend on the picture, and tells the batch from all other sizes.

One walk in topological order. Every tensor's shape is inferred for two batch sizes, and what hangs on constants and
shapes alone is computed for both: what comes out equal is a constant, what grows with the batch is the batch. So
weights that exporters leave as arithmetic, and sizes that they compute from the input, become initializers, and a
Reshape says which axis it keeps (0) instead of the batch size that the file was written with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from gcpp_edge.contract import BATCH, MAX_IR, MAX_OPSET
from gcpp_edge.export.graph import attribute
from gcpp_edge.export.weights import LARGE_ELEMENTS, array_of, initializer_maker

BATCHES = (1, 3)  # one, because graphs treat it apart, and another
FOLDED_BYTES = 64 * 2**20  # a constant above this stays computed: the fully connected layers of test files
DICE = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
KEPT = ("DequantizeLinear", "QuantizeLinear", *DICE)  # integers stay integers for the device
OPSET = [helper.make_opsetid("", MAX_OPSET)]
UNKNOWN = (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError)  # the evaluator's and inference's own

Arrays = tuple[np.ndarray, ...]  # one a batch size; the same object where they do not differ
Sizes = tuple[tuple[int, ...], ...]  # one a batch size


def fold(model: ModelProto, fixed: int = 1) -> None:
    """Replaces what is constant, frees the batch in reshapes, and notes every tensor's shape.

    The model is at MAX_OPSET, its inputs' sizes are numbers but for a leading BATCH. fixed: the batch size that its
    reshapes may have been written for.
    """
    folder = _Folder(model, fixed)
    kept = [node for node in model.graph.node if not folder.visit(node)]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    folder.note_shapes()


class _Folder:
    """The state of the walk: types and known values of the tensors so far, an entry a batch size."""

    def __init__(self, model: ModelProto, fixed: int) -> None:
        self.model, self.fixed, self.made = model, fixed, initializer_maker(model)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types: list[dict[str, TypeProto]] = [{} for _ in BATCHES]
        self.known: dict[str, Arrays] = {}
        self.reshapes: dict[str, NodeProto] = {}
        for types, batch in zip(self.types, BATCHES, strict=True):
            for tensor in model.graph.initializer:
                types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            for value in model.graph.input:
                if value.name not in self.tensors:
                    types[value.name] = _with_batch(value.type, batch)

    def visit(self, node: NodeProto) -> bool:
        """Whether a node is now an initializer or two and goes."""
        if node.op_type == "Reshape":
            self._free_reshape(node)
            self.reshapes[node.output[0]] = node
        elif node.op_type == "Expand":
            self._free_expand(node)
        elif node.op_type == "Resize":
            self._free_resize(node)
        elif node.op_type == "Gather":
            self._free_flat_gather(node)
        elif node.op_type == "CastLike":
            self._cast_plainly(node)
        if not self._infer(node):
            return False
        computed = self._computed(node)
        if computed is None:
            return False
        self.known.update(computed)
        if not all(_same(arrays) for arrays in computed.values()):
            return False
        for name, arrays in computed.items():
            self._become(name, arrays[0])
        return True

    def _become(self, name: str, array: np.ndarray) -> None:
        tensor = self.made(np.ascontiguousarray(array).reshape(array.shape), name)
        self.model.graph.initializer.append(tensor)
        self.tensors[name] = tensor

    # shapes

    def sizes(self, name: str) -> Sizes | None:
        """The shape of a tensor for each batch size, None where any of it is unknown."""
        found = []
        for types in self.types:
            if name not in types or not types[name].tensor_type.HasField("shape"):
                return None
            dims = types[name].tensor_type.shape.dim
            if not all(dim.HasField("dim_value") for dim in dims):
                return None
            found.append(tuple(dim.dim_value for dim in dims))
        return tuple(found) if len({len(sizes) for sizes in found}) == 1 else None

    def _infer(self, node: NodeProto) -> bool:
        """Adds the types of a node's outputs; False where its inputs' are unknown or do not fit."""
        if any(entry.HasField("g") for entry in node.attribute):
            return False
        try:
            schema = onnx.defs.get_schema(node.op_type, MAX_OPSET, node.domain)
            for index, types in enumerate(self.types):
                given = {name: types[name] for name in node.input if name}
                found = shape_inference.infer_node_outputs(schema, node, given, self._data(node, index), None, OPSET)
                types.update(found)
        except (KeyError, onnx.defs.SchemaError, shape_inference.InferenceError, *UNKNOWN):
            return False
        return True

    def _data(self, node: NodeProto, index: int) -> dict[str, TensorProto]:
        """Small inputs that steer the output's shape."""
        small = {}
        for name in node.input:
            arrays = self.values(name, LARGE_ELEMENTS)
            if arrays is not None:
                small[name] = numpy_helper.from_array(np.asarray(arrays[index]), name)
        return small

    def note_shapes(self) -> None:
        """Shapes of all tensors as value_info, the batch by its name: ONNX's own inference loses it in a Reshape."""
        graph = self.model.graph
        del graph.value_info[:]
        outputs = {output.name: output for output in graph.output}
        for output in outputs.values():
            element = output.type.tensor_type.elem_type
            output.type.tensor_type.Clear()
            output.type.tensor_type.elem_type = element
        for name in [name for node in graph.node for name in node.output if name]:
            sizes = self.sizes(name)
            if sizes is None:
                continue
            shape = [_dimension(pair) for pair in zip(*sizes, strict=True)]
            if None in shape:
                continue
            info = helper.make_tensor_value_info(name, self.types[0][name].tensor_type.elem_type, shape)
            if name in outputs:
                outputs[name].CopyFrom(info)
            else:
                graph.value_info.append(info)

    # values

    def values(self, name: str, limit: int | None = None) -> Arrays | None:
        """A tensor's value for each batch size, None where the picture decides it or it has above `limit` elements."""
        if name in self.known:
            arrays = self.known[name]
            return None if limit is not None and arrays[-1].size > limit else arrays
        tensor = self.tensors.get(name)
        if tensor is None or (limit is not None and math.prod(tensor.dims) > limit):
            return None
        return (array_of(tensor),) * len(BATCHES)

    def _computed(self, node: NodeProto) -> dict[str, Arrays] | None:
        """The outputs of a node that reads constants or shapes alone."""
        if node.op_type in KEPT or not node.input or not self._affordable(node):
            return None
        if node.op_type in ("Shape", "Size"):
            return self._shape(node)
        given = {name: self.values(name) for name in node.input if name}
        if any(arrays is None for arrays in given.values()):
            return None
        same = all(arrays is not None and _same(arrays) for arrays in given.values())
        results: list[list[np.ndarray]] = []
        for index in range(1 if same else len(BATCHES)):
            feeds = {name: arrays[index] for name, arrays in given.items() if arrays is not None}
            outputs = _evaluated(node, feeds)
            if outputs is None:
                return None
            results.append(outputs)
        pairs = zip(*(results * len(BATCHES) if same else results), strict=True)
        return dict(zip([name for name in node.output if name], pairs, strict=True))

    def _shape(self, node: NodeProto) -> dict[str, Arrays] | None:
        sizes = self.sizes(node.input[0])
        if sizes is None:
            return None
        if node.op_type == "Size":
            return {node.output[0]: tuple(np.array(math.prod(s), np.int64) for s in sizes)}
        part = slice(attribute(node, "start", 0), attribute(node, "end", None))
        return {node.output[0]: tuple(np.array(s[part], np.int64) for s in sizes)}

    def _affordable(self, node: NodeProto) -> bool:
        for name in filter(None, node.output):
            sizes = self.sizes(name)
            element = self.types[0][name].tensor_type.elem_type
            if sizes is None or element in (TensorProto.UNDEFINED, TensorProto.STRING):
                return False
            if math.prod(sizes[0]) * helper.tensor_dtype_to_np_dtype(element).itemsize > FOLDED_BYTES:
                return False
        return True

    # the batch in reshapes

    def _free_reshape(self, node: NodeProto) -> None:
        """A Reshape that keeps the batch says so (0), or infers what grows with it (-1)."""
        source, shapes = self.sizes(node.input[0]), self.values(node.input[1])
        if source is None or shapes is None or not shapes[0].size:
            return
        zero_is_a_size = bool(attribute(node, "allowzero", 0))
        if zero_is_a_size and any(0 in shape for shape in shapes):
            return
        numbers = self._freed(source, shapes) if _same(shapes) else _kept_or_inferred(source, shapes)
        if numbers is not None:
            self._steer(node, numbers)
            del node.attribute[:]  # allowzero

    def _freed(self, source: Sizes, shapes: Arrays) -> list[int] | None:
        """A constant shape with its first axis left to the batch, None where it is right as it is."""
        numbers = shapes[0].tolist()
        leads = all(sizes and sizes[0] == batch for sizes, batch in zip(source, BATCHES, strict=True))
        if leads and keeps_batch((BATCH, *source[0][1:]), numbers, self.fixed):
            return [0, *numbers[1:]]
        grows = math.prod(source[-1]) == BATCHES[-1] * math.prod(source[0])
        if grows and -1 not in numbers and 0 not in numbers:
            whole = math.prod(source[0]) * self.fixed
            return [-1, *numbers[1:]] if math.prod(numbers) == whole else None
        return None

    def _free_expand(self, node: NodeProto) -> None:
        """An Expand to the very batch that its input has leaves that axis alone (1)."""
        source, shapes = self.sizes(node.input[0]), self.values(node.input[1])
        if source is None or shapes is None or _same(shapes):
            return
        first = len(shapes[0]) - len(source[0])
        numbers = []
        for axis, pair in enumerate(zip(*(shape.tolist() for shape in shapes), strict=True)):
            own = tuple(sizes[axis - first] for sizes in source) if axis >= first else None
            if len(set(pair)) > 1 and own != pair:
                return
            numbers.append(pair[0] if len(set(pair)) == 1 else 1)
        self._steer(node, numbers)

    def _free_resize(self, node: NodeProto) -> None:
        """A Resize to sizes says those of space alone: the batch in them is computed, or the one of the file."""
        shapes = self.values(node.input[3]) if len(node.input) > 3 else None
        source = self.sizes(node.input[0])
        if shapes is None or source is None or attribute(node, "axes") is not None:
            return
        tails = {tuple(shape.tolist()[1:]) for shape in shapes}
        if len(tails) == 1 and all(sizes[1] == next(iter(tails))[0] for sizes in source):
            self._steer(node, list(next(iter(tails))[1:]), 3)
            node.attribute.append(helper.make_attribute("axes", list(range(2, len(source[0])))))

    def _free_flat_gather(self, node: NodeProto) -> None:
        """Reshape(-1), then Gather of all indices in order, is a Reshape.

        The PyTorch exporter spells `as_strided` so, behind a mean over channels-last features (ConvNeXt).
        """
        flat, indices = self.reshapes.get(node.input[0]), self.values(node.input[1])
        source = None if flat is None else self.sizes(flat.input[0])
        if flat is None or indices is None or source is None or _same(indices):
            return
        shapes = self.values(flat.input[1])
        if shapes is None or any(shape.tolist() != [-1] for shape in shapes):
            return
        pairs = zip(indices, source, strict=True)
        if all(np.array_equal(index.ravel(), np.arange(math.prod(sizes))) for index, sizes in pairs):
            node.op_type, node.input[0] = "Reshape", flat.input[0]
            del node.attribute[:]
            self._steer(node, [0, *indices[0].shape[1:]])

    def _cast_plainly(self, node: NodeProto) -> None:
        """CastLike reads a whole tensor for its dtype."""
        like = self.types[0].get(node.input[1])
        if like is not None and like.tensor_type.elem_type:
            node.op_type = "Cast"
            del node.input[1]
            node.attribute.append(helper.make_attribute("to", like.tensor_type.elem_type))

    def _steer(self, node: NodeProto, numbers: list[int], index: int = 1) -> None:
        name = f"{node.output[0]}/batch"
        array = np.array(numbers, np.int64)
        self._become(name, array)
        for types in self.types:
            types[name] = helper.make_tensor_type_proto(TensorProto.INT64, list(array.shape))
        node.input[index] = name


def keeps_batch(source: Sequence[int | str], numbers: list[int], fixed: int) -> bool:
    """Whether a shape leaves the first axis to the batch: all others are given and hold as much as the source's."""
    sizes = [source[axis] if size == 0 and axis < len(source) else size for axis, size in enumerate(numbers)]
    if numbers[0] == 0:
        return False  # says so already
    if sizes[0] == fixed and -1 in sizes:
        return True
    rest = [size for size in sizes[1:] if isinstance(size, int)]
    given = [size for size in source[1:] if isinstance(size, int)]
    return sizes[0] in (fixed, -1) and -1 not in rest and math.prod(rest) == math.prod(given)


def _kept_or_inferred(source: Sizes, shapes: Arrays) -> list[int] | None:
    """Numbers for a shape that is computed from the batch: 0 where an axis is kept, -1 for one that is not."""
    numbers: list[int] = []
    for axis, pair in enumerate(zip(*(shape.tolist() for shape in shapes), strict=True)):
        own = tuple(sizes[axis] for sizes in source) if axis < len(source[0]) else None
        numbers.append(pair[0] if len(set(pair)) == 1 else 0 if own == pair else -1)
    return numbers if numbers.count(-1) <= 1 else None


def _with_batch(kind: TypeProto, batch: int) -> TypeProto:
    result = TypeProto()
    result.CopyFrom(kind)
    for dim in result.tensor_type.shape.dim:
        if dim.dim_param == BATCH:
            dim.dim_value = batch
    return result


def _dimension(pair: Sequence[int]) -> int | str | None:
    """The size behind what it was for each batch: a number, the batch, or its multiple."""
    first, *_, last = pair
    if first == last:
        return first
    if first > 0 and last == first * BATCHES[-1]:
        return BATCH if first == 1 else f"{first}{BATCH}"
    return None


def _same(arrays: Arrays) -> bool:
    first = arrays[0]
    return all(
        other is first or (other.shape == first.shape and bool(np.all((other == first) | (other != other))))
        for other in arrays[1:]
    )


def _evaluated(node: NodeProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray] | None:
    """The outputs of one node by onnx's reference, None where it has none."""
    inputs = [onnx.ValueInfoProto(name=name) for name in feeds]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "folded", inputs, outputs)
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=MAX_IR)
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, feeds)]
    except UNKNOWN:
        return None
