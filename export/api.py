"""From a source to an explained model on disk, and the Python calls that do the same in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnx import ModelProto

from gcpp_edge import contract
from gcpp_edge.contract import Contract, Geometry, Preprocessing
from gcpp_edge.errors import SourceError
from gcpp_edge.export.bake import BakeOptions, assumed_preprocessing, bake, contract_of, write_contract
from gcpp_edge.export.check import check as run_check
from gcpp_edge.export.coverage import Coverage, coverage_of, layers_of
from gcpp_edge.export.fidelity import Fidelity, check_half, compare, error_notes, noise, range_notes, reports, samples
from gcpp_edge.export.from_torch import ForwardModel, TorchSource
from gcpp_edge.export.graph import Graph
from gcpp_edge.export.layers import LayerCandidate
from gcpp_edge.export.scaling import Feeds, Halved, bake_half
from gcpp_edge.export.sources import (
    Loaded,
    from_torch_source,
    input_shape,
    load_model,
    load_onnx,
    load_source,
    read_labels,
)
from gcpp_edge.export.tensorrt_policy import concerns
from gcpp_edge.export.weights import filled
from gcpp_edge.export.write import WrittenFile, write_model


@dataclass(frozen=True)
class Report:
    """What an export did. seconds: by step. notes: what was assumed, one sentence each.

    files: what was written, `path` first; its weights lie in a second one above 2 GB. bytes: of all.
    fidelity: what half precision costs, by picture; empty without --precision.
    """

    path: Path
    contract: Contract
    seconds: dict[str, float]
    bytes: int
    notes: tuple[str, ...] = ()
    files: tuple[WrittenFile, ...] = ()
    fidelity: tuple[Fidelity, ...] = ()


@dataclass
class Steps:
    """Times the steps of an export and tells them to the caller."""

    tell: Callable[[str], None] | None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, message: str, function: Callable[[], Any]) -> Any:
        if self.tell:
            self.tell(message)
        start = time.perf_counter()
        result = function()
        self.seconds[name] = time.perf_counter() - start
        return result


def export_file(
    source: str,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    input_size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixel_max: float | None = None,
    color: str | None = None,
    geometry: str | None = None,
    share: float | None = None,
    fill: float | None = None,
    labels: str | Path | Sequence[str] | None = None,
    precision: str | None = None,
    pictures: Sequence[tuple[str, Any]] = (),
    check: bool = True,
    external_data: bool = False,
    progress: Callable[[str], None] | None = None,
    **fields: Any,
) -> Report:
    """Writes the explained model of a source and reports what it holds.

    source: see sources.FORMS. weights: a state dict. input_size: (height, width). mean, std: per channel, in units of
    pixel_max (1 or 255). precision: "fp16" or "bf16"; None leaves the source's. pictures: names and frames (H, W, 3)
    uint8 BGR, that half precision is calibrated and compared on; noise where there are none. fields: those of
    bake.BakeOptions: what is explained, and where. external_data: weights in a file of their own beside the output, as
    above 2 GB. What is written appears whole or not at all. Raises GcppError's children.
    """
    options = BakeOptions(**fields)
    output, steps = writable(output, source), Steps(progress)
    names = read_labels(labels)
    loaded = steps.run("load", f"Loading {source}", lambda: load_source(source, weights, input_size))
    overrides = Overrides(mean, std, pixel_max, color, geometry, share, fill)
    preprocessing, notes = settle_preprocessing(loaded, input_size, overrides)
    loaded = replace(loaded, preprocessing=preprocessing, labels=tuple(names or loaded.labels))
    half = _Half(precision, tuple(pictures))
    model, more = _made(loaded, options, input_size, half, check, steps)
    fidelity = half.compared(steps)
    files = steps.run("write", f"Writing {output}", lambda: write_model(model, output, external_data))
    written = sum(file.bytes for file in files)
    notes += (*more, *_concerns(model))
    return Report(output, contract_of(model), steps.seconds, written, notes, files, fidelity)


def _concerns(model: ModelProto) -> tuple[str, ...]:
    """What of the network's own graph TensorRT would refuse; other runtimes may take it."""
    plain = contract_of(model).levels[contract.PLAIN].nodes
    return tuple(concerns(Graph(model), model.graph.node[:plain]))


@dataclass
class _Half:
    """Half precision as it was asked for, and what was made. precision None: it was not."""

    precision: str | None
    pictures: tuple[tuple[str, Any], ...] = ()
    halved: Halved | None = None

    def compared(self, steps: Steps) -> tuple[Fidelity, ...]:
        """The fidelity report; nothing where there is none to give."""
        if self.halved is None or not reports(contract_of(self.halved.model)):
            return ()
        halved, pictures = self.halved, self.pictures or noise(contract_of(self.halved.model))
        return tuple(steps.run("compare", "Comparing with float32", lambda: compare(halved, pictures)))


def _made(
    loaded: Loaded, options: BakeOptions, input_size: tuple[int, int] | None, half: _Half, check: bool, steps: Steps
) -> tuple[ModelProto, tuple[str, ...]]:
    """The explained model of what was loaded, checked, and notes on it."""
    given: dict[str, Any] = {
        "input_size": input_size,
        "preprocessing": loaded.preprocessing,
        "labels": loaded.labels,
        "provenance": loaded.provenance,
    }
    forward, precision, writing = loaded.forward, half.precision, "Writing the backward pass"
    if precision is None:
        model = steps.run("differentiate", writing, lambda: bake(forward.model, options, **given))
        if check:
            steps.run("check", "Checking the gradients", lambda: checked(model, forward, options))
        return model, ()

    def feeds(described: Contract) -> list[Feeds]:
        return samples(described, half.pictures)

    made = steps.run("differentiate", writing, lambda: bake_half(forward.model, precision, feeds, options, **given))
    half.halved = made
    if check:
        checking = partial(_checked_half, made, precision, forward, options, feeds)
        notes: tuple[str, ...] = steps.run("check", "Checking the gradients", checking)
        return made.model, range_notes(made) + notes
    return made.model, range_notes(made)


def _checked_half(
    made: Halved,
    precision: str,
    forward: ForwardModel,
    options: BakeOptions,
    feeds: Callable[[Contract], list[Feeds]],
) -> tuple[str, ...]:
    """The backward pass is held against its oracle in float32, and then half precision against float32. Notes on it."""
    described = contract_of(made.model)
    figures = run_check(made.reference, contract_of(made.reference), forward, options)
    figures["half"] = check_half(made, precision, feeds(described))
    write_contract(made.model, replace(described, check=figures))
    return error_notes(figures["half"])


def explain_module(
    model: Any,
    example_input: Any,
    *,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    precision: str | None = None,
    check: bool = True,
    **fields: Any,
) -> ModelProto:
    """The explained ONNX model of a torch.nn.Module (or ExportedProgram), put into evaluation mode.

    example_input: a float tensor [N,C,H,W] or [N,C,T,H,W], or a tuple of it and the network's further inputs. The rest
    as in export_file.
    """
    loaded = from_torch_source(
        TorchSource(model, preprocessing, tuple(labels), type(model).__name__), None, example_input
    )
    return _explained(loaded, check, None, precision, fields)


def explain_onnx(
    model: ModelProto | str | Path,
    *,
    input_size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    precision: str | None = None,
    check: bool = True,
    **fields: Any,
) -> ModelProto:
    """The explained model of a forward ONNX model or file; needs no PyTorch. Options as in export_file."""
    if isinstance(model, ModelProto):
        loaded = load_model(model)
    elif isinstance(model, (str, Path)):
        loaded = load_onnx(Path(model))
    else:
        raise SourceError(f"explain_onnx takes an onnx.ModelProto or a path, not {type(model).__name__}.")
    loaded = replace(loaded, preprocessing=preprocessing, labels=tuple(labels))
    return _explained(loaded, check, input_size, precision, fields)


def _explained(
    loaded: Loaded, check: bool, input_size: tuple[int, int] | None, precision: str | None, fields: dict[str, Any]
) -> ModelProto:
    """The explained model of what was loaded. fields: of BakeOptions."""
    made, _ = _made(loaded, BakeOptions(**fields), input_size, _Half(precision), check, Steps(None))
    return filled(made)


def list_layers(
    source: str,
    *,
    weights: str | Path | None = None,
    input_size: tuple[int, int] | None = None,
    **fields: Any,
) -> list[LayerCandidate]:
    """The layers of a source that can be explained, from the input to the scores, the default marked.

    fields: of BakeOptions; `target` and `token_grid` matter here.
    """
    loaded = load_source(source, weights, input_size)
    return layers_of(loaded.forward.model, input_size, BakeOptions(**fields))


def inspect_coverage(
    source: str,
    *,
    weights: str | Path | None = None,
    input_size: tuple[int, int] | None = None,
    **fields: Any,
) -> Coverage:
    """Whether a source can be explained, at the map and at the guided level, and what blocks it.

    fields: of BakeOptions.
    """
    loaded = load_source(source, weights, input_size)
    return coverage_of(loaded.forward.model, input_size, BakeOptions(**fields))


def checked(model: ModelProto, forward: ForwardModel, options: BakeOptions = BakeOptions()) -> ModelProto:
    """The model with the figures of the self-check in its metadata; SelfCheckError where they do not hold."""
    described = contract_of(model)
    write_contract(model, replace(described, check=run_check(model, described, forward, options)))
    return model


def writable(output: str | Path, source: str = "") -> Path:
    """The path of a file that may be written: in a folder that exists, and nothing but a file of ours would be lost."""
    path = Path(output)
    if not str(output).strip() or path.is_dir():
        raise SourceError(f'The output "{output}" is a folder; expected a file, such as network.explained.onnx.')
    if not path.parent.is_dir():
        raise SourceError(f"{path.parent}: no such folder for the output file. Create it first.")
    if path.exists() and not path.is_file():
        raise SourceError(f"{path}: exists and is no ordinary file. Choose another output.")
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise SourceError(
            f"{path}: the output would replace the source. Choose another name, such as *.explained.onnx."
        )
    return path


# preprocessing


@dataclass(frozen=True)
class Overrides:
    """What the user said about preprocessing; None leaves what the source says."""

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    pixel_max: float | None = None
    color: str | None = None
    geometry: str | None = None
    share: float | None = None
    fill: float | None = None


def settle_preprocessing(
    loaded: Loaded, input_size: tuple[int, int] | None, given: Overrides
) -> tuple[Preprocessing, tuple[str, ...]]:
    """What the source documents, overridden by what the user said, and notes on what was assumed."""
    channels, frames, height, width = input_shape(loaded.forward.model, input_size)
    base = loaded.preprocessing or assumed_preprocessing(channels, height, width, frames)
    _require_known("color", given.color, contract.COLOR_ORDERS)
    _require_known("geometry", given.geometry, contract.GEOMETRIES)
    color = given.color or base.color
    if contract.CHANNELS[color] != channels:
        raise SourceError(f"--color {color} has {contract.CHANNELS[color]} channels; the input has {channels}.")
    result = replace(
        base,
        height=height,
        width=width,
        color=color,
        mean=_per_channel("mean", given.mean, base.mean, channels),
        std=_per_channel("std", given.std, base.std, channels),
        pixel_max=base.pixel_max if given.pixel_max is None else given.pixel_max,
        geometry=_geometry(base.geometry, given),
    )
    _require_plausible(result)
    silent = loaded.preprocessing is None and given == Overrides()
    note = (
        "The source does not say how it was trained to see pixels: assumed 0..1, stretched. "
        "Give --mean, --std, --color, --geometry."
    )
    return result, (note,) if silent else ()


def _require_known(option: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise SourceError(f'--{option} "{value}" is unknown; expected one of {", ".join(known)}.')


def _per_channel(
    option: str, given: Sequence[float] | None, base: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in (base if given is None else given))
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels:
        raise SourceError(f"--{option} has {len(numbers)} numbers; the input has {channels} channels.")
    return numbers


def _geometry(base: Geometry, given: Overrides) -> Geometry:
    kind = given.geometry or base.kind
    if given.share is not None and kind != "crop":
        raise SourceError(f"--share goes with --geometry crop; the geometry here is {kind}.")
    share = given.share if given.share is not None else base.share if kind == base.kind else 1.0
    if not 0.01 <= share <= 1:
        raise SourceError(f"--share {share:g} is out of range; expected 0.01 to 1.")
    fill = base.fill if given.fill is None else given.fill
    if not 0 <= fill <= 255:
        raise SourceError(f"--fill {fill:g} is out of range; expected a pixel value, 0 to 255.")
    return Geometry(kind, share, fill)


def _require_plausible(preprocessing: Preprocessing) -> None:
    if not all(0 < deviation < math.inf for deviation in preprocessing.std):
        raise SourceError("--std must be finite and above 0.")
    if not 0 < preprocessing.pixel_max < math.inf:
        raise SourceError("--pixel-max must be finite and above 0: 1 for pixels in 0..1, 255 for raw ones.")
    if not all(math.isfinite(number) for number in preprocessing.mean):
        raise SourceError("--mean must be finite.")
    if max(preprocessing.mean) > preprocessing.pixel_max:
        raise SourceError(
            f"--mean {max(preprocessing.mean):g} exceeds the largest pixel value {preprocessing.pixel_max:g}. "
            "Give --pixel-max 255 for a network trained on raw pixel values."
        )


__all__ = [
    "Coverage",
    "Report",
    "inspect_coverage",
    "explain_module",
    "explain_onnx",
    "export_file",
    "list_layers",
    "write_model",
]
