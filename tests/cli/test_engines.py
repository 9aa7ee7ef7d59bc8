"""build, cache and doctor: real engines, built on the CPU by TensorRT for RTX."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from gcpp_edge.cli.build import BuildBar, build_bar
from gcpp_edge.engine_store import engine_folder
from gcpp_edge.level_cache import cache_folder

Run = Callable[..., Any]
needs_rtx = pytest.mark.skipif(
    "not __import__('importlib.util').util.find_spec('tensorrt_rtx')",
    reason="TensorRT for RTX is not installed; `make test` installs it where it has wheels",
)
FOR_AMPERE = ("--compute-capability", "8.6")


# build


@needs_rtx
def test_a_build_says_what_it_made_how_large_how_long_and_where(folder: Path, run: Run) -> None:
    result = run("build", folder / "map.onnx", *FOR_AMPERE)
    assert result.status == 0 and result.err == ""
    (engine,) = engine_folder().glob("*.engine")
    expected = (
        rf"{engine}  {folder}/map\.onnx, level map, batch 1, for any GPU \(8\.6\): [\d.]+ KiB, built in [\d.]+ s\n"
    )
    assert re.fullmatch(expected, result.out)
    assert "was there already" in run("build", folder / "map.onnx", *FOR_AMPERE).out


@needs_rtx
def test_several_models_and_levels_are_one_engine_each(folder: Path, run: Run) -> None:
    models = (folder / "map.onnx", folder / "guided.onnx")
    words = ("--level", "plain", "--level", "map", "--batch", "1:2:4", "--tf32", "--json")
    result = run("build", *models, *words, *FOR_AMPERE)
    assert result.status == 0
    rows = json.loads(result.out)["engines"]
    assert [(row["model"], row["level"]) for row in rows] == [
        (str(model), level) for model in models for level in ("plain", "map")
    ]
    for row in rows:
        assert row["built"] is True and row["seconds"] > 0 and Path(row["path"]).stat().st_size == row["bytes"]
        assert row["batch"] == [1, 2, 4] and row["tf32"] is True and row["compute_capabilities"] == ["8.6"]
        assert row["flavour"] == "tensorrt_rtx" and row["gpu"] == "" and row["copied_to"] is None
    again = json.loads(run("build", *models, *words, *FOR_AMPERE).out)["engines"]
    assert [row | {"built": True} for row in again] == rows and not any(row["built"] for row in again)


@needs_rtx
def test_capabilities_are_one_engine_in_whichever_order(folder: Path, run: Run) -> None:
    first = run("build", folder / "map.onnx", "--compute-capability", "12.0", "--compute-capability", "8.6", "--json")
    second = run("build", folder / "map.onnx", "--compute-capability", "8.6", "--compute-capability", "12.0", "--json")
    (one,), (two,) = (json.loads(result.out)["engines"] for result in (first, second))
    assert one["path"] == two["path"] and one["compute_capabilities"] == ["8.6", "12.0"] and not two["built"]


@needs_rtx
def test_a_copy_goes_where_it_was_asked_for(folder: Path, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    result = run("build", folder / "map.onnx", *FOR_AMPERE, "-o", path)
    assert result.out.startswith(f"{path}  ")
    (engine,) = engine_folder().glob("*.engine")
    assert path.read_bytes() == engine.read_bytes()
    assert json.loads((tmp_path / "model.engine.json").read_text())["contract"]["input"] == "image"


@needs_rtx
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--level", "guided"), "holds the levels plain, map, not 'guided'. Export it again with --guided"),
        (("--level", "all"), "Unknown level 'all'. Known: plain, map, guided"),
        (("--batch", "0"), "batch: expected a count"),
        (("--batch", "4:2:8"), "found '4:2:8'"),
        (("--batch", "1:2"), "found '1:2'"),
        (("--batch", "many"), "found 'many'"),
        (("--compute-capability", "8.7"), "builds for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1; found '8.7'"),
        (("--level", "map", "--level", "plain", "-o", "x"), "--output: one engine at a time"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(folder: Path, run: Run, words, message: str) -> None:
    result = run("build", folder / "map.onnx", *FOR_AMPERE, *words)
    assert result.status == 2 and result.out == ""
    assert result.err.count("\n") == 1 and result.err.startswith("gcpp-edge: ") and message in result.err
    assert not list(cache_folder().rglob("*.engine"))


@needs_rtx
@pytest.mark.parametrize("name", ["truncated.onnx", "noise.onnx", "network.onnx", "missing.onnx", "damaged.onnx"])
def test_a_file_that_is_no_explained_model_is_refused(folder: Path, run: Run, name: str) -> None:
    result = run("build", folder / name, *FOR_AMPERE)
    assert result.status == 2 and result.err.count("\n") == 1 and name in result.err


@needs_rtx
def test_a_cache_that_others_may_write_to_is_refused(folder: Path, run: Run) -> None:
    engine_folder().mkdir(parents=True)
    engine_folder().chmod(0o777)
    result = run("build", folder / "map.onnx", *FOR_AMPERE)
    assert result.status == 2 and "others may write to it" in result.err and "chmod 700" in result.err


@needs_rtx
def test_without_a_gpu_it_says_what_can_be_built_for(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcpp_edge.device.DEVICES", {"cpu": "gcpp_edge.device.host"})
    result = run("build", folder / "map.onnx")
    assert result.status == 2 and result.err.count("\n") == 1
    assert "No GPU can be used here" in result.err and "--compute-capability 7.5 or 8.0 or 8.6" in result.err


@needs_rtx
def test_with_a_gpu_it_builds_for_that_one_on_its_thread(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is not loaded here, which needs a real one."""
    performed: list[Any] = []

    def perform(work: Callable[[], Any]) -> Any:
        performed.append(work)
        return work()

    gpu = SimpleNamespace(name="NVIDIA A10", capability=(8, 6))
    device = SimpleNamespace(name="cuda", gpu=gpu, perform=perform, close=lambda: performed.append("closed"))
    monkeypatch.setattr("gcpp_edge.device.open_device", lambda name: device)
    monkeypatch.setattr("gcpp_edge.runtimes.tensorrt.Engine", lambda *given: object())
    (row,) = json.loads(run("build", folder / "map.onnx", "--json").out)["engines"]
    assert row["gpu"] == "NVIDIA A10" and row["compute_capabilities"] == ["8.6"] and len(performed) == 2
    assert performed[-1] == "closed"


def test_without_tensorrt_it_says_how_to_get_it(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_tensorrt(monkeypatch)
    result = run("build", folder / "map.onnx")
    assert result.status == 2 and "TensorRT is not installed" in result.err and "JetPack" in result.err


def hide_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("gcpp_edge.runtimes.tensorrt_library.is_installed", lambda flavour: False)


def test_the_bar_counts_phases_within_steps_of_phases() -> None:
    shares = []
    with build_bar(Console(force_terminal=True, file=open(os.devnull, "w")), "model.onnx map") as bar:
        bar.start("Building", None, 4)
        shares.append(bar.share())
        bar.step("Building", 0)
        bar.start("Optimizing", "Building", 2)
        shares.append(bar.share())
        bar.step("Optimizing", 0)
        shares.append(bar.share())
        bar.finish("Optimizing")
        bar.step("Building", 1)
        shares.append(bar.share())
        bar.step("Building", 3)
        bar.step("unknown", 3)
        bar.finish("Building")
        shares.append(bar.share())
    assert shares == [0, 0.25, 0.375, 0.5, 1]


@needs_rtx
def test_tensorrt_moves_the_bar_forward_only(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    step = BuildBar.step

    def noted(self: BuildBar, phase: str, number: int) -> None:
        step(self, phase, number)
        shares.append(self.share())

    monkeypatch.setattr(BuildBar, "step", noted)
    assert run("build", folder / "map.onnx", *FOR_AMPERE).status == 0
    assert len(shares) > 20 and shares == sorted(shares) and 0 < shares[0] < shares[-1] <= 1


# cache


@needs_rtx
def test_the_cache_lists_engines_and_levels(folder: Path, run: Run) -> None:
    run("build", folder / "map.onnx", *FOR_AMPERE)
    run("explain", folder / "guided.onnx", folder / "wide.jpg")  # cuts the map level
    document = json.loads(run("cache", "list", "--json").out)
    assert document["folder"] == str(cache_folder())
    rows = {row["kind"]: row for row in document["files"]}
    assert set(rows) == {"engine", "level", "digests"}
    assert rows["engine"]["of"] == str(folder / "map.onnx") and rows["engine"]["level"] == "map"
    assert rows["engine"]["for"].startswith("any GPU (8.6), tensorrt_rtx ")
    assert rows["level"]["level"] == "map" and rows["level"]["bytes"] == Path(rows["level"]["path"]).stat().st_size
    table = run("cache", "list").out
    assert "3 entries" in table and "map.onnx" in table and "any GPU (8.6)" in table


def test_an_empty_cache_is_listed_and_cleared(run: Run) -> None:
    assert "0 entries, 0 bytes" in run("cache", "list").out
    assert "0 files removed" in run("cache", "clear").out
    assert json.loads(run("cache", "clear", "--json").out)["removed"] == []


@needs_rtx
def test_clearing_removes_engines_and_levels_and_nothing_else(folder: Path, run: Run) -> None:
    run("build", folder / "map.onnx", *FOR_AMPERE)
    run("explain", folder / "guided.onnx", folder / "wide.jpg")
    mine = [cache_folder() / "demo-efficientnet_lite0-1.onnx", cache_folder() / "notes.txt"]
    for path in mine:
        path.write_text("mine")
    (engine_folder() / "abc.engineXYZ.part").write_text("unfinished")
    (engine_folder() / "orphan.engine").write_text("without a document")
    document = json.loads(run("cache", "clear", "--json").out)
    assert len(document["removed"]) == 5 and document["kept"] == [] and document["bytes"] > 10000
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == mine
    assert "was there already" not in run("build", folder / "map.onnx", *FOR_AMPERE).out


@needs_rtx
def test_clearing_what_is_old_leaves_what_is_new(folder: Path, run: Run) -> None:
    run("build", folder / "map.onnx", "--level", "plain", "--level", "map", *FOR_AMPERE)
    old = next(row for row in json.loads(run("cache", "list", "--json").out)["files"] if row["level"] == "plain")
    long_ago = time.time() - 40 * 86400
    os.utime(old["path"], (long_ago, long_ago))
    listed = json.loads(run("cache", "list", "--older-than", "30", "--json").out)["files"]
    assert [row["path"] for row in listed] == [old["path"]] and 39 < listed[0]["days"] < 41
    assert "1 file removed" in run("cache", "clear", "--older-than", "30").out
    assert "was there already" in run("build", folder / "map.onnx", *FOR_AMPERE).out
    assert not Path(old["path"]).exists()


def test_the_cache_alone_is_refused_with_a_hint(run: Run) -> None:
    result = run("cache")
    assert result.status == 2 and result.err == "gcpp-edge: Missing command (see gcpp-edge cache --help)\n"


@pytest.mark.parametrize("command", ["list", "clear"])
def test_the_help_of_both_has_examples_and_json(command: str, run: Run) -> None:
    result = run("cache", command, "--help")
    assert result.status == 0
    assert f"gcpp-edge cache {command}" in result.out and "Examples" in result.out and "--json" in result.out


# doctor


@needs_rtx
def test_the_doctor_knows_tensorrt_and_the_gpu(run: Run) -> None:
    import tensorrt_rtx

    document = json.loads(run("doctor", "--json").out)
    rows = {row["module"]: row for row in document["runtimes"]["tensorrt"]}
    version = tensorrt_rtx.__version__
    assert rows["tensorrt_rtx"]["version"] == version and rows["tensorrt_rtx"]["problem"] == ""
    assert "compute_capability" in rows["tensorrt_rtx"]["features"]
    assert set(document["gpu"]) == {"driver_library", "devices", "pycuda", "cuda-bindings"}
    text = run("doctor").out
    assert "tensorrt for rtx" in text and version in text
    for line in ("driver", "pycuda", "cuda-bindings"):
        assert re.search(rf"^{line} ", text, re.MULTILINE)


def test_the_doctor_says_why_a_tensorrt_is_not_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tensorrt")
    module.__version__ = "10.2.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    (row,) = [r for r in json.loads(run("doctor", "--json").out)["runtimes"]["tensorrt"] if r["module"] == "tensorrt"]
    assert row["version"] == "10.2.0" and "10.2.0 is refused" in row["problem"]
    assert "not usable: TensorRT 10.2.0 is refused" in run("doctor").out


def test_the_doctor_says_where_tensorrt_comes_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_tensorrt(monkeypatch)
    assert "missing (it comes with JetPack" in run("doctor").out


def test_the_doctor_loads_nothing_of_cuda(run: Run) -> None:
    before = set(sys.modules)
    run("doctor")
    assert not {"pycuda", "cuda", "pycuda.driver"} & (set(sys.modules) - before)
