"""What the map and the guided level cost beside the plain network, for several networks.

    python benchmarks/levels.py [--networks resnet50 vgg16] [--rounds 40] [--threads 1] [--output FILE]

The three levels of each network run turn by turn in one process, with spinning off. Medians of milliseconds, and their
ratio to the plain network's; no pre- or post-processing. Weights are random, which costs the same.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from level_cost import commit, interleaved_medians, run_of
from onnx import ModelProto

from gcpp_edge.cli.doctor import machine
from gcpp_edge.contract import PLAIN, Level, contract_from_metadata
from gcpp_edge.export import explain_module
from gcpp_edge.export.from_torch import import_torchvision
from gcpp_edge.level_cache import cut_to_level

RESULTS = Path(__file__).parent / "results" / "levels.json"
NETWORKS = (
    "efficientnet_lite0",
    "resnet50",
    "vgg16",
    "mobilenet_v3_large",
    "squeezenet1_1",
    "googlenet",
    "convnext_tiny",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = {}
    for name in options.networks:
        found[name] = measure(name, options.threads, options.rounds)
        print(
            name,
            {level: f"{row['ms']:.2f} ms = {row['ratio']:.3f} x" for level, row in found[name].items()},
            flush=True,
        )
    result = {
        "benchmark": "levels",
        "input": "224 x 224, batch 1, ONNX Runtime CPU, spinning off",
        "threads": options.threads,
        "rounds": options.rounds,
        "networks": found,
        "machine": machine() | {"onnxruntime": onnxruntime.__version__},
        "commit": commit(),
        "date": date.today().isoformat(),
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def network(name: str) -> Any:
    if name == "efficientnet_lite0":
        from gcpp_edge.export.demo_network import efficientnet_lite0

        return efficientnet_lite0()
    import_torchvision()
    from torchvision.models import get_model

    return get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))


def measure(name: str, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each level, and its ratio to the plain one's."""
    model = explain_module(network(name), torch.randn(2, 3, 224, 224), guided=True, check=False)
    contract = contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})
    runs = {
        name: run_of(cut(model, level), contract, threads, list(level.outputs))
        for name, level in contract.levels.items()
    }
    medians = interleaved_medians(runs, rounds)
    return {level: {"ms": round(ms, 3), "ratio": round(ms / medians[PLAIN], 4)} for level, ms in medians.items()}


def cut(model: ModelProto, level: Level) -> bytes:
    part = ModelProto()
    part.CopyFrom(model)
    cut_to_level(part, level)
    return bytes(part.SerializeToString())


if __name__ == "__main__":
    main()
