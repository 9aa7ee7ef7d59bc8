"""gcpp-edge beside pytorch-grad-cam, Captum, PyTorch with hooks, and OpenCV with NumPy: the same networks and picture.

    python benchmarks/peers.py [--networks resnet50 vgg16] [--rounds 8] [--output FILE]
    python benchmarks/peers.py --table     # measures nothing: writes the README's tables from the saved result

Each turns a 640 x 480 uint8 frame into a finished overlay, preprocessing and drawing included. All run turn by turn in
one process a network and setting, with as many threads each. Whether waiting threads spin decides a lot, so it is a
setting for all of them alike: "2 threads" spin nowhere, as a robot wants it whose cores have other work (OpenMP waits
passively), "2 threads, spinning" spin in PyTorch and in ONNX Runtime, "1 thread" has nothing to wait for. Each pauses,
and runs once untimed, before it is timed: then the caches are its own and the threads of the one before sleep.

Each network is kept in the result, with its commit and day, until it is measured again.
`agreement` says, for the same input, how far the maps are apart: without it a comparison means nothing. Weights are
random but for Lite0's, which costs the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from common import RESULTS, commit, parser_of, save
from peer_parts.table import NAMES, draw, with_tables

README = RESULTS.parents[1] / "README.md"
PICTURE = RESULTS.parents[1] / "docs" / "peers.png"
WARM_UP_ROUNDS = 1
PAUSE_SECONDS = 0.02
SETTINGS = {  # by name: threads, and whether those that wait spin
    "2 threads": (2, False),
    "2 threads, spinning": (2, True),
    "1 thread": (1, False),
}


def main() -> None:
    parser = parser_of(__doc__, "peers", rounds=8)
    parser.add_argument("--networks", nargs="+", default=tuple(NAMES))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=tuple(SETTINGS))
    parser.add_argument("--table", action="store_true", help="only write the README's tables and the picture")
    parser.add_argument("--alone", action="store_true", help="one network and setting in this process; prints JSON")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.networks[0], *SETTINGS[options.settings[0]], options.rounds)))
        return
    if not options.table:
        options.threads = sorted({SETTINGS[name][0] for name in options.settings})
        networks, measured = saved(options.output)
        for name in options.networks:
            networks[name] = measured_apart(name, options)
            measured[name] = {"commit": commit(), "date": date.today().isoformat(), "rounds": options.rounds}
        networks = {name: networks[name] for name in NAMES if name in networks}
        what = "640 x 480 uint8 frame to a finished overlay, medians of milliseconds"
        save(options, "peers", {"what": what, "peers": versions(), "networks": networks, "measured": measured})
    if options.table or options.output == parser.get_default("output"):
        result = json.loads(options.output.read_text("utf-8"))
        README.write_text(with_tables(README.read_text("utf-8"), result), encoding="utf-8")
        draw(result, PICTURE)


def saved(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The networks of an earlier result, and when each was measured: those that are not measured now are kept."""
    if not path.exists():
        return {}, {}
    result = json.loads(path.read_text("utf-8"))
    whole = {key: result[key] for key in ("commit", "date", "rounds")}
    return result["networks"], dict.fromkeys(result["networks"], whole) | result.get("measured", {})


def measured_apart(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Each setting in a process of its own: how OpenMP's threads wait is fixed when it is loaded."""
    found = {}
    for setting in options.settings:
        spins = SETTINGS[setting][1]
        command = [sys.executable, __file__, "--alone", "--networks", name, "--settings", setting]
        command += ["--rounds", str(options.rounds)]
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        if not spins:
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
        made = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found[setting] = json.loads(made.stdout.splitlines()[-1])
        report(f"{name}, {setting}", found[setting])
    return found


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "grad-cam", "captum", "opencv-python-headless")}


def measure(name: str, threads: int, spins: bool, rounds: int) -> dict[str, Any]:
    """Median milliseconds of all, and how far their maps are apart."""
    import cv2
    import torch
    from peer_parts import ours, peers
    from peer_parts.subjects import save_model, subject

    import gcpp_edge

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    one = subject(name)
    with tempfile.TemporaryDirectory() as folder:
        path = save_model(one, Path(folder))
        with gcpp_edge.load(path, device="cpu", threads=threads, spin=spins) as explainer:
            agreement = ours.agreement(one, explainer)
            grad_cam, guided_grad_cam = peers.pytorch_grad_cam(one)
            layer_grad_cam, backprop, product = peers.captum(one)
            kernels, opencv = ours.postprocessing_pair(one, threads)
            runs: dict[str, Callable[[], object]] = {
                "plain": ours.plain(one, threads, spins),
                "plain, scores()": lambda: explainer.scores(one.frame),
                "map": ours.map_and_overlay(one, explainer),
                "guided": ours.guided(one, explainer),
                "pytorch-grad-cam": grad_cam,
                "pytorch-grad-cam guided": guided_grad_cam,
                "Captum LayerGradCam": layer_grad_cam,
                "Captum GuidedBackprop": backprop,
                "Captum GuidedGradCam": product,
                "PyTorch by hand": peers.by_hand(one),
                "PyTorch forward": peers.forward(one),
                "post-processing, kernels": kernels,
                "post-processing, OpenCV": opencv,
            }
            return {"ms": medians(runs, rounds), "agreement": agreement}


def medians(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, in an order that moves on by one every round, each warmed up by itself."""
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(WARM_UP_ROUNDS + rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            sleep(PAUSE_SECONDS)
            runs[name]()
            began = perf_counter()
            runs[name]()
            if index >= WARM_UP_ROUNDS:
                times[name].append(1e3 * (perf_counter() - began))
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def report(name: str, found: dict[str, Any]) -> None:
    plain, mapped = found["ms"]["plain"], found["ms"]["map"]
    print(f"{name}: plain {plain:.2f} ms, map {mapped / plain:.3f} x, guided {found['ms']['guided'] / plain:.2f} x")
    for other, ms in found["ms"].items():
        agreement = found["agreement"].get(other, "")
        print(f"  {other:26} {ms:9.2f} ms  {ms / mapped:6.2f} x our map  {agreement}", flush=True)


if __name__ == "__main__":
    main()
