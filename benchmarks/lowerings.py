"""What each form of the backward pass gains for the guided level, on ONNX Runtime's CPU.

    python benchmarks/lowerings.py [--networks resnet50 vgg16] [--rounds 30] [--threads 1] [--output FILE]

The plain network, the guided level in the form for the GPU (no switch on), in the form for the CPU (all of them), and
that without one switch each, turn by turn in one process, with spinning off. Medians of milliseconds, and their ratio
to the plain network's. Weights are random, which costs the same.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from common import beside, contract_of, cut, interleaved_medians, network, over_networks, run_of

from gcpp_edge.contract import GUIDED, PLAIN
from gcpp_edge.export import explain_module
from gcpp_edge.export.lowering import TUNED, Lowerings

NETWORKS = ("efficientnet_lite0", "resnet50", "mobilenet_v3_large", "vgg16")


def main() -> None:
    over_networks(__doc__, "lowerings", 30, NETWORKS, measure)


def forms() -> dict[str, Lowerings]:
    without = {f"without {field.name}": replace(TUNED["cpu"], **{field.name: False}) for field in fields(Lowerings)}
    return {"gpu form": TUNED["gpu"], "cpu form": TUNED["cpu"], **without}


def measure(name: str, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of the plain network and of the guided level in each form; ratios to plain."""
    module, runs = network(name), {}
    for form, lowerings in forms().items():
        model = explain_module(module, torch.randn(2, 3, 224, 224), guided=True, check=False, lowerings=lowerings)
        contract = contract_of(model)
        levels = {form: contract.levels[GUIDED]} | ({} if runs else {PLAIN: contract.levels[PLAIN]})
        for run, level in levels.items():
            runs[run] = run_of(cut(model, level), contract, threads, list(level.outputs))
    return beside(interleaved_medians(runs, rounds), PLAIN)


if __name__ == "__main__":
    main()
