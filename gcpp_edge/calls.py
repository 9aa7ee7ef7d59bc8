"""What a call hands to the network: its frames, and what they share."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from gcpp_edge.aims import Aim
from gcpp_edge.contract import GUIDED, MAP
from gcpp_edge.errors import InputError
from gcpp_edge.explanation import Explanation
from gcpp_edge.extra_inputs import ExtraValues
from gcpp_edge.geometry import FrameFit
from gcpp_edge.methods import Method


class Frame(NamedTuple):
    """One frame of a call: as it was passed, as the kernels take it (a clip's pictures), and what to explain.

    out: an earlier explanation that takes what is found.
    """

    original: Any
    pictures: list[Any]  # arrays, or one GpuFrame
    fit: FrameFit
    aim: Aim
    out: Explanation | None = None


class Call(NamedTuple):
    """What all frames of a call share. inputs: further ones of the network, which have no batch."""

    method: Method
    mode: str
    format: str
    guided: bool
    inputs: dict[str, NDArray[Any]]
    made: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """Of the network that it needs."""
        return GUIDED if self.guided else MAP


def batch_of(
    given: list[Any], pictures: list[list[Any]], fits: list[FrameFit], aims: list[Aim], extra: ExtraValues
) -> list[Frame]:
    """The frames of a call, each with what to explain and its further inputs."""
    if extra.by_frame:
        aims = [aim._replace(values=aim.values | more) for aim, more in zip(aims, extra.by_frame, strict=True)]
    return [Frame(*row) for row in zip(given, pictures, fits, aims, strict=True)]


def refilling(batch: list[Frame], out: Any, is_batch: bool) -> list[Frame]:
    """The frames with the explanations that are to take what is found. Raises InputError."""
    if out is None:
        return batch
    outs = list(out) if is_batch and isinstance(out, (list, tuple)) else [out]
    different = {id(one) for one in outs if isinstance(one, Explanation)}
    if not len(batch) == len(outs) == len(different):
        expected = f"a list of {len(batch)} different Explanations" if is_batch else "an Explanation"
        raise InputError(f"out: expected {expected} of earlier calls.")
    return [frame._replace(out=one) for frame, one in zip(batch, outs, strict=True)]
