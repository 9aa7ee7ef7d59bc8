"""Which form the backward pass takes where several are right: a matter of speed, measured, with a switch each.

"cpu" suits ONNX Runtime's CPU, which computes convolutions in a blocked layout (NCHWc): what reads or writes the plain
one costs a reorder, and an addition or a ReLU behind a convolution costs nothing. "gpu" suits TensorRT, which fuses
elementwise nodes by itself: it gets as few of them as possible. Every form gives the same numbers on every runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

from gcpp_edge.errors import SourceError


@dataclass(frozen=True)
class Lowerings:
    """The switches. What each gained is in docs/design.md and benchmarks/results/lowerings.json.

    sum_masks: a guided rectifier's mask is a sum of 0 or -2^61 in front of its ReLU, which a convolution takes in.
    phases: the backward pass of a strided convolution is one convolution a phase of the stride, and the phases are
    woven together as late as it pays. enter_blocked: a gradient that came up in the plain layout goes through a
    convolution that changes nothing, so that the sums of the residual branches behind it stay in the blocked one; and
    of what convolutions made, a branch that was concatenated takes its own filters.
    blocked_pools: the maximum's position is found by convolutions and sums, phase by phase.
    """

    sum_masks: bool = True
    phases: bool = True
    enter_blocked: bool = True
    blocked_pools: bool = True


TUNED = {"cpu": Lowerings(), "gpu": Lowerings(False, False, False, False)}


def lowerings_for(device: str) -> Lowerings:
    """The switches for "cpu" or "gpu"; SourceError for another word."""
    if device not in TUNED:
        raise SourceError(f'Tuned for "{device}"; expected one of {", ".join(TUNED)}.')
    return TUNED[device]
