"""What the weights of gradcam++-softmax cost beside the plain network and the map level.

    python benchmarks/softmax_cost.py [--networks resnet50 vgg16] [--rounds 30] [--threads 1] [--output FILE]

EfficientNet-Lite0 and ResNet-50 end in pooling + one linear layer: three weighted sums over classes. MobileNetV3 and
VGG-16 do not: a second backward pass for ten classes, constant over space in the one, not in the other. Sessions run
turn by turn in one process, with spinning off. Weights are random, which costs the same.
"""

from __future__ import annotations

import torch
from common import beside, contract_of, cut, interleaved_medians, network, over_networks, run_of

from gcpp_edge.contract import MAP, PLAIN
from gcpp_edge.export import explain_module

NETWORKS = ("efficientnet_lite0", "resnet50", "mobilenet_v3_large", "vgg16")
OTHERS = (1, 10)


def main() -> None:
    over_networks(__doc__, "softmax_cost", 30, NETWORKS, measure)


def measure(name: str, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of the plain network, the map level and the map level with the weights; ratios to plain."""
    files = {"map": {"softmax": False}}
    files |= {f"map, softmax of {count} others": {"softmax": True, "softmax_classes": count} for count in OTHERS}
    runs = {}
    for file, fields in files.items():
        model = explain_module(network(name), torch.randn(2, 3, 224, 224), check=False, **fields)
        contract = contract_of(model)
        levels = {file: contract.levels[MAP]} | ({PLAIN: contract.levels[PLAIN]} if file == "map" else {})
        for level_name, level in levels.items():
            runs[level_name] = run_of(cut(model, level), contract, threads, list(level.outputs))
    return beside(interleaved_medians(runs, rounds), PLAIN)


if __name__ == "__main__":
    main()
