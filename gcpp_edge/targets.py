"""Which class to explain: an index, a rank, or a name."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import Contract
from gcpp_edge.errors import TargetError

_SHOWN = 5  # candidates in a message

Target = int | str
Targets = Target | Sequence[Target] | NDArray[np.integer[Any]]


class ResolvedTarget(NamedTuple):
    """What was asked for, and what the network is given for it: a class index, or a negative rank."""

    asked: Target
    value: int


def resolve_targets(target: Targets, count: int, contract: Contract) -> list[ResolvedTarget]:
    """One target a frame. `target`: one for all frames, or a sequence of `count`.

    Raises TargetError.
    """
    if not isinstance(target, (list, tuple, np.ndarray)) or getattr(target, "ndim", 1) == 0:
        target = [cast(Target, target)] * count
    if len(target) != count:
        raise TargetError(f"target: expected one, or one a frame ({count}); found {len(target)}.")
    return [ResolvedTarget(one, resolve_target(one, contract)) for one in target]


def resolve_target(target: Target, contract: Contract) -> int:
    """A class index, or a negative rank (-1 the best class), as the network takes it.

    The graph itself would take an index out of range and answer zero, so it is refused here, with TargetError.
    """
    if isinstance(target, str):
        return index_of_label(target, contract.labels)
    if isinstance(target, (bool, np.bool_)):
        raise TargetError(f"target: expected a class index, a negative rank or a class name, found {target}.")
    try:
        index = operator.index(target)
    except TypeError as error:
        raise TargetError(
            f"target: expected a class index, a negative rank or a class name, found {type(target).__name__}."
        ) from error
    classes, ranks = contract.scores.classes, min(contract.ranks, contract.scores.classes)
    if not -ranks <= index < classes:
        raise TargetError(
            f"target {index}: this model has classes 0 to {classes - 1}, and ranks -1 (best) to -{ranks}."
            + (" Export with --ranks for deeper ones." if index < 0 else "")
        )
    return index


def index_of_label(name: str, labels: Sequence[str]) -> int:
    """The class of this name: the same but for case, else the only one that contains it.

    Raises TargetError for no match, with the nearest names, and for several, with their indices.
    """
    if not labels:
        raise TargetError(f"target {name!r}: this model holds no class names. Use an index, or export with --labels.")
    wanted = name.strip().lower()
    if not wanted:
        raise TargetError("target: expected a class name, found an empty text.")
    lowered = [label.lower() for label in labels]
    matches = [index for index, label in enumerate(lowered) if label == wanted]
    matches = matches or [index for index, label in enumerate(lowered) if wanted in label]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        near = difflib.get_close_matches(wanted, lowered, _SHOWN, cutoff=0.5)
        advice = f" Near it: {', '.join(near)}." if near else " gcpp-edge inspect lists them."
        raise TargetError(f"target {name!r}: no class of this name.{advice}")
    shown = ", ".join(f"{index} {labels[index]!r}" for index in matches[:_SHOWN])
    more = f", and {len(matches) - _SHOWN} more" if len(matches) > _SHOWN else ""
    raise TargetError(f"target {name!r}: {len(matches)} classes match: {shown}{more}. Use an index.")


def label_of(index: int, labels: Sequence[str]) -> str:
    """The name of a class, or "class 7" where the model holds none."""
    return labels[index] if index < len(labels) else f"class {index}"
