"""Finds what is explained: the scores among a model's outputs, their kind, and the logits behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import NodeProto

from gcpp_edge import contract
from gcpp_edge.errors import SourceError, UnsupportedGraphError
from gcpp_edge.export.graph import FLOATS, Graph, Value, attribute, elements

KINDS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
SAME_SCORES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")
MOVED_SCORES = (*SAME_SCORES, "Transpose", "Concat", "Slice", "Split")  # what detectors do to theirs


@dataclass(frozen=True)
class TargetOptions:
    """What the user wants explained. kind: see contract.TARGET_KINDS.

    count: K of "classes". output: which of the model's; None for the first that fits. ranks: how many negative ranks
    `target` may hold. Of detections, class_axis: 1 or 2, where the classes lie; None for the shorter one. first_class,
    class_count: which entries of that axis are classes; 0 for the rest.
    """

    kind: str = contract.CLASS
    count: int = 1
    output: str | None = None
    ranks: int = 5
    class_axis: int | None = None
    first_class: int = 0
    class_count: int = 0


@dataclass(frozen=True)
class ScoreTensors:
    """output: the graph output that holds the scores. logits: the tensor that is differentiated.

    logits: [N,K,1,..] of classifiers, [N,K,h,w] of segmenters, [N,A,B] of detectors, anything of a seed. class_axis,
    first_class: of detectors, where their classes lie.
    """

    output: str
    logits: Value
    classes: int
    kind: str
    class_axis: int = 1
    first_class: int = 0

    @property
    def per_position(self) -> bool:
        """Whether there are scores for many places of the picture, not for the whole of it."""
        return any(size != 1 for size in self.logits.shape[2:])


def find_scores(graph: Graph, options: TargetOptions = TargetOptions()) -> ScoreTensors:
    """The scores that the options speak of: the named output, or the first that fits. UnsupportedGraphError if none."""
    if options.kind not in FINDERS:
        raise SourceError(f'Unknown target "{options.kind}"; expected one of {", ".join(FINDERS)}.')
    fits, expected, found = FINDERS[options.kind]
    if options.output is not None and options.output not in graph.outputs:
        raise SourceError(f'The model has no output "{options.output}"; it has {", ".join(graph.outputs)}.')
    for name in graph.outputs if options.output is None else [options.output]:
        value = graph.values.get(name)
        if value is not None and value.dtype in FLOATS and fits(value):
            return found(graph, name, options)
    shapes = ", ".join(
        f"{name} {list(graph.values[name].shape) if name in graph.values else '?'}" for name in graph.outputs
    )
    raise UnsupportedGraphError(f"Expected an output of {expected}, found {shapes}. {_ADVICE[options.kind]}")


def _holds_classes(value: Value) -> bool:
    shape = value.shape
    return len(shape) >= 2 and isinstance(shape[1], int) and all(size == 1 for size in shape[2:])


def _holds_class_maps(value: Value) -> bool:
    return len(value.shape) == 4 and _is_known(value) and max(value.shape[2:]) > 1


def _holds_detections(value: Value) -> bool:
    return len(value.shape) == 3 and _is_known(value)


def _is_known(value: Value) -> bool:
    return len(value.shape) >= 1 and all(isinstance(size, int) for size in value.shape[1:])


def _class_scores(graph: Graph, name: str, options: TargetOptions) -> ScoreTensors:
    tensor, kind = _logits_behind(graph, name, _holds_classes)
    logits = graph.value(tensor)
    return ScoreTensors(name, logits, int(logits.shape[1]), kind)


def _class_maps(graph: Graph, name: str, options: TargetOptions) -> ScoreTensors:
    tensor, kind = _logits_behind(graph, name, _holds_class_maps)
    logits = graph.value(tensor)
    return ScoreTensors(name, logits, int(logits.shape[1]), kind)


def _detections(graph: Graph, name: str, options: TargetOptions) -> ScoreTensors:
    """Scores of many detections, decoded or not. Where they come out of a Sigmoid the logit behind it is explained."""
    value = graph.value(name)
    axis = options.class_axis or (1 if value.shape[1] < value.shape[2] else 2)
    if axis not in (1, 2):
        raise SourceError(f"--class-axis {axis}: expected 1 or 2, an axis of {list(value.shape)}.")
    rest = value.shape[axis] - options.first_class
    count = options.class_count or rest
    if not (options.first_class >= 0 and 1 <= count <= rest):
        raise SourceError(
            f"--first-class {options.first_class} and --class-count {count} do not fit into the {value.shape[axis]} "
            f"entries of output {name} {list(value.shape)}."
        )
    return ScoreTensors(name, value, count, _decoded_kind(graph, name), axis, options.first_class)


def _anything(graph: Graph, name: str, options: TargetOptions) -> ScoreTensors:
    value = graph.value(name)
    return ScoreTensors(name, value, elements(value.shape[1:]), "logits")


Finder = tuple[Callable[[Value], bool], str, Callable[[Graph, str, TargetOptions], ScoreTensors]]
FINDERS: dict[str, Finder] = {
    contract.CLASS: (_holds_classes, "class scores [N,K]", _class_scores),
    contract.CLASSES: (_holds_classes, "class scores [N,K]", _class_scores),
    contract.REGION: (_holds_class_maps, "a score per class and position [N,K,h,w]", _class_maps),
    contract.DETECTION: (_holds_detections, "detections [N,A,K] or [N,K,A]", _detections),
    contract.SEED: (_is_known, "floating-point numbers of a known size", _anything),
}
_CLASSIFIER = "Export a classifier, or say what else is explained with --target region, detection or seed."
_ADVICE = {
    contract.CLASS: _CLASSIFIER,
    contract.CLASSES: _CLASSIFIER,
    contract.REGION: "--target region is for segmentation networks.",
    contract.DETECTION: "--target detection is for networks that score many detections; NMS stays outside.",
    contract.SEED: "Name another output with --seed-output.",
}


def _logits_behind(graph: Graph, name: str, holds: Callable[[Value], bool]) -> tuple[str, str]:
    """The tensor before a final Softmax, LogSoftmax or Sigmoid over the classes, and the kind of the output."""
    current = name
    while (node := graph.producers.get(current)) is not None:
        if node.op_type in KINDS and _over_classes(graph, node, holds):
            return node.input[0], KINDS[node.op_type]
        source = graph.values.get(node.input[0]) if node.input else None
        if node.op_type not in SAME_SCORES or source is None or not holds(source):
            break
        current = node.input[0]
    return name, "logits"


def _over_classes(graph: Graph, node: NodeProto, holds: Callable[[Value], bool]) -> bool:
    value = graph.value(node.input[0])
    axis = attribute(node, "axis", -1) % len(value.shape)
    return holds(value) and (node.op_type == "Sigmoid" or axis == 1)


def _decoded_kind(graph: Graph, name: str) -> str:
    """What detections hold: "sigmoid" where one comes before the moving of boxes and scores together."""
    waiting, seen = [name], set()
    while waiting:
        node = graph.producers.get(waiting.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type in KINDS:
            return KINDS[node.op_type]
        if node.op_type in MOVED_SCORES:
            waiting += [source for source in node.input if source]
    return "logits"
