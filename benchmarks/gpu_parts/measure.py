"""What one network costs on this GPU with one runtime, in a process of its own. Its result is a JSON document.

    python -m gpu_parts.measure --network resnet50 --model resnet50.onnx --device tensorrt --tf32 off --output row.json

Whole frames are timed as a caller sees them, in turn: the plain network, map, guided, PyTorch eager, pytorch-grad-cam.
Stages are timed inside one recorded CUDA graph each, that repeats the stage, so that launches do not count; what a
stage reads is then in the L2 cache as far as it fits. Without capture (ONNX Runtime) they are enqueued one by one.
`--device cpu` is a rehearsal: it shows that this script works, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import gcpp_edge
from gcpp_edge.bench.sampling import interleaved_medians
from gcpp_edge.contract import GUIDED, MAP, PLAIN
from gcpp_edge.geometry import fit_frame, frame_from_map, input_from_frame
from gcpp_edge.inference import pixel_arithmetic
from gcpp_edge.methods import METHODS
from gpu_parts.card import free_bytes
from gpu_parts.subjects import SUBJECTS, layer_of

FRAME = (1080, 1920, 3)
REPEATS = 20  # of a stage in its graph
WARM_UP = 5
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=SUBJECTS, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", choices=("tensorrt", "cuda", "cpu"), default="tensorrt")
    parser.add_argument("--tf32", choices=("on", "off"), default="off")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--peers", action="store_true", help="PyTorch eager and pytorch-grad-cam too")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    began = perf_counter()
    with gcpp_edge.load(options.model, device=options.device, tf32=options.tf32 == "on", level=GUIDED) as explainer:
        frame = np.random.default_rng(1).integers(0, 256, FRAME, np.uint8)
        for level in (PLAIN, MAP):
            explainer._device.perform(lambda level=level: explainer._inference.network(level))
        found: dict[str, Any] = {"runtime": explainer.runtime_name, "load_seconds": round(perf_counter() - began, 1)}
        found |= stages(explainer, frame, options.rounds) | agreement(explainer, options.model, frame)
        runs: dict[str, Callable[[], object]] = {
            "plain": lambda: explainer.scores(frame),
            "map": lambda: explainer(frame),
            "map and overlay": lambda: explainer(frame, make="overlay"),
            "guided": lambda: explainer(frame, guided=True),
        }
        if options.peers:
            where = "cpu" if options.device == "cpu" else "cuda"
            runs |= peers(options.network, explainer.contract.layer.name, options.tf32 == "on", where)
        if options.device != "cpu":  # as the peers have their input: no copy from the host
            runs["map, frame on the GPU"] = on_gpu(explainer, frame)
        found["frame_ms"] = interleaved_medians(runs, options.rounds, WARM_UP)
        found["frame_ms"]["map, of a stream"] = stream_ms(explainer, frame)
        if options.device != "cpu":
            found["device_bytes_lost"] = bytes_lost(lambda: explainer(frame, make="overlay"))
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def on_gpu(explainer: Any, frame: np.ndarray) -> Callable[[], object]:
    """The map of a frame that lies on the GPU."""

    def put() -> Any:
        buffer = explainer._device.allocate(frame.shape, frame.dtype)
        explainer._device.upload(frame, buffer)
        explainer._device.wait()
        return buffer

    buffer = explainer._device.perform(put)
    return lambda: explainer(buffer)


def stream_ms(explainer: Any, frame: np.ndarray, frames: int = 50) -> float:
    """Milliseconds a frame where the next one is copied while the last is worked on."""
    list(explainer.each([frame] * WARM_UP))
    start = perf_counter()
    for _ in explainer.each(frame for _ in range(frames)):
        pass
    return round(1e3 * (perf_counter() - start) / frames, 4)


class Stages:
    """Times work on a device: microseconds of one among REPEATS in a recorded graph."""

    def __init__(self, device: Any, rounds: int) -> None:
        self.device, self.rounds = device, rounds
        self.mark = device.allocate((1,), np.dtype(np.float32))  # reading it back waits for all before it

    def us(self, name: str, work: Callable[[], object], record: bool = True) -> float:
        def repeated() -> None:
            for _ in range(REPEATS):
                work()
            self.device.fetch(self.mark)

        key = ("benchmark", name) if record else None
        times = []
        for index in range(WARM_UP + self.rounds):
            start = perf_counter()
            self.device.replay(key, repeated)
            self.device.download(self.mark)
            if index >= WARM_UP:
                times.append(perf_counter() - start)
        return round(1e6 * statistics.median(times) / REPEATS, 3)


def stages(explainer: Any, frame: np.ndarray, rounds: int) -> dict[str, Any]:
    """Microseconds of every stage, and the bytes that our kernels must move."""
    return explainer._device.perform(lambda: _stages(explainer, explainer._device, frame, rounds))  # type: ignore[no-any-return]


def _stages(explainer: Any, device: Any, frame: np.ndarray, rounds: int) -> dict[str, Any]:
    contract, kernels = explainer.contract, device.kernels
    layer, pixels = contract.layer, contract.preprocessing
    network = explainer._inference.network(MAP)
    buffers = network.buffers(1)
    fit = fit_frame(*frame.shape[:2], pixels)
    into, onto = input_from_frame(fit), frame_from_map(fit, *layer.space)
    scale, bias, fill = pixel_arithmetic(pixels)
    method = METHODS[contract.method]
    picture, drawn = device.allocate(FRAME, frame.dtype), device.allocate(FRAME, frame.dtype)
    maps = device.allocate((1, *layer.space), np.dtype(np.float32))
    small = maps[0]
    limits = device.allocate((2,), np.dtype(np.float32))
    heat = device.allocate((pixels.height, pixels.width), np.dtype(np.float32))
    palette = device.allocate(PALETTE.shape, PALETTE.dtype)
    device.upload(frame, picture)
    device.upload(PALETTE, palette)
    staged = device.stage("benchmark", frame)
    A, g, image = buffers[layer.activations], buffers[layer.gradients], buffers[contract.input]
    to_input = frame_from_map(fit_frame(pixels.height, pixels.width, pixels), *layer.space)
    clock = Stages(device, rounds)
    records = network.runtime.can_be_recorded
    levels = {level: explainer._inference.network(level) for level in (PLAIN, MAP, GUIDED)}
    for one in levels.values():
        one.buffers(1)
    preprocess = (into.rows, into.columns, pixels.color, scale, bias, fill)
    kernels.preprocess(picture, "bgr", *preprocess, image[0])
    network.runtime.run()
    timed: dict[str, tuple[Callable[[], object], bool]] = {
        "copy in": (lambda: device.send(staged), True),
        "preprocess": (lambda: kernels.preprocess(picture, "bgr", *preprocess, image[0]), True),
        **{f"network, {level}": (one.runtime.run, records) for level, one in levels.items()},
        "cam": (
            lambda: kernels.cam(A, g, method.rule, method.relu, maps, gradient_scale=layer.gradient_scale),
            True,
        ),
        "range": (lambda: kernels.range(small, False, limits), True),
        "heatmap at the input's size": (lambda: kernels.heatmap(small, *to_input, 0.0, 1.0, heat, limits), True),
        "overlay": (lambda: kernels.overlay(picture, small, *onto, 0.0, 1.0, palette, 0.5, 0.4, drawn, limits), True),
        "copy out, map": (lambda: device.fetch(small), True),
        "copy out, overlay": (lambda: device.fetch(drawn), True),
    }
    touched = int(frame.nbytes * min(1.0, 2 * pixels.height / FRAME[0]))
    return {
        "stages_us": {name: clock.us(name, *how) for name, how in timed.items()},
        "kernel_bytes": {
            "preprocess": touched + image.nbytes,
            "cam": A.nbytes + g.nbytes + small.nbytes,
            "range": small.nbytes + limits.nbytes,
            "heatmap at the input's size": heat.nbytes + small.nbytes,
            "overlay": 2 * frame.nbytes,
        },
    }


def agreement(explainer: Any, model: Path, frame: np.ndarray) -> dict[str, Any]:
    """The largest difference from the CPU's map, scores and guided image, over the largest value of each."""
    found = explainer(frame, guided=True)
    with gcpp_edge.load(model, device="cpu") as cpu:
        wanted = cpu(frame, found.class_index, guided=True)
    pairs = {
        "scores": (found.scores, wanted.scores),
        "map": (found.map, wanted.map),
        "guided": (found.guided(), wanted.guided()),
    }
    return {
        "differs_from_cpu": {
            name: float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))
            for name, (one, other) in pairs.items()
        }
    }


def peers(name: str, layer: str, tf32: bool, where: str) -> dict[str, Callable[[], object]]:
    """PyTorch on the same GPU: forward alone, and pytorch-grad-cam's Grad-CAM++ at the same layer."""
    import torch

    from gcpp_edge.export.from_torch import import_torchvision

    if where == "cuda" and not torch.cuda.is_available():
        return {}  # on a Jetson PyPI's torch sees no GPU
    import_torchvision()  # also beside a torch that it was not built for; pytorch-grad-cam imports it
    from pytorch_grad_cam import GradCAMPlusPlus

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    module = SUBJECTS[name]().to(where).eval()
    picture = torch.randn(1, 3, 224, 224, device=where)
    wait = torch.cuda.synchronize if where == "cuda" else lambda: None
    cam = GradCAMPlusPlus(model=module, target_layers=[layer_of(module, layer)])

    def eager() -> None:
        with torch.inference_mode():
            module(picture)
        wait()

    def grad_cam() -> None:
        cam(input_tensor=picture, targets=None)
        wait()

    return {"pytorch eager": eager, "pytorch-grad-cam": grad_cam}


def bytes_lost(run: Callable[[], object], frames: int = 500) -> int:
    """Of the device's free memory, over many frames after a warm-up."""
    for _ in range(WARM_UP):
        run()
    before = free_bytes()
    for _ in range(frames):
        run()
    return before - free_bytes()


if __name__ == "__main__":
    main()
