"""What loading a guided file at the map level costs: the same as a map file, and much less than the file uncut.

Its sessions of EfficientNet-Lite0 run turn by turn in one process, with spinning off: threads of one session that spin
disturb the next. The figures are medians of milliseconds, and their ratio to the plain network's.

    python benchmarks/level_cost.py [--rounds 100] [--threads 1] [--output benchmarks/results/level_cost.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime

from gcpp_edge.cli.demo import NETWORK
from gcpp_edge.cli.doctor import machine
from gcpp_edge.contract import ACTIVATIONS, GRADIENTS, GUIDED, MAP, PLAIN, TARGET, TARGET_CLASS, Contract
from gcpp_edge.export import export_file
from gcpp_edge.level_cache import model_at_level
from gcpp_edge.model_file import read_model_file

RESULTS = Path(__file__).parent / "results" / "level_cost.json"
WARM_UP_ROUNDS = 10


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        runs = sessions(Path(folder), options.threads)
        medians = interleaved_medians(runs, options.rounds)
    result = {
        "benchmark": "level_cost",
        "network": "EfficientNet-Lite0, 224 x 224, batch 1, ONNX Runtime CPU, spinning off",
        "threads": options.threads,
        "rounds": options.rounds,
        "median_ms": medians,
        "ratio_to_plain": {name: round(value / medians["plain"], 4) for name, value in medians.items()},
        "cut_guided_file_over_map_file": round(medians["guided file cut to map"] / medians["map file"], 4),
        "machine": machine() | {"onnxruntime": onnxruntime.__version__},
        "commit": commit(),
        "date": date.today().isoformat(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, value in medians.items():
        print(f"{name:45} {value:8.2f} ms  {value / medians['plain']:.3f} x plain")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def sessions(folder: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Name -> one run of a session, on the same input."""
    for level in (MAP, GUIDED):
        export_file(NETWORK, folder / f"{level}.onnx", guided=level == GUIDED, check=False)
    map_file, guided_file = (read_model_file(folder / f"{level}.onnx") for level in (MAP, GUIDED))
    map_outputs = [guided_file.contract.scores.output, TARGET_CLASS, ACTIVATIONS, GRADIENTS]
    everything = [*map_outputs, GUIDED]
    return {
        "plain": run_of(model_at_level(map_file, PLAIN), map_file.contract, threads, map_outputs[:1]),
        "map file": run_of(model_at_level(map_file, MAP), map_file.contract, threads, map_outputs),
        "guided file cut to map": run_of(model_at_level(guided_file, MAP), guided_file.contract, threads, map_outputs),
        "guided file uncut, asked for the map alone": run_of(
            str(guided_file.path), guided_file.contract, threads, map_outputs
        ),
        "guided file, guided": run_of(str(guided_file.path), guided_file.contract, threads, everything),
    }


def run_of(model: str | bytes, contract: Contract, threads: int, outputs: Sequence[str]) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    pixels = contract.preprocessing
    shape = (1, pixels.channels, pixels.height, pixels.width)
    feeds = {contract.input: np.random.default_rng(0).standard_normal(shape, np.float32)}
    if TARGET in {value.name for value in session.get_inputs()}:
        feeds[TARGET] = np.array([-1], np.int64)
    return lambda: session.run(list(outputs), feeds)


def interleaved_medians(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, one run of each a round, in an order that moves on by one every round."""
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(WARM_UP_ROUNDS + rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            began = perf_counter()
            runs[name]()
            if index >= WARM_UP_ROUNDS:
                times[name].append(1e3 * (perf_counter() - began))
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def commit() -> str:
    """The commit that was measured, with a + for changes on top of it."""
    root = Path(__file__).parent.parent
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
