"""From a file to an explainer: which backend, and what is said where one cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gcpp_edge.backends import AUTO, BACKENDS, backends_for
from gcpp_edge.contract import MAP
from gcpp_edge.errors import DeviceError, InputError, MissingDependencyError, ModelError, RuntimeFailure
from gcpp_edge.explainer import Explainer
from gcpp_edge.model_file import read_model_file
from gcpp_edge.runtimes import RuntimeOptions

_log = logging.getLogger(__name__)
MAX_THREADS = 1024  # a runtime given a million of them takes all of the memory and does not come back


def load(
    path: str | Path,
    *,
    device: str = AUTO,
    level: str = MAP,
    method: str | None = None,
    threads: int = 0,
    spin: bool = False,
    tf32: bool = False,
    max_batch: int = 1,
    stream: int | None = None,
    cuda_graph: bool = False,
) -> Explainer:
    """An explainer for the explained model at `path`; a context manager.

    device: "tensorrt", "cuda" (ONNX Runtime on an NVIDIA GPU), "cpu", or "auto" for the first of them that can be
    used; "cuda-tensorrt" is ONNX Runtime with its own TensorRT provider. The explainer's `backend` is its name, and
    `passed_over` says why those before it cannot. level: what is loaded at once, "map" or "guided"; the other is loaded
    when first asked for. method: the default of its calls, else the file's. threads: of the runtime and, for large
    pictures, of the kernels; 0 leaves the number to them. spin: waiting threads burn their cores for a lower latency.
    tf32: on a GPU, float32 products in TF32: faster, and about three digits instead of seven. max_batch: the most
    frames that TensorRT takes at once, which must know before it builds; it works through longer lists in parts.
    stream: the handle of your own CUDA stream: frames are read after what it holds, and it waits for what is made.
    cuda_graph: ONNX Runtime on a GPU records the network as a CUDA graph of its own, which it can where all of a
    network's nodes run there (with TensorRT the whole frame is one anyway).
    Raises ModelError (NotExplainedError, ContractVersionError), MethodError, InputError, MissingDependencyError,
    DeviceError.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads: expected 0 (the runtime's choice) to {MAX_THREADS}, found {threads}.")
    if max_batch < 1:
        raise InputError(f"max_batch: expected at least 1, found {max_batch}.")
    *others, last = backends_for(device)
    file = read_model_file(path)
    options = RuntimeOptions(threads, spin, max_batch=max_batch, tf32=tf32, cuda_graph=cuda_graph)
    passed_over: dict[str, str] = {}
    opened = partial(
        Explainer, file, level=level, method=method, options=options, passed_over=passed_over, stream=stream
    )
    for name in others:
        found = _opened_or_reason(name, opened)
        if isinstance(found, Explainer):
            return found
        passed_over[name] = found
    reason = BACKENDS[last].why_not()
    if reason:
        raise DeviceError(f"device={last!r} cannot be used here: {reason}.")
    return opened(last)


def _opened_or_reason(name: str, opened: Callable[[str], Explainer]) -> Explainer | str:
    """The explainer on this backend, or why it cannot be had."""
    reason = BACKENDS[name].why_not()
    if reason:
        return reason
    try:
        return opened(name)
    except (ModelError, RuntimeFailure, DeviceError, MissingDependencyError) as error:
        _log.warning("not on %s: %s", name, error)
        return str(error)
