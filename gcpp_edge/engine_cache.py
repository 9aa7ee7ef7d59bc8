"""Engines that TensorRT built, kept beside the cut levels: built once, and only ever loaded where they fit.

An engine is good for one model, one TensorRT, one kind of GPU and one way of building; a document beside it says
which, and holds the contract, which TensorRT does not show. Engine files are code: whoever can write them runs what he
likes here. So they lie in a folder that nobody else may write to, and are loaded from no other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gcpp_edge.errors import GcppError, InputError
from gcpp_edge.level_cache import cache_folder, package_version, write_whole
from gcpp_edge.model_file import weight_files

FORMAT = 1
ENGINE, SIDECAR, LOCK, TIMINGS = ".engine", ".json", ".lock", ".timings"
DIGESTS = "digests" + SIDECAR
_CHUNK = 1 << 20

Loaded = TypeVar("Loaded")
_logger = logging.getLogger("gcpp_edge.engine_cache")


class Gpu(NamedTuple):
    """The GPU that an engine is for. name "" and several capabilities where it was built without one."""

    name: str
    capabilities: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name or 'any GPU'} ({', '.join(self.capabilities)})"


@dataclass(frozen=True)
class Recipe:
    """All that an engine depends on. model: sha256 of the file and of its weights beside it. batch: see Batch."""

    model: str
    level: str
    flavour: str
    version: str
    gpu: Gpu
    batch: tuple[int, int, int]
    tf32: bool

    @property
    def key(self) -> str:
        """A name for it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]

    def serves(self, wanted: Recipe) -> bool:
        """Whether an engine of this recipe does what the wanted one would do."""
        same = (self.model, self.level, self.flavour, self.version, self.tf32)
        if same != (wanted.model, wanted.level, wanted.flavour, wanted.version, wanted.tf32):
            return False
        if self.gpu != wanted.gpu and (self.gpu.name or not set(wanted.gpu.capabilities) <= set(self.gpu.capabilities)):
            return False
        return self.batch[0] <= wanted.batch[0] and wanted.batch[2] <= self.batch[2]

    def difference(self, wanted: Recipe) -> str:
        """What has changed between the two, in words; "" where only another batch or another target was asked for."""
        if self.model != wanted.model:
            return "the model has changed since"
        if (self.flavour, self.version) != (wanted.flavour, wanted.version):
            return f"built by {self.flavour} {self.version}, this is {wanted.flavour} {wanted.version}"
        if self.gpu != wanted.gpu and self.gpu.name and wanted.gpu.name:
            return f"built for {self.gpu}, this is {wanted.gpu}"
        return ""


class Fresh(NamedTuple):
    """What a build gives: the engine's bytes, and what the document says of it besides the recipe."""

    data: Any
    document: dict[str, Any]
    timings: bytes = b""


@dataclass(frozen=True)
class Entry:
    """An engine of the cache: its file, its recipe and its whole document."""

    path: Path
    recipe: Recipe
    document: dict[str, Any]

    @property
    def model_path(self) -> str:
        """The model that it was built from, as it was named then."""
        return str(self.document.get("model_path", ""))


Build = Callable[[bytes], Fresh]  # given what an earlier build measured
Load = Callable[[Any, dict[str, Any]], Loaded]  # given the bytes of an engine and its document


class _UnusableError(Exception):
    """An engine that must be built again; the text says why."""


def engine_folder() -> Path:
    """Where engines lie."""
    return cache_folder() / "engines"


def open_folder() -> Path:
    """The folder of engines, made where it is missing.

    Raises InputError where it belongs to another user, others may write to it, or it cannot be made.
    """
    folder = engine_folder()
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()  # not what a link points to
    except OSError as error:
        raise InputError(f"{folder}: engines cannot be kept there ({error.strerror or error}).") from error
    because = "Engine files are code, so they are neither kept nor loaded there."
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{folder}: not a folder. {because} Remove it.")
    if status.st_uid != os.geteuid():
        raise InputError(
            f"{folder}: belongs to user {status.st_uid}, not to {os.geteuid()}. {because} Set GCPP_EDGE_CACHE."
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.filemode(status.st_mode)
        raise InputError(f"{folder}: others may write to it ({mode}). {because} Mend it: chmod 700 {folder}")
    return folder


def model_digest(path: Path, folder: Path | None = None) -> str:
    """sha256 over an ONNX file and the files of weights beside it.

    With the cache's folder it is remembered by size and times of change, so that large files are not read at each
    start.
    """
    files = [path, *weight_files(path)]
    state = [_state(file) for file in files]
    known = _read_json(folder / DIGESTS) if folder else None
    name = str(path.resolve())
    if known and isinstance(known.get(name), dict) and known[name].get("state") == state:
        return str(known[name].get("sha256"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(_file_digest(file).encode())
    found = digest.hexdigest()
    if folder:
        others = {key: value for key, value in (known or {}).items() if Path(key).exists()}
        _write_json(folder / DIGESTS, others | {name: {"state": state, "sha256": found}})
    return found


def obtain(wanted: Recipe, model_path: str, build: Build, load: Load[Loaded]) -> tuple[Loaded, Entry, bool]:
    """The engine of a recipe, loaded: from the cache, or built and put there. Also its entry, and whether it was built.

    A GcppError of `load` has a cached engine built again.
    A cache that cannot be used is named and costs a build each time. Raises what build and load raise.
    """
    try:
        folder = open_folder()
    except InputError as error:
        _logger.warning("%s The engine is built for this process alone.", error)
        return _built(wanted, model_path, build, load, None)
    found = _cached(folder, wanted, model_path, load, tell=False)
    if found is not None:
        return (*found, False)
    with _lock(folder / f"{wanted.key}{LOCK}", model_path):
        found = _cached(folder, wanted, model_path, load, tell=True)  # another process may have built it meanwhile
        if found is not None:
            return (*found, False)
        return _built(wanted, model_path, build, load, folder)


def entries(folder: Path | None = None) -> Iterator[Entry]:
    """The engines whose documents can be read."""
    folder = folder or engine_folder()
    for path in sidecars(folder):
        with suppress(_UnusableError):
            yield _entry(path)


def sidecars(folder: Path) -> list[Path]:
    """The documents of a folder's engines."""
    return [path for path in sorted(folder.glob(f"*{SIDECAR}")) if path.name != DIGESTS]


def timings_path(folder: Path, recipe: Recipe) -> Path:
    """Where measurements of a kind of GPU are kept."""
    name = json.dumps([recipe.flavour, recipe.version, recipe.gpu])
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}{TIMINGS}"


def read_engine(entry: Entry) -> bytes:
    """The bytes of an engine, held against its document. Raises InputError where they do not fit."""
    try:
        return _read(entry)
    except _UnusableError as error:
        raise InputError(f"{entry.path}: {error}. Build it again.") from error


@contextmanager
def _lock(path: Path, model_path: str) -> Iterator[None]:
    """One process at a time builds what this file stands for; others wait, and say so."""
    descriptor = _locked(path, model_path)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)  # before it is given back: who waited for it sees that it is gone
            os.close(descriptor)


def _locked(path: Path, model_path: str) -> int | None:
    """The file, locked, or None where there can be none: two builds do no harm, they only take longer."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a full or read-only disk
            return None
        try:
            _wait_for(descriptor, model_path)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:  # a network's disk without locks
            os.close(descriptor)
            return None
        os.close(descriptor)  # it was removed between opening and locking


def _wait_for(descriptor: int, model_path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _logger.warning("%s: waiting for another process that builds its engine", model_path)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _cached(
    folder: Path, wanted: Recipe, model_path: str, load: Load[Loaded], tell: bool
) -> tuple[Loaded, Entry] | None:
    """The best engine of the cache that can be loaded. tell: name those that cannot be used, and why."""
    fitting = []
    for path in sidecars(folder):
        try:
            entry = _entry(path)
        except _UnusableError as error:
            _tell(tell and path.stem == wanted.key, path.with_suffix(ENGINE), error)
            continue
        if entry.recipe.serves(wanted):
            fitting.append(entry)
        elif reason := _out_of_date(entry, wanted, model_path):
            _tell(tell, entry.path, reason)
    whole = folder / f"{wanted.key}{ENGINE}"
    _tell(tell and whole.exists() and not whole.with_suffix(SIDECAR).exists(), whole, "its document is missing")
    # the recipe itself before others that would do, then the smallest batch
    fitting.sort(key=lambda entry: (entry.recipe != wanted, entry.recipe.batch[2]))
    for entry in fitting:
        try:
            return load(_read(entry), entry.document), entry
        except (_UnusableError, GcppError) as error:
            _tell(tell, entry.path, error)
    return None


def _tell(tell: bool, path: Path, reason: Exception | str) -> None:
    if tell:
        _logger.warning("%s cannot be used and is built again: %s", path, " ".join(str(reason).rstrip(".").split()))


def _out_of_date(entry: Entry, wanted: Recipe, model_path: str) -> str:
    """Why an engine of the same model and level is none any more, or none here; "" for the engine of another thing."""
    is_ours = entry.model_path == model_path or entry.recipe.model == wanted.model
    alike = (entry.recipe.level, entry.recipe.tf32) == (wanted.level, wanted.tf32)
    return entry.recipe.difference(wanted) if is_ours and alike else ""


def _built(
    wanted: Recipe, model_path: str, build: Build, load: Load[Loaded], folder: Path | None
) -> tuple[Loaded, Entry, bool]:
    fresh = build(_earlier_timings(folder, wanted))
    data = memoryview(fresh.data)
    document: dict[str, Any] = {
        "format": FORMAT,
        "recipe": asdict(wanted),
        "engine": {"bytes": data.nbytes, "sha256": hashlib.sha256(data).hexdigest()},
        "model_path": model_path,
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "gcpp_edge": package_version(),
        **fresh.document,
    }
    document = json.loads(json.dumps(document))  # as it will be read
    path = (folder or engine_folder()) / f"{wanted.key}{ENGINE}"
    entry = Entry(path, wanted, document)
    loaded = load(data, document)  # an engine that does not load is not kept
    if folder is not None:
        _keep(folder, entry, data)
        if fresh.timings:
            write_whole(timings_path(folder, wanted), fresh.timings)
    return loaded, entry, True


def _keep(folder: Path, entry: Entry, data: memoryview) -> None:
    """The engine, then its document: without the second the first is not seen."""
    if not (write_whole(entry.path, data) and _write_json(entry.path.with_suffix(SIDECAR), entry.document)):
        _logger.warning("%s: the engine cannot be kept (is the disk full?) and is built again next time", entry.path)
        return
    for other in list(entries(folder)):
        if other.path != entry.path and _is_replaced(other, entry):
            remove(other.path)


def _is_replaced(other: Entry, entry: Entry) -> bool:
    """Whether it is the same model's engine, of an earlier state of the model or of TensorRT."""
    old, new = other.recipe, entry.recipe
    alike = replace(old, model=new.model, version=new.version) == new
    return alike and other.model_path == entry.model_path


def remove(path: Path) -> int:
    """Remove an engine and what belongs to it. Returns the bytes that became free."""
    freed = 0
    for suffix in (SIDECAR, ENGINE):  # the document first: half an engine is none
        with suppress(OSError):
            size = path.with_suffix(suffix).stat().st_size
            path.with_suffix(suffix).unlink()
            freed += size
    return freed


def _earlier_timings(folder: Path | None, wanted: Recipe) -> bytes:
    if folder is None:
        return b""
    try:
        return timings_path(folder, wanted).read_bytes()
    except OSError:
        return b""


def _entry(path: Path) -> Entry:
    document = _read_json(path)
    try:
        if document is None or document["format"] != FORMAT:
            raise _UnusableError("its document cannot be read, or is of another version of gcpp-edge")
        values = dict(document["recipe"])
        name, capabilities = values["gpu"]
        values |= {"gpu": Gpu(name, tuple(capabilities)), "batch": tuple(values["batch"])}
        recipe = Recipe(**values)
        engine = document["engine"]
        engine["bytes"], engine["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise _UnusableError(f"its document is damaged ({error!r})") from error
    if path.stem != recipe.key:
        raise _UnusableError("its document is that of another engine")
    return Entry(path.with_suffix(ENGINE), recipe, document)


def _read(entry: Entry) -> bytes:
    try:
        data = entry.path.read_bytes()
    except OSError as error:
        raise _UnusableError(f"it cannot be read ({error.strerror or error})") from error
    engine = entry.document["engine"]
    if len(data) != engine["bytes"]:
        raise _UnusableError(f"it has {len(data)} bytes of {engine['bytes']}")
    if hashlib.sha256(data).hexdigest() != engine["sha256"]:
        raise _UnusableError("its bytes are not those that were built")
    return data


def _state(path: Path) -> list[Any]:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(
            f"{path}: weights beside the model cannot be read ({error.strerror}). Copy them too, into the same folder."
        ) from error
    return [path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _write_json(path: Path, document: dict[str, Any]) -> bool:
    return write_whole(path, json.dumps(document, ensure_ascii=False, indent=1).encode())
