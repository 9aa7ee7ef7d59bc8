"""Frames through the network: preprocess, run, make maps; and nothing allocated a frame but the answer."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.aims import Aim
from gcpp_edge.contract import (
    CLASS,
    CLASSES,
    DETECTION,
    DETECTION_INDEX,
    GUIDED,
    LEVELS,
    MAP,
    PLAIN,
    REGION,
    SEED,
    SELECTED_SCORES,
    TARGET_CLASS,
    Preprocessing,
)
from gcpp_edge.device import Device
from gcpp_edge.errors import InputError, RuntimeFailure
from gcpp_edge.explanation import NO_CLASS, Drawing, Explanation
from gcpp_edge.geometry import FrameFit, input_from_frame
from gcpp_edge.maps import Found, MapMaker
from gcpp_edge.methods import Method, display_range, single_range
from gcpp_edge.model_file import ModelFile
from gcpp_edge.network import Network
from gcpp_edge.runtimes import RuntimeOptions


class _Answers(NamedTuple):
    """What a network says besides scores and maps, by frame and target: (N, K, ...); None where it does not."""

    classes: NDArray[Any] | None
    detections: NDArray[Any] | None
    guided: NDArray[Any] | None


class Frame(NamedTuple):
    """One frame of a call: as it was passed, as the kernels take it (a clip's pictures), and what to explain."""

    original: Any
    pictures: list[NDArray[Any]]
    fit: FrameFit
    aim: Aim


class Call(NamedTuple):
    """What all frames of a call share. inputs: further ones of the network, which have no batch."""

    method: Method
    mode: str
    format: str
    guided: bool
    inputs: dict[str, NDArray[Any]]


class Inference:
    """The levels of a file that are loaded, each a network with buffers of its own. One thread at a time."""

    def __init__(self, file: ModelFile, device: Device, options: RuntimeOptions) -> None:
        self.contract, self._file, self._device, self._options = file.contract, file, device, options
        self._networks: dict[str, Network] = {}
        self._is_closed = False
        self._pixel_arithmetic = pixel_arithmetic(file.contract.preprocessing)
        self._make_maps = MapMaker(file.contract, device, str(file.path))
        self._clip_picture: NDArray[Any] | None = None

    def explain(self, batch: list[Frame], call: Call) -> list[list[Explanation]]:
        """For each frame an explanation of each of its targets."""
        network = self.network(GUIDED if call.guided else MAP)
        return [one for part in _parts(batch, network.batch) for one in self._explain(network, part, call)]

    def scores(self, batch: list[Frame], format: str, shared: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The network's output for each frame, (N, *shape)."""
        network = self.network(PLAIN)
        parts = [self._scores_of(network, part, format, shared) for part in _parts(batch, network.batch)]
        return np.concatenate(parts) if parts else np.empty((0, *self._output_shape), np.float32)

    def close(self) -> None:
        """Give back networks and buffers. More than once does no harm."""
        self._is_closed = True
        for network in self._networks.values():
            network.close()
        self._networks.clear()

    def network(self, level: str) -> Network:
        """The network of this level, loaded where it is not yet."""
        if self._is_closed:
            raise RuntimeFailure(f"{self._file.path}: this explainer is closed. Load the model again.")
        if level not in LEVELS:
            raise InputError(f"Unknown level {level!r}. Known: {', '.join(LEVELS)}.")
        if level not in self._networks:
            self._networks[level] = Network(self._file, level, self._device, self._options)
        return self._networks[level]

    @property
    def _output_shape(self) -> tuple[int, ...]:
        """Of the scores behind the batch, as they are given out."""
        target = self.contract.target
        return (self.contract.scores.classes,) if target.kind in (CLASS, CLASSES) else target.shape

    def _explain(self, network: Network, part: list[Frame], call: Call) -> Iterator[list[Explanation]]:
        times = [perf_counter()]
        buffers = network.buffers(network.batch or len(part))
        self._preprocess(part, call.format, buffers[self.contract.input])
        times.append(perf_counter())
        self._feed(part, call.inputs, buffers)
        network.runtime.run()
        scores = self._read_scores(buffers, len(part), self._selected)
        times.append(perf_counter())
        found = self._make_maps(buffers, len(part), len(part[0].aim.asked), call.method, call.mode)
        times.append(perf_counter())
        shares = [1e3 * (stop - start) / len(part) for start, stop in zip(times, times[1:], strict=False)]
        timings_ms = dict(zip(("preprocess", "network", "cam"), shares, strict=True))
        answers = self._answers(buffers, call.guided)
        for index, frame in enumerate(part):
            yield [
                self._explanation(frame, (index, number), scores[index], found, answers, call, dict(timings_ms))
                for number in range(len(frame.aim.asked))
            ]

    def _answers(self, buffers: dict[str, Any], guided: bool) -> _Answers:
        """What else the network said, by frame and target."""
        kind = self.contract.target.kind
        names = {TARGET_CLASS: kind != SEED, DETECTION_INDEX: kind == DETECTION, GUIDED: guided}
        found = [self._device.download(buffers[name]) if is_there else None for name, is_there in names.items()]
        if kind != CLASSES:
            found = [None if values is None else values[:, None] for values in found]
        return _Answers(*found)

    def _explanation(
        self,
        frame: Frame,
        place: tuple[int, int],
        scores: NDArray[np.float32],
        found: Found,
        answers: _Answers,
        call: Call,
        timings_ms: dict[str, float],
    ) -> Explanation:
        """Of the frame and target at `place` in the arrays."""
        image = None if answers.guided is None else answers.guided[place].astype(np.float32)
        raw_map = found.maps[place]
        return Explanation(
            target=frame.aim.asked[place[1]],
            class_index=NO_CLASS if answers.classes is None else int(answers.classes[place]),
            scores=scores,
            map=raw_map,
            poles=found.poles[place[0]][place[1]],
            method=call.method.name,
            mode=call.mode,
            frame=frame.original,
            timings_ms=timings_ms,
            drawing=self._drawing(frame, raw_map, image, call),
            detection=None if answers.detections is None else int(answers.detections[place]),
            layer_maps={name: maps[place] for name, maps in found.layers.items()},
        )

    def _scores_of(
        self, network: Network, part: list[Frame], format: str, shared: dict[str, NDArray[Any]]
    ) -> NDArray[np.float32]:
        buffers = network.buffers(network.batch or len(part))
        self._preprocess(part, format, buffers[self.contract.input])
        self._feed(part, shared, buffers)
        network.runtime.run()
        return self._read_scores(buffers, len(part), self.contract.scores.output)

    def _preprocess(self, part: list[Frame], format: str, inputs: Any) -> None:
        for index, frame in enumerate(part):
            if self.contract.frame.height:  # the file preprocesses
                self._device.upload(frame.pictures[0], inputs[index])
                continue
            if not self.contract.preprocessing.frames:
                self._preprocess_picture(frame.pictures[0], frame.fit, format, inputs[index])
                continue
            if self._clip_picture is None:
                self._clip_picture = np.empty((inputs.shape[1], *inputs.shape[3:]), inputs.dtype)
            for number, picture in enumerate(frame.pictures):  # the kernel writes planes that stand together
                self._preprocess_picture(picture, frame.fit, format, self._clip_picture)
                self._device.upload(self._clip_picture, inputs[index, :, number])

    def _preprocess_picture(self, pixels: NDArray[Any], fit: FrameFit, format: str, out: Any) -> None:
        rows, columns = input_from_frame(fit)
        color, (scale, bias, fill) = self.contract.preprocessing.color, self._pixel_arithmetic
        self._device.kernels.preprocess(pixels, format, rows, columns, color, scale, bias, fill, out)

    def _feed(self, part: list[Frame], shared: dict[str, NDArray[Any]], buffers: dict[str, Any]) -> None:
        """Fill the inputs besides the pictures."""
        for index, frame in enumerate(part):
            for name, value in frame.aim.values.items():
                buffer = buffers[name][index : index + 1]
                self._device.upload(value if value.dtype == buffer.dtype else value.astype(buffer.dtype), buffer)
        for name, value in shared.items():
            self._device.upload(value, buffers[name])

    @property
    def _selected(self) -> str:
        """The output that holds the scores of what is explained."""
        chosen = self.contract.target.kind in (REGION, DETECTION)
        return SELECTED_SCORES if chosen else self.contract.scores.output

    def _read_scores(self, buffers: dict[str, Any], count: int, output: str) -> NDArray[np.float32]:
        """float32, a copy. Raises RuntimeFailure where they are not finite."""
        raw = self._device.download(buffers[output])[:count]
        shape = (self.contract.scores.classes,) if output == SELECTED_SCORES else self._output_shape
        scores: NDArray[np.float32] = raw.reshape(count, *shape).astype(np.float32)
        is_sound = np.isfinite(scores)
        if self.contract.scores.kind == "log_softmax":
            is_sound |= np.isneginf(scores)  # the logarithm of a probability that underflowed
        if not is_sound.all():
            raise RuntimeFailure(
                f"{self._file.path}: the network's scores are not finite (NaN or infinity). Its weights are damaged, "
                "or it overflows in float16: export it in float32."
            )
        return scores

    def _drawing(
        self, frame: Frame, raw_map: NDArray[np.float32], image: NDArray[np.float32] | None, call: Call
    ) -> Drawing:
        height, width = frame.fit.rows.input, frame.fit.columns.input
        if self.contract.others or raw_map.ndim == 3:
            shown = single_range(call.mode, raw_map)
        else:
            shown = display_range(call.mode, raw_map, height, width)
        return Drawing(self.contract, self._device.kernels, frame.fit, shown, call.format, image)


def _parts(batch: list[Frame], size: int | None) -> list[list[Frame]]:
    """The batch at once, or in parts of the one size that the network takes."""
    step = size or max(len(batch), 1)
    return [batch[start : start + step] for start in range(0, len(batch), step)]


def pixel_arithmetic(pixels: Preprocessing) -> tuple[NDArray[np.float32], ...]:
    """scale, bias and fill of the preprocess kernel, (C,) float32: x = (pixel / 255 * pixel_max - mean) / std."""
    std, mean = np.array(pixels.std, np.float64), np.array(pixels.mean, np.float64)
    scale, bias = pixels.pixel_max / 255 / std, -mean / std
    fill = np.full(pixels.channels, pixels.geometry.fill)
    return tuple(values.astype(np.float32) for values in (scale, bias, fill))
