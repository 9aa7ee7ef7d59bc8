"""Engine files and the documents beside them: what they say, and the folder that they lie in.

Engine files are code: whoever can write them runs what he likes here. So they lie in a folder that nobody else may
write to, and are loaded from no other.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gcpp_edge.errors import InputError
from gcpp_edge.level_cache import cache_folder, write_whole

FORMAT = 1
ENGINE, SIDECAR, TIMINGS = ".engine", ".json", ".timings"
DIGESTS = "digests" + SIDECAR


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


class UnusableError(Exception):
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


def entries(folder: Path | None = None) -> Iterator[Entry]:
    """The engines whose documents can be read."""
    folder = folder or engine_folder()
    for path in sidecars(folder):
        with suppress(UnusableError):
            yield read_entry(path)


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
        return checked_bytes(entry)
    except UnusableError as error:
        raise InputError(f"{entry.path}: {error}. Build it again.") from error


def remove(path: Path) -> int:
    """Remove an engine and what belongs to it. Returns the bytes that became free."""
    freed = 0
    for suffix in (SIDECAR, ENGINE):  # the document first: half an engine is none
        with suppress(OSError):
            size = path.with_suffix(suffix).stat().st_size
            path.with_suffix(suffix).unlink()
            freed += size
    return freed


def read_entry(path: Path) -> Entry:
    """The engine that a document stands for. Raises UnusableError for a document that is none."""
    document = read_json(path)
    try:
        if document is None or document["format"] != FORMAT:
            raise UnusableError("its document cannot be read, or is of another version of gcpp-edge")
        values = dict(document["recipe"])
        name, capabilities = values["gpu"]
        values |= {"gpu": Gpu(name, tuple(capabilities)), "batch": tuple(values["batch"])}
        recipe = Recipe(**values)
        engine = document["engine"]
        engine["bytes"], engine["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableError(f"its document is damaged ({error!r})") from error
    if path.stem != recipe.key:
        raise UnusableError("its document is that of another engine")
    return Entry(path.with_suffix(ENGINE), recipe, document)


def checked_bytes(entry: Entry) -> bytes:
    """The bytes of an engine. Raises UnusableError where they are not those that its document says."""
    try:
        data = entry.path.read_bytes()
    except OSError as error:
        raise UnusableError(f"it cannot be read ({error.strerror or error})") from error
    engine = entry.document["engine"]
    if len(data) != engine["bytes"]:
        raise UnusableError(f"it has {len(data)} bytes of {engine['bytes']}")
    if hashlib.sha256(data).hexdigest() != engine["sha256"]:
        raise UnusableError("its bytes are not those that were built")
    return data


def read_json(path: Path) -> dict[str, Any] | None:
    """A document, None where there is none that can be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def write_json(path: Path, document: dict[str, Any]) -> bool:
    """Write a document, whole or not at all. Returns whether it is there."""
    return write_whole(path, json.dumps(document, ensure_ascii=False, indent=1).encode())
