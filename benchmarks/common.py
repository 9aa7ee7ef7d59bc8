"""What the benchmarks of this folder share: options, networks, sessions, timing in turn, and the result file."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

from gcpp_edge.bench.machine import machine
from gcpp_edge.bench.sampling import interleaved_medians as interleaved_medians  # the scripts find it here
from gcpp_edge.contract import TARGET, Contract, Level, contract_from_metadata
from gcpp_edge.level_cache import cut_to_level

RESULTS = Path(__file__).parent / "results"


def parser_of(description: str | None, benchmark: str, rounds: int) -> argparse.ArgumentParser:
    """With --rounds, --threads and --output, which every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / f"{benchmark}.json")
    return parser


def save(options: argparse.Namespace, benchmark: str, found: dict[str, Any]) -> None:
    """Writes what was found to options.output, with the machine, the commit and the day."""
    result = {
        "benchmark": benchmark,
        "threads": options.threads,
        "rounds": options.rounds,
        **found,
        "machine": machine() | {"onnxruntime": onnxruntime.__version__},
        "commit": commit(),
        "date": date.today().isoformat(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def over_networks(
    description: str | None,
    benchmark: str,
    rounds: int,
    networks: Sequence[str],
    measure: Callable[[str, int, int], dict[str, Any]],
) -> None:
    """The main of a benchmark that calls `measure(network, threads, rounds)` for each network, and saves all of it."""
    parser = parser_of(description, benchmark, rounds)
    parser.add_argument("--networks", nargs="+", default=networks)
    options = parser.parse_args()
    found = {}
    for name in options.networks:
        found[name] = measure(name, options.threads, options.rounds)
        print(name, found[name], flush=True)
    save(options, benchmark, {"input": "224 x 224, batch 1, ONNX Runtime CPU, spinning off", "networks": found})


def commit() -> str:
    """The commit that was measured, with a + for changes on top of it."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    found = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def network(name: str) -> Any:
    """A PyTorch network with random weights, which cost the same as trained ones."""
    if name == "efficientnet_lite0":
        from gcpp_edge.export.demo_network import efficientnet_lite0

        return efficientnet_lite0()
    from gcpp_edge.export.from_torch import import_torchvision

    import_torchvision()
    from torchvision.models import get_model

    return get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))


def contract_of(model: ModelProto) -> Contract:
    return contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def cut(model: ModelProto, level: Level) -> bytes:
    """The file of one level alone."""
    part = ModelProto()
    part.CopyFrom(model)
    cut_to_level(part, level)
    return bytes(part.SerializeToString())


def session_of(model: str | bytes, threads: int, spins: bool = False) -> onnxruntime.InferenceSession:
    """On the CPU, with spinning off unless told otherwise: two sessions whose threads spin disturb each other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_of(
    model: str | bytes, contract: Contract, threads: int, outputs: Sequence[str], targets: int = 0
) -> Callable[[], object]:
    """One run of a session of its own, on a picture of noise. targets: how many, of a file that explains several."""
    session = session_of(model, threads)
    pixels = contract.preprocessing
    shape = (1, pixels.channels, pixels.height, pixels.width)
    feeds = {contract.input: np.random.default_rng(0).standard_normal(shape, np.float32)}
    if TARGET in {value.name for value in session.get_inputs()}:
        feeds[TARGET] = -np.arange(1, targets + 1)[None] if targets else np.array([-1], np.int64)
    return lambda: session.run(list(outputs), feeds)


def beside(medians: dict[str, float], base: str) -> dict[str, dict[str, float]]:
    """Milliseconds of each, and their ratio to the one named `base`."""
    return {name: {"ms": round(ms, 3), "ratio": round(ms / medians[base], 4)} for name, ms in medians.items()}
