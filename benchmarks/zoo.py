"""Networks that others designed, one by one: exported, run, and held against PyTorch's autograd.

    python benchmarks/zoo.py torchvision                 every classifier of torchvision
    python benchmarks/zoo.py timm:resnet10t timm:lcnet_050

Parameters are redrawn and BatchNorm calibrated, as the tests do it (tests/export/autograd_oracle.py). A network holds
when activations' gradients and the guided image are within max(1e-3, 3 x PyTorch's own float32 error) of autograd in
float64. Rows are written as they come, and a network that has its row is not run again: delete the file to start over.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "export"))

from autograd_oracle import Oracle, redrawn, relative_errors  # noqa: E402

from gcpp_edge.contract import contract_from_metadata  # noqa: E402
from gcpp_edge.errors import GcppError  # noqa: E402
from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.differences import session_for  # noqa: E402
from gcpp_edge.export.from_torch import (  # noqa: E402
    TorchSource,
    autograd_gradients,
    forward_model,
    import_torchvision,
    timm_source,
    torchvision_source,
)

RESULTS = ROOT / "benchmarks" / "results" / "zoo.jsonl"
TARGETS = [3, 271]
LIMIT = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="torchvision, torchvision:NAME or timm:NAME")
    parser.add_argument("--size", type=int, default=128, help="side of the input; networks that fix theirs keep it")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(2)
    done = {row["network"] for row in rows(options.output)}
    for name in [entry for given in options.networks for entry in expand(given)]:
        if name not in done:
            row = examine(name, options.size) | {"commit": commit()}
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(line(row), flush=True)
    found = rows(options.output)
    print(f"{sum(row['verdict'] == 'holds' for row in found)} of {len(found)} hold")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text("utf-8").splitlines()] if path.exists() else []


def expand(given: str) -> list[str]:
    if given != "torchvision":
        return [given]
    models = import_torchvision().models
    return [f"torchvision:{name}" for name in models.list_models(module=models)]


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def line(row: dict[str, Any]) -> str:
    figures = " ".join(
        f"{key} {row[key]:.1e} (own {row[f'own_{key}']:.1e})" for key in ("gradients", "guided") if key in row
    )
    return f"{row['network']:40} {row['verdict']:10} {row.get('layer', '')} {figures} {row.get('reason', '')}"


def examine(name: str, size: int) -> dict[str, Any]:
    """The row of one network. verdict: "holds", "differs", "refused" by the exporter, or "failed" in its own code."""
    start = time.perf_counter()
    try:
        row = compare(name, size)
    except GcppError as error:
        row = {"verdict": "refused", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - the networks' own code may raise anything, and the others go on
        row = {"verdict": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
    return {"network": name, **row, "seconds": round(time.perf_counter() - start, 1)}


def compare(name: str, size: int) -> dict[str, Any]:
    loader = {"torchvision": torchvision_source, "timm": timm_source}[name.partition(":")[0]]
    network = loader(name.partition(":")[2], None).network
    size = fixed_size(network, size)
    network = redrawn(network, size)
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    forward = forward_model(TorchSource(network), image)
    start = time.perf_counter()
    model = bake(forward.model, guided=True)
    contract = contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})
    row: dict[str, Any] = {
        "layer": contract.layer.name,
        "operators": sorted({node.op_type for node in forward.model.graph.node}),
        "nodes": {level: entry.nodes for level, entry in contract.levels.items()},
        "constant_gradients": contract.layer.constant,
        "bake_seconds": round(time.perf_counter() - start, 2),
    }
    feeds = {contract.input: image.numpy(), "target": np.array(TARGETS)}
    gradients, guided = session_for(model).run(["gradients", "guided"], feeds)
    row |= errors("guided", guided, pixels(network.double(), image.double()), pixels(network.float(), image))
    single = autograd_gradients(forward.program, contract.layer.tensor, contract.scores.logits, image.numpy(), TARGETS)
    if single is None:
        return row | {"verdict": "differs", "reason": f'no value "{contract.layer.tensor}" in the PyTorch program'}
    row |= errors("gradients", np.broadcast_to(gradients, single.shape), single, single)
    holds = all(row[key] <= max(LIMIT, 3 * row[f"own_{key}"]) for key in ("gradients", "guided"))
    return row | {"verdict": "holds" if holds else "differs"}


def fixed_size(network: Any, size: int) -> int:
    """Transformers fix their input's side, and some networks need a large one."""
    known = getattr(network, "image_size", None) or (getattr(network, "pretrained_cfg", None) or {}).get("input_size")
    if isinstance(known, int):
        return known
    fixed = bool((getattr(network, "pretrained_cfg", None) or {}).get("fixed_input_size"))
    if fixed and known:
        return int(known[1])
    if type(network).__name__ == "Inception3":
        return 299
    return 224 if type(network).__name__ in ("VGG", "AlexNet", "SwinTransformer", "MaxVit") else size


def pixels(network: Any, image: Any) -> np.ndarray:
    image = image.clone().requires_grad_()
    with Oracle("guided"):
        scores = network(image)
    scores = scores[0] if isinstance(scores, tuple) else scores
    seed = scores[torch.arange(len(TARGETS)), TARGETS].sum()
    return torch.autograd.grad(seed, image)[0].numpy()


def errors(key: str, found: np.ndarray, expected: np.ndarray, own: np.ndarray) -> dict[str, float]:
    largest, l2 = relative_errors(found, expected)
    return {key: float(largest), f"{key}_l2": float(l2), f"own_{key}": float(relative_errors(own, expected)[0])}


if __name__ == "__main__":
    main()
