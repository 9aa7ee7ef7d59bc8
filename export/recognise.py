"""Recognises what exporters spell out: SiLU, HardSwish, GELU, ReLU, and quantisation to integers and back.

The graph stays as it is; the reverse walk is given one internal node in place of each group.
"""

from __future__ import annotations

import math

from onnx import NodeProto, helper

from gcpp_edge.export.graph import Graph, attribute
from gcpp_edge.export.vjp.registry import INTERNAL

SELU = (1.6732632423543772, 1.0507009873554805)  # alpha and gamma, Klambauer et al. 2017


def recognise_activations(graph: Graph) -> list[NodeProto]:
    """The forward nodes with each spelled-out activation as one internal node. The graph itself stays as it is.

    x * Sigmoid(x) is SiLU, which rectifies; taken as a gate it would pass guided gradients through its product.
    The same holds for GELU in terms of Erf or of Sigmoid, for x * HardSigmoid(x), and for the larger of x and 0.
    """
    gone: set[int] = set()
    replaced: dict[int, NodeProto] = {}
    for node in graph.nodes:
        found = next((found for pattern in PATTERNS if (found := pattern(graph, node)) is not None), None)
        if found is not None:
            members, replaced[id(node)] = found
            gone.update(map(id, members))
    return [replaced.get(id(node), node) for node in graph.nodes if id(node) in replaced or id(node) not in gone]


Found = tuple[list[NodeProto], NodeProto]


def _gate(graph: Graph, node: NodeProto, operator: str) -> tuple[NodeProto, str] | None:
    """The gate of a Mul(x, operator(x)) and its x."""
    if node.op_type != "Mul":
        return None
    for source, gated in (tuple(node.input), tuple(reversed(node.input))):
        gate = graph.producers.get(gated)
        if gate is not None and gate.op_type == operator and gate.input[0] == source:
            return gate, source
    return None


def _alone(graph: Graph, node: NodeProto) -> bool:
    return len(graph.consumers.get(node.output[0], [])) == 1 and node.output[0] not in graph.outputs


def _silu(graph: Graph, node: NodeProto) -> Found | None:
    """x * Sigmoid(slope x): SiLU, and with a slope of 1.702 the short form of GELU."""
    if node.op_type != "Mul":
        return None
    for x, gated in (tuple(node.input), tuple(reversed(node.input))):
        gate = graph.producers.get(gated)
        if gate is None or gate.op_type != "Sigmoid":
            continue
        slope, scaled = _slope(graph, gate.input[0], x)
        if slope > 0 and all(_alone(graph, member) for member in (gate, *scaled)):
            silu = helper.make_node("Silu", [x], list(node.output), name=node.name, domain=INTERNAL, slope=slope)
            return [gate, *scaled], silu
    return None


def _slope(graph: Graph, name: str, x: str) -> tuple[float, list[NodeProto]]:
    """How many times x a tensor is, with the node that makes it so; 0 where it is something else."""
    if name == x:
        return 1.0, []
    scaled = graph.producers.get(name)
    if scaled is None or scaled.op_type != "Mul" or x not in scaled.input:
        return 0.0, []
    return _scalar(graph, scaled) or 0.0, [scaled]


def _relu(graph: Graph, node: NodeProto) -> Found | None:
    """Max(x, 0), as exporters write a clamp from below."""
    if node.op_type != "Max" or len(node.input) != 2 or _scalar(graph, node) != 0:
        return None
    x = next((name for name in node.input if graph.constant(name) is None), None)
    return None if x is None else ([], helper.make_node("Relu", [x], list(node.output), name=node.name))


def _selu(graph: Graph, node: NodeProto) -> Found | None:
    """Elu with SELU's own alpha, times its gamma, as the PyTorch exporter writes it."""
    elu = next((graph.producers[name] for name in node.input if name in graph.producers), None)
    if node.op_type != "Mul" or elu is None or elu.op_type != "Elu" or not _alone(graph, elu):
        return None
    alpha, gamma = attribute(elu, "alpha", 1.0), _scalar(graph, node)
    if gamma is None or not (math.isclose(alpha, SELU[0], rel_tol=1e-6) and math.isclose(gamma, SELU[1], rel_tol=1e-6)):
        return None
    made = helper.make_node("Selu", [elu.input[0]], list(node.output), name=node.name, alpha=SELU[0], gamma=SELU[1])
    return [elu], made


def _hard_swish(graph: Graph, node: NodeProto) -> Found | None:
    found = _gate(graph, node, "HardSigmoid")
    if found is None or not _alone(graph, found[0]):
        return None
    alpha, beta = attribute(found[0], "alpha", 0.2), attribute(found[0], "beta", 0.5)
    if not (math.isclose(alpha, 1 / 6, rel_tol=1e-5) and math.isclose(beta, 0.5)):
        return None
    return [found[0]], helper.make_node("HardSwish", [found[1]], list(node.output), name=node.name)


def _gelu(graph: Graph, node: NodeProto) -> Found | None:
    """x / sqrt(2) -> Erf -> + 1 -> * x -> * 0.5, as exporters before opset 20 write it, in any order of the factors."""
    if node.op_type != "Mul":
        return None
    members: list[NodeProto] = []
    factors = _factors(graph, node, members)
    shifted = [graph.producers.get(name) for name in factors if graph.constant(name) is None]
    ones = [n for n in shifted if n is not None and n.op_type == "Add" and _scalar(graph, n) == 1]
    if len(ones) != 1 or len(factors) != 3 or not any(_number(graph, name) == 0.5 for name in factors):
        return None
    add = ones[0]
    erf = next((graph.producers.get(n) for n in add.input if graph.constant(n) is None), None)
    x = next((n for n in factors if graph.constant(n) is None and n != add.output[0]), None)
    scaled = graph.producers.get(erf.input[0]) if erf is not None and erf.op_type == "Erf" else None
    if scaled is None or x is None or not _divided_by_root_two(graph, scaled, x):
        return None
    members = [*members, add, erf, scaled]
    if not all(_alone(graph, member) for member in members):
        return None
    return members, helper.make_node("Gelu", [x], list(node.output), name=node.name, domain=INTERNAL)


def _factors(graph: Graph, node: NodeProto, members: list[NodeProto]) -> list[str]:
    """The factors of a product of three, written as two Muls."""
    for inner_name, other in (tuple(node.input), tuple(reversed(node.input))):
        inner = graph.producers.get(inner_name)
        if inner is not None and inner.op_type == "Mul":
            members.append(inner)
            return [*inner.input, other]
    return list(node.input)


def _number(graph: Graph, name: str) -> float | None:
    array = graph.constant(name)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _scalar(graph: Graph, node: NodeProto) -> float | None:
    return next((n for n in (_number(graph, name) for name in node.input) if n is not None), None)


def _divided_by_root_two(graph: Graph, node: NodeProto, x: str) -> bool:
    number = _scalar(graph, node)
    if number is None or node.input[0] != x and node.input[1] != x:
        return False
    wanted = {"Div": math.sqrt(2), "Mul": math.sqrt(0.5)}.get(node.op_type)
    return wanted is not None and math.isclose(number, wanted, rel_tol=1e-3)


def _quantised(graph: Graph, node: NodeProto) -> Found | None:
    """QuantizeLinear, then DequantizeLinear with the same scale and zero point: floats in, floats out."""
    quantise = graph.producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    if quantise is None or quantise.op_type != "QuantizeLinear" or list(quantise.input[1:]) != list(node.input[1:]):
        return None
    axis = attribute(quantise, "axis", 1)
    inputs = [quantise.input[0], *node.input[1:]]
    name = node.name or node.output[0]
    pair = helper.make_node("FakeQuantize", inputs, list(node.output), name=name, domain=INTERNAL, axis=axis)
    # others may read the integers, and none of them takes a gradient
    return ([quantise] if _alone(graph, quantise) else []), pair


PATTERNS = (_selu, _silu, _hard_swish, _gelu, _relu, _quantised)
