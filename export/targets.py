"""What is explained: the inputs that choose it at run time, and the gradient that the reverse walk starts from.

To add a kind of target: its name in contract.TARGET_KINDS, its outputs in scores.FINDERS, its function in AIMS here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

from gcpp_edge import contract
from gcpp_edge.contract import (
    BATCH,
    DETECTION,
    DETECTION_INDEX,
    REGION,
    SEED,
    SELECTED_SCORES,
    TARGET,
    TARGET_CLASS,
)
from gcpp_edge.errors import SourceError, UnsupportedGraphError
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Dimension, Graph, Value, numpy_dtype
from gcpp_edge.export.scores import ScoreTensors, TargetOptions
from gcpp_edge.export.tensorrt_policy import TOPK_LIMIT
from gcpp_edge.export.vjp import Gradient, OneHot

STEEPEST = 1e-6  # of p (1 - p): a probability that rounds to 1 has no logit


@dataclass(frozen=True)
class Aim:
    """One way to choose what is explained.

    inputs: added to the model. seeds: gradients to start from. outputs: by name, added to the map level. repeats: where
    K targets share a forward pass, the tensor [N K] that marks what belongs to a target (repeat.py).
    """

    target: contract.Target
    inputs: tuple[Value, ...]
    seeds: dict[str, Gradient]
    outputs: dict[str, Value] = field(default_factory=dict)
    ranks: int = 1
    repeats: Value | None = None


@dataclass(frozen=True)
class Scene:
    """What an aim works on."""

    graph: Graph
    emit: Emitter
    scores: ScoreTensors
    options: TargetOptions

    @property
    def batch(self) -> Dimension:
        return self.graph.value(self.graph.image).shape[0]

    def input(self, name: str, sizes: tuple[Dimension, ...], dtype: int = TensorProto.INT64) -> Value:
        value = Value(name, (self.batch, *sizes), dtype)
        self.graph.values[name] = value
        return value

    @property
    def ranks(self) -> int:
        """How many ranks can be asked for; never more than there are classes."""
        if not 1 <= self.options.ranks <= TOPK_LIMIT:
            raise SourceError(f"--ranks {self.options.ranks} is out of range; expected 1 to {TOPK_LIMIT}.")
        return min(self.options.ranks, self.scores.classes)


def aim(scene: Scene) -> Aim:
    """The aim of the options' kind."""
    return AIMS[scene.options.kind](scene)


def _aim_at_class(scene: Scene) -> Aim:
    target = scene.input(TARGET, ())
    chosen = _chosen_class(scene, _flat_logits(scene), target, (scene.batch,))
    return Aim(contract.Target(), (target,), _class_seed(scene, chosen), {TARGET_CLASS: chosen}, scene.ranks)


def _aim_at_classes(scene: Scene) -> Aim:
    """K classes from one forward pass: the backward pass runs on a batch of N K."""
    count = scene.options.count
    if not 1 <= count <= scene.scores.classes:
        raise SourceError(f"--top-k {count} is out of range; expected 1 to the {scene.scores.classes} classes.")
    if scene.batch != BATCH:
        raise UnsupportedGraphError("The network fixes its batch; --top-k needs one that takes any.")
    if count > scene.options.ranks:
        raise SourceError(f"--top-k {count} needs as many ranks. Give --ranks {count}.")
    target = scene.input(TARGET, (count,))
    chosen = _chosen_class(scene, _flat_logits(scene), target, (scene.batch, count))
    marks = scene.emit.node("Reshape", (chosen, scene.emit.integers([-1])), (scene.batch,))
    kind = contract.Target(contract.CLASSES, count)
    return Aim(kind, (target,), _class_seed(scene, marks), {TARGET_CLASS: chosen}, scene.ranks, marks)


def _class_seed(scene: Scene, indices: Value) -> dict[str, Gradient]:
    return {scene.scores.logits.name: OneHot.of_class(scene.emit, indices, scene.scores.logits)}


def _flat_logits(scene: Scene) -> Value:
    """float32 [N,K]: no runtime's TopK needs float16."""
    logits = scene.emit.cast(scene.scores.logits, TensorProto.FLOAT)
    return scene.emit.reshape(logits, (logits.shape[0], scene.scores.classes))


def _chosen_class(scene: Scene, flat: Value, target: Value, shape: tuple[Dimension, ...]) -> Value:
    """int64, of the target's shape: the target itself, or the class at its negative rank among scores [N,K]."""
    emit, columns = scene.emit, shape[1] if len(shape) > 1 else 1
    return emit.reshape(_picked(emit, flat, emit.reshape(target, (scene.batch, columns)), scene.ranks), shape)


def _picked(emit: Emitter, flat: Value, column: Value, ranks: int) -> Value:
    """int64 [N,J]: the indices of a column [N,J], those at its negative ranks among values [N,K] in their place."""
    place, negative = _rank(emit, column)
    best = emit.node("GatherElements", (emit.top(flat, ranks)[1], place), column.shape, axis=1)
    return emit.where(negative, best, column)


def _rank(emit: Emitter, column: Value) -> tuple[Value, Value]:
    """-1 - column where that is a rank, else 0; and where it is one."""
    zero = emit.constant(np.array(0))
    negative = emit.less(column, zero)
    return emit.where(negative, emit.subtract(emit.constant(np.array(-1)), column), zero), negative


def _aim_at_region(scene: Scene) -> Aim:
    """A class summed over a region of its map. Ranks order the classes by the area where they win."""
    emit, logits = scene.emit, scene.emit.cast(scene.scores.logits, TensorProto.FLOAT)
    batch, classes, height, width = logits.shape
    target, region = scene.input(TARGET, ()), scene.input(REGION, (height, width), TensorProto.FLOAT)
    given = emit.reshape(region, (batch, 1, height, width))
    wins = emit.cast(emit.equal(logits, emit.reduce("ReduceMax", logits, [1])), TensorProto.FLOAT)
    anywhere = emit.less(given, emit.scalar(0, given))
    weighed = emit.multiply(wins, emit.where(anywhere, emit.scalar(1, given), given))
    areas = emit.reduce("ReduceSum", weighed, [2, 3], keepdims=False)
    chosen = _chosen_class(scene, areas, target, (batch,))
    index = emit.reshape(chosen, (batch, 1))
    won = emit.reshape(emit.gather_batch(wins, index), (batch, 1, height, width))
    share = emit.where(anywhere, won, given)
    selected = _mean_over(emit, logits, share)
    seed = OneHot(chosen, emit.cast(share, scene.scores.logits.dtype), scene.scores.logits.shape)
    return Aim(
        contract.Target(REGION, shape=(classes, height, width)),
        (target, region),
        {scene.scores.logits.name: seed},
        {TARGET_CLASS: chosen, SELECTED_SCORES: selected},
        scene.ranks,
    )


def _mean_over(emit: Emitter, logits: Value, share: Value) -> Value:
    """float32 [N,K]: each class's mean over the region; 0 where the region is empty."""
    total = emit.reduce("ReduceSum", emit.multiply(logits, share), [2, 3], keepdims=False)
    area = emit.reduce("ReduceSum", share, [2, 3], keepdims=False)
    one = emit.scalar(1, area)
    return emit.divide(total, emit.where(emit.equal(area, emit.scalar(0, area)), one, area))


def _aim_at_detection(scene: Scene) -> Aim:
    """One class of one detection. A negative `detection` is a rank among all by the class's score.

    With a negative `target` too, it is a rank by their best class, and then the class a rank within the detection.
    """
    emit, scores, whole = scene.emit, scene.scores, scene.scores.logits
    target, detection = scene.input(TARGET, ()), scene.input(DETECTION, ())
    table = _detection_table(scene)  # [N,A,K]
    batch, count, classes = table.shape
    column = emit.reshape(target, (batch, 1))
    _, no_class = _rank(emit, column)
    known = emit.where(no_class, emit.constant(np.array(0)), column)
    by_class = emit.transpose(table, (0, 2, 1))
    of_class = emit.gather_batch(by_class, known)  # [N,A]
    order = emit.where(no_class, emit.reduce("ReduceMax", table, [2], keepdims=False), of_class)
    ranks = min(scene.options.ranks, count)
    index = _picked(emit, order, emit.reshape(detection, (batch, 1)), ranks)
    row = emit.gather_batch(table, index)  # [N,K]
    chosen = _chosen_class(scene, row, target, (batch,))
    sizes = tuple(int(size) for size in whole.shape[1:])
    kind = contract.Target(DETECTION, shape=sizes, class_axis=scores.class_axis - 1, first_class=scores.first_class)
    return Aim(
        kind,
        (target, detection),
        {whole.name: _detection_seed(scene, index, chosen, row)},
        {TARGET_CLASS: chosen, DETECTION_INDEX: emit.reshape(index, (batch,)), SELECTED_SCORES: row},
        min(scene.ranks, ranks),
    )


def _detection_table(scene: Scene) -> Value:
    """Class scores of all detections, float32 [N,A,K]."""
    emit, scores = scene.emit, scene.scores
    table = emit.cast(scores.logits, TensorProto.FLOAT)
    if scores.class_axis == 1:
        table = emit.transpose(table, (0, 2, 1))
    return emit.slice(table, [2], [scores.first_class], [scores.first_class + scores.classes])


def _detection_seed(scene: Scene, index: Value, chosen: Value, row: Value) -> Value:
    """One at the chosen entry of [N,A,B]; over p (1 - p) where p is a sigmoid's: so it is the logit's gradient."""
    emit, scores, whole = scene.emit, scene.scores, scene.scores.logits
    batch, (_, first, second) = scene.batch, whole.shape
    entry = emit.add(chosen, emit.constant(np.array(scores.first_class)))
    places = {
        scores.class_axis: emit.reshape(entry, (batch, 1, 1)),
        3 - scores.class_axis: emit.reshape(index, (batch, 1, 1)),
    }
    rows = emit.equal(emit.constant(np.arange(first, dtype=np.int64).reshape(1, -1, 1)), places[1])
    columns = emit.equal(emit.constant(np.arange(second, dtype=np.int64).reshape(1, 1, -1)), places[2])
    amount = emit.constant(np.ones((1, 1, 1), numpy_dtype(whole.dtype)))
    if scores.kind == "sigmoid":
        p = emit.gather_batch(row, emit.reshape(chosen, (batch, 1)))
        steepness = emit.node("Max", (emit.subtract(p, emit.multiply(p, p)), emit.scalar(STEEPEST, p)), p.shape)
        share = emit.reshape(emit.divide(emit.scalar(1, p), steepness), (batch, 1, 1))
        amount = emit.cast(share, whole.dtype)
    return emit.keep_where(emit.both(rows, columns), amount)


def _aim_at_seed(scene: Scene) -> Aim:
    """The caller's own gradient at the output."""
    whole = scene.scores.logits
    seed = scene.input(SEED, whole.shape[1:], whole.dtype)
    return Aim(
        contract.Target(SEED, shape=tuple(int(size) for size in whole.shape[1:])),
        (seed,),
        {whole.name: seed},
    )


AIMS: dict[str, Callable[[Scene], Aim]] = {
    contract.CLASS: _aim_at_class,
    contract.CLASSES: _aim_at_classes,
    REGION: _aim_at_region,
    DETECTION: _aim_at_detection,
    SEED: _aim_at_seed,
}
