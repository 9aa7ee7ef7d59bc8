"""The zoo's bookkeeping: what a network dies of is named, and rows replace each other."""

import os
import time

from networks.process import apart
from networks.table import read, store, write_page


def row(name="timm:a", verdict="holds", **more):
    return {"network": name, "verdict": verdict, "seconds": 1.0, **more}


def dies(_):
    os._exit(7)


def hangs(_):
    time.sleep(60)


def eats(_):
    held = bytearray(b"x") * 2**31
    time.sleep(60)
    return held


def test_a_network_gives_its_row_from_a_process_of_its_own():
    assert apart(lambda name: row(name, process=os.getpid()), "timm:a", 60, 64)["process"] != os.getpid()


def test_a_crash_a_hang_and_a_glutton_are_named():
    crash, hang, glutton = (
        apart(dies, "timm:a", 60, 64),
        apart(hangs, "timm:b", 0.5, 64),
        apart(eats, "timm:c", 60, 1.5),
    )
    assert [found["verdict"] for found in (crash, hang, glutton)] == ["failed"] * 3
    assert "ended with 7" in crash["reason"]
    assert "not done after" in hang["reason"]
    assert "more than 1.5 GB" in glutton["reason"]


def test_a_row_takes_the_place_of_the_older_one(tmp_path):
    path = tmp_path / "zoo.jsonl"
    store(path, row("timm:b"))
    store(path, row("timm:a", "differs"))
    rows = store(path, row("timm:a"))
    assert read(path) == rows
    assert [rows[name]["verdict"] for name in ("timm:a", "timm:b")] == ["holds", "holds"]


def test_the_page_counts_what_holds_and_names_what_does_not(tmp_path):
    figures = {key: {"largest": 1e-5, "l2": 1e-6, "own": 0.0} for key in ("activations", "gradients", "guided")}
    holding = row(
        "timm:a", input=[3, 64, 64], operators=["Conv"], layer="stages", export_seconds=1, bake_seconds=2, **figures
    )
    refused = row("timm:b", "refused", reason="No VJP rule for Det")
    write_page({"timm:a": holding, "timm:b": refused}, tmp_path / "zoo.md", "About.")
    page = (tmp_path / "zoo.md").read_text("utf-8")
    assert "1 of 2 hold" in page
    assert "| a | 64x64 | 1 | stages | 1.0e-05 | 1.0e-05 | 1.0e-05 | 3.0 | holds |" in page
    assert "`timm:b` refused: No VJP rule for Det" in page
