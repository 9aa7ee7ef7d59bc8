"""What the self-check feeds an explained model, and the gradient at its logits that this asks for.

Three samples: two targets on one picture, and the first target on another picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gcpp_edge.contract import (
    CHANNELS,
    CHANNELS_FIRST,
    CLASSES,
    DETECTION,
    REGION,
    SEED,
    TARGET,
    TOKENS,
    Contract,
    FrameInput,
    Layer,
)

Array = np.ndarray


@dataclass(frozen=True)
class Sample:
    """feeds: inputs by name, a batch of one. classes: what target_class must say, empty where there is none."""

    feeds: dict[str, Array]
    classes: tuple[int, ...]


def samples_of(contract: Contract, dtype: Any = np.float32, seed: int = 0) -> list[Sample]:
    """The three samples."""
    generator = np.random.default_rng(seed)
    framed = contract.frame.height > 0
    images = _frames(contract.frame, generator) if framed else _images(contract, generator).astype(dtype)
    extra = {entry.name: _filled(entry.shape, entry.dtype, generator) for entry in contract.extra_inputs}
    first, second, fixed = _aims(contract, generator, dtype)
    samples = []
    for image, (feeds, classes) in zip(images, (first, second, first), strict=True):
        samples.append(Sample({contract.input: image[None], **extra, **fixed, **feeds}, classes))
    return samples


def _images(contract: Contract, generator: np.random.Generator) -> Array:
    """Two pictures of blotches, the first one twice, normalised as the network expects. [3,*input]"""
    p = contract.preprocessing
    clip = p.input_shape[1:-2]
    pixels = _blotches(generator, (2, *p.input_shape)) * p.pixel_max
    mean, std = (np.array(numbers).reshape(-1, *(1,) * (len(clip) + 2)) for numbers in (p.mean, p.std))
    return np.asarray(((pixels - mean) / std)[[0, 0, 1]])


def _frames(frame: FrameInput, generator: np.random.Generator) -> Array:
    """The same as uint8 frames. [3,H,W,C], or [3,H,W] of grey."""
    channels = () if frame.format == "gray" else (CHANNELS[frame.format],)
    pixels = np.rint(255 * _blotches(generator, (2, *channels, frame.height, frame.width))).astype(np.uint8)
    return np.ascontiguousarray((np.moveaxis(pixels, 1, -1) if channels else pixels)[[0, 0, 1]])


def _blotches(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Squares of eight pixels with some grain, in [0, 1]; the last two axes are space.

    Without the grain all patches within a blotch would be the same, and attention among them would have no choice.
    """
    *lead, height, width = shape
    coarse = generator.uniform(0, 1, (*lead, -(-height // 8), -(-width // 8)))
    whole = coarse.repeat(8, -2).repeat(8, -1)[..., :height, :width]
    return np.asarray(0.8 * whole + 0.2 * generator.uniform(0, 1, whole.shape))


def _filled(shape: tuple[int | str, ...], dtype: str, generator: np.random.Generator) -> Array:
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    kind = np.dtype(dtype)
    return generator.normal(size=sizes).astype(kind) if kind.kind == "f" else np.ones(sizes, kind)


Aim = tuple[dict[str, Array], tuple[int, ...]]


def _aims(contract: Contract, generator: np.random.Generator, dtype: Any) -> tuple[Aim, Aim, dict[str, Array]]:
    """Two targets, and what goes with both."""
    target, classes = contract.target, contract.scores.classes
    if target.kind == SEED:
        given = [generator.normal(size=(1, *target.shape)).astype(dtype) for _ in range(2)]
        return ({SEED: given[0]}, ()), ({SEED: given[1]}, ()), {}
    order = generator.permutation(classes)
    if target.kind == CLASSES:
        picked = [tuple(int(n) for n in np.roll(order, -shift)[: target.count]) for shift in (0, 1)]
    else:
        picked = [(int(order[0]),), (int(order[1 % classes]),)]
    aims = [({TARGET: np.array([numbers if target.kind == CLASSES else numbers[0]])}, numbers) for numbers in picked]
    fixed: dict[str, Array] = {}
    if target.kind == REGION:
        height, width = target.shape[1:]
        region = np.zeros((1, height, width), np.float32)
        region[:, height // 4 : -(-height * 3 // 4), width // 4 : -(-width * 3 // 4)] = 1
        fixed[REGION] = region
    elif target.kind == DETECTION:
        fixed[DETECTION] = np.array([int(generator.integers(target.shape[1 - target.class_axis]))])
    return aims[0], aims[1], fixed


def seeds_of(contract: Contract, sample: Sample, logits: Array) -> Array:
    """The gradient of each explained scalar at the logits, [K,*logits.shape[1:]] float64. logits: [1,...]."""
    target, shape = contract.target, logits.shape[1:]
    if target.kind == SEED:
        return sample.feeds[SEED].astype(np.float64)
    seeds = np.zeros((len(sample.classes), *shape))
    for seed, number in zip(seeds, sample.classes, strict=True):
        if target.kind == DETECTION:
            _mark_detection(contract, int(sample.feeds[DETECTION][0]), number, logits[0], seed)
        else:
            seed[number] = sample.feeds[REGION][0] if target.kind == REGION else 1
    return seeds


def _mark_detection(contract: Contract, index: int, number: int, logits: Array, seed: Array) -> None:
    place = [index, index]
    place[contract.target.class_axis] = contract.target.first_class + number
    p = float(logits[tuple(place)])
    seed[tuple(place)] = 1 / max(p - p * p, 1e-6) if contract.scores.kind == "sigmoid" else 1


def full_gradients(layer: Layer, stored: Array) -> Array:
    """dS/dA [K,C,*space] float64 from what the file gives for a batch of one; K is 1 where targets are not several."""
    shape = (layer.channels, *layer.space)
    rows = stored.astype(np.float64).reshape(-1, *stored.shape[-len(shape) :]) / layer.gradient_scale
    return np.broadcast_to(rows, (len(rows), *shape))


def map_of(layer: Layer, array: Array) -> Array:
    """[..,*layout of the source tensor] -> [..,C,*space]; the leading axes stay."""
    if layer.layout == CHANNELS_FIRST:
        return array
    if layer.layout == TOKENS:
        grid = np.moveaxis(array[..., layer.skip :, :], -1, -2)
        return grid.reshape(*grid.shape[:-1], *layer.space)
    return np.moveaxis(array, -1, -1 - len(layer.space))


def tensor_of(layer: Layer, array: Array) -> Array:
    """[C,*space] -> the layout of the source tensor, zero at tokens before the grid."""
    if layer.layout == CHANNELS_FIRST:
        return array
    if layer.layout == TOKENS:
        tokens = array.reshape(layer.channels, -1).T
        return np.concatenate([np.zeros((layer.skip, layer.channels)), tokens])
    return np.moveaxis(array, 0, -1)
