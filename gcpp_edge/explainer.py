"""From frames to explanations: preprocess, network, map; and nothing allocated a frame but the answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import GUIDED, LEVELS, MAP, PLAIN, TARGET, TARGET_CLASS, Contract, Preprocessing
from gcpp_edge.device import AUTO, Device, open_device
from gcpp_edge.errors import InputError, ModelError, RuntimeFailure
from gcpp_edge.explanation import Drawing, Explanation
from gcpp_edge.frames import check_frame, frame_size, list_frames
from gcpp_edge.geometry import FrameFit, fit_frame, input_from_frame
from gcpp_edge.methods import PAPER, Method, choose_method, display_range, reference_maps
from gcpp_edge.model_file import ModelFile, read_model_file
from gcpp_edge.network import MAPS, Network
from gcpp_edge.runtimes import RuntimeOptions
from gcpp_edge.targets import ResolvedTarget, Targets, resolve_targets

MAX_THREADS = 1024  # a runtime given a million of them takes all of the memory and does not come back


def load(
    path: str | Path,
    *,
    device: str = AUTO,
    level: str = MAP,
    method: str | None = None,
    threads: int = 0,
    spin: bool = False,
) -> Explainer:
    """An explainer for the explained model at `path`; a context manager.

    device: "auto" or "cpu". level: what is loaded at once, "map" or "guided"; the other is loaded when first asked
    for. method: the default of its calls, else the file's. threads: 0 leaves the number to the runtime. spin: waiting
    threads burn their cores for a lower latency.
    Raises ModelError (NotExplainedError, ContractVersionError), MethodError, InputError, MissingDependencyError.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads: expected 0 (the runtime's choice) to {MAX_THREADS}, found {threads}.")
    file = read_model_file(path)
    return Explainer(file, open_device(device), level, method, RuntimeOptions(threads, spin))


class _Frame(NamedTuple):
    """One frame of a call: as it was passed, as the kernels take it, and what to explain."""

    original: NDArray[Any]
    pixels: NDArray[Any]
    fit: FrameFit
    target: ResolvedTarget


class _Call(NamedTuple):
    """What all frames of a call share."""

    method: Method
    mode: str
    format: str
    guided: bool


class Explainer:
    """An explained model, ready to run. Made by `load`.

    One lock stands around every call, so threads may share an explainer; they wait for each other. After the first
    call of a batch size only explanations are allocated. Levels are separate networks with weights of their own: a
    call that asks for the guided image, or for scores alone, loads its level the first time.
    """

    def __init__(
        self, file: ModelFile, device: Device, level: str, method: str | None, options: RuntimeOptions
    ) -> None:
        self._file = file
        self._device = device
        self._options = options
        self._lock = threading.RLock()
        self._networks: dict[str, Network] = {}
        self._is_closed = False
        self._method = method or file.contract.method
        self._pixel_arithmetic = pixel_arithmetic(file.contract.preprocessing)
        if len(file.contract.layer.space) != 2:
            raise ModelError(
                f"{file.path}: its layer {file.contract.layer.name!r} has the extent {file.contract.layer.space}; "
                "this version explains pictures, which have two axes (height, width)."
            )
        choose_method(self._method, file.contract)
        self.runtime_name = f"{self._network(level).runtime.name}, kernels {device.kernels.isa}"

    @property
    def contract(self) -> Contract:
        """All that the file says of itself."""
        return self._file.contract

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, empty where the file holds none."""
        return self._file.contract.labels

    @overload
    def __call__(
        self,
        frames: NDArray[Any],
        target: Targets = -1,
        *,
        method: str | None = None,
        mode: str = PAPER,
        guided: bool = False,
        format: str = "bgr",
    ) -> Explanation: ...

    @overload
    def __call__(
        self,
        frames: Sequence[NDArray[Any]],
        target: Targets = -1,
        *,
        method: str | None = None,
        mode: str = PAPER,
        guided: bool = False,
        format: str = "bgr",
    ) -> list[Explanation]: ...

    def __call__(
        self,
        frames: NDArray[Any] | Sequence[NDArray[Any]],
        target: Targets = -1,
        *,
        method: str | None = None,
        mode: str = PAPER,
        guided: bool = False,
        format: str = "bgr",
    ) -> Explanation | list[Explanation]:
        """Where the network looks: an Explanation, or a list of them for a batch.

        frames: one frame (frames.py says which shapes), or a list or tuple of them, of any sizes. target: a class
        index, a negative rank (-1 the best class) or a class name; or a list with one of these a frame. method: see
        methods.METHODS. mode: "paper", or "pytorch-grad-cam" or "authors" to compute as they do. guided: also the
        pixel-space image; needs a file exported with --guided.
        Raises FrameError, TargetError, MethodError, ModelError (a level that the file lacks), RuntimeFailure.
        """
        given, is_batch = list_frames(frames, format)
        call = _Call(choose_method(method or self._method, self.contract, mode), mode, format, guided)
        batch = self._frames(given, format, is_batch, resolve_targets(target, len(given), self.contract))
        with self._lock:
            network = self._network(GUIDED if guided else MAP)
            explanations = [one for part in _parts(batch, network.batch) for one in self._explain(network, part, call)]
        return explanations if is_batch else explanations[0]

    def scores(self, frames: Any, format: str = "bgr") -> NDArray[np.float32]:
        """The network's output for each frame, (N, classes) float32, at the cost of plain inference.

        Raises FrameError, RuntimeFailure.
        """
        given, is_batch = list_frames(frames, format)
        batch = self._frames(given, format, is_batch, resolve_targets(-1, len(given), self.contract))
        with self._lock:
            network = self._network(PLAIN)
            parts = [self._scores_of(network, part, format) for part in _parts(batch, network.batch)]
        return np.concatenate(parts) if parts else np.empty((0, self.contract.scores.classes), np.float32)

    def close(self) -> None:
        """Give back networks and buffers; explanations stay good. More than once does no harm."""
        with self._lock:
            self._is_closed = True
            for network in self._networks.values():
                network.close()
            self._networks.clear()

    def __enter__(self) -> Explainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Explainer({str(self._file.path)!r}, {self.runtime_name})"

    def _network(self, level: str) -> Network:
        if self._is_closed:
            raise RuntimeFailure(f"{self._file.path}: this explainer is closed. Load the model again.")
        if level not in LEVELS:
            raise InputError(f"Unknown level {level!r}. Known: {', '.join(LEVELS)}.")
        if level not in self._networks:
            self._networks[level] = Network(self._file, level, self._device, self._options)
        return self._networks[level]

    def _frames(self, given: Sequence[Any], format: str, is_batch: bool, targets: list[ResolvedTarget]) -> list[_Frame]:
        batch = []
        for index, (frame, target) in enumerate(zip(given, targets, strict=True)):
            pixels = check_frame(frame, format, f"frame {index}" if is_batch else "frame")
            fit = fit_frame(*frame_size(pixels, format), self.contract.preprocessing)
            batch.append(_Frame(frame, pixels, fit, target))
        return batch

    def _explain(self, network: Network, part: list[_Frame], call: _Call) -> Iterator[Explanation]:
        times = [perf_counter()]
        buffers = network.buffers(network.batch or len(part))
        self._preprocess(part, call.format, buffers[self.contract.input])
        times.append(perf_counter())
        self._set_targets(part, buffers[TARGET])
        network.runtime.run()
        scores = self._read_scores(buffers, len(part))
        times.append(perf_counter())
        maps, poles = self._maps(buffers, len(part), call)
        times.append(perf_counter())
        classes = self._device.download(buffers[TARGET_CLASS])
        images = self._device.download(buffers[GUIDED]) if call.guided else None
        shares = [1e3 * (stop - start) / len(part) for start, stop in zip(times, times[1:], strict=False)]
        timings_ms = dict(zip(("preprocess", "network", "cam"), shares, strict=True))
        for index, frame in enumerate(part):
            image = None if images is None else images[index].astype(np.float32)
            yield Explanation(
                target=frame.target.asked,
                class_index=int(classes[index]),
                scores=scores[index],
                map=maps[index],
                poles=poles[index],
                method=call.method.name,
                mode=call.mode,
                frame=frame.original,
                timings_ms=dict(timings_ms),
                drawing=self._drawing(frame, maps[index], image, call),
            )

    def _scores_of(self, network: Network, part: list[_Frame], format: str) -> NDArray[np.float32]:
        buffers = network.buffers(network.batch or len(part))
        self._preprocess(part, format, buffers[self.contract.input])
        network.runtime.run()
        return self._read_scores(buffers, len(part))

    def _preprocess(self, part: list[_Frame], format: str, inputs: Any) -> None:
        color, (scale, bias, fill) = self.contract.preprocessing.color, self._pixel_arithmetic
        for index, frame in enumerate(part):
            rows, columns = input_from_frame(frame.fit)
            self._device.kernels.preprocess(
                frame.pixels, format, rows, columns, color, scale, bias, fill, inputs[index]
            )

    def _set_targets(self, part: list[_Frame], buffer: Any) -> None:
        targets = np.zeros(buffer.shape, buffer.dtype)
        targets[: len(part)] = [frame.target.value for frame in part]
        self._device.upload(targets, buffer)

    def _read_scores(self, buffers: dict[str, Any], count: int) -> NDArray[np.float32]:
        """(count, classes) float32, a copy. Raises RuntimeFailure where they are not finite."""
        raw = self._device.download(buffers[self.contract.scores.output])[:count]
        scores: NDArray[np.float32] = raw.reshape(count, -1).astype(np.float32)
        is_sound = np.isfinite(scores)
        if self.contract.scores.kind == "log_softmax":
            is_sound |= np.isneginf(scores)  # the logarithm of a probability that underflowed
        if not is_sound.all():
            raise RuntimeFailure(
                f"{self._file.path}: the network's scores are not finite (NaN or infinity). Its weights are damaged, "
                "or it overflows in float16: export it in float32."
            )
        return scores

    def _maps(self, buffers: dict[str, Any], count: int, call: _Call) -> tuple[NDArray[np.float32], list[int]]:
        """Raw maps, (count, h, w), a copy; and each one's count of poles. RuntimeFailure where they are not finite."""
        layer = self.contract.layer
        activations, gradients = buffers[layer.activations], buffers[layer.gradients]
        if call.mode == PAPER:
            maps, poles = self._kernel_maps(activations, gradients, buffers[MAPS], count, call.method)
        else:
            A, g = (self._device.download(buffer)[:count] for buffer in (activations, gradients))
            maps, poles = reference_maps(call.mode, call.method, A, g, layer.gradient_scale), [0] * count
        if not np.isfinite(maps).all():
            raise RuntimeFailure(
                f"{self._file.path}: the map of layer {layer.name!r} is not finite (NaN or infinity). "
                "The network overflows there, in float16 most likely: export it in float32."
            )
        return maps, poles

    def _kernel_maps(
        self, activations: Any, gradients: Any, maps: Any, count: int, method: Method
    ) -> tuple[NDArray[np.float32], list[int]]:
        """Frame by frame, since poles are counted for each."""
        scale = self.contract.layer.gradient_scale
        frames = [slice(i, i + 1) for i in range(count)]
        poles = [
            self._device.kernels.cam(
                activations[one], gradients[one], method.rule, method.relu, maps[one], gradient_scale=scale
            )
            for one in frames
        ]
        return self._device.download(maps)[:count].copy(), poles

    def _drawing(
        self, frame: _Frame, raw_map: NDArray[np.float32], image: NDArray[np.float32] | None, call: _Call
    ) -> Drawing:
        height, width = frame.fit.rows.input, frame.fit.columns.input
        shown = display_range(call.mode, raw_map, height, width)
        return Drawing(self.contract, self._device.kernels, frame.fit, shown, call.format, image)


def _parts(batch: list[_Frame], size: int | None) -> list[list[_Frame]]:
    """The batch at once, or in parts of the one size that the network takes."""
    step = size or max(len(batch), 1)
    return [batch[start : start + step] for start in range(0, len(batch), step)]


def pixel_arithmetic(pixels: Preprocessing) -> tuple[NDArray[np.float32], ...]:
    """scale, bias and fill of the preprocess kernel, (C,) float32: x = (pixel / 255 * pixel_max - mean) / std."""
    std, mean = np.array(pixels.std, np.float64), np.array(pixels.mean, np.float64)
    scale, bias = pixels.pixel_max / 255 / std, -mean / std
    fill = np.full(pixels.channels, pixels.geometry.fill)
    return tuple(values.astype(np.float32) for values in (scale, bias, fill))
