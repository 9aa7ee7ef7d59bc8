"""What the map and the guided level cost beside the plain network, for several networks.

    python benchmarks/levels.py [--networks resnet50 vgg16] [--rounds 40] [--threads 1] [--output FILE]

The three levels of each network run turn by turn in one process, with spinning off. Medians of milliseconds, and their
ratio to the plain network's; no pre- or post-processing. Weights are random, which costs the same.
"""

from __future__ import annotations

import torch
from common import beside, contract_of, cut, interleaved_medians, network, over_networks, run_of

from gcpp_edge.contract import PLAIN
from gcpp_edge.export import explain_module

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
    over_networks(__doc__, "levels", 40, NETWORKS, measure)


def measure(name: str, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each level, and its ratio to the plain one's."""
    model = explain_module(network(name), torch.randn(2, 3, 224, 224), guided=True, check=False)
    contract = contract_of(model)
    runs = {
        name: run_of(cut(model, level), contract, threads, list(level.outputs))
        for name, level in contract.levels.items()
    }
    return beside(interleaved_medians(runs, rounds), PLAIN)


if __name__ == "__main__":
    main()
