"""A roofline on paper: the least time that a Jetson board could need, from operations and bytes. Nothing is run on one.

    python benchmarks/roofline.py [--networks resnet50] [--page docs/jetson.md] [--output FILE]

Every network is exported and counted, level by level. Elementwise nodes are taken as part of what they follow, as
TensorRT fuses them; every group of nodes then needs the longer of its operations at the board's peak rate and its bytes
(weights, tensors read from other groups, tensors that others read) at its memory bandwidth; groups follow each other.
Left out, so real times are longer: rates below peak, launches (a CUDA graph hides most), clocks that are throttled,
other users of the memory. Left out, so they may be shorter: tensors that stay in the L2 cache between groups.
The tables of docs/jetson.md are written from the saved result, and a test holds them against it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "roofline.json"
PAGE = ROOT / "docs" / "jetson.md"
NETWORKS = ("resnet50", "efficientnet_lite0", "mobilenet_v3_large", "vgg16")
PRECISIONS = {"fp32": 4, "fp16": 2}  # bytes of a number
DENSE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OWN_GROUP = (  # these move or reduce, and are not fused into what they follow
    *DENSE, "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Slice", "Pad", "Concat",
    "Gather", "Transpose", "DepthToSpace", "SpaceToDepth", "TopK", "Resize", "Softmax",
)  # fmt: skip


@dataclass(frozen=True)
class Board:
    """Published peaks. fp32: of the CUDA cores, 2 x cores x clock. fp16: of the tensor cores, dense.

    `sources` says where each figure was read.
    """

    name: str
    mode: str
    cores: int
    clock_ghz: float
    bandwidth_gbs: float
    fp16_tflops: float
    sources: tuple[str, ...]

    @property
    def fp32_tflops(self) -> float:
        return 2e-3 * self.cores * self.clock_ghz


SUPER = "https://developer.nvidia.com/blog/nvidia-jetpack-6-2-brings-super-mode-to-nvidia-jetson-orin-nano-and-jetson-orin-nx-modules/"
BOARDS = (
    Board(
        "Orin Nano 8 GB", "MAXN_SUPER", 1024, 1.02, 102.0, 16.75,
        (
            "https://www.brojogopalsapui.com/ai-foundations/sub_contents/AI_hardware/jetson_orin_nano_light.html",
            f"{SUPER} (as quoted by others; fp16 is a quarter of its 67 sparse int8 TOPS)",
        ),
    ),
    Board(
        "Orin NX 16 GB", "MAXN_SUPER", 1024, 1.173, 102.4, 19.0,
        (f"{SUPER} (as quoted by others)", "Jetson Orin NX Series Modules Data Sheet 1.7 (as quoted by others)"),
    ),
    Board(
        "AGX Orin 64 GB", "MAXN", 2048, 1.3, 204.8, 42.5,
        (
            "https://static.generation-robots.com/media/Jetson-AGX-Orin-Data-Sheet.pdf (bandwidth)",
            "http://mzph.cn/web/30785.shtml, after NVIDIA's technical brief (5.3 TFLOPS in fp32; fp16 is a quarter of "
            "its 170 sparse int8 TOPS)",
        ),
    ),
    Board(
        "AGX Thor T5000", "MAXN", 2560, 1.57, 273.0, 258.5,
        (
            "https://developer.ridgerun.com/wiki/index.php/NVIDIA_Jetson_AGX_Thor/Blackwell_GPU (cores)",
            "https://huggingface.co/hardware/jetson-t5000 (fp16); clock and bandwidth from NVIDIA's table, quoted "
            "by others",
        ),
    ),
)  # fmt: skip


@dataclass
class Group:
    """Nodes that run as one kernel. Elements are of the network's own precision, whatever that is; flops are 2 a
    multiply-add. grouped: a depthwise convolution, which has no use for tensor cores."""

    flops: int = 0
    elements: int = 0
    grouped: bool = False


def groups_of(model: Any, level: Any) -> list[Group]:
    """The kernels of a level, in the order of their first node."""
    from gcpp_edge.export.graph import Graph
    from gcpp_edge.level_cache import cut_to_level

    cut_to_level(model, level)
    graph = Graph(model)
    group_of = _recomputed(graph, _fused(graph))
    groups = [Group() for _ in range(1 + max(group_of.values()))]
    for node in graph.nodes:
        if node.op_type in DENSE:
            group = groups[group_of[_output(node)]]
            group.flops += flops(graph, node)
            group.grouped = _is_grouped(node)
    _count_elements(graph, groups, group_of)
    return [group for group in groups if group.flops or group.elements]


def _fused(graph: Any) -> dict[str, int]:
    """The group of every tensor that a node makes: an elementwise node joins the latest of what it reads."""
    group_of: dict[str, int] = {}
    count = 0
    for node in graph.nodes:
        made_in = [group_of[name] for name in node.input if name in group_of]
        index = count if node.op_type in OWN_GROUP or not made_in else max(made_in)
        count = max(count, index + 1)
        group_of.update({name: index for name in node.output if name})
    return group_of


def _recomputed(graph: Any, group_of: dict[str, int]) -> dict[str, int]:
    """A mask whose source is stored anyway costs nothing where it is read, so it moves there and is never stored."""
    for node in reversed(graph.nodes):
        name, sources = _output(node), [source for source in node.input if source in group_of]
        readers = {group_of[_output(reader)] for reader in graph.consumers.get(name, ())} - {group_of[name]}
        if node.op_type in OWN_GROUP or len(sources) != 1 or len(readers) != 1 or name in graph.outputs:
            continue
        others = [reader for reader in graph.consumers[sources[0]] if _output(reader) != name]
        stored = any(group_of[_output(reader)] != group_of[sources[0]] for reader in others)
        if (stored or sources[0] in graph.outputs) and all(
            group_of[_output(reader)] in readers for reader in graph.consumers[name]
        ):
            group_of[name] = readers.pop()
    return group_of


def _output(node: Any) -> str:
    return next(name for name in node.output if name)


def _count_elements(graph: Any, groups: list[Group], group_of: dict[str, int]) -> None:
    """Once for each tensor that a group reads from elsewhere, and for each of its own that is read elsewhere."""
    from gcpp_edge.export.graph import elements

    size = {name: elements(value.shape) for name, value in graph.values.items()}
    read: dict[tuple[int, str], int] = {}
    stored = set(graph.outputs) & set(group_of)
    for node in graph.nodes:
        index = group_of[_output(node)]
        for name in filter(None, node.input):
            if group_of.get(name) != index:
                taken = size[_output(node)] if node.op_type in ("Gather", "Slice") else size.get(name, 0)
                read[index, name] = max(read.get((index, name), 0), min(taken, size.get(name, 0)))
                stored |= {name} & set(group_of)
    for (index, _), count in read.items():
        groups[index].elements += count
    for name in stored:
        groups[group_of[name]].elements += size[name]


def flops(graph: Any, node: Any) -> int:
    """Two a multiply-add. Of a transposed convolution: of the convolution whose derivative it is."""
    from gcpp_edge.export.graph import attribute, elements

    out, weight = (graph.value(name).shape for name in (node.output[0], node.input[1]))
    if node.op_type == "Conv":
        return 2 * elements(out) * elements(weight[1:])
    if node.op_type == "ConvTranspose":
        return 2 * elements(graph.value(node.input[0]).shape) * elements(weight[1:])
    inner = graph.value(node.input[0]).shape[0 if attribute(node, "transA", 0) else -1]
    return 2 * elements(out) * int(inner)


def _is_grouped(node: Any) -> bool:
    from gcpp_edge.export.graph import attribute

    return int(attribute(node, "group", 1)) > 1


def time_us(groups: Iterable[Group], board: Board, precision: str) -> float:
    """Each group at its roofline, one after the other."""
    total = 0.0
    for group in groups:
        half = precision == "fp16" and not group.grouped
        rate = 1e12 * (board.fp16_tflops if half else board.fp32_tflops)
        total += max(group.flops / rate, group.elements * PRECISIONS[precision] / (1e9 * board.bandwidth_gbs))
    return 1e6 * total


def kernel_bytes(height: int, width: int, input_side: int, channels: int, cells: int, precision: str) -> dict[str, int]:
    """What our kernels must move for one BGR frame: every input and output once.

    preprocess reads two frame rows for each row of the input, cam constant gradients, overlay the frame.
    """
    number = PRECISIONS[precision]
    frame = height * width * 3
    touched = int(frame * min(1.0, 2 * input_side / height))
    return {
        "preprocess": touched + 3 * input_side * input_side * number,
        "cam": channels * cells * number + channels * number + cells * 4,
        "overlay": 2 * frame,
    }


def network(name: str) -> Any:
    if name == "efficientnet_lite0":
        from gcpp_edge.export.demo_network import efficientnet_lite0

        return efficientnet_lite0()
    from gcpp_edge.export.from_torch import import_torchvision

    import_torchvision()
    from torchvision.models import get_model

    return get_model(name, weights=None)


def measure(name: str) -> dict[str, Any]:
    """Counts of a network, its levels' least times on every board, and its layer's kernels."""
    import torch
    from onnx import ModelProto

    from gcpp_edge.contract import contract_from_metadata
    from gcpp_edge.export import explain_module
    from gcpp_edge.export.lowering import TUNED

    options = {"guided": True, "check": False, "lowerings": TUNED["gpu"]}
    model = explain_module(network(name).eval(), torch.randn(1, 3, 224, 224), **options)
    contract = contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})
    rows: dict[str, Any] = {}
    for level_name, level in contract.levels.items():
        part = ModelProto()
        part.CopyFrom(model)
        groups = groups_of(part, level)
        rows[level_name] = {
            "kernels": len(groups),
            "gflops": round(sum(group.flops for group in groups) / 1e9, 3),
            "million_numbers_moved": round(sum(group.elements for group in groups) / 1e6, 2),
            "us": {board.name: {p: round(time_us(groups, board, p), 1) for p in PRECISIONS} for board in BOARDS},
        }
    cells = contract.layer.space[0] * contract.layer.space[1]
    return {"layer": {"channels": contract.layer.channels, "cells": cells}, "levels": rows}


def kernel_rows(found: dict[str, Any]) -> dict[str, Any]:
    """Bytes and least microseconds of our kernels, for a 1080p frame and ResNet-50's layer or the first network's."""
    layer = found.get("resnet50", next(iter(found.values())))["layer"]
    moved = kernel_bytes(1080, 1920, 224, layer["channels"], layer["cells"], "fp16")
    return {
        name: {
            "bytes": count,
            "us": {board.name: round(count / (1e3 * board.bandwidth_gbs), 2) for board in BOARDS},
        }
        for name, count in moved.items()
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/jetson.md, by name."""
    boards = [board["name"] for board in result["boards"]]
    return {
        "boards": _table(
            ("board", "mode", "CUDA cores x GHz", "fp32 TFLOPS", "fp16 TFLOPS", "GB/s"),
            (
                (b["name"], b["mode"], f"{b['cores']} x {b['clock_ghz']}", f"{2e-3 * b['cores'] * b['clock_ghz']:.1f}",
                 str(b["fp16_tflops"]), str(b["bandwidth_gbs"]))
                for b in result["boards"]
            ),
        ),
        "counts": _table(
            ("network", "level", "kernels", "GFLOP", "MB moved, fp16", "MB moved, fp32"),
            (
                (name, level, str(row["kernels"]), f"{row['gflops']:.2f}", f"{2 * row['million_numbers_moved']:.1f}",
                 f"{4 * row['million_numbers_moved']:.1f}")
                for name, entry in result["networks"].items() for level, row in entry["levels"].items()
            ),
        ),
        "times": _table(
            ("network", "precision", *(f"{board}: plain, map, guided" for board in boards)),
            (
                (name, precision, *(_three(entry, board, precision) for board in boards))
                for name, entry in result["networks"].items() for precision in ("fp16", "fp32")
            ),
        ),
        "kernels": _table(
            ("kernel", "KB", *(f"{board}, µs" for board in boards)),
            (
                (name, f"{row['bytes'] / 1e3:.0f}", *(f"{row['us'][board]:.2f}" for board in boards))
                for name, row in result["our_kernels"].items()
            ),
        ),
    }  # fmt: skip


def _three(entry: dict[str, Any], board: str, precision: str) -> str:
    """The milliseconds of the plain network, and what the levels cost beside it."""
    plain, mapped, guided = (entry["levels"][level]["us"][board][precision] for level in ("plain", "map", "guided"))
    return f"{plain / 1e3:.2f} ms, {mapped / plain:.2f} x, {guided / plain:.2f} x"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


MARKED = re.compile(r"(<!-- roofline: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str, result: dict[str, Any]) -> str:
    """The page with each table between its marks written anew."""
    made = tables(result)
    return MARKED.sub(lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    found = {}
    for name in options.networks:
        found[name] = measure(name)
        print(name, {level: row["gflops"] for level, row in found[name]["levels"].items()}, flush=True)
    from level_cost import commit

    result = {
        "benchmark": "roofline",
        "what": "Estimates on paper: published peaks and counted operations and bytes. Nothing was run on a board.",
        "input": "224 x 224, batch 1; our kernels: a 1080p BGR frame, fp16",
        "boards": [asdict(board) for board in BOARDS],
        "networks": found,
        "our_kernels": kernel_rows(found),
        "commit": commit(),
        "date": date.today().isoformat(),
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.page.exists():
        options.page.write_text(with_tables(options.page.read_text(encoding="utf-8"), result), encoding="utf-8")


if __name__ == "__main__":
    main()
