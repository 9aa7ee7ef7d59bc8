"""The channel weights of gradcam++-softmax: Eq. 10 for the class score Y = softmax(S), Eq. 21 to 24, in the graph.

With t_k = dS^c/dA - dS^k/dA, p = 1 - Y^c and q_k = Y^k / p, the probabilities of the other classes among themselves,
write mu_n = sum_k q_k t_k^n. The n-th moment of Eq. 22 to 24 is p mu_n, and a factor p of every derivative cancels:

    a = 2 p mu_1^2 - mu_2        b = 6 p^2 mu_1^3 - 6 p mu_1 mu_2 + mu_3
    alpha = a / (2 a + max(sum A, 0) b)        w = sum_ij alpha relu(mu_1)

The gradient of Y^c is Y^c p mu_1. Y^c and p scale all channels alike, as exp(S) does in gradcam++, and are left out:
mu_1 is the gradient of the log-odds of the class. So nothing cancels or underflows however sure the network is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from gcpp_edge.contract import BATCH, CHANNELS_FIRST, CLASS, CLASSES, TARGET_CLASS
from gcpp_edge.errors import SourceError, UnsupportedGraphError
from gcpp_edge.export.differentiate import differentiate
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Graph, Value, attribute, elements
from gcpp_edge.export.grids import as_map
from gcpp_edge.export.layers import LayerCandidate
from gcpp_edge.export.repeat import Repeater
from gcpp_edge.export.scores import ScoreTensors
from gcpp_edge.export.targets import Aim
from gcpp_edge.export.vjp import OneHot
from gcpp_edge.kernels.reference import POLE

TINY = 1e-30
LOWEST = float(np.finfo(np.float32).min)
KEEPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout")
FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class Explained:
    """What the map level has when the weights are added to it.

    activations, gradients: of the layer as [N,C,*space], or [N,C,1,..]. rescale: of every reverse walk (differentiate);
    gradients divided by `scale` are dS/dA.
    """

    graph: Graph
    emit: Emitter
    steps: Sequence[NodeProto]
    scores: ScoreTensors
    aim: Aim
    layer: LayerCandidate
    activations: Value
    gradients: Value
    rescale: Mapping[str, float]
    scale: float = 1.0


def require_softmax(scores: ScoreTensors, kind: str, layers: int, others: int) -> None:
    """Raises SourceError where gradcam++-softmax means nothing, or has no place in the file."""
    if kind not in (CLASS, CLASSES) or scores.kind == "sigmoid" or scores.classes < 2:
        found = f"a target of kind {kind}" if kind not in (CLASS, CLASSES) else f"{scores.classes} {scores.kind} scores"
        raise SourceError(f"--softmax needs scores of classes that exclude each other; found {found}. Leave it out.")
    if layers != 1:
        raise SourceError(f"--softmax takes one layer, found {layers}. Name one with --layer.")
    if others < 1:
        raise SourceError(f"--softmax-classes {others} is out of range; expected 1 or more.")


def add_softmax_weights(explained: Explained, others: int) -> tuple[Value, Value]:
    """The weights w, float32 [N,C,1,..], and how many positions were poles, int64 [N].

    Behind pooling and one linear layer there is no further backward pass. Elsewhere one for each of the `others` most
    probable classes beside the explained one, which then stand for all.
    """
    emit = explained.emit
    weight = _pooled_linear(explained)
    if weight is not None:
        odds, moments = _from_weights(explained, *weight)
        size = emit.reduce("ReduceMean", _float(emit, explained.activations), _space(explained))
        return _weights(explained, odds, moments, emit.apply("Relu", size), averaged=True)
    odds, moments, unit = _from_jacobian(explained, min(others, explained.scores.classes - 1))
    size = emit.reduce("ReduceSum", _float(emit, explained.activations), _space(explained))
    weights, poles = _weights(explained, odds, moments, emit.multiply(emit.apply("Relu", size), unit), averaged=False)
    return emit.multiply(weights, unit), poles


def _float(emit: Emitter, value: Value) -> Value:
    return emit.cast(value, FLOAT)


def _space(explained: Explained) -> list[int]:
    return list(range(2, 2 + len(explained.layer.space)))


def _chosen(explained: Explained) -> Value:
    """The explained classes, int64, one a row of the backward pass."""
    aim = explained.aim
    return aim.outputs[TARGET_CLASS] if aim.repeats is None else aim.repeats


# moments


def _other_logits(explained: Explained) -> tuple[Value, Value]:
    """float32 [N,K]: the logits, and the same with the explained class out of the race."""
    emit, classes = explained.emit, explained.scores.classes
    logits = _float(emit, explained.scores.logits)
    logits = emit.reshape(logits, (logits.shape[0], classes))
    chosen = emit.reshape(_chosen(explained), (_chosen(explained).shape[0], 1))
    is_chosen = emit.equal(emit.constant(np.arange(classes, dtype=np.int64).reshape(1, -1)), chosen)
    return logits, emit.where(is_chosen, emit.scalar(LOWEST, logits), logits)


def _from_weights(explained: Explained, weight: Value, by_class: bool, scale: float) -> tuple[Value, list[Value]]:
    """p, and mu_1 to mu_3 out of three products of q with the classifier's weights, their squares and their cubes.

    They are times the number of positions, and its powers, since the weights are not divided by it. weight: [K,C] if
    by_class, else [C,K]; gradients are `scale` times it.
    """
    emit = explained.emit
    logits, rest = _other_logits(explained)
    q = emit.apply("Softmax", rest, axis=1)
    probabilities = emit.apply("Softmax", logits, axis=1)
    others = emit.keep_where(emit.greater(rest, emit.scalar(LOWEST, rest)), probabilities)
    p = emit.reduce("ReduceSum", others, [1])
    weight = emit.scale(_float(emit, emit.reshape(weight, weight.shape[:2])), scale)
    own = emit.gather(weight, _chosen(explained), 0 if by_class else 1)  # [N,C], or [C,N]
    own = own if by_class else emit.transpose(own, (1, 0))
    square = emit.multiply(weight, weight)
    first, second, third = (
        emit.node("Gemm", (q, power), own.shape, transB=int(not by_class))
        for power in (weight, square, emit.multiply(square, weight))
    )
    mu_1 = emit.subtract(own, first)
    own_square = emit.multiply(own, own)
    mu_2 = emit.add(emit.subtract(own_square, emit.scale(emit.multiply(own, first), 2)), second)
    mixed = emit.multiply(own, emit.subtract(second, emit.multiply(own, first)))
    mu_3 = emit.subtract(emit.add(emit.multiply(own_square, own), emit.scale(mixed, 3)), third)
    ones = (1,) * len(explained.layer.space)
    moments = [emit.reshape(mu, (*mu.shape, *ones)) for mu in (mu_1, mu_2, mu_3)]
    return emit.reshape(p, (p.shape[0], 1, *ones)), moments


def _from_jacobian(explained: Explained, others: int) -> tuple[Value, list[Value], Value]:
    """p, mu_1 to mu_3 per position out of a second reverse walk, and the unit of t that they are in, [N,1,..].

    The explained class and the most probable others are taken for all there are.
    """
    emit = explained.emit
    logits, rest = _other_logits(explained)
    values, indices = emit.top(rest, others)
    own = emit.node("GatherElements", (logits, emit.reshape(_chosen(explained), (BATCH, 1))), (BATCH, 1), axis=1)
    all_of_them = emit.apply("Softmax", emit.concat([own, values], 1), axis=1)
    ones = (1,) * len(explained.layer.space)
    p = emit.reduce("ReduceSum", emit.slice(all_of_them, [1], [1], [others + 1]), [1])
    q = emit.reshape(emit.apply("Softmax", values, axis=1), (BATCH, others, 1, *ones))
    slopes = _gradients_of(explained, indices, others)
    mine = _float(emit, explained.gradients)
    t = emit.subtract(emit.reshape(mine, (BATCH, 1, *mine.shape[1:])), slopes)
    t = emit.scale(t, 1 / explained.scale)
    largest = emit.reduce("ReduceMax", emit.apply("Abs", t), list(range(1, len(t.shape))))
    unit = emit.node("Max", (largest, emit.scalar(TINY, largest)), largest.shape)
    u = emit.divide(t, unit)  # so that cubes of small gradients do not underflow
    power, moments = q, []
    for _ in range(3):
        power = emit.multiply(power, u)
        moments.append(emit.reduce("ReduceSum", power, [1], keepdims=False))
    return emit.reshape(p, (BATCH, 1, *ones)), moments, emit.reshape(unit, (BATCH, 1, *ones))


def _gradients_of(explained: Explained, indices: Value, count: int) -> Value:
    """dS/dA of the classes int64 [N,J] as float32 [N,J,C,*space], or with 1 for the space: a batch of N J backwards."""
    emit, layer = explained.emit, explained.layer
    if explained.aim.repeats is not None or indices.shape[0] != BATCH:
        raise UnsupportedGraphError(
            f'Layer "{layer.name}" has more behind it than pooling and one linear layer: there --softmax needs the '
            "gradients of several classes, which goes with one --target class, in a network of any batch."
        )
    marks = emit.node("Reshape", (indices, emit.integers([-1])), (BATCH,))
    start = len(emit.nodes)
    seed = OneHot.of_class(emit, marks, explained.scores.logits)
    seeds, wanted = {explained.scores.logits.name: seed}, [layer.tensor]
    walked = differentiate(explained.graph, emit, explained.steps, seeds, wanted, "gradient", explained.rescale)
    found = _float(emit, as_map(emit, walked[layer.tensor], layer.grid))
    repeater = Repeater(emit, marks, count, "--softmax")
    emit.nodes[start:] = repeater.rewrite(emit.nodes[start:])
    return repeater.unfolded(found)


# weights


def _weights(
    explained: Explained, p: Value, moments: Sequence[Value], size: Value, averaged: bool
) -> tuple[Value, Value]:
    """w and the count of poles. size: max(sum A, 0) in the unit of the moments; averaged: they are times the positions.

    Where the denominator is next to zero alpha is 0, and the position is counted if mu_1 > 0: it would have weighed.
    """
    emit, (mu_1, mu_2, mu_3) = explained.emit, moments
    a = emit.subtract(emit.scale(emit.multiply(p, emit.multiply(mu_1, mu_1)), 2), mu_2)
    product = emit.multiply(p, mu_1)
    inner = emit.subtract(emit.multiply(product, product), emit.multiply(p, mu_2))
    b = emit.add(emit.scale(emit.multiply(mu_1, inner), 6), mu_3)
    below = emit.add(emit.scale(a, 2), emit.multiply(size, b))
    distance, bound = emit.apply("Abs", below), emit.scale(emit.apply("Abs", a), POLE)  # |2 + max(sum A, 0) b / a|
    usable = emit.greater(distance, bound)
    alpha = emit.keep_where(usable, emit.divide(a, emit.where(usable, below, emit.scalar(1, below))))
    terms = emit.multiply(alpha, emit.apply("Relu", mu_1))
    weighs = emit.greater(mu_1, emit.scalar(0, mu_1))
    poles = emit.cast(emit.both(emit.less(distance, bound), weighs), FLOAT)
    share = elements(explained.layer.space) / elements(mu_1.shape[2:])
    total = emit.scale(emit.reduce("ReduceSum", poles, list(range(1, len(poles.shape))), keepdims=False), share)
    weights = terms if averaged else emit.scale(emit.reduce("ReduceSum", terms, _space(explained)), share)
    return weights, emit.cast(total, TensorProto.INT64)


# the head


def _pooled_linear(explained: Explained) -> tuple[Value, bool, float] | None:
    """The classifier's weights, whether they lie as [K,...], and their factor, where the way from the layer to the
    logits is a mean over space and one linear layer; None elsewhere."""
    graph, name = explained.graph, explained.layer.tensor
    if explained.layer.layout != CHANNELS_FIRST:
        return None
    logits = explained.scores.logits.name
    way = graph.reachable_from([name]) & graph.needed_for([logits])
    pooled, found = False, None
    while name != logits:
        nodes = [node for node in graph.consumers.get(name, []) if way.intersection(node.output)]
        if len(nodes) != 1:
            return None
        node = nodes[0]
        if not pooled and _is_spatial_mean(graph, node, _space(explained)):
            pooled = True
        elif pooled and found is None and (linear := _linear(graph, node, name)) is not None:
            found = linear
        elif not (pooled and (node.op_type in KEEPING or _adds_constant(graph, node))):
            return None
        name = node.output[0]
    return found


def _is_spatial_mean(graph: Graph, node: NodeProto, space: list[int]) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    axes = graph.constant(node.input[1]) if node.op_type == "ReduceMean" and len(node.input) > 1 else None
    rank = len(space) + 2
    return axes is not None and sorted(axis % rank for axis in axes.tolist()) == space


def _adds_constant(graph: Graph, node: NodeProto) -> bool:
    return node.op_type == "Add" and any(graph.constant(name) is not None for name in node.input)


def _linear(graph: Graph, node: NodeProto, source: str) -> tuple[Value, bool, float] | None:
    """A constant matrix that multiplies channels of [N,C] or [N,C,1,..]."""
    weight = graph.values.get(node.input[1]) if len(node.input) > 1 and node.input[0] == source else None
    if weight is None or graph.constant(weight.name) is None:
        return None
    rank = len(graph.value(source).shape)
    if node.op_type == "Gemm" and not attribute(node, "transA", 0):
        return weight, bool(attribute(node, "transB", 0)), float(attribute(node, "alpha", 1.0))
    if node.op_type == "MatMul" and rank == 2 and len(weight.shape) == 2:
        return weight, False, 1.0
    if node.op_type == "Conv" and attribute(node, "group", 1) == 1 and elements(weight.shape[2:]) == 1:
        return weight, True, 1.0
    return None
