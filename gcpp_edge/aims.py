"""What is explained: from a caller's words to the inputs of the network that say it.

A file explains one kind of thing (contract.TARGET_KINDS): a class, several classes, a class over a region, a class of a
detection, or a gradient of the caller's own.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import CLASSES, DETECTION, REGION, SEED, TARGET, Contract
from gcpp_edge.errors import ShapeError, TargetError
from gcpp_edge.geometry import FrameFit
from gcpp_edge.regions import region_on_grid
from gcpp_edge.targets import Target, Targets, resolve_target, resolve_targets

_NAMES = {
    CLASSES: "several classes of the picture",
    REGION: "a class over a region",
    DETECTION: "a class of a detection",
    SEED: "a gradient of the caller's (seed=)",
}


class Question(NamedTuple):
    """What a call asks for; None where it says nothing. What each may be, Explainer.__call__ says."""

    target: Targets | None = None
    region: Any = None
    detection: Any = None
    seed: Any = None


class Aim(NamedTuple):
    """What is explained in one frame.

    asked: the targets as they were asked for, each of which gets an explanation. values: by the network's input, with
    a batch of one.
    """

    asked: tuple[Target, ...]
    values: dict[str, NDArray[Any]]


def resolve_aims(question: Question, fits: Sequence[FrameFit], contract: Contract) -> list[Aim]:
    """One aim for each frame. Raises TargetError, ShapeError or InputError for what this file cannot explain."""
    kind, count = contract.target.kind, len(fits)
    _refuse_other_kinds(question, contract)
    if kind == SEED:
        return [Aim((SEED,), {SEED: seed}) for seed in _seeds(question.seed, count, contract)]
    targets = resolve_targets(-1 if question.target is None else question.target, count, contract)
    # the places of further classes take the same one, and are not read
    columns = contract.target.count if kind == CLASSES else 0
    aims = [Aim((one.asked,), {TARGET: _integers(one.value, columns)}) for one in targets]
    if kind == REGION:
        _, height, width = contract.target.shape
        for aim, fit, mask in zip(aims, fits, _regions(question.region, count), strict=True):
            aim.values[REGION] = (
                np.full((1, height, width), -1, np.float32)
                if mask is None
                else region_on_grid(mask, fit, height, width)[None]
            )
    elif kind == DETECTION:
        for aim, detection in zip(aims, _detections(question.detection, count, contract), strict=True):
            aim.values[DETECTION] = _integers(detection)
    return aims


def resolve_classes(targets: Sequence[Target] | None, count: int, contract: Contract) -> list[Aim]:
    """The same classes for `count` frames: at most K targets, or for None the K best ones. Raises TargetError."""
    most = contract.target.count
    if contract.target.kind != CLASSES:
        raise TargetError(
            "classes: this model explains one target a pass. Call it once for each, or export it with --top-k."
        )
    asked = tuple(range(-1, -most - 1, -1)) if targets is None else targets
    if not isinstance(asked, (list, tuple, np.ndarray)) or not 1 <= len(asked) <= most:
        found = len(asked) if isinstance(asked, (list, tuple, np.ndarray)) else repr(asked)
        raise TargetError(f"classes: expected a list of one to {most} targets, found {found}.")
    values = [resolve_target(target, contract) for target in asked]
    row = np.array([[*values, *values[-1:] * (most - len(values))]], np.int64)
    return [Aim(tuple(asked), {TARGET: row})] * count


def _integers(value: int, columns: int = 0) -> NDArray[np.int64]:
    """int64 (1,), or (1, columns) of one value."""
    return np.array([[value] * columns] if columns else [value], np.int64)


def _refuse_other_kinds(question: Question, contract: Contract) -> None:
    """Raises TargetError where something is asked for that this file does not take."""
    kind = contract.target.kind
    if kind != SEED and question.region is question.detection is question.seed is None:  # nearly every call
        return
    given = {TARGET: question.target, REGION: question.region, DETECTION: question.detection, SEED: question.seed}
    for name, value in given.items():
        is_taken = kind != SEED if name == TARGET else kind == name
        if value is not None and not is_taken:
            advice = "Pass the seed alone" if kind == SEED else f"Export with --target {name} for it"
            raise TargetError(
                f"{name}: not taken by this model, which explains {_NAMES.get(kind, 'a class of the picture')}. "
                f"{advice}."
            )


def _one_a_frame(what: str, given: Any, count: int) -> Sequence[Any]:
    """A list has one a frame, anything else is for all of them."""
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise TargetError(f"{what}: expected one, or a list of one a frame ({count}); found {len(given)}.")
    return given


def _regions(given: Any, count: int) -> Sequence[Any]:
    return _one_a_frame("region", given, count)


def _detections(given: Any, count: int, contract: Contract) -> list[int]:
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = given.tolist()
    return [_detection(one, contract) for one in _one_a_frame("detection", -1 if given is None else given, count)]


def _detection(asked: Any, contract: Contract) -> int:
    """An index of a detection, or a negative rank; refused out of range, where the graph would answer zero."""
    target = contract.target
    count = target.shape[1 - target.class_axis]
    try:
        if isinstance(asked, (bool, np.bool_)):
            raise TypeError
        index = operator.index(asked)
    except TypeError as error:
        raise TargetError(f"detection: expected an index or a negative rank, found {asked!r}.") from error
    ranks = min(contract.ranks, count)
    if not -ranks <= index < count:
        raise TargetError(
            f"detection {index}: this model has detections 0 to {count - 1}, and ranks -1 (best) to -{ranks}."
        )
    return index


def _seeds(given: Any, count: int, contract: Contract) -> list[NDArray[Any]]:
    """The gradients at the output, each (1, *shape) float32."""
    shape = contract.target.shape
    if given is None:
        raise TargetError(
            f"seed: this model explains a gradient at its output {contract.scores.output!r}. "
            f"Pass seed=array of shape {shape}."
        )
    seeds = []
    for seed in _one_a_frame("seed", given, count):
        if not isinstance(seed, np.ndarray) or seed.shape != shape or seed.dtype.kind not in "fiub":
            found = f"{seed.dtype} {seed.shape}" if isinstance(seed, np.ndarray) else type(seed).__name__
            raise ShapeError(
                f"seed: expected an array of numbers of shape {shape}, or a list of one a frame; found {found}."
            )
        if not np.isfinite(seed).all():
            raise TargetError("seed: it holds NaN or infinity.")
        seeds.append(seed[None])
    return seeds
