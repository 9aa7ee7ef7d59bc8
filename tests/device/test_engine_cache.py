"""Engines in the cache, with real engine files: TensorRT for RTX builds them on the CPU.

They are built for compute capability 8.6 and not run: that needs a GPU.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT for RTX is not installed; `make test` installs it where it has wheels"
)

from gcpp_edge import engine_cache
from gcpp_edge.engine_cache import Gpu, Recipe, engine_folder, entries, model_digest
from gcpp_edge.errors import InputError, ModelError, RuntimeFailure
from gcpp_edge.model_file import read_model_file, weight_files
from gcpp_edge.runtimes import tensorrt, tensorrt_build
from gcpp_edge.runtimes.tensorrt import obtain_engine, options_for
from gcpp_edge.runtimes.tensorrt_build import Batch
from gcpp_edge.runtimes.tensorrt_library import TENSORRT_RTX, usable

LIBRARY = usable(TENSORRT_RTX)
ANY = Gpu("", ("8.6",))
ONE = Batch()


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The levels that were really built, one entry a build."""
    done: list[str] = []
    build = tensorrt_build.build_engine

    def counted(library: Any, model: Any, where: str, options: Any, *rest: Any) -> Any:
        # what a recipe says of the GPU is free to choose here; the engine is always for 8.6
        built = build(usable(TENSORRT_RTX), model, where, replace(options, compute_capabilities=("8.6",)), *rest)
        done.append(options.level)
        return built

    monkeypatch.setattr(tensorrt, "build_engine", counted)
    return done


def obtain(path: Path, *, level: str = "plain", batch: Batch = ONE, gpu: Gpu = ANY, **options: Any) -> Any:
    """The entry of an engine, and whether it was built just now."""
    library = options.pop("library", LIBRARY)
    file = read_model_file(path)
    wanted = options_for(file, level, batch, options.pop("tf32", False))
    _, entry, is_new = obtain_engine(library, file, wanted, gpu, load=False, **options)
    return entry, is_new


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of engines in the cache; a line each."""
    lines = [record.getMessage() for record in caplog.records if record.name == "gcpp_edge.engine_cache"]
    assert all("\n" not in line for line in lines)
    caplog.clear()
    return lines


# a hit


def test_an_engine_is_built_once(make_model, builds, caplog) -> None:
    path = make_model().path
    entry, is_new = obtain(path)
    state = entry.path.stat()
    again, is_new_again = obtain(path)
    assert (is_new, is_new_again, builds) == (True, False, ["plain"])
    assert again.path == entry.path and again.path.stat().st_mtime_ns == state.st_mtime_ns
    assert again.path.stat().st_ino == state.st_ino
    assert complaints(caplog) == []


def test_a_first_build_says_that_it_takes_a_while(make_model, builds, caplog) -> None:
    obtain(make_model().path)
    assert [record.levelname for record in caplog.records if "gcpp-edge build" in record.getMessage()] == ["WARNING"]


def test_a_copy_of_the_model_elsewhere_finds_its_engine(make_model, builds, tmp_path) -> None:
    path = make_model().path
    obtain(path)
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(path, tmp_path / "elsewhere" / "another.onnx")
    assert obtain(Path(copy))[1] is False


def test_the_document_says_what_the_engine_is(make_model, builds) -> None:
    model = make_model()
    entry, _ = obtain(model.path, level="map", batch=Batch(1, 2, 4))
    document = json.loads(entry.path.with_suffix(".json").read_text())
    assert document["recipe"] == {
        "model": model_digest(model.path),
        "level": "map",
        "flavour": "tensorrt_rtx",
        "version": LIBRARY.version,
        "gpu": ["", ["8.6"]],
        "batch": [1, 2, 4],
        "tf32": False,
    }
    assert document["contract"] == json.loads(model.contract.to_json())
    assert [tensor["name"] for tensor in document["inputs"]] == ["image", "target"]
    assert document["outputs"][0] == {"name": "scores", "shape": [None, 7], "dtype": "float32"}
    assert document["profiles"]["image"] == [[count, 3, 16, 12] for count in (1, 2, 4)]
    assert document["engine"]["bytes"] == entry.path.stat().st_size
    assert obtain(model.path)[0].document["unused_inputs"] == ["target"]


@pytest.mark.parametrize(
    "another",
    [{"level": "map"}, {"tf32": True}, {"batch": Batch(1, 1, 2)}, {"gpu": Gpu("", ("8.9",))}],
    ids=["level", "precision", "batch", "capability"],
)
def test_what_was_asked_for_in_another_way_is_built_beside(make_model, builds, caplog, another) -> None:
    path = make_model().path
    obtain(path)
    obtain(path, **another)
    assert obtain(path)[1] is False and obtain(path, **another)[1] is False
    assert len(list(entries())) == 2 and complaints(caplog) == []


def test_a_larger_range_of_batches_serves_a_smaller_one(make_model, builds) -> None:
    path = make_model().path
    large, _ = obtain(path, batch=Batch(1, 4, 8))
    assert obtain(path, batch=Batch(1, 4, 4)) == (large, False)
    assert obtain(path, batch=Batch(2, 2, 2))[0] == large
    exact, is_new = obtain(path, batch=Batch(1, 1, 16))
    assert is_new and obtain(path, batch=Batch(1, 8, 8))[0] == large  # the smallest that does it
    assert obtain(path, batch=Batch(1, 1, 16))[0] == exact


def test_an_engine_built_without_a_gpu_serves_gpus_of_its_capability(make_model, builds) -> None:
    path = make_model().path
    obtain(path, gpu=Gpu("", ("8.6", "8.9")))
    assert obtain(path, gpu=Gpu("NVIDIA A10", ("8.6",)))[1] is False
    assert obtain(path, gpu=Gpu("NVIDIA L4", ("8.9",)))[1] is False
    assert obtain(path, gpu=Gpu("NVIDIA H100", ("9.0",)))[1] is True


# what is out of date


def test_a_changed_model_is_named_and_its_engine_replaced(make_model, builds, caplog) -> None:
    make_model()
    old, _ = obtain(make_model().path)
    new, is_new = obtain(make_model(guided=False).path)
    (line,) = complaints(caplog)
    assert is_new and str(old.path) in line and line.endswith("the model has changed since")
    assert not old.path.exists() and [entry.path for entry in entries()] == [new.path]


def test_an_engine_of_another_tensorrt_is_named_and_replaced(make_model, builds, caplog) -> None:
    path = make_model().path
    old, _ = obtain(path, library=replace(LIBRARY, version="1.6.0"))
    _, is_new = obtain(path)
    (line,) = complaints(caplog)
    assert is_new and line.endswith(f"built by tensorrt_rtx 1.6.0, this is tensorrt_rtx {LIBRARY.version}")
    assert not old.path.exists()


def test_an_engine_of_another_gpu_is_named_and_left_alone(make_model, builds, caplog) -> None:
    """Two machines may share a home."""
    path = make_model().path
    old, _ = obtain(path, gpu=Gpu("NVIDIA A10", ("8.6",)))
    _, is_new = obtain(path, gpu=Gpu("NVIDIA L4", ("8.9",)))
    (line,) = complaints(caplog)
    assert is_new and line.endswith("built for NVIDIA A10 (8.6), this is NVIDIA L4 (8.9)")
    assert old.path.exists()


# what is broken


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_recipe(path: Path) -> None:
    document = json.loads(path.with_suffix(".json").read_text())
    document["recipe"]["gpu"] = ["another", ["8.6"]]
    path.with_suffix(".json").write_text(json.dumps(document))


BROKEN = {
    "truncated": (truncate, r"it has \d+ bytes of \d+"),
    "empty": (lambda path: path.write_bytes(b""), r"it has 0 bytes of \d+"),
    "a bit turned": (turn_a_bit, "its bytes are not those that were built"),
    "another file": (lambda path: path.write_bytes(os.urandom(path.stat().st_size)), "not those that were built"),
    "without its engine": (Path.unlink, r"it cannot be read \(No such file or directory\)"),
    "without its document": (lambda path: path.with_suffix(".json").unlink(), "its document is missing"),
    "a damaged document": (lambda path: path.with_suffix(".json").write_text("{"), "its document cannot be read"),
    "a document of no engine": (lambda path: path.with_suffix(".json").write_text('{"format": 1}'), "is damaged"),
    "a document of the future": (lambda path: path.with_suffix(".json").write_text('{"format": 2}'), "another version"),
    "the document of another": (change_recipe, "its document is that of another engine"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_engine_is_named_in_one_line_and_built_again(make_model, builds, caplog, what: str) -> None:
    break_it, reason = BROKEN[what]
    path = make_model().path
    entry, _ = obtain(path)
    break_it(entry.path)
    again, is_new = obtain(path)
    (line,) = complaints(caplog)
    assert is_new and line.startswith(f"{entry.path} cannot be used and is built again: ")
    assert re.search(reason, line), line
    assert again.path == entry.path and obtain(path)[1] is False and complaints(caplog) == []


def test_an_engine_that_does_not_load_is_named_and_built_again(make_model, builds, caplog) -> None:
    path = make_model().path
    _, _ = obtain(path)
    recipe = next(entries()).recipe
    answers = [RuntimeFailure("m.onnx: TensorRT cannot load its engine (Serialization\nfailed)."), "loaded"]

    def load(data: Any, document: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    fresh = engine_cache.Fresh(b"new engine", {"seconds": 0.0})
    loaded, entry, is_new = engine_cache.obtain(recipe, str(path), lambda timings: fresh, load_twice(load))
    (line,) = complaints(caplog)
    assert (loaded, is_new) == ("loaded", True) and "(Serialization failed)" in line
    assert entry.path.read_bytes() == b"new engine"


def load_twice(load: Any) -> Any:
    """The cache is looked at before and behind the lock: both times the same answer."""
    seen: dict[bytes, Any] = {}

    def remembered(data: Any, document: Any) -> Any:
        key = bytes(data)
        if key not in seen:
            try:
                seen[key] = load(data, document)
            except RuntimeFailure as error:
                seen[key] = error
        if isinstance(seen[key], Exception):
            raise seen[key]
        return seen[key]

    return remembered


def test_without_a_gpu_loading_fails_with_the_words_of_cuda(make_model, builds, caplog) -> None:
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU, where the engine loads")
    path = make_model().path
    entry, _ = obtain(path)
    file = read_model_file(path)
    with pytest.raises(RuntimeFailure, match=r"TensorRT for RTX \S+ cannot load its engine \(.*CUDA") as error:
        obtain_engine(LIBRARY, file, options_for(file, "plain", ONE, False), ANY, load=True)
    assert "\n" not in str(error.value)
    (line,) = complaints(caplog)
    assert "CUDA" in line and entry.path.exists()  # what could not be replaced stays


def test_a_build_that_fails_keeps_nothing(make_model, monkeypatch) -> None:
    """7.5 has no float32 products in TensorRT for RTX."""
    file = read_model_file(make_model().path)
    options = options_for(file, "plain", ONE, False, ("7.5",))
    with pytest.raises(RuntimeFailure, match=r"cannot build it \(.*SM75.*FP32 GEMM is not supported"):
        obtain_engine(LIBRARY, file, options, Gpu("", ("7.5",)), load=False)
    assert list(engine_folder().glob("*")) == [engine_folder() / "digests.json"]


def test_an_interrupt_cancels_the_build(make_model) -> None:
    class Impatient:
        def start(self, phase: str, parent: str | None, steps: int) -> None:
            pass

        def step(self, phase: str, step: int) -> None:
            raise KeyboardInterrupt

        def finish(self, phase: str) -> None:
            pass

    file = read_model_file(make_model().path)
    options = options_for(file, "map", ONE, False, ("8.6",))
    with pytest.raises(KeyboardInterrupt):
        obtain_engine(LIBRARY, file, options, ANY, load=False, progress=Impatient())
    assert list(entries()) == [] and not list(engine_folder().glob("*.lock"))


def test_a_full_disk_costs_the_cache_and_not_the_engine(make_model, builds, caplog, monkeypatch) -> None:
    def refuse(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    entry, is_new = obtain(make_model().path)
    (line,) = complaints(caplog)
    assert is_new and "cannot be kept" in line
    assert not entry.path.exists() and not list(engine_folder().glob("*.part"))


# whose folder it is


def test_the_folder_is_the_user_s_alone(make_model, builds) -> None:
    old = os.umask(0)
    try:
        entry, _ = obtain(make_model().path)
    finally:
        os.umask(old)
    assert engine_folder().stat().st_mode & 0o777 == 0o700
    assert entry.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_nothing_is_loaded_from_a_folder_that_others_may_write_to(make_model, builds, caplog, mode: int) -> None:
    path = make_model().path
    obtain(path)
    engine_folder().chmod(mode)
    for _ in range(2):
        assert obtain(path)[1] is True
        (line,) = complaints(caplog)
        assert "others may write to it" in line and "chmod 700" in line and "for this process alone" in line
    engine_folder().chmod(0o700)
    assert obtain(path)[1] is False


def test_nothing_is_loaded_from_a_folder_of_another_user(make_model, builds, caplog, monkeypatch) -> None:
    path = make_model().path
    obtain(path)
    monkeypatch.setattr(os, "geteuid", lambda: engine_folder().stat().st_uid + 1)
    assert obtain(path)[1] is True
    assert "belongs to user" in complaints(caplog)[0]


def test_nothing_is_loaded_through_a_link(make_model, builds, caplog, tmp_path) -> None:
    path = make_model().path
    obtain(path)
    engine_folder().rename(tmp_path / "elsewhere")
    engine_folder().symlink_to(tmp_path / "elsewhere")
    assert obtain(path)[1] is True
    assert "not a folder" in complaints(caplog)[0]


def test_a_cache_that_cannot_be_made_is_no_error(make_model, builds, caplog, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GCPP_EDGE_CACHE", str(tmp_path / "file" / "cache"))
    assert obtain(make_model().path)[1] is True
    assert "cannot be kept there" in complaints(caplog)[0]


# two processes

PROGRAM = """
import logging, sys, time
from gcpp_edge.engine_cache import Gpu
from gcpp_edge.model_file import read_model_file
from gcpp_edge.runtimes.tensorrt import obtain_engine, options_for
from gcpp_edge.runtimes.tensorrt_build import Batch
from gcpp_edge.runtimes.tensorrt_library import TENSORRT_RTX, usable

class Slow:
    def start(self, phase, parent, steps):
        if parent is None:
            print("building", flush=True)
            time.sleep(1.5)
    def step(self, phase, step): pass
    def finish(self, phase): pass

logging.basicConfig(format="%(message)s", level=logging.WARNING)
file = read_model_file(sys.argv[1])
options = options_for(file, "map", Batch(), False, ("8.6",))
_, entry, is_new = obtain_engine(usable(TENSORRT_RTX), file, options, Gpu("", ("8.6",)), load=False, progress=Slow())
print("built" if is_new else "found", entry.path)
"""


def test_two_processes_build_once_and_the_second_says_that_it_waits(make_model) -> None:
    command = [sys.executable, "-c", PROGRAM, str(make_model().path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    results = [process.communicate(timeout=120) for process in processes]
    answers = sorted(out.split()[-2] for out, _ in results)
    assert answers == ["built", "found"], results
    assert len({out.split()[-1] for out, _ in results}) == 1
    said = [line for _, err in results for line in err.splitlines() if "waiting for another process" in line]
    assert len(said) == 1 and "small.onnx" in said[0]
    assert not list(engine_folder().glob("*.lock"))


def test_a_lock_that_was_left_behind_stops_nobody(make_model, builds, caplog) -> None:
    """A process that dies gives its lock back, and leaves the file."""
    path = make_model().path
    entry, _ = obtain(path)
    for file in (entry.path, entry.path.with_suffix(".json")):
        file.unlink()
    entry.path.with_suffix(".lock").write_text("")
    assert obtain(path)[1] is True and complaints(caplog) == []


def test_a_disk_without_locks_is_no_error(make_model, builds, monkeypatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(engine_cache.fcntl, "flock", refuse)
    path = make_model().path
    assert obtain(path)[1] is True and obtain(path)[1] is False


# what a model is known by


def test_the_digest_is_of_the_file_and_of_the_weights_beside_it(make_model) -> None:
    model = make_model(beside=True)
    (weights,) = weight_files(model.path)
    assert weights == model.path.with_suffix(".data") and weight_files(make_model("whole.onnx").path) == []
    before = model_digest(model.path)
    turn_a_bit(weights)
    assert model_digest(model.path) != before


def test_a_digest_is_remembered_until_a_file_changes(make_model, builds, monkeypatch) -> None:
    model = make_model(beside=True)
    obtain(model.path)
    read: list[Path] = []
    monkeypatch.setattr(engine_cache, "_file_digest", lambda path: read.append(path) or "0")
    assert obtain(model.path)[1] is False and read == []
    turn_a_bit(weight_files(model.path)[0])
    assert obtain(model.path)[1] is True and len(read) == 2


def test_weights_that_are_missing_are_named(make_model) -> None:
    model = make_model(beside=True)
    (weights,) = weight_files(model.path)
    weights.unlink()
    with pytest.raises(InputError, match=rf"^{weights}: weights beside the model cannot be read .* Copy them too"):
        obtain(model.path)


def test_a_damaged_model_is_a_model_error(tmp_path: Path, make_model) -> None:
    path = make_model().path
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError):
        weight_files(path)


def test_a_recipe_s_name_depends_on_all_of_it() -> None:
    recipe = Recipe("m", "map", "tensorrt", "10.3.0", Gpu("Orin", ("8.7",)), (1, 1, 1), False)
    others = [
        replace(recipe, model="n"),
        replace(recipe, level="plain"),
        replace(recipe, flavour="tensorrt_rtx"),
        replace(recipe, version="10.4.0"),
        replace(recipe, gpu=Gpu("Orin", ("8.6",))),
        replace(recipe, gpu=Gpu("Thor", ("8.7",))),
        replace(recipe, batch=(1, 1, 2)),
        replace(recipe, tf32=True),
    ]
    assert len({one.key for one in (recipe, *others)}) == 9
    assert not any(one.serves(recipe) for one in others if one.batch != (1, 1, 2))


@pytest.fixture(autouse=True)
def _warnings_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "gcpp_edge")
