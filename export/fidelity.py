"""What half precision costs: the explained model against the same in float32, on pictures.

Both run as float32 models, the half one rounding after every node (rounding.py): a runtime that keeps to the types of
the file gives these numbers, whatever this machine's does.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from gcpp_edge.contract import CLASS, Contract
from gcpp_edge.errors import SelfCheckError
from gcpp_edge.explainer import Explainer
from gcpp_edge.explanation import Explanation
from gcpp_edge.export.bake import contract_of
from gcpp_edge.export.differences import input_dtype, relative, run, session_for, with_outputs
from gcpp_edge.export.precision import BF16
from gcpp_edge.export.probes import samples_of
from gcpp_edge.export.rounding import as_rounded
from gcpp_edge.export.scaling import Feeds, Halved
from gcpp_edge.export.write import write_model
from gcpp_edge.geometry import fit_frame, input_from_frame
from gcpp_edge.inference import pixel_arithmetic
from gcpp_edge.kernels import table
from gcpp_edge.loading import load

Frame = np.ndarray  # (H, W, 3) uint8 BGR
NOISE = 3  # pictures of noise, where none are given
# Relative L2 errors of gradients. Masks that round the other way are per cents (VGG-16 with random weights 6 % in fp16,
# where maps correlate by 1.000000): what is unusual is said, and only what no rounding explains is refused.
USUAL = {"fp16": 5e-2, "bf16": 2e-1}
LIMITS = {"fp16": 2.5e-1, "bf16": 5e-1}


@dataclass(frozen=True)
class Fidelity:
    """One picture's explanation in half precision beside the one in float32, both of the class that float32 finds best.

    correlation: Pearson's, of the maps; 1 where both are zero. difference: the largest, of the maps scaled to 0..1.
    same_class: whether both find the same class best. probability: its largest change over all classes.
    """

    picture: str
    correlation: float
    difference: float
    same_class: bool
    probability: float


def compare(halved: Halved, pictures: Iterable[tuple[str, Frame]]) -> list[Fidelity]:
    """The fidelity on each picture; RuntimeFailure where half precision gives infinities."""
    with tempfile.TemporaryDirectory(prefix="gcpp-edge-") as folder:
        paths = [Path(folder) / name for name in ("float32.onnx", "half.onnx")]
        for path, model in zip(paths, (halved.reference, as_rounded(halved.model)), strict=True):
            write_model(model, path)
        with load(paths[0]) as reference, load(paths[1]) as half:
            return [_compared(name, frame, reference, half) for name, frame in pictures]


def _compared(name: str, frame: Frame, reference: Explainer, half: Explainer) -> Fidelity:
    expected = reference(frame)
    found = half(frame, expected.class_index)
    both = [_scaled(one) for one in (expected, found)]
    changes = np.abs(found.probabilities() - expected.probabilities())
    return Fidelity(
        name,
        _correlation(*both),
        float(np.abs(both[0] - both[1]).max()),
        int(found.scores.argmax()) == int(expected.scores.argmax()),
        float(changes.max()),
    )


def _scaled(explanation: Explanation) -> np.ndarray:
    low, high = float(explanation.map.min()), float(explanation.map.max())
    return (explanation.map - low) / (high - low) if high > low else np.zeros_like(explanation.map)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float(np.ptp(first) == np.ptp(second))
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def noise(contract: Contract, seed: int = 0) -> list[tuple[str, Frame]]:
    """Pictures of blotches, at the size of the input."""
    generator, p = np.random.default_rng(seed), contract.preprocessing
    coarse = generator.integers(0, 256, (NOISE, -(-p.height // 8), -(-p.width // 8), 3), np.uint8)
    frames = coarse.repeat(8, 1).repeat(8, 2)[:, : p.height, : p.width]
    return [(f"noise {number}", np.ascontiguousarray(frame)) for number, frame in enumerate(frames, 1)]


def samples(contract: Contract, pictures: Sequence[tuple[str, Frame]] = ()) -> list[Feeds]:
    """The float32 inputs for calibration and check: the self-check's, and its targets on every picture."""
    base: list[Feeds] = [sample.feeds for sample in samples_of(contract)]
    if not reports(contract):
        return base
    images = [(_image(frame, contract), index) for index, (_, frame) in enumerate(pictures)]
    return base + [{**base[index % len(base)], contract.input: image} for image, index in images]


def _image(frame: Frame, contract: Contract) -> np.ndarray:
    p = contract.preprocessing
    scale, bias, fill = pixel_arithmetic(p)
    image = np.empty((1, p.channels, p.height, p.width), np.float32)
    rows, columns = input_from_frame(fit_frame(*frame.shape[:2], p))
    table().preprocess(frame, "bgr", rows, columns, p.color, scale, bias, fill, image[0])
    return image


def reports(contract: Contract) -> bool:
    """Whether pictures can be compared: for classifiers of pictures of any size."""
    other = contract.preprocessing.frames or contract.extra_inputs or contract.frame.height
    return contract.target.kind == CLASS and not other


def check_half(halved: Halved, precision: str, feeds: Sequence[Feeds]) -> dict[str, Any]:
    """Figures for the metadata: how far the gradients are from float32, and what of them float16 loses.

    Raises SelfCheckError where half precision gives infinities or NaN, naming the first tensor, or where the gradients
    are too far off.
    """
    rounded, contract = as_rounded(halved.model), contract_of(halved.model)
    half, reference = session_for(rounded), session_for(halved.reference)
    names = [output.name for output in rounded.graph.output]
    dtypes = {value.name: input_dtype(halved.model, value.name) for value in halved.model.graph.input}
    worst = 0.0
    for sample in feeds:
        cast = {name: array.astype(dtypes[name]) for name, array in sample.items()}
        found = dict(zip(names, run(half, names, cast), strict=True))
        _require_finite(found, rounded, cast, precision)
        for layer in contract.layers:
            (expected,) = run(reference, [layer.gradients], dict(sample))
            worst = max(worst, relative(found[layer.gradients].astype(np.float64) / layer.gradient_scale, expected))
    if not worst <= LIMITS[precision]:
        raise SelfCheckError(
            f"Gradients in {precision} differ from float32 by {worst:.1e} (limit {LIMITS[precision]:.0e}). "
            f"{_advice(precision)}"
        )
    figures: dict[str, Any] = {"precision": precision, "error": worst, "limit": LIMITS[precision]}
    if halved.scales is not None:
        figures |= {f"{name}_lost": share for name, share in halved.scales.lost.items()}
    return figures


def error_notes(figures: dict[str, Any]) -> tuple[str, ...]:
    """One sentence where the gradients are further off than usual; figures: those of check_half."""
    precision, error = figures["precision"], figures["error"]
    if error <= USUAL[precision]:
        return ()
    return (
        f"Gradients in {precision} differ from float32 by {error:.1e} on noise, where {USUAL[precision]:.0e} is usual: "
        "look at the fidelity report, best on pictures of your own (--fidelity).",
    )


def range_notes(halved: Halved) -> tuple[str, ...]:
    """One sentence on forward tensors that float16 holds badly; nothing where it holds all."""
    peaks = {} if halved.scales is None else halved.scales.peaks
    if not peaks:
        return ()
    name, peak = max(peaks.items(), key=lambda item: abs(math.log2(item[1])) if math.isfinite(item[1]) else math.inf)
    return (
        f'{len(peaks)} tensors leave the range of float16 in float32: the largest value of "{name}" is {peak:.1e}. '
        "Look at the fidelity report, or choose --precision bf16.",
    )


def _require_finite(found: dict[str, np.ndarray], rounded: ModelProto, feeds: Feeds, precision: str) -> None:
    if all(np.isfinite(array).all() for array in found.values()):
        return
    names = [node.output[0] for node in rounded.graph.node if node.op_type != "Cast"]
    names = [name for name in names if name.endswith("/exact")]
    arrays = run(session_for(with_outputs(rounded, names)), names, dict(feeds))
    for name, array in zip(names, arrays, strict=True):
        if not np.abs(array).max(initial=0) <= 65504:
            tensor = name.removesuffix("/exact")
            raise SelfCheckError(
                f'Tensor "{tensor}" leaves {precision}: it reaches {np.abs(array).max():.1e}. {_advice(precision)}'
            )
    raise SelfCheckError(f"The explained model gives NaN or infinity in {precision}. {_advice(precision)}")


def _advice(precision: str) -> str:
    return "Leave --precision out." if precision == BF16 else "Choose --precision bf16, or leave it out."
