"""Half precision: a network in float16 or bfloat16, converted before it is differentiated.

Precision lies in the file, since strongly typed runtimes take no other word for it. Weights are converted once. The
backward pass is written from the converted network, so it is in the same precision. What leaves float16's range or
loses its digits there stays in float32, between casts: FLOAT32_OPERATORS, what follows an open one, nodes with a
constant that float16 cannot hold, and whatever does not depend on the picture.

The picture enters as float16: the preprocess kernel writes it in the same pass and rounds as a Cast would, so a Cast
and half of the bytes are saved. bfloat16 it cannot write, and NumPy has no such type, so there the picture enters as
float32 and is cast. The network's own outputs leave as float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from gcpp_edge.contract import MAX_OPSET
from gcpp_edge.errors import MissingDependencyError, SourceError, UnsupportedGraphError
from gcpp_edge.export.graph import Graph, attribute, numpy_dtype
from gcpp_edge.export.recognise import recognise_activations
from gcpp_edge.export.weights import array_of, initializer_maker, without_large_constants

FP16, BF16 = "fp16", "bf16"
PRECISIONS = {FP16: TensorProto.FLOAT16, BF16: TensorProto.BFLOAT16}
BF16_OPSET = 22
HALVES = frozenset(PRECISIONS.values())
LARGEST, SMALLEST = 65504.0, 2.0**-14  # of float16, with all of its 11 bits
LARGE_SUM = 1024  # elements: from here on a ReduceSum adds up in float32

# Their results are ordinary numbers again: cast back at once.
CLOSED = {
    "ArgMax": "no runtime's float16 kernel is sure to exist",
    "ArgMin": "likewise",
    "GridSample": "coordinates need more than 11 bits",
    "GroupNormalization": "the squares of its variance overflow from 256 on",
    "InstanceNormalization": "likewise",
    "LRN": "likewise",
    "LayerNormalization": "likewise",
    "LogSoftmax": "a sum of exponentials",
    "LpNormalization": "a sum of squares",
    "LpPool": "a sum of powers",
    "MeanVarianceNormalization": "the squares of its variance overflow from 256 on",
    "Softmax": "a sum of exponentials",
    "Softplus": "an exponential, in runtimes that compute it as written",
    "TopK": "no runtime's float16 kernel is sure to exist",
}
# Their results may be as large or as small as float32 allows: what follows stays in float32 until it is divided by
# or multiplied with something.
OPEN = {
    "CumSum": "a sum over a whole axis",
    "Exp": "overflows from 11 on",
    "Log": "of what may lie below 6e-8",
    "Pow": "overflows from 256 on when squared",
    "ReduceL1": "a sum",
    "ReduceL2": "a sum of squares",
    "ReduceLogSum": "a sum",
    "ReduceLogSumExp": "a sum of exponentials",
    "ReduceProd": "a product",
    "ReduceSumSquare": "a sum of squares",
}
FLOAT32_OPERATORS = CLOSED | OPEN
FOLLOWS = frozenset(["Add", "Neg", "Reciprocal", "ReduceMean", "ReduceSum", "Sqrt", "Sub"])
ENDS = frozenset(["Div", "Mul"])

# Inputs that the operator takes in float32 whatever the picture is in.
FLOAT32_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}


def to_precision(model: ModelProto, precision: str) -> ModelProto:
    """The network of a model in normal form in "fp16" or "bf16"; `model` is not changed.

    Tensors keep their names, also those that layers are named by. A network that is float16 already keeps its own
    types, and only its outputs are cast. Raises SourceError, UnsupportedGraphError, MissingDependencyError.
    """
    if precision not in PRECISIONS:
        raise SourceError(f'Unknown precision "{precision}"; expected one of {", ".join(PRECISIONS)}.')
    half = PRECISIONS[precision]
    if half == TensorProto.BFLOAT16:
        _require_bfloat16()
    result = ModelProto()
    result.CopyFrom(model)
    graph = Graph(result)
    _refuse_quantised(graph, precision)
    found = {value.dtype for value in graph.values.values()}
    if found & (HALVES | {TensorProto.DOUBLE}) - {half}:
        names = ", ".join(sorted(TensorProto.DataType.Name(dtype).lower() for dtype in found & (HALVES | {11})))
        raise SourceError(f"--precision {precision}: the network holds {names}; expected a float32 one.")
    conversion = _Conversion(graph, half, converts=half not in found)
    conversion.run()
    _require_typed(result)
    return result


def to_float32(model: ModelProto) -> ModelProto:
    """The same network with every float16 or bfloat16 tensor in float32: what a half-precision one is held against."""
    result, made = ModelProto(), initializer_maker(model)
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.data_type in HALVES:
            tensor.CopyFrom(made(array_of(tensor).astype(np.float32), tensor.name))
    for node in result.graph.node:
        for entry in node.attribute:
            if node.op_type == "Cast" and entry.name == "to" and entry.i in HALVES:
                entry.i = TensorProto.FLOAT
            if entry.HasField("t") and entry.t.data_type in HALVES:
                entry.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry.t).astype(np.float32)))
    for value in (*result.graph.input, *result.graph.output, *result.graph.value_info):
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def _require_bfloat16() -> None:
    if numpy_dtype(TensorProto.BFLOAT16).name != "bfloat16":
        raise MissingDependencyError("--precision bf16 needs a newer onnx: pip install 'onnx>=1.19'.")


def _refuse_quantised(graph: Graph, precision: str) -> None:
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise SourceError(
                f'--precision {precision}: node "{node.name or node.output[0]}" is {node.op_type}, so the network is '
                "quantised already. Export it as it is, or give the network before quantisation."
            )


@dataclass
class _Conversion:
    """One conversion: which nodes stay wide (in float32), and the casts between them and the others."""

    graph: Graph
    half: int
    converts: bool  # False: the network has its own mix of types, and only outputs are cast
    wide: set[int] = field(default_factory=set)  # ids of nodes
    open: set[str] = field(default_factory=set)  # tensors of any size, from an open operator on
    nodes: list[NodeProto] = field(default_factory=list)
    dtypes: dict[str, int] = field(default_factory=dict)  # of float tensors, under the names they have now
    casts: dict[tuple[str, int], str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of tensors that left their name to their other form

    def run(self) -> None:
        """Rewrites the model in place."""
        if self.converts:
            self._classify()
        self._convert_input()
        for node in self.graph.nodes:
            self._convert(node)
        for output in self.graph.model.graph.output:
            self._finish_output(output.name)
            if output.type.tensor_type.elem_type == self.half:
                output.type.tensor_type.elem_type = TensorProto.FLOAT
        model = self.graph.model.graph
        del model.node[:]
        model.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in model.initializer if tensor.name in used]
        del model.initializer[:]
        model.initializer.extend(kept)
        self._note_shapes()

    def _note_shapes(self) -> None:
        """The shapes that normal form notes, under the types and names that tensors have now."""
        model, noted = self.graph.model.graph, []
        for value in model.value_info:
            forms = {self.names.get(value.name, value.name): self.dtypes.get(value.name)}
            forms |= {result: dtype for (name, dtype), result in self.casts.items() if name == value.name}
            for name, dtype in forms.items():
                note = ValueInfoProto.FromString(value.SerializeToString())
                note.name = name
                noted.append(note)
                note.type.tensor_type.elem_type = dtype or value.type.tensor_type.elem_type
        ends = {end.name for end in (*model.input, *model.output)}
        del model.value_info[:]
        model.value_info.extend(note for note in noted if note.name not in ends)

    # which nodes stay in float32

    def _is_float(self, name: str) -> bool:
        value = self.graph.values.get(name)
        return value is not None and value.dtype == TensorProto.FLOAT

    def _classify(self) -> None:
        """What does not depend on the picture through floats stays too: shapes computed in floats must be exact."""
        data = {name for name in self.graph.inputs if self._is_float(name)}
        spelled_out = self._recognised()
        for node in self.graph.nodes:
            reads = data.intersection(node.input)
            if reads:
                data.update(name for name in node.output if self._is_float(name))
            if not reads or (id(node) not in spelled_out and self._stays_wide(node)):
                self.wide.add(id(node))
                if reads and self._leaves_open(node):
                    self.open.update(node.output)

    def _recognised(self) -> set[int]:
        """Nodes that spell out an activation: a cast between them would hide it, and their range is known."""
        steps = {id(step) for step in recognise_activations(self.graph)}
        return {id(node) for node in self.graph.nodes} - steps

    def _stays_wide(self, node: NodeProto) -> bool:
        if node.op_type in FLOAT32_OPERATORS or self._adds_up_many(node) or not self._constants_fit(node):
            return True
        computed = [name for name in node.input if self._is_float(name) and self.graph.constant(name) is None]
        follows = [name in self.open for name in computed]
        return any(follows) if node.op_type in ENDS else node.op_type in FOLLOWS and all(follows)

    def _leaves_open(self, node: NodeProto) -> bool:
        return node.op_type in OPEN or node.op_type in FOLLOWS or not self._constants_fit(node)

    def _adds_up_many(self, node: NodeProto) -> bool:
        if node.op_type != "ReduceSum":
            return False
        before, after = (self.graph.values.get(name) for name in (node.input[0], node.output[0]))
        if before is None or after is None:
            return True
        sizes = [size for size in before.shape if isinstance(size, int)]
        left = [size for size in after.shape if isinstance(size, int)]
        return int(np.prod(sizes)) >= LARGE_SUM * int(np.prod(left))

    def _constants_fit(self, node: NodeProto) -> bool:
        """Whether float16 holds the node's constants: none becomes infinite, none lies in the denormals as a whole."""
        if self.half == TensorProto.BFLOAT16:
            return True
        for name in node.input:
            array = self.graph.constant(name) if self._is_float(name) else None
            if array is None or node.op_type == "Clip":  # an infinite bound is none
                continue
            finite = array[np.isfinite(array)]
            largest = float(np.abs(finite).max(initial=0))
            if largest > LARGEST or 0 < largest < SMALLEST:
                return False
        return True

    # the rewriting

    def _convert_input(self) -> None:
        for value in self.graph.model.graph.input:
            if not self.converts or not self._is_float(value.name):
                continue
            self.dtypes[value.name] = TensorProto.FLOAT
            if self.half == TensorProto.FLOAT16 and value.name == self.graph.image:
                value.type.tensor_type.elem_type = self.dtypes[value.name] = TensorProto.FLOAT16

    def _convert(self, node: NodeProto) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        if self.converts:
            dtype = TensorProto.FLOAT if id(node) in self.wide else self.half
            for index, name in enumerate(node.input):
                exact = index in FLOAT32_INPUTS.get(node.op_type, ())
                copy.input[index] = self._as(name, TensorProto.FLOAT if exact else dtype, node)
            if dtype == self.half:
                _retype(copy, self.half)
        else:
            dtype = self.half
            copy.input[:] = [self.names.get(name, name) for name in node.input]
        for index, name in enumerate(node.output):
            if (self._is_float(name) and self.converts) or self._is_half(name):
                copy.output[index] = self._own_name(name, dtype)
        self.nodes.append(copy)

    def _is_half(self, name: str) -> bool:
        value = self.graph.values.get(name)
        return value is not None and value.dtype == self.half

    def _own_name(self, name: str, dtype: int) -> str:
        """The name of a tensor as its node gives it: its own, unless a cast form of it needs that more."""
        if dtype == self.half and self._leaves_its_name(name):
            self.names[name] = self.graph.fresh(f"{name}/half")
        self.dtypes[name] = dtype
        return self.names.get(name, name)

    def _leaves_its_name(self, name: str) -> bool:
        """Outputs, and logits before a softmax, keep their names in float32."""
        readers = self.graph.consumers.get(name, [])
        flat = all(size == 1 for size in self.graph.values[name].shape[2:])
        ends = flat and bool(readers) and all(id(reader) in self.wide for reader in readers)
        return name in self.graph.outputs or ends

    def _as(self, name: str, dtype: int, reader: NodeProto) -> str:
        """The name of a float tensor in that dtype, cast where it has another; other tensors as they are."""
        if not name or not self._is_float(name):
            return name
        if name in self.graph.initializers:
            return name if dtype == TensorProto.FLOAT else self._constant(name)
        own = self.names.get(name, name)
        if self.dtypes.get(name, TensorProto.FLOAT) == dtype:
            return own
        if (name, dtype) not in self.casts:
            self.casts[name, dtype] = self._cast(name, own, dtype, reader)
        return self.casts[name, dtype]

    def _cast(self, name: str, own: str, dtype: int, reader: NodeProto) -> str:
        stem = name if own != name else f"{name}/{'float32' if dtype == TensorProto.FLOAT else 'half'}"
        result = stem if own != name else self.graph.fresh(stem)
        node = helper.make_node("Cast", [own], [result], name=self.graph.fresh(f"{result}/cast"), to=dtype)
        source = self.graph.producers.get(name, reader)
        for entry in source.metadata_props:  # the module that it belongs to
            node.metadata_props.add(key=entry.key, value=entry.value)
        self.nodes.append(node)
        return result

    def _constant(self, name: str) -> str:
        if (name, self.half) not in self.casts:
            array = self.graph.constant(name)
            assert array is not None
            with np.errstate(over="ignore"):  # of a Clip's bound; others were seen to fit
                narrow = array.astype(numpy_dtype(self.half))
            result = self.graph.fresh(f"{name}/half")
            self.graph.model.graph.initializer.append(self.graph.tensor(narrow, result))
            self.casts[name, self.half] = result
        return self.casts[name, self.half]

    def _finish_output(self, name: str) -> None:
        """An output whose node gives it in half precision is cast; one that is an input or float32 is there already."""
        own = self.names.get(name, name)
        if own != name and (name, TensorProto.FLOAT) not in self.casts:
            self.casts[name, TensorProto.FLOAT] = self._cast(name, own, TensorProto.FLOAT, self.graph.producers[name])


def _retype(node: NodeProto, half: int) -> None:
    """Attributes that name the type of a node's result, or hold it."""
    for entry in node.attribute:
        if entry.name in ("to", "dtype") and entry.i == TensorProto.FLOAT:
            entry.i = half
        if entry.HasField("t") and entry.t.data_type == TensorProto.FLOAT:
            entry.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry.t).astype(numpy_dtype(half))))


def _require_typed(model: ModelProto) -> None:
    """Raises UnsupportedGraphError where an operator takes no half precision."""
    light = without_large_constants(model)
    light.opset_import[0].version = opset_for(model)
    try:
        shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        raise UnsupportedGraphError(f"The network has no form in half precision: {reason[:240]}") from error


def opset_for(model: ModelProto) -> int:
    """The opset that a model's types need: ONNX has no bfloat16 convolution before 22."""
    wide = any(node.op_type == "Cast" and attribute(node, "to") == TensorProto.BFLOAT16 for node in model.graph.node)
    return BF16_OPSET if wide else MAX_OPSET


__all__ = ["BF16_OPSET", "FLOAT32_OPERATORS", "PRECISIONS", "opset_for", "to_float32", "to_precision"]
