"""TensorRT as it is on this machine: which of its two packages, which version, and what that one can do.

`tensorrt` is NVIDIA's package of servers and JetPack, `tensorrt_rtx` that of TensorRT for RTX; the interface is the
same. What differs between releases is looked for, not concluded from a version.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from gcpp_edge.errors import MissingDependencyError, RuntimeFailure

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"
TITLES = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT for RTX"}  # in the order in which they are taken
OLDEST = (10, 0)  # tensors by name alone, INT64 inputs
REFUSED = {
    (
        10,
        2,
        0,
    ): "others found a bug in that release and leave it out too (github.com/ultralytics/ultralytics/pull/14240)",
}
INSTALL = (
    "On a Jetson it comes with JetPack (make the environment with --system-site-packages); elsewhere: "
    "pip install tensorrt, or tensorrt-rtx"
)
MAX_REASONS = 3  # of TensorRT's lines in an error: those after the first ones follow from them

_logger = logging.getLogger("gcpp_edge.tensorrt")


class Features(NamedTuple):
    """What a release can do, by what its module holds.

    strongly_typed_flag: release 10 must be asked for strong types; 11 knows no others, and ignores the flag.
    compute_capability: builds for GPUs other than its own, and so without one. user_allocation: engines that allocate
    nothing as they run can be asked for. eager_kernels: kernels for the shapes at hand can be made before the first
    run.
    """

    strongly_typed_flag: bool
    tf32_flag: bool
    timing_cache: bool
    progress_monitor: bool
    compute_capability: bool
    hardware_compatibility: bool
    weight_streaming: bool
    user_allocation: bool
    eager_kernels: bool


@dataclass(frozen=True)
class Library:
    """A TensorRT that can be used. flavour: the name of its module."""

    module: Any
    flavour: str
    version: str
    features: Features
    log: Any  # our ILogger, see _log_of

    @property
    def title(self) -> str:
        """For people: "TensorRT 10.3.0"."""
        return f"{TITLES[self.flavour]} {self.version}"

    @contextmanager
    def errors(self) -> Iterator[list[str]]:
        """The lines that TensorRT logs as errors meanwhile."""
        lines: list[str] = []
        self.log.listen(lines)
        try:
            yield lines
        finally:
            self.log.forget(lines)

    def create(self, kind: str, where: str) -> Any:
        """A Builder or a Runtime. Raises RuntimeFailure where the machine has no driver for it."""
        with self.errors() as lines:
            try:
                return getattr(self.module, kind)(self.log)
            except TypeError as error:  # how its binding says that there is none
                raise RuntimeFailure(
                    f"{where}: {self.title} does not start ({reason_text(lines)}). Is there a GPU, and its driver?"
                ) from error

    def capabilities(self) -> dict[str, Any]:
        """The compute capabilities that can be built for: "8.6" and its value in TensorRT."""
        kinds = getattr(self.module, "ComputeCapability", None)
        named = {name: getattr(kinds, name) for name in dir(kinds) if re.fullmatch(r"SM\d{2,3}", name)}
        return {f"{name[2:-1]}.{name[-1]}": named[name] for name in sorted(named, key=lambda name: int(name[2:]))}


def load_library() -> Library:
    """`tensorrt`, else `tensorrt_rtx`. Raises MissingDependencyError with the reason why none can be used."""
    reasons = []
    for flavour in TITLES:
        try:
            return _library(flavour)
        except MissingDependencyError as error:
            reasons.append(str(error))
    installed = [reason for reason, flavour in zip(reasons, TITLES, strict=True) if is_installed(flavour)]
    raise MissingDependencyError(" ".join(installed) or f"TensorRT is not installed. {INSTALL}")


def usable(flavour: str) -> Library:
    """The library of this flavour. Raises MissingDependencyError with the reason why it cannot be used."""
    return _library(flavour)


def is_installed(flavour: str) -> bool:
    """Whether its module is there, without importing it."""
    try:
        return find_spec(flavour) is not None
    except (ImportError, ValueError):  # ValueError: a module that was put in place by hand, as tests do
        return True


def reason_text(lines: list[str]) -> str:
    """TensorRT's own words, in one line; those after the first few are left out."""
    found = list(dict.fromkeys(" ".join(line.split()) for line in lines))
    if not found:
        return "it gave no reason"
    rest = len(found) - MAX_REASONS
    return "; ".join(found[:MAX_REASONS]) + (f"; and {rest} more" if rest > 0 else "")


def _library(flavour: str) -> Library:
    try:
        module = import_module(flavour)
    except (ImportError, OSError) as error:  # OSError: one of its shared libraries is missing
        raise MissingDependencyError(f"{TITLES[flavour]} cannot be imported ({error}). {INSTALL}") from error
    return _checked(flavour, module)


@cache
def _checked(flavour: str, module: Any) -> Library:
    version = str(module.__version__)
    if flavour == TENSORRT:
        _require_known_good(version)
    return Library(module, flavour, version, _features(flavour, module), _log_of(module))


def _require_known_good(version: str) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    wanted = "Install 10.3 or newer."
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise MissingDependencyError(
            f"TensorRT {version} is older than {oldest}, the first that is driven here. {wanted}"
        )
    if numbers in REFUSED:
        raise MissingDependencyError(f"TensorRT {version} is refused: {REFUSED[numbers]}. {wanted}")


def _features(flavour: str, module: Any) -> Features:
    config, flags = module.IBuilderConfig, module.BuilderFlag
    network_flags = getattr(module, "NetworkDefinitionCreationFlag", None)
    return Features(
        strongly_typed_flag=hasattr(network_flags, "STRONGLY_TYPED"),
        tf32_flag=hasattr(flags, "TF32"),
        timing_cache=flavour == TENSORRT and hasattr(config, "create_timing_cache"),  # RTX has it, and does nothing
        progress_monitor=hasattr(module, "IProgressMonitor") and hasattr(config, "progress_monitor"),
        compute_capability=hasattr(module, "ComputeCapability") and hasattr(config, "set_compute_capability"),
        hardware_compatibility=hasattr(config, "hardware_compatibility_level"),
        weight_streaming=hasattr(flags, "WEIGHT_STREAMING"),
        user_allocation=hasattr(flags, "REQUIRE_USER_ALLOCATION"),
        eager_kernels=hasattr(module, "DynamicShapesKernelSpecializationStrategy"),
    )


def _log_of(module: Any) -> Any:
    """The one logger of this process: TensorRT keeps the first that it is given and ignores later ones."""
    severities = module.ILogger.Severity
    errors = (severities.ERROR, severities.INTERNAL_ERROR)

    class Log(module.ILogger):  # type: ignore[misc]
        """Hands errors to who listens, and all but verbose lines to Python's logging, at the level of debugging."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self._lock = threading.Lock()
            self._listeners: list[list[str]] = []

        def log(self, severity: Any, text: str) -> None:
            if severity == severities.VERBOSE:
                return
            _logger.debug("%s: %s", severity.name, text)
            if severity in errors:
                with self._lock:
                    for lines in self._listeners:
                        lines.append(text)

        def listen(self, lines: list[str]) -> None:
            with self._lock:
                self._listeners.append(lines)

        def forget(self, lines: list[str]) -> None:
            with self._lock:
                self._listeners = [other for other in self._listeners if other is not lines]

    return Log()
