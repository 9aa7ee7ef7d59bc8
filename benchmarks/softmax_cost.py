"""What the weights of gradcam++-softmax cost beside the plain network and the map level.

    python benchmarks/softmax_cost.py [--networks resnet50 vgg16] [--rounds 30] [--threads 1] [--output FILE]

EfficientNet-Lite0 and ResNet-50 end in pooling + one linear layer: three weighted sums over classes. MobileNetV3 and
VGG-16 do not: a second backward pass for ten classes, constant over space in the one, not in the other. Sessions run
turn by turn in one process, with spinning off. Weights are random, which costs the same.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path

import onnxruntime
import torch
from level_cost import commit, interleaved_medians, run_of
from levels import cut, network

from gcpp_edge.cli.doctor import machine
from gcpp_edge.contract import MAP, PLAIN, contract_from_metadata
from gcpp_edge.export import explain_module

RESULTS = Path(__file__).parent / "results" / "softmax_cost.json"
NETWORKS = ("efficientnet_lite0", "resnet50", "mobilenet_v3_large", "vgg16")
OTHERS = (1, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = {}
    for name in options.networks:
        found[name] = measure(name, options.threads, options.rounds)
        print(name, found[name], flush=True)
    result = {
        "benchmark": "softmax_cost",
        "input": "224 x 224, batch 1, ONNX Runtime CPU, spinning off",
        "threads": options.threads,
        "rounds": options.rounds,
        "networks": found,
        "machine": machine() | {"onnxruntime": onnxruntime.__version__},
        "commit": commit(),
        "date": date.today().isoformat(),
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(name: str, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of the plain network, the map level and the map level with the weights; ratios to plain."""
    files = {"map": {"softmax": False}}
    files |= {f"map, softmax of {count} others": {"softmax": True, "softmax_classes": count} for count in OTHERS}
    runs = {}
    for file, fields in files.items():
        model = explain_module(network(name), torch.randn(2, 3, 224, 224), check=False, **fields)
        contract = contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})
        levels = {file: contract.levels[MAP]} | ({PLAIN: contract.levels[PLAIN]} if file == "map" else {})
        for level_name, level in levels.items():
            runs[level_name] = run_of(cut(model, level), contract, threads, list(level.outputs))
    medians = interleaved_medians(runs, rounds)
    return {run: {"ms": round(ms, 3), "ratio": round(ms / medians[PLAIN], 4)} for run, ms in medians.items()}


if __name__ == "__main__":
    main()
