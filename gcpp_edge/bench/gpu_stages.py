"""Stages of a frame on a GPU, each by itself: what is between two points of the stream, over REPEATS of the stage.

The repeats are recorded as one CUDA graph where the network can be, so that launches do not count. What a stage reads
is then in the GPU's cache as far as it fits. With frames call by call the stages are so, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from gcpp_edge.aims import Aim, Question, resolve_aims
from gcpp_edge.bench.sampling import Plan, sample
from gcpp_edge.bench.subject import CAM, COPY_IN, COPY_OUT, NETWORK, PREPROCESS, Subject
from gcpp_edge.contract import GUIDED, PLAIN
from gcpp_edge.explainer import _How
from gcpp_edge.inference import Inference
from gcpp_edge.made import OVERLAY, can_draw
from gcpp_edge.methods import PAPER
from gcpp_edge.network import Network, maps_of

Work = Callable[[], object]

REPEATS = 10
PLAN = Plan(seconds=0.5, rounds=10, warm_up_ms=0.0)  # of a level


def gpu_stages_ms(subject: Subject, level: str) -> dict[str, list[float]]:
    """Milliseconds on the GPU of each stage of a batch at this level; more than the device holds at once is cut off."""
    device = subject.explainer._device
    return device.perform(lambda: _measured(subject, level))


def _measured(subject: Subject, level: str) -> dict[str, list[float]]:
    device: Any = subject.explainer._device
    recorded = subject.explainer._inference.network(level).runtime.can_be_recorded

    def timed(name: str, work: Work) -> Callable[[], dict[str, float]]:
        def repeated() -> None:
            for _ in range(REPEATS):
                work()

        def once() -> dict[str, float]:
            start = device.timestamp()
            device.replay(("bench", level, name) if recorded else None, repeated)
            return {name: device.elapsed_ms(start, device.timestamp()) / REPEATS}

        return once

    runs = {name: timed(name, work) for name, work in _works(subject, level).items()}
    taken = sample(runs, PLAN)
    device.wait()
    return {name: [one[name] for one in taken.stages_ms[name]] for name in runs}


class _Apart:
    """A device whose copies are stages of their own: frames are where they were sent, and fetches are noted."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self.fetched: dict[tuple[int, int], Any] = {}  # by address and size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def send(self, staged: Any) -> Any:
        return staged.buffer

    def fetch(self, buffer: Any) -> None:
        self.fetched[buffer.address, buffer.nbytes] = buffer


def _works(subject: Subject, level: str) -> dict[str, Work]:
    """The stages that this file has on the device, in their order."""
    inference, device = subject.explainer._inference, subject.explainer._device
    network, contract = inference.network(level), inference.contract
    part, call = _part_and_call(subject, level)
    part = part[: network.largest]
    buffers = network.buffers(network.batch or len(part))
    inputs = buffers[contract.input]
    staged = inference._stage(device, part, call.format, buffers)
    inference._feed(network, part, call.inputs, buffers)
    apart: Any = _Apart(device)
    works: dict[str, Work] = {}
    if any(one.source is not None for one in staged):  # on an integrated GPU the kernels read what was staged
        works[COPY_IN] = lambda: [device.send(one) for one in staged]
    if staged:
        works[PREPROCESS] = lambda: inference._preprocess(apart, part, staged, call.format, inputs)
    works[NETWORK] = network.runtime.run
    if level == PLAIN:
        apart.fetch(buffers[contract.scores.output])
    else:
        works[CAM] = lambda: inference._make_maps.begin(apart, buffers, call.method, call.mode)
        for name in inference._read[call.guided]:
            apart.fetch(buffers[name])
        if can_draw(contract, call.mode, call.format):
            frames = [one.buffer for one in staged] or [inputs[index] for index in range(len(part))]
            works[OVERLAY] = _drawing(inference, network, apart, part, frames, call)
    once = [*works.values()]
    device.replay(None, lambda: _all(once))  # fills what the stages read, and notes what is fetched
    fetched = [partial(device.fetch, buffer) for buffer in apart.fetched.values()]
    return works | {COPY_OUT: lambda: _all(fetched)}


def _all(works: Sequence[Work]) -> None:
    for work in works:
        work()


def _drawing(inference: Inference, network: Network, apart: Any, part: list[Any], frames: list[Any], call: Any) -> Work:
    """Range and overlay of each frame, as the explainer draws them."""
    fits = [frame.fit for frame in part]
    pictures = inference._artist.prepare(network, fits, call.format, (OVERLAY,))
    maps = network.buffers(network.batch or len(part))[maps_of(inference.contract.layer)]
    where: Any = SimpleNamespace(device=apart, scratch=network.scratch)
    return lambda: inference._artist.draw(where, maps, fits, frames, call.format, pictures)


def _part_and_call(subject: Subject, level: str) -> tuple[list[Any], Any]:
    """What the explainer makes of the subject's frames before it hands them on."""
    explainer = subject.explainer
    given, is_batch = explainer._list(subject.frames, subject.format)
    pictures, fits = explainer._checked(given, subject.format, is_batch)
    aims = resolve_aims(Question(seed=subject.seed), fits, explainer.contract)
    how = _How(None, PAPER, subject.format, level == GUIDED, OVERLAY)
    batch, call = explainer._call(given, pictures, fits, aims, None, how)
    if level == PLAIN:  # which asks for nothing
        batch = [frame._replace(aim=Aim((), {})) for frame in batch]
    return batch, call
