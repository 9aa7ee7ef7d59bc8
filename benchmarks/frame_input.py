"""What preprocessing in the graph costs: the kernel and the network, against one file that takes uint8 frames.

    python benchmarks/frame_input.py [--rounds 60] [--threads 1] [--output FILE]

EfficientNet-Lite0 at the map level with its own resize and crop, frames of several sizes. The two run turn by turn in
one process, with spinning off; both through sessions that copy their outputs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime
from level_cost import commit, interleaved_medians

from gcpp_edge.cli.demo import NETWORK
from gcpp_edge.cli.doctor import machine
from gcpp_edge.contract import MAP, FrameInput
from gcpp_edge.export import export_file
from gcpp_edge.geometry import fit_frame, input_from_frame
from gcpp_edge.kernels import table
from gcpp_edge.model_file import ModelFile, read_model_file

RESULTS = Path(__file__).parent / "results" / "frame_input.json"
SIZES = ((224, 224), (480, 640), (1080, 1920))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            name = "x".join(map(str, size))
            found[name] = measure(Path(folder), size, options.threads, options.rounds)
            print(name, found[name], flush=True)
    result = {
        "benchmark": "frame_input",
        "network": "EfficientNet-Lite0, map level, 224 x 224, batch 1, ONNX Runtime CPU, spinning off",
        "threads": options.threads,
        "rounds": options.rounds,
        "kernels": table().isa,
        "frames": found,
        "machine": machine() | {"onnxruntime": onnxruntime.__version__},
        "commit": commit(),
        "date": date.today().isoformat(),
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


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


def session(file: ModelFile, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])


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
    made, names = session(file, threads), list(file.contract.levels[MAP].outputs)
    preprocess, image = kernel(file, frame)
    feeds = {file.contract.input: image, "target": np.array([-1], np.int64)}

    def both() -> object:
        preprocess()
        return made.run(names, feeds)

    return both


def with_frames(file: ModelFile, frame: np.ndarray, threads: int) -> Callable[[], object]:
    made, names = session(file, threads), list(file.contract.levels[MAP].outputs)
    feeds = {file.contract.input: frame[None], "target": np.array([-1], np.int64)}
    return lambda: made.run(names, feeds)


if __name__ == "__main__":
    main()
