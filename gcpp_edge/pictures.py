"""Picture files: found, read whole or refused, and written whole or not at all."""

from __future__ import annotations

import glob
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from gcpp_edge.errors import InputError, MissingDependencyError, PictureError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_BMP = b"BM"
_WEBP = b"RIFF"

_JPEG_END = 0xD9
_JPEG_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a length: TEM and the restart markers


def opencv() -> ModuleType:
    """The module cv2; MissingDependencyError with the install line where it is missing."""
    # what goes wrong is said in our own line; the call that sets this has another name in every release
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(f"Pictures need OpenCV ({error}): pip install 'gcpp-edge[cli]'") from error
    return cv2


def find_pictures(arguments: Iterable[str]) -> list[Path]:
    """The files that the arguments name: files as they are, a folder's pictures, a pattern's matches, each once.

    A file need not exist: reading it says so. PictureError for a folder or a pattern that holds no picture.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        found.update(dict.fromkeys(_named(argument)))
    return list(found)


def _named(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        inside = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
        if not inside:
            raise PictureError(f"{path}: a folder without pictures (looked for {' '.join(SUFFIXES)}).")
        return inside
    if path.exists() or not glob.has_magic(argument):
        return [path]
    matches = sorted(Path(name) for name in glob.glob(argument, recursive=True) if Path(name).is_file())
    if not matches:
        raise PictureError(f"{argument}: no file fits this pattern.")
    return matches


def read_picture(path: Path) -> Any:
    """The picture as (H, W, 3) uint8 BGR, turned as its EXIF orientation says.

    Raises PictureError for a file that is missing, truncated or no picture. A file is checked to its end because
    OpenCV gives out the upper half of a truncated JPEG without a word.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror}).") from error
    if not _is_whole(content):
        raise PictureError(f"{path}: truncated or damaged, its end is missing ({len(content)} bytes). Copy it again.")
    return _decode(content, path)


def read_clip(folder: Path, count: int) -> Any:
    """`count` pictures of a folder, evenly spaced in the order of their names, as a list. PictureError for fewer."""
    if not folder.is_dir():
        raise PictureError(f"{folder}: this model explains clips. Name a folder with the pictures of one.")
    found = _named(str(folder))
    if len(found) < count:
        raise PictureError(f"{folder}: holds {len(found)} pictures, and this model needs {count}.")
    return [read_picture(found[round(index * (len(found) - 1) / max(count - 1, 1))]) for index in range(count)]


def read_mask(path: Path, picture: Path) -> Any:
    """A mask (H, W) bool: where the file is not black. In a folder it is the file with the stem of `picture`."""
    if path.is_dir():
        fitting = [entry for entry in sorted(path.iterdir()) if entry.stem == picture.stem]
        if not fitting:
            raise PictureError(f"{path}: no mask for {picture.name}; expected one named {picture.stem}.png.")
        path = fitting[0]
    return read_picture(path).any(axis=2)


def _decode(content: bytes, path: Path) -> Any:
    import numpy as np

    cv2 = opencv()
    try:
        # from memory, because imread does not take every file name on every system
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error as error:
        raise PictureError(f"{path}: OpenCV refuses it ({error.err}).") from error
    if picture is None:
        raise PictureError(f"{path}: not a picture that OpenCV can read ({_kind(content)}).")
    return picture


def _kind(content: bytes) -> str:
    if not content:
        return "the file is empty"
    if b"\0" not in content[:512]:
        return "it holds text"
    return "unknown or damaged format"


def _is_whole(content: bytes) -> bool:
    """Whether a JPEG, PNG, BMP or WebP file has all of its bytes; True for other formats, which OpenCV judges."""
    if content.startswith(_JPEG):
        return _jpeg_is_whole(content)
    if content.startswith(_PNG):
        return _png_is_whole(content)
    if content.startswith(_BMP):
        return len(content) >= int.from_bytes(content[2:6], "little")
    if content.startswith(_WEBP):
        return len(content) >= int.from_bytes(content[4:8], "little") + 8
    return True


def _jpeg_is_whole(content: bytes) -> bool:
    """Whether the end marker of the picture itself is there: a thumbnail inside its header has one of its own."""
    position = 2
    while True:
        position = content.find(b"\xff", position)
        if position < 0 or position + 4 > len(content):
            return content[position : position + 2] == bytes((0xFF, _JPEG_END))
        marker = content[position + 1]
        if marker == _JPEG_END:
            return True
        if marker == 0xFF:
            position += 1
        elif marker == 0 or marker in _JPEG_BARE:
            position += 2  # a stuffed byte or a restart within the compressed data
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")


def _png_is_whole(content: bytes) -> bool:
    """Whether every chunk up to IEND is there with a right checksum."""
    position = len(_PNG)
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        body = content[position + 4 : position + 8 + length]
        checksum = content[position + 8 + length : position + 12 + length]
        if zlib.crc32(body).to_bytes(4, "big") != checksum:
            return False
        if body[:4] == b"IEND":
            return True
        position += 12 + length
    return False


def write_png(path: Path, picture: Any) -> None:
    """The picture, uint8 (H, W) or (H, W, 3) BGR, as a PNG file that appears whole or not at all."""
    write_whole(path, encode_picture(picture, ".png"))


def encode_picture(picture: Any, suffix: str, *parameters: int) -> bytes:
    """The picture, uint8 (H, W) or (H, W, 3) BGR, as the content of a file of this suffix.

    parameters: of OpenCV's imencode. Raises PictureError.
    """
    cv2 = opencv()
    try:
        encoded, content = cv2.imencode(suffix, picture, parameters)
    except cv2.error as error:
        raise PictureError(f"OpenCV refuses to write {suffix} ({error.err}).") from error
    if not encoded:
        raise PictureError(f"OpenCV cannot write a picture of shape {picture.shape} as {suffix}.")
    return bytes(content.tobytes())


def write_whole(path: Path, content: bytes) -> None:
    """A file that appears whole or not at all, its folder made where it is missing. Raises InputError, OSError."""
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """A folder of this path, made where it is missing. Raises InputError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of this name" if path.exists() else error.strerror
        raise InputError(f"{path}: cannot be made a folder for pictures ({reason}). Name another with -o.") from error


def output_names(pictures: Iterable[Path]) -> dict[Path, str]:
    """A name for the files made from each picture: its stem, or more of its path where two would be the same."""
    names: dict[Path, str] = {}
    for picture in pictures:
        choices = [picture.stem, picture.name, f"{picture.parent.name}-{picture.name}"]
        choices += [f"{picture.name}-{number}" for number in range(2, len(names) + 3)]
        names[picture] = next(choice for choice in choices if choice not in names.values())
    return names
