"""Where the time of the guided level goes on ONNX Runtime's CPU, and the floor that it is held against.

    python benchmarks/guided_profile.py [--networks resnet50 vgg16] [--rounds 20] [--threads 1] [--output FILE]

The runtime's own profiler, medians of each node. `forward` is the network itself, `backward` its convolutions and
linear layers backwards: no guided backprop is possible without the two, so they are the floor. `masks` are the nodes
that mask and pick, elementwise or as convolutions with one tap; `moves` change the layout or weave phases. Profiling
slows small nodes down, so the shares say more than the sum.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from common import contract_of, cut, network, over_networks
from onnx import ModelProto, numpy_helper

from gcpp_edge.contract import GUIDED, PLAIN, TARGET
from gcpp_edge.export import explain_module

NETWORKS = ("efficientnet_lite0", "resnet50", "mobilenet_v3_large", "vgg16")
PRODUCTS = ("Conv", "ConvTranspose", "FusedGemm", "Gemm", "MatMul")
MOVES = ("Concat", "DepthToSpace", "Pad", "ReorderInput", "ReorderOutput", "Reshape", "Slice", "Transpose")


def main() -> None:
    over_networks(__doc__, "guided_profile", 20, NETWORKS, measure)


def measure(name: str, threads: int, rounds: int) -> dict[str, float]:
    """Milliseconds by kind of node, and sums of them over the plain network's."""
    model = explain_module(network(name), torch.randn(2, 3, 224, 224), guided=True, check=False)
    contract, taps = contract_of(model), one_tap(model)
    spent: Counter[str] = Counter()
    for node, operator, ms in profile(cut(model, contract.levels[GUIDED]), contract, threads, rounds):
        spent[kind_of(node, operator, taps)] += ms
    nodes = profile(cut(model, contract.levels[PLAIN]), contract, threads, rounds)
    plain = sum(ms for _, _, ms in nodes)
    return {
        "plain_ms": round(plain, 3),
        **{f"{kind}_ms": round(ms, 3) for kind, ms in sorted(spent.items())},
        "floor": round((spent["forward"] + spent["backward"]) / plain, 3),
        "guided": round(sum(spent.values()) / plain, 3),
    }


def kind_of(node: str, operator: str, taps: set[str]) -> str:
    if operator in MOVES:
        return "moves"
    if not node.startswith("gcpp/"):
        return "forward"
    convolves = operator in PRODUCTS and not node.startswith("gcpp/Clip") and node.removesuffix("_nchwc") not in taps
    return "backward" if convolves else "masks"


def one_tap(model: ModelProto) -> set[str]:
    """Convolutions of single channels with one tap, the same for all: they mask, pick and shift."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    found = set()
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name.startswith("gcpp/"):
            weights = numpy_helper.to_array(arrays[node.input[1]])
            if weights.shape[1] == 1 and len(np.unique(weights[weights != 0])) == 1:
                found.add(node.name)
    return found


def profile(model: bytes, contract: Any, threads: int, rounds: int) -> list[tuple[str, str, float]]:
    """Name, operator and median milliseconds of every node that ran."""
    pixels = contract.preprocessing
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        shape = (1, pixels.channels, pixels.height, pixels.width)
        feeds = {contract.input: np.random.default_rng(0).standard_normal(shape, np.float32)}
        if TARGET in {value.name for value in session.get_inputs()}:
            feeds[TARGET] = np.array([-1], np.int64)
        for _ in range(rounds):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]].append(event["dur"] / 1e3)
    return [(*key, statistics.median(values)) for key, values in times.items()]


if __name__ == "__main__":
    main()
