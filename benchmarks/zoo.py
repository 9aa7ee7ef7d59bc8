"""Networks that others designed, one by one: exported, run, and held against PyTorch's autograd.

    python benchmarks/zoo.py                             all groups
    python benchmarks/zoo.py torchvision timm            groups: torchvision, torchvision-video,
                                                         torchvision-segmentation, timm (a family's smallest member)
    python benchmarks/zoo.py timm:resnet10t timm:lcnet_050
    python benchmarks/zoo.py timm --part 1/4             every fourth one, so that several machines share the work
    python benchmarks/zoo.py timm --again differs        rows of that verdict anew

Parameters are redrawn and BatchNorm calibrated, as the tests do it (tests/export/autograd_oracle.py). A network holds
when activations, gradients and the guided image are within max(1e-4, 3 x PyTorch's own float32 error) of autograd in
float64, relative to the largest value; where that leaves it open, it must hold when exported in float64 (within 1e-6).
Rows are written as they come into results/zoo.jsonl, a table to read into results/zoo.md. A network that has its row is
not run again. Each runs in a process of its own with a limit of time and memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import onnxscript  # noqa: F401 - the networks' processes are forked: what is imported here is not paid for again
import torch
import torch.onnx._internal.exporter._core

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "export"))

from level_cost import commit  # noqa: E402
from networks.comparison import KEYS, examine  # noqa: E402
from networks.names import GROUPS, expand  # noqa: E402
from networks.process import apart  # noqa: E402
from networks.table import read, store, write_page  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "zoo.jsonl"


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    names = [name for given in options.networks for name in expand(given)]
    part, parts = map(int, options.part.split("/"))
    rows = read(options.output)
    due = [name for name in names[part - 1 :: parts] if name not in rows or rows[name]["verdict"] == options.again]
    start = time.perf_counter()
    for count, name in enumerate(due, 1):
        row = apart(examine, name, options.seconds, options.gigabytes) | {"commit": commit()}
        rows = store(options.output, row)
        left = (time.perf_counter() - start) / count * (len(due) - count) / 60
        print(f"[{count}/{len(due)}, {left:.0f} min left] {_line(row)}", flush=True)
    write_page(rows, options.output.with_suffix(".md"), _about())
    found = [rows[name] for name in names if name in rows]
    print(f"{sum(row['verdict'] == 'holds' for row in found)} of {len(found)} hold")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=GROUPS, help="groups, or GROUP:MODEL")
    parser.add_argument("--again", metavar="VERDICT", help="run rows of that verdict again")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="the i-th of n parts")
    parser.add_argument("--seconds", type=float, default=900, help="limit of time for a network")
    parser.add_argument("--gigabytes", type=float, default=9, help="limit of memory for a network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def _about() -> str:
    text = (__doc__ or "").split("\n\n")[-1].strip().replace("\n", " ")
    return (
        f"Written by `benchmarks/zoo.py`. {text} Errors are the largest difference over the largest value; behind a "
        "slash, in float64."
    )


def _line(row: dict[str, Any]) -> str:
    figures = " ".join(f"{key} {row[key]['largest']:.1e} (own {row[key]['own']:.1e})" for key in KEYS if key in row)
    exact = f" float64 {max(row['float64'].values()):.1e}" if "float64" in row else ""
    return (
        f"{row['network']:36} {row['verdict']:8} {row['seconds']:.0f} s {row.get('layer', '')} "
        f"{figures}{exact} {row.get('reason', '')}"
    )


if __name__ == "__main__":
    main()
