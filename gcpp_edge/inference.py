"""Frames through the network: preprocess, run, make maps; and nothing allocated a frame but the answer."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.calls import Call, Frame
from gcpp_edge.contract import (
    CLASSES,
    DETECTION,
    DETECTION_INDEX,
    GUIDED,
    LEVELS,
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
from gcpp_edge.gpu_frames import GpuFrame
from gcpp_edge.kernels import KernelTable, table
from gcpp_edge.made import DeviceArtist, Pictures, can_draw, make_on_host
from gcpp_edge.maps import Found, MapMaker
from gcpp_edge.methods import display_range, single_range
from gcpp_edge.model_file import ModelFile
from gcpp_edge.network import Network, maps_of, open_level
from gcpp_edge.reuse import is_below_infinity, is_finite, kept
from gcpp_edge.runtimes import RuntimeOptions
from gcpp_edge.stopwatch import Stopwatch


class _Answers(NamedTuple):
    """What a network says besides scores and maps, by frame and target: (N, K, ...); None where it does not."""

    classes: NDArray[Any] | None
    detections: NDArray[Any] | None
    guided: NDArray[Any] | None


class Ticket(NamedTuple):
    """Frames that are under way: what to wait for, and what it was asked for."""

    network: Network
    buffers: dict[str, Any]
    part: list[Frame]
    call: Call
    clock: Stopwatch
    pictures: list[Pictures]  # under way on the device, by frame; empty where the host draws


class Inference:
    """The levels of a file that are loaded, each a network with buffers of its own. On the device's thread alone.

    A device with several slots has that many networks a level, on one copy of the weights: while one works on a part of
    a batch, the next part is staged.
    """

    def __init__(self, file: ModelFile, device: Device, runtime: str, options: RuntimeOptions) -> None:
        self.contract, self._file, self._device = file.contract, file, device
        self._runtime, self._options = runtime, options
        self._networks: dict[tuple[str, int], Network] = {}
        self._is_closed = False
        self._pixel_arithmetic = pixel_arithmetic(file.contract.preprocessing)
        self._make_maps = MapMaker(file.contract, str(file.path))
        self._artist, self._host = DeviceArtist(file.contract), table()
        self._read = {guided: self._read_names(guided) for guided in (False, True)}
        self._clip_parts: list[NDArray[Any]] = []  # a picture and a clip
        self.scores_ms: dict[str, float] = defaultdict(float)  # all that scores() took, by step; not of a GPU

    def explain(self, batch: list[Frame], call: Call) -> list[list[Explanation]]:
        """For each frame an explanation of each of its targets."""
        parts = _parts(batch, self.network(call.level).largest)
        if len(parts) == 1:
            return self.finish(self.begin(batch, call))
        found: list[list[Explanation]] = []
        waiting: deque[Ticket] = deque()
        for number, part in enumerate(parts):
            if len(waiting) == self.slots(call.level):
                found += self.finish(waiting.popleft())
            waiting.append(self.begin(part, call, number))
        while waiting:
            found += self.finish(waiting.popleft())
        return found

    def scores(
        self, batch: list[Frame], format: str, shared: dict[str, NDArray[Any]], out: NDArray[np.float32]
    ) -> None:
        """The network's output for each frame into `out`, (N, *shape)."""
        network, start = self.network(PLAIN), 0
        for part in _parts(batch, network.largest):
            out[start : start + len(part)] = self._scores_of(network, part, format, shared)
            start += len(part)

    def close(self) -> None:
        """Give back networks and buffers. More than once does no harm."""
        self._is_closed = True
        for network in reversed(self._networks.values()):  # twins before the one whose weights they use
            network.close()
        self._networks.clear()

    def network(self, level: str, slot: int = 0) -> Network:
        """The network of this level and slot, loaded where it is not yet."""
        if self._is_closed:
            raise RuntimeFailure(f"{self._file.path}: this explainer is closed. Load the model again.")
        if level not in LEVELS:
            raise InputError(f"Unknown level {level!r}. Known: {', '.join(LEVELS)}.")
        if (level, slot) not in self._networks:
            self._networks[level, slot] = self._loaded(level, slot)
        return self._networks[level, slot]

    def _loaded(self, level: str, slot: int) -> Network:
        device = self._device.slot(slot)
        if slot == 0:
            runtime = open_level(self._file, level, device, self._runtime, self._options)
        else:
            runtime = self.network(level).runtime.twin(device)
        return Network(self._file, level, device, runtime)

    def slots(self, level: str) -> int:
        """How many parts can be under way at once."""
        return self._device.slots if self.network(level).runtime.has_twins else 1

    def _read_names(self, guided: bool) -> list[str]:
        """The outputs that an explanation is made of, besides those that maps are."""
        kind = self.contract.target.kind
        names = {TARGET_CLASS: kind != SEED, DETECTION_INDEX: kind == DETECTION, GUIDED: guided}
        return [self._selected, *(name for name, is_there in names.items() if is_there)]

    def begin(self, part: list[Frame], call: Call, number: int = 0) -> Ticket:
        """Sets the frames under way; on the host they are done when this returns.

        part: as many as the network takes. number: of this part among those that follow each other. A ticket must be
        finished before as many more as there are slots are begun.
        """
        slot = number % self.slots(call.level) if number else 0
        network, clock = self.network(call.level, slot), Stopwatch()
        device = network.device
        buffers = network.buffers(network.batch or len(part))
        staged = self._stage(device, part, call.format, buffers)
        self._feed(network, part, call.inputs, buffers)
        targets, fits = len(part[0].aim.asked), [frame.fit for frame in part]
        drawn = not device.synchronous and bool(call.made) and can_draw(self.contract, call.mode, call.format)
        pictures = self._artist.prepare(network, fits, call.format, call.made) if drawn else []

        def mark(step: str) -> None:
            if device.synchronous:
                clock.mark(step)

        def work() -> None:
            frames = self._preprocess(device, part, staged, call.format, buffers[self.contract.input])
            mark("preprocess")
            network.runtime.run()
            mark("network")
            self._make_maps.begin(device, buffers, call.method, call.mode)
            for name in self._read[call.guided]:
                device.fetch(buffers[name])
            if pictures:
                maps = buffers[maps_of(self.contract.layer)]
                self._artist.draw(network, maps, fits, frames, call.format, pictures)
            mark("cam")

        key = _key(network, part, call.format, targets, call.method.name, call.mode, call.made)
        device.replay(key, work)
        return Ticket(network, buffers, part, call, clock, pictures)

    def finish(self, ticket: Ticket) -> list[list[Explanation]]:
        """Waits for what was begun: for each frame an explanation of each of its targets."""
        device, buffers, part, call = ticket.network.device, ticket.buffers, ticket.part, ticket.call
        targets = len(part[0].aim.asked)
        scores = self._read_scores(device, buffers, len(part), self._selected)
        if not device.synchronous:
            ticket.clock.mark("frame")
        found = self._make_maps.finish(device, buffers, len(part), targets, call.method, call.mode)
        answers = self._answers(device, buffers, call.guided)
        timings_ms = ticket.clock.shares_ms(len(part))
        explanations = []
        for index, frame in enumerate(part):
            own = kept(scores[index], frame.out.scores if frame.out else None)
            explanations.append(
                [
                    self._explanation(frame, (index, number), own, found, answers, call, dict(timings_ms))
                    for number in range(targets)
                ]
            )
        if call.made:
            self._add_pictures(ticket, explanations)
        return explanations

    def _add_pictures(self, ticket: Ticket, explanations: list[list[Explanation]]) -> None:
        if not ticket.pictures:
            for explanation in (one for group in explanations for one in group):
                make_on_host(explanation, ticket.call.made)
            return
        maps = ticket.buffers[maps_of(self.contract.layer)]
        for index, (explanation,) in enumerate(explanations):
            self._artist.read(ticket.network, explanation, maps[index], ticket.pictures[index])

    def _answers(self, device: Device, buffers: dict[str, Any], guided: bool) -> _Answers:
        """What else the network said, by frame and target."""
        asked, names = self._read[guided], (TARGET_CLASS, DETECTION_INDEX, GUIDED)
        found = [device.download(buffers[name]) if name in asked else None for name in names]
        if self.contract.target.kind != CLASSES:
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
        old = frame.out
        image = None if answers.guided is None else kept(answers.guided[place], old.drawing.guided if old else None)
        layer_maps = {
            name: kept(maps[place], old.layer_maps.get(name) if old else None) for name, maps in found.layers.items()
        }
        if len(layer_maps) == 1:
            (raw_map,) = layer_maps.values()
        else:
            raw_map = kept(found.maps[place], old.map if old else None)
        made = Explanation(
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
            layer_maps=layer_maps,
        )
        return made if old is None else old.refill(made)

    def _scores_of(
        self, network: Network, part: list[Frame], format: str, shared: dict[str, NDArray[Any]]
    ) -> NDArray[Any]:
        device, output = network.device, self.contract.scores.output
        buffers = network.buffers(network.batch or len(part))
        clock = Stopwatch()
        staged = self._stage(device, part, format, buffers)
        self._feed(network, part, shared, buffers)

        def work() -> None:
            self._preprocess(device, part, staged, format, buffers[self.contract.input])
            clock.mark("preprocess")
            network.runtime.run()
            clock.mark("network")
            device.fetch(buffers[output])

        device.replay(_key(network, part, format), work)
        if device.synchronous:
            for step, took_ms in clock.shares_ms(1).items():
                self.scores_ms[step] += took_ms
        return self._read_scores(device, buffers, len(part), output)

    def _stage(self, device: Device, part: list[Frame], format: str, buffers: dict[str, Any]) -> list[Any]:
        """The pictures where the device's kernels find them. Of what the file preprocesses, the input is filled."""
        inputs = buffers[self.contract.input]
        if self.contract.frame.height:
            for index, frame in enumerate(part):
                device.upload(frame.pictures[0], inputs[index])
            return []
        if not self.contract.preprocessing.frames:
            pictures = [frame.pictures[0] for frame in part]
            arrays = [one.original if isinstance(one, GpuFrame) else one for one in pictures]
            return [device.stage(("frame", index), array) for index, array in enumerate(arrays)]
        for index, frame in enumerate(part):
            self._stage_clip(device, frame, inputs[index], format)
        return []

    def _stage_clip(self, device: Device, frame: Frame, inputs: Any, format: str) -> None:
        """On the host, whatever the device: (C, T, H, W), of which the kernel writes planes that stand together."""
        if not self._clip_parts:
            shape = inputs.shape[0], *inputs.shape[2:]
            self._clip_parts = [np.empty(shape, inputs.dtype), np.empty(inputs.shape, inputs.dtype)]
        picture, clip = self._clip_parts
        for number, pixels in enumerate(frame.pictures):
            self._preprocess_picture(self._host, pixels, frame.fit, format, picture)
            clip[:, number] = picture
        device.upload(clip, inputs)

    def _preprocess(self, device: Device, part: list[Frame], staged: list[Any], format: str, inputs: Any) -> list[Any]:
        """Fills the inputs with what was staged. Returns the frames as buffers."""
        if self.contract.frame.height:
            return [inputs[index] for index in range(len(part))]
        frames = [device.send(picture) for picture in staged]
        for index, frame in enumerate(frames):
            self._preprocess_picture(device.kernels, frame, part[index].fit, format, inputs[index])
        return frames

    def _preprocess_picture(self, kernels: KernelTable, pixels: Any, fit: FrameFit, format: str, out: Any) -> None:
        rows, columns = input_from_frame(fit)
        color, (scale, bias, fill) = self.contract.preprocessing.color, self._pixel_arithmetic
        kernels.preprocess(pixels, format, rows, columns, color, scale, bias, fill, out)

    def _feed(
        self, network: Network, part: list[Frame], shared: dict[str, NDArray[Any]], buffers: dict[str, Any]
    ) -> None:
        """Fill the inputs besides the pictures."""
        device = network.device
        for index, frame in enumerate(part):
            for name, value in frame.aim.values.items():
                buffer = buffers[name][index : index + 1]
                device.upload(value if value.dtype == buffer.dtype else value.astype(buffer.dtype), buffer)
        for name, value in shared.items():
            device.upload(value, buffers[name])
        if not network.runtime.can_be_recorded:
            device.wait()  # ONNX Runtime may copy integers to the host for its nodes there, on a stream of its own

    @property
    def _selected(self) -> str:
        """The output that holds the scores of what is explained."""
        chosen = self.contract.target.kind in (REGION, DETECTION)
        return SELECTED_SCORES if chosen else self.contract.scores.output

    def _read_scores(self, device: Device, buffers: dict[str, Any], count: int, output: str) -> NDArray[Any]:
        """The device's own, which the next frame overwrites. Raises RuntimeFailure where they are not finite."""
        raw = device.download(buffers[output])[:count]
        shape = (self.contract.scores.classes,) if output == SELECTED_SCORES else self.contract.output_shape
        scores: NDArray[Any] = raw.reshape(count, *shape)
        # minus infinity is the logarithm of a probability that underflowed
        is_sound = is_below_infinity if self.contract.scores.kind == "log_softmax" else is_finite
        if not is_sound(scores):
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
        return Drawing(self.contract, self._host, frame.fit, shown, call.format, image)


def _key(network: Network, part: list[Frame], format: str, *more: Hashable) -> tuple[Any, ...] | None:
    """What work depends on besides what is staged and uploaded: sizes of frames above all. None: not to be recorded."""
    if network.device.synchronous or not network.runtime.can_be_recorded:
        return None
    shapes = tuple((frame.fit, *(picture.shape for picture in frame.pictures)) for frame in part)
    return network.level, format, shapes, *more


def _parts(batch: list[Frame], size: int | None) -> list[list[Frame]]:
    """The batch at once, or in parts of the most that the network takes."""
    step = size or max(len(batch), 1)
    return [batch[start : start + step] for start in range(0, len(batch), step)]


def pixel_arithmetic(pixels: Preprocessing) -> tuple[NDArray[np.float32], ...]:
    """scale, bias and fill of the preprocess kernel, (C,) float32: x = (pixel / 255 * pixel_max - mean) / std."""
    std, mean = np.array(pixels.std, np.float64), np.array(pixels.mean, np.float64)
    scale, bias = pixels.pixel_max / 255 / std, -mean / std
    fill = np.full(pixels.channels, pixels.geometry.fill)
    return tuple(values.astype(np.float32) for values in (scale, bias, fill))
