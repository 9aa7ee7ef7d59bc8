"""What one frame's explanation holds, and the pictures that are made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gcpp_edge.boxes import Box, component_boxes, frame_boxes
from gcpp_edge.colormaps import palette_bgr, palette_rgb
from gcpp_edge.contract import REGION, SEED, Contract
from gcpp_edge.errors import InputError, ShapeError
from gcpp_edge.frames import check_frame, has_colors, picture_of
from gcpp_edge.fusion import map_at
from gcpp_edge.geometry import Axes, FrameFit, frame_from_map, input_from_map
from gcpp_edge.kernels import KernelTable
from gcpp_edge.methods import Range
from gcpp_edge.reuse import matches
from gcpp_edge.targets import Target, label_of

if TYPE_CHECKING:
    from gcpp_edge.pipeline.capture import Capture

NO_CLASS = -1  # class_index where the caller's own seed is explained
UNSEEN_DIM = 0.4  # brightness that is left of what the network did not see
_BGR_ORDERS = {"rgb": [2, 1, 0], "bgr": [0, 1, 2], "gray": [0], "rgba": [2, 1, 0, 3], "bgra": [0, 1, 2, 3]}


class Drawing(NamedTuple):
    """What pictures of an explanation need besides its map."""

    contract: Contract
    kernels: KernelTable
    fit: FrameFit
    range: Range
    format: str
    guided: NDArray[np.float32] | None  # (C, [T,] H, W), in the network's channel order


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Where the network looked in one frame, for one class.

    It owns its map and scores, so it stays true while the explainer works on; `frame` is the caller's own array, and
    a frame that is overwritten shows in overlay().

    target: what was asked for. class_index: what that is, -1 of a seed. scores: (classes,) float32: the network's
    output as it is; of a region their mean over it, of a detection its own, of a seed the whole output. map: (h, w)
    float32, raw; of several layers the mean of their normalised ones (fusion.py); of a clip (t, h, w). poles: how often
    a weight met a pole (gradcam++-signed). method, mode: how the map was made. timings_ms: preprocess, network, cam; of
    a batch the frame's equal part; on a GPU, which works through all of it at once, frame. detection: the index of the
    one that was explained. layer_maps: raw, by layer. made: the pictures that the call asked for (make=), by name, as
    heatmap() and overlay() draw them. on_device: the same and the map as buffers of the GPU, where they were made
    there; the explainer's next call overwrites them. capture: of a stream's frame, its id and timestamp.

    A call with out= fills an explanation again: it and its arrays then say what that call found.
    Of a clip, what draws takes `index`, a picture of it, or gives all of them, stacked.
    """

    target: Target
    class_index: int
    scores: NDArray[np.float32]
    map: NDArray[np.float32]
    poles: int
    method: str
    mode: str
    frame: Any
    timings_ms: dict[str, float]
    drawing: Drawing = field(repr=False)
    detection: int | None = None
    layer_maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    made: dict[str, NDArray[Any]] = field(default_factory=dict)
    on_device: dict[str, Any] = field(default_factory=dict)
    capture: Capture | None = None
    _spare: dict[str, NDArray[Any]] = field(default_factory=dict)  # room to draw in, and pictures to be made again

    def refill(self, found: Explanation) -> Explanation:
        """Itself, holding what `found` holds."""
        self._spare.update(self.made)
        vars(self).update(vars(found) | {"_spare": self._spare})
        return self

    def spare(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any] | None:
        """An array of this name, shape and dtype that an earlier call left to be filled again, or None."""
        array = self._spare.get(name)
        return array if matches(array, shape, dtype) else None

    def _room(self, name: str, shape: tuple[int, ...], is_kept: bool) -> NDArray[np.float32]:
        """float32 to work in, kept for the next time where `is_kept`."""
        found = self.spare(name, shape, np.float32)
        room = np.empty(shape, np.float32) if found is None else found
        if is_kept:
            self._spare[name] = room
        return room

    @property
    def label(self) -> str:
        """The class's name, or "class 7" where the model holds none; "seed" where no class is explained."""
        if self.class_index == NO_CLASS:
            return SEED
        return label_of(self.class_index, self.drawing.contract.labels)

    @property
    def score(self) -> float:
        """The class's value in `scores`. InputError where a seed is explained."""
        self._require_class("score")
        return float(self.scores[self.class_index])

    @property
    def probability(self) -> float:
        """The class's probability, 0 to 1; never a softmax of a softmax. InputError where a seed is explained."""
        self._require_class("probability")
        return float(self.probabilities()[self.class_index])

    @property
    def evidence(self) -> float:
        """Sum of the raw map, of several layers the first one's. Normalised pictures make noise look certain."""
        return float(self._raw_map.sum(dtype=np.float64))

    @property
    def peak(self) -> float:
        """Maximum of the raw map, of several layers the first one's."""
        return float(self._raw_map.max())

    @property
    def _raw_map(self) -> NDArray[np.float32]:
        return next(iter(self.layer_maps.values()), self.map)

    def probabilities(self) -> NDArray[np.float64]:
        """Every class's probability, (classes,) float64, by the kind of the network's scores.

        Of a region it is that of the mean logits. Raises InputError where a seed is explained.
        """
        self._require_class("probabilities")
        contract = self.drawing.contract
        kind = contract.scores.kind
        if contract.target.kind == REGION:  # its scores are logits, whatever the network ends in
            kind = "logistic" if kind == "sigmoid" else "logits"
        return probabilities(self.scores, kind)

    def top(self, count: int = 5) -> list[tuple[int, str, float]]:
        """The most probable classes, best first: (index, label, probability)."""
        if count < 1:
            raise InputError(f"top: expected a count of at least 1, found {count}.")
        chances = self.probabilities()
        best = np.argsort(-self.scores, kind="stable")[:count]
        return [(int(i), label_of(int(i), self.drawing.contract.labels), float(chances[i])) for i in best]

    def picture(self, index: int) -> Explanation:
        """Of a clip: its picture `index` (negative from the end), with the map at its time, shown in the clip's range.

        Raises InputError where there is no such picture.
        """
        count = self.drawing.contract.preprocessing.frames
        if self.map.ndim == 2:
            raise InputError("index: this explains one picture, not a clip. Leave it out.")
        if not -count <= index < count:
            raise InputError(f"index: expected a picture of the clip, 0 to {count - 1}, found {index}.")
        index %= count
        image = self.drawing.guided
        still = None if image is None else np.ascontiguousarray(image[:, index])
        return replace(
            self,
            frame=self.frame[index],
            map=map_at(self.map, index, count),
            layer_maps={name: map_at(raw, index, count) for name, raw in self.layer_maps.items()},
            drawing=self.drawing._replace(guided=still),
        )

    def heatmap(
        self,
        space: str = "frame",
        out: NDArray[Any] | None = None,
        dtype: DTypeLike = np.float32,
        index: int | None = None,
    ) -> NDArray[Any]:
        """The map in [0, 1], (H, W), at the size of the frame or of the network's "input".

        dtype: float32, or uint8 as round(255 v). out: a buffer to fill instead, of either dtype.
        What the network did not see is 0. Raises InputError, ShapeError.
        """
        if self._is_clip(index):
            return self._each(index, out, lambda one, place: one.heatmap(space, place, dtype))
        axes, height, width = self._axes(space)
        if out is None:
            out = np.empty((height, width), dtype)
        elif np.shape(out) != (height, width):
            raise ShapeError(f"heatmap: expected an out of {(height, width)}, found {np.shape(out)}.")
        self.drawing.kernels.heatmap(self.map, axes.rows, axes.columns, *self.drawing.range, out)
        return out

    def overlay(
        self,
        colormap: str = "jet",
        alpha: float = 0.5,
        out: NDArray[Any] | None = None,
        index: int | None = None,
    ) -> NDArray[Any]:
        """The coloured map over the frame, uint8, in the frame's channels; grey and NV12 frames become BGR.

        alpha: how much of the colours, 0 to 1. out: a buffer to fill instead; a colour frame itself will do.
        What the network did not see is dimmed. Raises InputError, ShapeError.
        """
        if self._is_clip(index):
            return self._each(index, out, lambda one, place: one.overlay(colormap, alpha, place))
        format = self.drawing.format
        palette = (palette_rgb if format.startswith("rgb") else palette_bgr)(colormap)
        axes, height, width = self._axes("frame")
        picture = check_frame(self.frame, format)
        if not has_colors(format):
            planes = self._room("planes", (3, height, width), is_kept=out is not None)
            picture = picture_of(picture, format, self.drawing.kernels, out, planes)
        if out is None:
            out = np.empty(picture.shape, np.uint8)
        self.drawing.kernels.overlay(
            picture, self.map, axes.rows, axes.columns, *self.drawing.range, palette, alpha, UNSEEN_DIM, out
        )
        return out

    def guided(self, out: NDArray[np.float32] | None = None, index: int | None = None) -> NDArray[np.float32]:
        """Guided Grad-CAM++: the map times the pixel-space backward image, (H, W, C) float32 at the input's size.

        Channels are BGR, BGRA or grey, as the network has them. out: a buffer to fill instead. Source: section 3.3.
        Raises InputError if the call did not ask for the guided image, ShapeError.
        """
        image = self.drawing.guided
        if image is None:
            raise InputError("guided: not computed in this call. Ask for it: explainer(frame, guided=True).")
        if self._is_clip(index):
            return self._each(index, out, lambda one, place: one.guided(place))
        axes, height, width = self._axes("input")
        order = _BGR_ORDERS[self.drawing.contract.preprocessing.color]
        product = self._room("product", image.shape, is_kept=out is not None)
        if out is None:
            out = np.empty((height, width, len(order)), np.float32)
        elif not matches(out, (height, width, len(order)), np.float32):
            raise ShapeError(f"guided: expected an out of float32 {(height, width, len(order))}, found {_found(out)}.")
        self.drawing.kernels.guided(self.map, axes.rows, axes.columns, *self.drawing.range, image, product)
        for place, channel in enumerate(order):
            out[:, :, place] = product[channel]
        return out

    def guided_picture(self, index: int | None = None) -> NDArray[np.uint8]:
        """The guided image to look at, (H, W, 3) uint8 BGR: middle grey is zero, and a few outliers are cut off."""
        if self._is_clip(index):
            return self._each(index, None, lambda one, place: one.guided_picture())
        image = self.guided()[:, :, :3]
        # the top 0.5 %: single pixels would otherwise leave all the rest grey
        unit = float(np.percentile(np.abs(image), 99.5)) or float(np.abs(image).max()) or 1.0
        picture = np.rint(128 + 127 * np.clip(image / unit, -1, 1)).astype(np.uint8)
        return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture

    def boxes(self, threshold: float = 0.25, index: int | None = None) -> list[Box]:
        """Where the evidence lies: a box for each connected part of the heatmap, in frame pixels, most evidence first.

        threshold: share of the maximum that belongs to a part, 0 to 1. index: of a clip, which picture; it must be
        given. Raises InputError.
        """
        if self._is_clip(index):
            if index is None:
                raise InputError("boxes: of which picture of the clip? Pass index=0, or another.")
            return self.picture(index).boxes(threshold)
        return frame_boxes(self.drawing.fit, component_boxes(self.heatmap("input"), threshold))

    def _is_clip(self, index: int | None) -> bool:
        """Whether drawing goes picture by picture; an index of what is no clip is refused with InputError."""
        if self.map.ndim == 2 and index is not None:
            self.picture(index)
        return self.map.ndim == 3

    def _each(
        self,
        index: int | None,
        out: NDArray[Any] | None,
        draw: Callable[[Explanation, NDArray[Any] | None], NDArray[Any]],
    ) -> NDArray[Any]:
        """A picture of the clip drawn, or all of them, stacked or into the rows of `out`."""
        if index is not None:
            return draw(self.picture(index), out)
        count = self.drawing.contract.preprocessing.frames
        if out is None:
            return np.stack([draw(self.picture(number), None) for number in range(count)])
        if len(out) != count:
            raise ShapeError(f"out: expected one of {count} pictures, found {len(out)}.")
        for number in range(count):
            draw(self.picture(number), out[number])
        return out

    def _require_class(self, what: str) -> None:
        if self.class_index == NO_CLASS:
            raise InputError(f"{what}: a seed was explained, which has no class. The network's output is in scores.")

    def _axes(self, space: str) -> tuple[Axes, int, int]:
        """Axes from this space to the map, and the space's height and width."""
        fit = self.drawing.fit
        if space == "frame":
            return frame_from_map(fit, *self.map.shape), fit.rows.frame, fit.columns.frame
        if space == "input":
            return input_from_map(fit, *self.map.shape), fit.rows.input, fit.columns.input
        raise InputError(f"heatmap: unknown space {space!r}. Known: frame, input.")

    def __repr__(self) -> str:
        chance = "" if self.class_index == NO_CLASS else f"probability={self.probability:.3f}, "
        return (
            f"Explanation({self.label!r}, class_index={self.class_index}, {chance}"
            f"method={self.method!r}, evidence={self.evidence:.3g})"
        )


def _found(array: Any) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__


def probabilities(scores: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    """Probabilities of scores of this kind (contract.SCORE_KINDS, or "logistic": logits of sigmoids). (classes,)."""
    exact = scores.astype(np.float64)
    if kind == "logits":
        powers = np.exp(exact - exact.max())  # the maximum off: exp of a large logit overflows
        exact = powers / powers.sum()
    elif kind == "log_softmax":
        exact = np.exp(exact)
    elif kind == "logistic":
        exact = 0.5 + 0.5 * np.tanh(exact / 2)  # 1 / (1 + exp(-x)), which does not overflow
    return exact
