"""What `gcpp-edge bench` was asked for, checked before anything is measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gcpp_edge.errors import InputError

if TYPE_CHECKING:
    from gcpp_edge.bench.sampling import Plan
    from gcpp_edge.bench.subject import Settings
    from gcpp_edge.model_file import ModelFile

ALL, AUTO = "all", "auto"
STDOUT = "-"  # as the file of --json
SPINNING = {"on": True, "off": False}
LARGEST_SIDE = 16384  # of a frame: 800 MB


class Outputs(NamedTuple):
    """Files to write, None for those that nobody wants."""

    results: Path | None = None
    times: Path | None = None
    plot: Path | None = None


class Request(NamedTuple):
    """What is to be measured, besides of which models. load: the load average before anything of ours ran."""

    settings: Settings
    plan: Plan
    percentiles: tuple[float, ...]
    picture: Any
    load: float
    cold: bool


def outputs_of(json_file: str | None, times: Path | None = None, plot: Path | None = None) -> Outputs:
    """Files to write, of which each can be, as far as can be seen before an hour is spent on measuring."""
    from gcpp_edge.bench.plot import require_matplotlib

    json_path = None if json_file in (None, STDOUT) else Path(str(json_file))
    for option, path, suffix in (
        ("--json", json_path, ".json"),
        ("--export-times", times, ".json"),
        ("--plot", plot, ".png"),
    ):
        if path is None:
            continue
        if path.suffix.lower() != suffix:  # a model behind the option would be written over
            raise InputError(f"{option}: expected a file that ends in {suffix}, found {str(path)!r}.")
        if not path.absolute().parent.is_dir() or path.is_dir():
            raise InputError(f"{option}: {path} cannot be written: {path.parent} is no folder, or it is one itself.")
    if json_path is not None and times is not None and json_path.absolute() == times.absolute():
        raise InputError(f"--json and --export-times would both be {json_path}.")
    if plot is not None:
        require_matplotlib()
    return Outputs(json_path, times, plot)


def frame_of(text: str | None) -> tuple[tuple[int, int] | None, Any]:
    """Width and height, and a picture where one was named."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if found:
        width, height = int(found[1]), int(found[2])
        if not 1 <= min(width, height) <= max(width, height) <= LARGEST_SIDE:
            raise InputError(f"--frame: expected sides of 1 to {LARGEST_SIDE}, found {text!r}.")
        return (width, height), None
    if not Path(text).suffix:
        raise InputError(f"--frame: expected WIDTHxHEIGHT, as 1920x1080, or a picture file, found {text!r}.")
    from gcpp_edge.pictures import read_picture

    picture = read_picture(Path(text))
    return (picture.shape[1], picture.shape[0]), picture


def percentiles_of(text: str) -> tuple[float, ...]:
    """In their order, each once."""
    try:
        found = tuple(sorted({float(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        found = ()
    if not found or not 0 < found[0] <= found[-1] <= 100:
        raise InputError(f"--percentile: expected numbers above 0 and up to 100 with commas between, found {text!r}.")
    return found


def spins(text: str) -> bool:
    """Of on or off."""
    if text not in SPINNING:
        raise InputError(f"--spin: expected on or off, found {text!r}.")
    return SPINNING[text]


class Job(NamedTuple):
    """A model on a backend. why_not: what keeps it from being measured there, "" where nothing does."""

    file: ModelFile
    backend: str
    why_not: str = ""


def jobs_of(models: Sequence[Path], runtime: str, guided: bool) -> list[Job]:
    """Every model on every backend. Raises what is wrong with any of them before the first is measured."""
    from gcpp_edge.backends import BACKENDS, backends_for
    from gcpp_edge.bench.subject import refuse_unknown_inputs
    from gcpp_edge.contract import GUIDED
    from gcpp_edge.model_file import read_model_file

    if runtime != ALL:
        backends_for(runtime)  # refuses an unknown one
    files = [read_model_file(path) for path in models]
    for file in files:
        refuse_unknown_inputs(file.path, file.contract)
        if guided:
            file.require_level(GUIDED)
    if runtime != ALL:
        return [Job(file, runtime) for file in files]
    reasons = {name: BACKENDS[name].why_not() for name in backends_for(AUTO)}
    return [Job(file, name, reason) for file in files for name, reason in reasons.items()]
