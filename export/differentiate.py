"""The reverse walk: from a gradient at the scores to gradients at the tensors asked for.

Reverse topological order, gradients of a tensor summed before its producer is visited, un-broadcasting here and nowhere
else. A gradient that is the same everywhere along an axis keeps size 1 there: the proof that a layer's gradients are
constant over space is the shape that arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType

from onnx import NodeProto, helper

from gcpp_edge.errors import MissingRuleError, UnsupportedGraphError
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import FLOATS, Graph, Shape, Value, elements
from gcpp_edge.export.vjp import WITHOUT_GRADIENT, Call, Gradient, OneHot, Phased, Rule, Sparse, find_rule

OPSET = 20
MARKER = "gcpp/gradient/"


def differentiate(
    graph: Graph,
    emit: Emitter,
    nodes: Iterable[NodeProto],
    seeds: Mapping[str, Gradient],
    targets: Iterable[str],
    pixel_rule: str = "gradient",
    rescale: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Value]:
    """Gradients at `targets`, given those at the keys of `seeds`.

    nodes: the forward nodes in order, with recognised activations as one node (recognise.recognise_activations).
    rescale: factors that gradients are multiplied by as they arrive at tensors that every path goes through, so that
    half precision can hold them; 1 leaves a marker there, named after the tensor (scaling.py).
    Returns a value per target; its shape holds 1 along axes where it is constant. Raises MissingRuleError for an
    operator without a rule, UnsupportedGraphError where a rule refuses or a target is not reached.
    """
    nodes, targets = list(nodes), list(targets)
    between = _differentiable(targets, nodes) & graph.needed_for(seeds, nodes)
    pending = {name: [seed] for name, seed in seeds.items()}
    walk = _Walk(graph, emit, targets, list(seeds), between, pixel_rule, rescale, pending)
    for node in reversed(nodes):
        gradients = [walk.arrived(name) for name in node.output]
        if any(gradient is not None for gradient in gradients) and between.intersection(node.input):
            walk.visit(node, gradients)
    for name in targets:
        walk.arrived(name)
        if name not in walk.found:
            raise UnsupportedGraphError(f'The scores do not depend on tensor "{name}" in a differentiable way.')
    return walk.found


def _differentiable(sources: Iterable[str], nodes: Iterable[NodeProto]) -> set[str]:
    """What depends on `sources`, but for what has no gradient: a tensor may be made from another's shape."""
    reached = set(sources)
    for node in nodes:
        if reached.intersection(node.input) and (node.op_type not in WITHOUT_GRADIENT or find_rule(node, OPSET)):
            reached.update(node.output)
    return reached - {""}


@dataclass
class _Walk:
    """The state of one reverse walk. pending: gradients of tensors whose producers are still to come."""

    graph: Graph
    emit: Emitter
    targets: list[str]
    sources: list[str]
    between: set[str]
    pixel_rule: str
    rescale: Mapping[str, float]
    pending: dict[str, list[Gradient]]
    found: dict[str, Value] = field(default_factory=dict)

    def arrived(self, name: str) -> Gradient | None:
        """The gradient of a tensor, complete now that its producer's turn has come."""
        if name not in self.pending:
            return None
        parts = self.pending.pop(name)
        gradient = parts[0] if len(parts) == 1 else self._summed(parts)
        if name in self.rescale:
            sparse = gradient.dense(self.emit) if isinstance(gradient, Phased) else gradient
            gradient = rescaled(self.emit, sparse, self.rescale[name], name)
        if name in self.targets:
            gradient = self.found[name] = self._dense(gradient)
        return gradient

    def _summed(self, parts: list[Gradient]) -> Gradient:
        """Phases are added to phases; beside anything else they are woven first, and so is what has one class."""
        phased = [part for part in parts if isinstance(part, Phased)]
        if phased and len(phased) == len(parts) and len({part.stride for part in phased}) == 1:
            return reduce(lambda total, part: total.plus(self.emit, part), phased)
        return reduce(self.emit.add, map(self._dense, parts))

    def _dense(self, gradient: Gradient) -> Value:
        return gradient if isinstance(gradient, Value) else gradient.dense(self.emit)

    def visit(self, node: NodeProto, gradients: list[Gradient | None]) -> None:
        """Hands the gradients of a node's outputs on to its inputs."""
        rule = find_rule(node, OPSET)
        if rule is None:
            if node.op_type in WITHOUT_GRADIENT:
                return
            raise MissingRuleError(missing_rule(node, self.targets[0], self.sources[0]))
        call = self._call(node)
        results = rule.function(call, *_acceptable(call, rule, gradients))
        assert len(results) == len(node.input), f"{node.op_type}: {len(results)} gradients, {len(node.input)} inputs"
        for name, value, wanted, result in zip(node.input, call.inputs, call.wanted, results, strict=True):
            if wanted:
                self._hand_on(node, name, self._fitting(rule, call, value, result))

    def _call(self, node: NodeProto) -> Call:
        inputs = tuple(self.graph.value(name) if name else None for name in node.input)
        outputs = tuple(self.graph.values.get(name) for name in node.output)
        wanted = tuple(name in self.between and self.graph.value(name).dtype in FLOATS for name in node.input)
        return Call(node, self.graph, self.emit, inputs, outputs, wanted, self.pixel_rule)

    def _fitting(self, rule: Rule, call: Call, value: Value, result: Gradient | None) -> Gradient | None:
        """A result in the shape of its input, also where the node broadcast that input."""
        if rule.broadcasts and isinstance(result, Value):
            return unbroadcast(self.emit, result, call.y.shape, value.shape)
        return result

    def _hand_on(self, node: NodeProto, name: str, result: Gradient | None) -> None:
        if result is None:
            raise UnsupportedGraphError(
                f'The VJP rule of {node.op_type} has no gradient for input "{name}" of node "{node.name}". '
                "Choose a later layer with --layer."
            )
        self.pending.setdefault(name, []).append(result)


def _acceptable(call: Call, rule: Rule, gradients: list[Gradient | None]) -> list[Gradient | None]:
    """The gradients in a form that the rule takes. Extra outputs that got none (masks, statistics) are not passed."""
    taken = gradients if call.node.op_type == "Split" else gradients[:1]
    return [_form(call, rule, gradient, value) for gradient, value in zip(taken, call.outputs, strict=False)]


def _form(call: Call, rule: Rule, gradient: Gradient | None, value: Value | None) -> Gradient | None:
    if gradient is None or value is None:
        return gradient
    if (rule.sparse and isinstance(gradient, OneHot)) or (rule.phased and isinstance(gradient, Phased)):
        return gradient
    if not isinstance(gradient, Value):
        gradient = gradient.dense(call.emit)
    return gradient if rule.compact else call.emit.dense(gradient, value.shape)


def rescaled(emit: Emitter, gradient: Sparse, factor: float, tensor: str) -> Sparse:
    """The gradient at a tensor times a factor; where that is 1, the same behind a node that names the tensor."""
    if isinstance(gradient, OneHot):
        amount = rescaled(emit, gradient.amount, factor, tensor)
        assert isinstance(amount, Value)
        return OneHot(gradient.indices, amount, gradient.shape)
    if factor != 1:
        return emit.scale(gradient, factor)
    name = emit.graph.fresh(f"{MARKER}{tensor}")
    emit.append(helper.make_node("Identity", [gradient.name], [name], name=name, doc_string=tensor))
    value = emit.graph.values[name] = Value(name, gradient.shape, gradient.dtype)
    return value


def unbroadcast(emit: Emitter, gradient: Value, output: Shape, source: Shape) -> Value:
    """A gradient of the broadcast `output` summed back to the shape of the input it came from.

    Where the gradient is compact along a summed axis, the sum is a multiplication by that axis's length.
    """
    rank = len(output)
    padded = (1,) * (rank - len(source)) + tuple(source)
    if len(gradient.shape) < rank:
        gradient = emit.reshape(gradient, (1,) * (rank - len(gradient.shape)) + gradient.shape)
    summed = [axis for axis in range(rank) if padded[axis] == 1 and output[axis] != 1]
    symbolic = [axis for axis in summed if not isinstance(output[axis], int)]
    if any(gradient.shape[axis] == 1 for axis in symbolic):
        raise UnsupportedGraphError("A gradient would be summed over the batch, which has no VJP.")
    factor = elements(output[axis] for axis in summed if gradient.shape[axis] == 1)
    gradient = emit.reduce("ReduceSum", gradient, [axis for axis in summed if gradient.shape[axis] != 1])
    gradient = emit.scale(gradient, float(factor))
    return emit.reshape(gradient, gradient.shape[rank - len(source) :]) if len(source) < rank else gradient


def missing_rule(node: NodeProto, target: str, source: str) -> str:
    """The one-line message for an operator without a rule."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return (
        f'No VJP rule for {operator} (opset {OPSET}) at node "{node.name or node.output[0]}", between "{target}" and '
        f'"{source}". Choose a later layer with --layer (gcpp-edge inspect lists them), or add a rule in export/vjp/.'
    )
