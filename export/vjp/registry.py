"""The registry of rules, and what a rule is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Graph, Shape, Value, attribute, numpy_dtype

INTERNAL = "gcpp_edge"  # domain of activations that normalise.py recognises and the file still spells out


@dataclass(frozen=True)
class OneHot:
    """A gradient that is zero but in one class of axis 1: the seed, for as long as it can be kept sparse.

    indices int64 [N]: the class. amount [N,1,*S], or with 1 for S: the gradient there. shape: of the whole, [N,K,*S].
    """

    indices: Value
    amount: Value
    shape: Shape

    @property
    def dtype(self) -> int:
        return self.amount.dtype

    @classmethod
    def of_class(cls, emit: Emitter, indices: Value, logits: Value) -> OneHot:
        """The gradient of the logit of one class with respect to all logits."""
        ones = np.ones((1,) * len(logits.shape), numpy_dtype(logits.dtype))
        return cls(indices, emit.constant(ones), logits.shape)

    def dense(self, emit: Emitter) -> Value:
        """The same gradient as an ordinary tensor."""
        ones = (1,) * (len(self.shape) - 2)
        index = emit.reshape(self.indices, (self.shape[0], 1, *ones))
        classes = emit.constant(np.arange(self.shape[1], dtype=np.int64).reshape(1, -1, *ones))
        return emit.keep_where(emit.equal(classes, index), self.amount)

    def reshaped(self, emit: Emitter, shape: Shape) -> OneHot:
        """The same gradient where only size-1 axes behind the classes came or went."""
        array = emit.graph.constant(self.amount.name)
        if array is not None:
            amount = emit.constant(array.reshape((1,) * len(shape)))
        else:
            amount = emit.reshape(self.amount, (shape[0], 1, *(1,) * (len(shape) - 2)))
        return OneHot(self.indices, amount, shape)


@dataclass(frozen=True)
class Phased:
    """A gradient in the phases of a stride: where it comes out of the backward pass of a strided convolution.

    phases: in row order, stride^2 of them: phase (u, v) holds positions (s i + u, s j + v); None is zero. All have one
    size, h / s and w / s rounded up: what lies outside of the whole is cut off in the end.
    shape: of the whole, [N,C,h,w]. masked: the rectifier's output whose mask was applied already.
    """

    phases: tuple[Value | None, ...]
    stride: int
    shape: Shape
    masked: str = ""

    @property
    def known(self) -> Value:
        """One that is not zero."""
        return next(phase for phase in self.phases if phase is not None)

    @property
    def dtype(self) -> int:
        return self.known.dtype

    def each(self, change: Callable[[Value, tuple[int, int]], Value], channels: int | None = None) -> Phased:
        """The gradient with `change(phase, (u, v))` for every phase but zeros, which stay; `channels` after it."""
        phases = tuple(
            None if phase is None else change(phase, divmod(index, self.stride))
            for index, phase in enumerate(self.phases)
        )
        shape = self.shape if channels is None else (self.shape[0], channels, *self.shape[2:])
        return Phased(phases, self.stride, shape)

    def plus(self, emit: Emitter, other: Phased) -> Phased:
        pairs = zip(self.phases, other.phases, strict=True)
        phases = tuple(emit.add(a, b) if a and b else a or b for a, b in pairs)
        return Phased(phases, self.stride, self.shape)

    def dense(self, emit: Emitter) -> Value:
        """The same gradient as one tensor: woven with the channels last, where whole blocks of them move."""
        batch, channels = self.shape[:2]
        size = self.known.shape[2:]
        height, width = (count * self.stride for count in size)
        last = [None if phase is None else emit.transpose(phase, (0, 2, 3, 1)) for phase in self.phases]
        rows = []
        for start in range(0, len(last), self.stride):
            row = _side_by_side(emit, last[start : start + self.stride], 3)
            rows.append(None if row is None else emit.reshape(row, (batch, size[0], 1, width * channels)))
        woven = _side_by_side(emit, rows, 2)
        assert woven is not None
        whole = emit.reshape(woven, (batch, height, width, channels))
        return emit.transpose(emit.slice(whole, (1, 2), (0, 0), self.shape[2:]), (0, 3, 1, 2))


def _side_by_side(emit: Emitter, parts: list[Value | None], axis: int) -> Value | None:
    """Equal parts along an axis; None is zeros, and what comes out where all are."""
    known = next((part for part in parts if part is not None), None)
    if known is None:
        return None
    if sum(part is not None for part in parts) == 1:
        size, place = known.shape[axis], parts.index(known)
        return emit.pad(known, [axis], [place * size], [(len(parts) - 1 - place) * size])
    return emit.concat([emit.scale(known, 0.0) if part is None else part for part in parts], axis)


Sparse = Value | OneHot
Gradient = Sparse | Phased
Results = list[Gradient | None]


@dataclass(frozen=True)
class Call:
    """One node in the reverse walk.

    inputs: its values (None for an omitted one). wanted: which of them need a gradient. pixel_rule: "gradient" is the
    derivative; "guided" and "deconvnet" change it at rectifiers (docs/method.md).
    """

    node: NodeProto
    graph: Graph
    emit: Emitter
    inputs: tuple[Any, ...]  # of Value | None: a rule knows which of its operator's are there
    outputs: tuple[Any, ...]
    wanted: tuple[bool, ...]
    pixel_rule: str = "gradient"

    @property
    def x(self) -> Value:
        value: Value = self.inputs[0]
        return value

    @property
    def y(self) -> Value:
        value: Value = self.outputs[0]
        return value

    def attribute(self, name: str, default: Any = None) -> Any:
        return attribute(self.node, name, default)

    def constant(self, index: int) -> np.ndarray | None:
        """The array of input `index`, None if it is omitted or computed."""
        value = self.inputs[index] if index < len(self.inputs) else None
        return None if value is None else self.graph.constant(value.name)

    def axis(self, name: str = "axis", default: int | None = None, rank: int | None = None) -> int:
        """An axis attribute, made non-negative."""
        rank = len(self.x.shape) if rank is None else rank
        return int(self.attribute(name, default)) % rank

    def refuse(self, what: str) -> UnsupportedGraphError:
        """The error for what an operator has or does that no rule covers; the caller raises it."""
        node = self.node
        return UnsupportedGraphError(
            f'{node.op_type} at node "{node.name or node.output[0]}" {what}, which has no VJP rule. '
            "Choose a later layer with --layer."
        )

    def need(self, index: int, what: str) -> np.ndarray:
        """The constant array of input `index`; refused where it is computed."""
        array = self.constant(index)
        if array is None:
            raise self.refuse(f"has computed {what}")
        return array

    def none(self) -> Results:
        """No gradient for any input; rules take what they need of it."""
        return [None] * len(self.inputs)


Function = Callable[..., Results]  # of a Call and the gradient of its output, in the form that the Rule says


@dataclass(frozen=True)
class Rule:
    """A rule and the forms of gradient that it takes.

    since, until: the opsets it is right for. compact: takes gradients that are constant along axes. sparse: takes
    OneHot. phased: takes Phased. broadcasts: its inputs were broadcast to the output's shape, and the walk sums their
    gradients back.
    """

    function: Function
    since: int = 1
    until: int = 1000
    compact: bool = False
    sparse: bool = False
    phased: bool = False
    broadcasts: bool = False


RULES: dict[tuple[str, str], list[Rule]] = {}

WITHOUT_GRADIENT = frozenset(
    [
        # comparisons, logic, bits
        *("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"),
        *("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
        # steps: flat wherever they have a derivative
        *("ArgMax", "ArgMin", "Ceil", "Floor", "Hardmax", "NonMaxSuppression", "NonZero", "OneHot", "Round", "Sign"),
        # made from a shape or from nothing
        *("BlackmanWindow", "Constant", "ConstantOfShape", "EyeLike", "HammingWindow", "HannWindow", "MelWeightMatrix"),
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Range", "Shape", "Size"),
    ]
)


def rule(*operators: str, domain: str = "", **form: Any) -> Callable[[Function], Function]:
    """Registers a function as the rule of the operators."""

    def register(function: Function) -> Function:
        for operator in operators:
            RULES.setdefault((domain, operator), []).append(Rule(function, **form))
        return function

    return register


def find_rule(node: NodeProto, opset: int) -> Rule | None:
    """The rule for a node at that opset, or None."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    for entry in RULES.get((domain, node.op_type), []):
        if entry.since <= opset <= entry.until:
            return entry
    return None


__all__ = [
    "INTERNAL",
    "RULES",
    "WITHOUT_GRADIENT",
    "Call",
    "Gradient",
    "OneHot",
    "Phased",
    "Rule",
    "Sparse",
    "find_rule",
    "numpy_dtype",
    "rule",
]
