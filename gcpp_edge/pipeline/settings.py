"""What can be changed while a stream runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from gcpp_edge.colormaps import palette_bgr
from gcpp_edge.contract import Contract
from gcpp_edge.errors import InputError
from gcpp_edge.methods import choose_method
from gcpp_edge.targets import Target, resolve_target


@dataclass(frozen=True)
class Settings:
    """How frames are explained and drawn; replaced whole, so a frame is made with one of them.

    method: None for the file's own. target: a class index, a negative rank or a name. alpha: weight of the colours, 0
    to 1. smooth_s: time constant of the smoothing in seconds, 0 for none. every: explain one frame of so many; those
    between carry its map.
    """

    method: str | None = None
    target: Target = -1
    alpha: float = 0.5
    colormap: str = "jet"
    smooth_s: float = 0.0
    every: int = 1


def changed(settings: Settings, contract: Contract, /, **changes: Any) -> Settings:
    """The settings with these changes. Raises InputError (TargetError, MethodError) for what the model refuses."""
    require_known(changes)
    found = replace(settings, **changes)
    choose_method(contract.method if found.method is None else found.method, contract)
    resolve_target(found.target, contract)
    palette_bgr(found.colormap)
    _require_number("alpha", found.alpha, 0, 1)
    _require_number("smooth_s", found.smooth_s, 0, 60)
    _require_number("every", found.every, 1, 10_000)
    if not isinstance(found.every, int):
        raise InputError(f"every: expected a whole number, found {found.every!r}.")
    return found


def require_known(names: Iterable[str]) -> None:
    """Raises InputError for a name that is no setting's."""
    known = [field.name for field in fields(Settings)]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"Unknown setting {unknown[0]!r}. Known: {', '.join(known)}.")


def _require_number(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"{name}: expected a number from {low} to {high}, found {value!r}.")
