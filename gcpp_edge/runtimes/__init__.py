"""Inference runtimes behind one interface: buffers in, buffers out.

A runtime takes the buffers of its caller and never allocates an output: `bind` every input and the outputs that are
wanted, fill the inputs, `run`. A buffer stays bound until another one takes its place.

To add a runtime: a file here with an `open_runtime`, and its name in RUNTIMES.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np

from gcpp_edge.device import Device
from gcpp_edge.errors import InputError


class TensorInfo(NamedTuple):
    """An input or output. A dimension that the batch or the caller decides is None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


class Runtime(Protocol):
    """A loaded network. One thread at a time.

    max_batch: the most frames at once, None for any number. has_twins: whether `twin` can be asked for. cuts_levels:
    whether it is one of CUTS_LEVELS. can_be_recorded: whether what `run` enqueues may be captured and replayed.
    """

    name: str
    max_batch: int | None
    has_twins: bool
    cuts_levels: bool
    can_be_recorded: bool
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def bind(self, name: str, buffer: Any) -> None:
        """Read an input from, or write an output to, this C-contiguous buffer of the runtime's device."""

    def run(self) -> None:
        """From the bound inputs to the bound outputs; on a GPU under way when it returns. Raises RuntimeFailure."""

    def twin(self, device: Device) -> Runtime:
        """Another runtime on the same weights, to work beside this one on that device's stream; closed before it."""

    def close(self) -> None:
        """Give back the network's memory. More than once does no harm."""


class RuntimeOptions(NamedTuple):
    """What is asked of a runtime; one that has no use for an option takes no notice of it.

    threads: 0 leaves the number to the runtime. spin: threads that wait burn their core, for a lower latency.
    level: what of the file is wanted, for a runtime that cuts by itself (CUTS_LEVELS). max_batch: the most frames at
    once, for a runtime that must know. tf32: a GPU may round float32 factors to ten bits of mantissa. cuda_graph: a
    runtime that cannot be recorded records its own work.
    """

    threads: int = 0
    spin: bool = False
    level: str = ""
    max_batch: int = 1
    tf32: bool = False
    cuda_graph: bool = False


RUNTIMES = {
    "onnxruntime": "gcpp_edge.runtimes.onnxruntime",
    "onnxruntime-tensorrt": "gcpp_edge.runtimes.onnxruntime_tensorrt",
    "tensorrt": "gcpp_edge.runtimes.tensorrt",
}
CUTS_LEVELS = frozenset({"tensorrt"})  # they take the whole file and leave out what the level does not need


def open_runtime(name: str, model: str | bytes, where: str, options: RuntimeOptions, device: Device) -> Runtime:
    """The network in `model` (a path or the file's bytes), loaded for buffers of this device.

    `where` names the file in errors; weights that bytes refer to lie in its folder.

    Raises ModelError for a network that the runtime refuses, MissingDependencyError where the runtime is missing.
    """
    if name not in RUNTIMES:
        raise InputError(f"Unknown runtime {name!r}. Known: {', '.join(RUNTIMES)}.")
    opener: Callable[..., Runtime] = import_module(RUNTIMES[name]).open_runtime
    return opener(model, where, options, device)
