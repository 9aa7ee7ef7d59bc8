"""The scale of a half-precision backward pass: powers of two, calibrated so that float16 holds every gradient.

float16 ends at 65504 and, with all of its bits, at 6e-5. Gradients shrink or grow by orders of magnitude from the
scores to the picture, by more than it holds. So the network is differentiated in float32 first and run on pictures, and
the largest value is taken of every tensor of the backward pass. Where all paths go through one tensor, the gradient may
be multiplied by a power of two, which rounds nothing: there it is brought back to TOP whenever it has left the upper
part of the range. The product of the factors is divided out at the end, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from gcpp_edge.contract import GRADIENTS, GUIDED, MAP, PLAIN, Contract
from gcpp_edge.export.bake import BakeOptions, Rescale, bake_normal, contract_of
from gcpp_edge.export.differences import run, session_for, with_outputs
from gcpp_edge.export.differentiate import MARKER
from gcpp_edge.export.graph import Graph, Value, infer_values
from gcpp_edge.export.layers import cut_tensors
from gcpp_edge.export.lowering import TUNED
from gcpp_edge.export.normalise import normalise
from gcpp_edge.export.precision import FP16, LARGEST, SMALLEST, to_float32, to_precision
from gcpp_edge.export.scores import find_scores

TOP = 11  # log2 of the largest gradient: a factor of 2^5 below 65504 for pictures that were not seen
SLACK = 8  # log2 of how far below TOP a part of the walk may lie before it is worth a product
STEP = 14  # log2 of the largest factor, which is a float16 number itself
ZERO = 2.0**-25  # rounds to zero in float16

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scales:
    """What calibration found.

    rescale: for bake. peaks: the largest value by forward tensor that leaves float16, or lies in its denormals as a
    whole. lost: by output, the share of values other than zero that become zero in float16, scaled as they are.
    """

    rescale: Rescale
    peaks: dict[str, float]
    lost: dict[str, float]


def calibrate(probe: ModelProto, contract: Contract, samples: Iterable[Feeds]) -> Scales:
    """The scales for the pictures at hand.

    probe: the explained model in float32, baked with probing(...). samples: inputs of one run each.
    """
    watched = _Watched(probe, contract)
    lowest: dict[str, list[np.ndarray]] = {GRADIENTS: [], GUIDED: []}
    for feeds in samples:
        watched.see(feeds, lowest)
    marked = watched.segments()
    rescale = Rescale(plan(marked[MAP]), plan(marked[GUIDED]))
    totals = {GRADIENTS: math.prod(rescale.map.values()), GUIDED: math.prod(rescale.guided.values())}
    lost = {name: _lost(arrays, totals[name]) for name, arrays in lowest.items() if arrays}
    peaks = {name: peak for name, peak in watched.forward.items() if peak > LARGEST or 0 < peak < SMALLEST}
    return Scales(rescale, peaks, lost)


def probing(model: ModelProto, options: BakeOptions) -> Rescale:
    """A Rescale that marks every tensor that all paths from the picture to the scores go through."""
    graph = Graph(model)
    logits = find_scores(graph, options.target).logits.name
    marks = dict.fromkeys([*cut_tensors(graph, logits), logits], 1.0)
    return Rescale(marks, marks)


def plan(parts: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Factors by tensor, for the parts of a walk in order: where each begins, and its largest gradient unscaled."""
    factors: dict[str, float] = {}
    current = 0
    for name, largest in parts:
        if not 0 < largest < math.inf:
            continue
        wanted = TOP - math.ceil(math.log2(largest))
        if not TOP - SLACK <= math.log2(largest) + current <= TOP + 1:
            step = max(-STEP, min(wanted - current, STEP))
            factors[name] = 2.0**step
            current += step
    return {name: factor for name, factor in factors.items() if factor != 1}


def _lost(arrays: list[np.ndarray], scale: float) -> float:
    values = np.concatenate([np.abs(array[array != 0]).ravel() for array in arrays])
    return float(np.mean(values * scale <= ZERO)) if values.size else 0.0


class _Watched:
    """An explained float32 model with all of its float tensors as outputs, and the largest value of each so far."""

    def __init__(self, probe: ModelProto, contract: Contract) -> None:
        values = infer_values(probe)
        self.model, self.contract = probe, contract
        nodes = list(probe.graph.node)
        plain = contract.levels[PLAIN].nodes
        backward: set[str] = set()
        for node in nodes[plain:]:
            if node.name.startswith(MARKER) or backward.intersection(node.input):
                backward.update(node.output)
        floats = [n for node in nodes for n in node.output if _is_float(values.get(n))]
        ahead = {name for node in nodes[:plain] for name in node.output}
        self.names = [name for name in floats if name in backward or name in ahead]
        self.backward = dict.fromkeys((name for name in self.names if name in backward), 0.0)
        self.forward = dict.fromkeys((name for name in self.names if name not in backward), 0.0)
        self.session = session_for(with_outputs(probe, self.names))

    def see(self, feeds: Feeds, outputs: dict[str, list[np.ndarray]]) -> None:
        """Runs one sample; its gradients and its image are added to `outputs`."""
        found = dict(zip(self.names, run(self.session, self.names, dict(feeds)), strict=True))
        for largest in (self.backward, self.forward):
            for name in largest:
                finite = np.where(np.isfinite(found[name]), found[name], np.inf)
                largest[name] = max(largest[name], float(np.abs(finite).max(initial=0)))
        for name, arrays in outputs.items():
            if name in found:
                arrays.append(found[name])

    def segments(self) -> dict[str, list[tuple[str, float]]]:
        """By level: the tensors with a marker in the order of the walk, and the largest gradient up to the next."""
        end = self.contract.levels[MAP].nodes
        result: dict[str, list[tuple[str, float]]] = {MAP: [], GUIDED: []}
        for index, node in enumerate(self.model.graph.node):
            parts = result[MAP if index < end else GUIDED]
            if node.name.startswith(MARKER):
                parts.append((node.doc_string, 0.0))
            if parts:
                tensor, largest = parts[-1]
                parts[-1] = tensor, max(largest, *(self.backward.get(name, 0.0) for name in node.output))
        return result


def _is_float(value: Value | None) -> bool:
    return value is not None and value.dtype == TensorProto.FLOAT


@dataclass(frozen=True)
class Halved:
    """An explained model in half precision, and the float32 one that it is held against.

    scales: None for bfloat16, whose range is float32's.
    """

    model: ModelProto
    reference: ModelProto
    scales: Scales | None


def bake_half(
    model: ModelProto,
    precision: str,
    samples_of: Callable[[Contract], Iterable[Feeds]],
    options: BakeOptions = BakeOptions(),
    *,
    input_size: tuple[int, int] | None = None,
    **rest: Any,
) -> Halved:
    """The explained model of a forward one in "fp16" or "bf16"; the rest as in bake.

    samples_of: what calibration runs: float32 inputs of one run each, given the contract. Raises ExportError's
    children.
    """
    options = replace(options, lowerings=TUNED["gpu"])  # no runtime has a blocked layout for halves
    normal = normalise(model, input_size)
    narrow = to_precision(normal, precision)
    reference = bake_normal(to_float32(normal), options, **rest)
    if precision != FP16:
        return Halved(bake_normal(narrow, options, **rest), reference, None)
    wide = to_float32(normal)
    probe = bake_normal(wide, replace(options, rescale=probing(wide, options)), **rest)
    described = contract_of(probe)
    scales = calibrate(probe, described, samples_of(described))
    half = {name for name, value in infer_values(narrow).items() if value.dtype == TensorProto.FLOAT16}
    scales = replace(scales, peaks={name: peak for name, peak in scales.peaks.items() if name in half})
    return Halved(bake_normal(narrow, replace(options, rescale=scales.rescale), **rest), reference, scales)
