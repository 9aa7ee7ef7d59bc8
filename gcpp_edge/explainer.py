"""From frames to explanations: what a call may be given, checked, and the lock around it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.aims import Aim, Question, resolve_aims, resolve_classes
from gcpp_edge.backends import BACKENDS
from gcpp_edge.calls import Call, Frame, batch_of, refilling
from gcpp_edge.clips import check_clip, list_clips
from gcpp_edge.contract import Contract
from gcpp_edge.device import open_device
from gcpp_edge.errors import ModelError, ShapeError
from gcpp_edge.explanation import Explanation
from gcpp_edge.extra_inputs import Inputs, resolve_inputs
from gcpp_edge.frames import check_frame, frame_size, list_frames, require_taken
from gcpp_edge.geometry import FrameFit, fit_frame
from gcpp_edge.gpu_frames import check_gpu_frame, is_on_gpu
from gcpp_edge.inference import Inference, Ticket
from gcpp_edge.made import resolve_made
from gcpp_edge.methods import PAPER, choose_method
from gcpp_edge.model_file import ModelFile
from gcpp_edge.reuse import matches
from gcpp_edge.runtimes import RuntimeOptions
from gcpp_edge.targets import Target, Targets

if TYPE_CHECKING:
    from gcpp_edge.pipeline.events import Trouble
    from gcpp_edge.pipeline.monitor import Monitor
    from gcpp_edge.pipeline.stream import Stream

_NO_AIM = Aim((), {})


class Explainer:
    """An explained model, ready to run. Made by `load` (loading.py).

    One lock stands around every call, so threads may share an explainer; they wait for each other. After the first
    call of a batch size only explanations are allocated. Levels are separate networks with weights of their own: a
    call that asks for the guided image, or for scores alone, loads its level the first time.
    """

    def __init__(
        self,
        file: ModelFile,
        backend: str,
        level: str,
        method: str | None,
        options: RuntimeOptions,
        passed_over: dict[str, str],
        stream: int | None = None,
    ) -> None:
        self._file = file
        self.backend, self.passed_over = backend, passed_over
        self._lock = threading.RLock()
        self._is_closed = False
        self._method = method or file.contract.method
        _require_known_axes(file)
        choose_method(self._method, file.contract)
        chosen = BACKENDS[backend]
        self._device = open_device(chosen.device, stream, options.threads)
        try:
            self._inference = self._device.perform(lambda: Inference(file, self._device, chosen.runtime, options))
            runtime = self._device.perform(lambda: self._inference.network(level).runtime.name)
        except BaseException:
            self._device.close()
            raise
        self.runtime_name = f"{runtime}, kernels {self._device.kernels.isa}"

    @property
    def contract(self) -> Contract:
        """All that the file says of itself."""
        return self._file.contract

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    @property
    def path(self) -> Path:
        """The model's file."""
        return self._file.path

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, empty where the file holds none."""
        return self._file.contract.labels

    @overload
    def __call__(
        self,
        frames: NDArray[Any],
        target: Targets | None = None,
        *,
        region: Any = None,
        detection: Any = None,
        seed: Any = None,
        inputs: Inputs | None = None,
        method: str | None = None,
        mode: str = PAPER,
        guided: bool = False,
        make: str | Sequence[str] = (),
        format: str = "bgr",
        out: Explanation | None = None,
    ) -> Explanation: ...

    @overload
    def __call__(
        self,
        frames: Sequence[Any],
        target: Targets | None = None,
        *,
        region: Any = None,
        detection: Any = None,
        seed: Any = None,
        inputs: Inputs | None = None,
        method: str | None = None,
        mode: str = PAPER,
        guided: bool = False,
        make: str | Sequence[str] = (),
        format: str = "bgr",
        out: Sequence[Explanation] | None = None,
    ) -> list[Explanation]: ...

    def __call__(
        self,
        frames: NDArray[Any] | Sequence[Any],
        target: Targets | None = None,
        *,
        region: Any = None,
        detection: Any = None,
        seed: Any = None,
        inputs: Inputs | None = None,
        method: str | None = None,
        mode: str = PAPER,
        guided: bool = False,
        make: str | Sequence[str] = (),
        format: str = "bgr",
        out: Explanation | Sequence[Explanation] | None = None,
    ) -> Explanation | list[Explanation]:
        """Where the network looks: an Explanation, or a list of them for a batch.

        frames: one frame (frames.py says which shapes), or a list or tuple of them, of any sizes; of a network for
        clips, one clip or a list of them (clips.py). target: a class index, a negative rank (-1 the best class, also
        for None) or a class name; or a list with one of these a frame. method: see methods.METHODS. mode: "paper", or
        "pytorch-grad-cam" or "authors" to compute as they do. guided: also the pixel-space image; needs a file
        exported with --guided. make: "heatmap", "overlay" or both: pictures made in the call, in Explanation.made; on a
        GPU they are drawn there, and only they and the small map come back. inputs: further inputs of the network, by
        name; with a batch axis of all frames, or without one for all of them. out: an earlier Explanation, of a batch a
        list of them, that is filled again and returned: nothing of a picture's or a map's size is allocated.

        Files for it only, each for all frames or in a list of one a frame: region, a mask of the frame's size
        (regions.py), or None for where the class wins. detection: an index or a negative rank, -1 for None; without a
        target the rank goes by the best class of each. seed: the gradient at the output.
        Raises FrameError, TargetError, MethodError, InputError, ModelError (a level that the file lacks),
        RuntimeFailure.
        """
        given, is_batch = self._list(frames, format)
        pictures, fits = self._checked(given, format, is_batch)
        aims = resolve_aims(Question(target, region, detection, seed), fits, self.contract)
        batch, call = self._call(given, pictures, fits, aims, inputs, _How(method, mode, format, guided, make))
        batch = refilling(batch, out, is_batch)
        with self._lock:
            explanations = [one for (one,) in self._device.perform(lambda: self._inference.explain(batch, call))]
        return explanations if is_batch else explanations[0]

    def each(
        self,
        frames: Iterable[NDArray[Any]],
        target: Target = -1,
        *,
        method: str | None = None,
        mode: str = PAPER,
        guided: bool = False,
        make: str | Sequence[str] = (),
        format: str = "bgr",
        out: Explanation | None = None,
    ) -> Iterator[Explanation]:
        """Explanations of one frame after the other, in order: for throughput.

        On a GPU the next frame is taken and copied while one is worked on, so an explanation comes when the frame
        behind it has been taken. Calls of other threads wait until the frames have ended. The rest is as for a
        call; with out= the same explanation comes every time.
        """
        how = _How(method, mode, format, guided, make)
        waiting: deque[Ticket] = deque()
        with self._lock:
            for number, frame in enumerate(frames):
                given, _ = self._list([frame], format)
                pictures, fits = self._checked(given, format, is_batch=False)
                aims = resolve_aims(Question(target), fits, self.contract)
                batch, call = self._call(given, pictures, fits, aims, None, how)
                batch = refilling(batch, out, is_batch=False)
                if len(waiting) == self._device.perform(partial(self._inference.slots, call.level)):
                    yield self._device.perform(partial(self._inference.finish, waiting.popleft()))[0][0]
                waiting.append(self._device.perform(partial(self._inference.begin, batch, call, number)))
            while waiting:
                yield self._device.perform(partial(self._inference.finish, waiting.popleft()))[0][0]

    def classes(
        self,
        frames: Any,
        targets: Sequence[Target] | None = None,
        *,
        inputs: Inputs | None = None,
        method: str | None = None,
        mode: str = PAPER,
        guided: bool = False,
        make: str | Sequence[str] = (),
        format: str = "bgr",
    ) -> Any:
        """Several classes from one forward pass: a list with an Explanation for each; for a batch a list of such lists.

        Needs a file exported with --top-k K. targets: one to K targets as of a call, the same for all frames; None
        for the K best classes. The rest is as for a call.
        """
        given, is_batch = self._list(frames, format)
        how = _How(method, mode, format, guided, make)
        pictures, fits = self._checked(given, format, is_batch)
        aims = resolve_classes(targets, len(given), self.contract)
        batch, call = self._call(given, pictures, fits, aims, inputs, how)
        with self._lock:
            explanations = self._device.perform(lambda: self._inference.explain(batch, call))
        return explanations if is_batch else explanations[0]

    def stream(
        self,
        source: Any = None,
        *,
        policy: str | None = None,
        method: str | None = None,
        target: Target = -1,
        every: int = 1,
        max_fps: float = 0.0,
        smooth_s: float = 0.0,
        loop: int = 1,
        duration_s: float = 0.0,
        format: str = "bgr",
        monitor: Monitor | None = None,
        on_trouble: Callable[[Trouble], None] | None = None,
    ) -> Stream:
        """Explanations of a camera, a video, or frames that are handed over, in threads of their own.

        source: an address ("csi://0", "rtsp://...", "clip.mp4"; pipeline/sources), an iterable of frames or of (frame,
        timestamp), or None to submit() frames yourself. policy: "latest", the newest frame wins, or "all", each is
        explained; None takes latest for what is live, else all. every: explain one frame of so many; those between
        carry its map. max_fps: frames a second, 0 for as many as come. smooth_s: time constant that maps are smoothed
        with. loop: how often a file is played, 0 for ever. duration_s: when to end, 0 for never. format: of an
        iterable's frames. monitor: judges every explanation. on_trouble: called, from any thread, with each Trouble
        that is survived.

        Raises InputError, CaptureError where the source cannot be opened, MissingDependencyError.
        """
        from gcpp_edge.pipeline.opening import stream_of

        return stream_of(
            self,
            source,
            policy=policy,
            max_fps=max_fps,
            loop=loop,
            duration_s=duration_s,
            format=format,
            monitor=monitor,
            on_trouble=on_trouble,
            method=method,
            target=target,
            every=every,
            smooth_s=smooth_s,
        )

    def scores(
        self,
        frames: Any,
        format: str = "bgr",
        inputs: Inputs | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """The network's output for each frame, (N, classes) float32, at the cost of plain inference.

        Of files that explain regions, detections or seeds it is the whole output: a segmentation (N, classes, h, w).
        out: a buffer to fill instead. Raises FrameError, InputError, ShapeError, RuntimeFailure.
        """
        given, is_batch = self._list(frames, format)
        pictures, fits = self._checked(given, format, is_batch)
        extra = resolve_inputs(inputs, len(given), self.contract)
        batch = batch_of(given, pictures, fits, [_NO_AIM] * len(given), extra)
        shape = (len(batch), *self.contract.output_shape)
        if out is None:
            out = np.empty(shape, np.float32)
        elif not matches(out, shape, np.float32):
            raise ShapeError(f"scores: expected an out of float32 {shape}.")
        with self._lock:
            self._device.perform(lambda: self._inference.scores(batch, format, extra.shared, out))
        return out

    def close(self) -> None:
        """Give back networks and buffers; explanations stay good. More than once does no harm."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                try:
                    self._device.perform(self._inference.close)
                finally:
                    self._device.close()

    def __enter__(self) -> Explainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Explainer({str(self._file.path)!r}, {self.runtime_name})"

    def _list(self, frames: Any, format: str) -> tuple[list[Any], bool]:
        """Frames or clips of a call, and whether they came as a batch."""
        return (list_clips if self.contract.preprocessing.frames else list_frames)(frames, format)

    def _call(
        self,
        given: list[Any],
        pictures: list[list[Any]],
        fits: list[FrameFit],
        aims: list[Aim],
        inputs: Inputs | None,
        how: _How,
    ) -> tuple[list[Frame], Call]:
        """What Inference takes."""
        extra = resolve_inputs(inputs, len(given), self.contract)
        method = choose_method(how.method or self._method, self.contract, how.mode)
        made = resolve_made(how.make)
        call = Call(method, how.mode, how.format, how.guided, extra.shared, made)
        return batch_of(given, pictures, fits, aims, extra), call

    def _checked(self, given: list[Any], format: str, is_batch: bool) -> tuple[list[list[Any]], list[FrameFit]]:
        """The pictures of every frame or clip, and how they fit the input."""
        pixels = self.contract.preprocessing
        pictures: list[list[Any]] = []
        fits = []
        for index, one in enumerate(given):
            checked: list[Any]
            if pixels.frames:
                checked = check_clip(one, format, pixels.frames, f"clip {index}" if is_batch else "clip")
            else:
                where = f"frame {index}" if is_batch else "frame"
                on_gpu = is_on_gpu(one) and not self._device.synchronous
                checked = [check_gpu_frame(one, format, where) if on_gpu else check_frame(one, format, where)]
                if self.contract.frame.height:
                    require_taken(checked[0], format, self.contract.frame, where)
            pictures.append(checked)
            fits.append(fit_frame(*frame_size(checked[0], format), pixels))
        return pictures, fits


class _How(NamedTuple):
    """A call's words for how to explain."""

    method: str | None
    mode: str
    format: str
    guided: bool
    make: str | Sequence[str]


def _require_known_axes(file: ModelFile) -> None:
    """Raises ModelError for layers that no map can be made of."""
    contract = file.contract
    axes, what = (3, "clips") if contract.preprocessing.frames else (2, "pictures")
    for layer in contract.layers:
        if len(layer.space) != axes:
            raise ModelError(
                f"{file.path}: its layer {layer.name!r} has the extent {layer.space}; it explains {what}, which have "
                f"{'three axes (time, height, width)' if axes == 3 else 'two axes (height, width)'}. Export it again."
            )
