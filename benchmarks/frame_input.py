"""What preprocessing in the graph costs: the kernel and the network, against one file that takes uint8 frames.

    python benchmarks/frame_input.py [--rounds 60] [--threads 1] [--output FILE]

EfficientNet-Lite0 at the map level with its own resize and crop, frames of several sizes. The two run turn by turn in
one process, with spinning off; both through sessions that copy their outputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import interleaved_medians, parser_of, save, session_of

from gcpp_edge.cli.demo import NETWORK
from gcpp_edge.contract import MAP, FrameInput
from gcpp_edge.export import export_file
from gcpp_edge.geometry import fit_frame, input_from_frame
from gcpp_edge.kernels import table
from gcpp_edge.model_file import ModelFile, read_model_file

SIZES = ((224, 224), (480, 640), (1080, 1920))


def main() -> None:
    options = parser_of(__doc__, "frame_input", rounds=60).parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            name = "x".join(map(str, size))
            found[name] = measure(Path(folder), size, options.threads, options.rounds)
            print(name, found[name], flush=True)
    network = "EfficientNet-Lite0, map level, 224 x 224, batch 1, ONNX Runtime CPU, spinning off"
    save(options, "frame_input", {"network": network, "kernels": table().isa, "frames": found})


def measure(folder: Path, size: tuple[int, int], threads: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of both, and their ratio."""
    plain, framed = folder / "plain.onnx", folder / "framed.onnx"
    export_file(NETWORK, plain, check=False)
    export_file(NETWORK, framed, check=False, frame_input=FrameInput(*size))
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    runs = {
        "kernel and network": with_kernel(read_model_file(plain), frame, threads),
        "frame input": with_frames(read_model_file(framed), frame, threads),
        "kernel alone": kernel(read_model_file(plain), frame)[0],
    }
    medians = interleaved_medians(runs, rounds)
    return medians | {"ratio": round(medians["frame input"] / medians["kernel and network"], 4)}


def kernel(file: ModelFile, frame: np.ndarray) -> tuple[Callable[[], object], np.ndarray]:
    pixels, kernels = file.contract.preprocessing, table()
    image = np.empty((1, *pixels.input_shape), np.float32)
    std = np.array(pixels.std)
    scale, bias = pixels.pixel_max / 255 / std, -np.array(pixels.mean) / std
    rows, columns = input_from_frame(fit_frame(*frame.shape[:2], pixels))
    fill = np.full(pixels.channels, pixels.geometry.fill)

    def run() -> None:
        kernels.preprocess(frame, "bgr", rows, columns, pixels.color, scale, bias, fill, image[0])

    return run, image


def with_kernel(file: ModelFile, frame: np.ndarray, threads: int) -> Callable[[], object]:
    made, names = session_of(str(file.path), threads), list(file.contract.levels[MAP].outputs)
    preprocess, image = kernel(file, frame)
    feeds = {file.contract.input: image, "target": np.array([-1], np.int64)}

    def both() -> object:
        preprocess()
        return made.run(names, feeds)

    return both


def with_frames(file: ModelFile, frame: np.ndarray, threads: int) -> Callable[[], object]:
    made, names = session_of(str(file.path), threads), list(file.contract.levels[MAP].outputs)
    feeds = {file.contract.input: frame[None], "target": np.array([-1], np.int64)}
    return lambda: made.run(names, feeds)


if __name__ == "__main__":
    main()
