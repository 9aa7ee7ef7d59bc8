"""A network of others, ready to be compared: built, its parameters redrawn, and pictures of a size that it takes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from autograd_oracle import redrawn

from gcpp_edge.contract import CLASS, REGION, TARGET
from gcpp_edge.export.bake import BakeOptions
from gcpp_edge.export.from_torch import import_torchvision
from gcpp_edge.export.scores import TargetOptions
from networks.names import torchvision_models

TARGETS = [3, 271]
SMALL = 128  # where a network takes it: kinks and sums are the same at any size
FIXED = {"Inception3": 299, "VGG": 224, "AlexNet": 224, "SwinTransformer": 224, "MaxVit": 224}
CLIPS = {"mvit": (16, 224, 224), "s3d": (16, 224, 224), "swin3d": (8, 64, 64)}  # frames, height, width
CLIP = (8, 64, 64)

# What a user has to say where the graph does not: no tensor [N,C,h,w] of that grid comes before.
TOLD: dict[str, dict[str, Any]] = {
    "timm:crossvit_tiny_240": {"layer": "blocks.2.blocks.0"},  # two branches with a grid each: one of them
    "timm:naflexvit_base_patch16_parfac_gap": {"token_grid": (8, 8)},
    "timm:gemma4_vit_167m": {"token_grid": (8, 8)},
    "timm:tnt_s_legacy_patch16_224": {"token_grid": (14, 14)},
}


@dataclass
class Subject:
    """module: in evaluation mode. shape: of one picture, [C,H,W] or [C,T,H,W]. told: options of `gcpp-edge export`.

    regions: of a segmentation, a mask [h,w] a picture on the grid of its scores: what is explained is the class summed
    over it.
    """

    module: Any
    shape: tuple[int, ...]
    targets: list[int]
    regions: Any = None
    told: dict[str, Any] = field(default_factory=dict)

    def score(self, scores: Any, place: int = 0) -> Any:
        """What is explained of the scores [n,K,1,..] or [n,K,h,w] of pictures from `place` on, summed."""
        targets = self.targets[place : place + len(scores)]
        chosen = scores[torch.arange(len(scores)), targets]
        if self.regions is None:
            return chosen.sum()
        return (chosen * torch.from_numpy(self.regions[place : place + len(scores)]).to(scores.dtype)).sum()

    def options(self) -> BakeOptions:
        kind = CLASS if self.regions is None else REGION
        return BakeOptions(guided=True, target=TargetOptions(kind=kind), **self.told)

    def feeds(self) -> dict[str, Any]:
        """The explained model's inputs besides the picture."""
        masks = {} if self.regions is None else {REGION: self.regions}
        return {TARGET: np.array(self.targets), **masks}

    def pictures(self) -> Iterator[Any]:
        """Batches of two, the same ones each time."""
        generator = torch.Generator().manual_seed(1)
        while True:
            yield torch.randn(len(self.targets), *self.shape, generator=generator)


def subject(name: str) -> Subject:
    """The network GROUP:MODEL at the smallest size that it takes."""
    group, _, model = name.partition(":")
    torch.manual_seed(0)
    network = _with_exact_constants(BUILDERS[group](model))
    for shape in SHAPES[group](model, network):
        try:
            ready = redrawn(network, shape, batch=2 if len(shape) > 3 else 8)
            scores = _scores(ready, shape)
        except (RuntimeError, AssertionError, ValueError) as error:  # a network's own way to say: not this size
            refused = error
        else:
            targets = [target % scores[1] for target in TARGETS]
            return Subject(ready, shape, targets, _regions(scores), TOLD.get(name, {}))
    raise refused


def _with_exact_constants(network: Any) -> Any:
    """Epsilons and scales as ONNX holds them, in float32: in float64, PyTorch and the file would differ in them."""
    for module in network.modules():
        for name, number in vars(module).items():
            if isinstance(number, float):
                setattr(module, name, float(np.float32(number)))
    return network


def _scores(network: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of its scores for two pictures."""
    with torch.no_grad():
        return tuple(scores_of(network(torch.zeros(2, *shape))).shape)


def _regions(scores: tuple[int, ...]) -> Any:
    """Ragged masks, other ones for each picture; None for a classifier."""
    if len(scores) < 4:
        return None
    return (np.random.default_rng(2).random((scores[0], *scores[2:])) < 0.3).astype(np.float32)


def scores_of(output: Any) -> Any:
    """The scores among what a network returns: the first of several."""
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


def _torchvision(model: str) -> Any:
    quick = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}  # theirs takes minutes
    return torchvision_models().get_model(model, weights=None, **quick)


def _segmentation(model: str) -> Any:
    return torchvision_models().get_model(model, weights=None, weights_backbone=None)


def _video(model: str) -> Any:
    return torchvision_models().get_model(model, weights=None)


def _timm(model: str) -> Any:
    import_torchvision()
    timm = importlib.import_module("timm")
    network = timm.create_model(model)
    return network if network.num_classes else timm.create_model(model, num_classes=1000)  # a backbone gets a head


def _torchvision_shapes(model: str, network: Any) -> list[tuple[int, ...]]:
    side = getattr(network, "image_size", None) or FIXED.get(type(network).__name__)
    return _squares(side) if isinstance(side, int) else _squares(SMALL, 224)


def _timm_shapes(model: str, network: Any) -> list[tuple[int, ...]]:
    """Small first, unless the network says that its size is fixed; VGG's head is a convolution of 7x7."""
    known = network.pretrained_cfg
    side = known["input_size"][1]
    fixed = known.get("fixed_input_size") or type(network).__name__ in FIXED
    return _squares(side) if fixed else _squares(SMALL, side)


def _video_shapes(model: str, network: Any) -> list[tuple[int, ...]]:
    return [(3, *next((clip for stem, clip in CLIPS.items() if model.startswith(stem)), CLIP))]


def _squares(*sides: int) -> list[tuple[int, ...]]:
    return [(3, side, side) for side in sides]


def _segmentation_shapes(model: str, network: Any) -> list[tuple[int, ...]]:
    return _squares(SMALL)


BUILDERS = {
    "torchvision": _torchvision,
    "torchvision-video": _video,
    "torchvision-segmentation": _segmentation,
    "timm": _timm,
}
SHAPES = {
    "torchvision": _torchvision_shapes,
    "torchvision-video": _video_shapes,
    "torchvision-segmentation": _segmentation_shapes,
    "timm": _timm_shapes,
}
