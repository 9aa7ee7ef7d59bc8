"""Records of frames, one a line."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from gcpp_edge.errors import SinkError
from gcpp_edge.pipeline.plain_json import json_text
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Control
from gcpp_edge.pipeline.sinks.folders import make_parent
from gcpp_edge.pipeline.uris import Uri


def opened(uri: Uri, control: Control) -> JsonLines:
    """A file of records; "-" is standard output. Raises SinkError where it cannot be written."""
    uri.require_options(())
    return JsonLines(uri.shown, None if uri.place == "-" else Path(uri.place))


class JsonLines:
    """Result.record() of each frame. path: None for standard output.

    Every line goes to the file at once and whole, so a killed process leaves whole lines. A file of this name is
    replaced once there is a first record; `jsonl://- >> FILE` appends.
    """

    is_viewer = False

    def __init__(self, name: str, path: Path | None) -> None:
        self.name, self._path = name, path
        self._is_new = path is not None and not path.exists()
        self._file: int | None = self._open()
        self._is_regular = path is not None and stat.S_ISREG(os.fstat(self._file).st_mode)
        self._count = self._size = 0  # records, and bytes of them

    def _open(self) -> int:
        if self._path is None:
            return _standard_output()
        make_parent(self.name, self._path)
        try:
            return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise SinkError(f"{self.name}: cannot be written ({error.strerror}). Name another file.") from error

    def write(self, result: Result) -> None:
        """Raises SinkError where the disk is full, or nobody reads standard output any more."""
        if self._file is None:
            raise SinkError(f"{self.name}: is closed.")
        line = f"{json_text(result.record())}\n".encode()
        try:
            if self._is_regular and not self._count:
                os.ftruncate(self._file, 0)
            _write_all(self._file, line)
        except OSError as error:
            self._drop_rest()
            raise SinkError(
                f"{self.name}: cannot be written any more ({error.strerror}); it holds {self._count} records."
            ) from error
        self._count += 1
        self._size += len(line)

    def _drop_rest(self) -> None:
        """Takes back the part of a line that was written."""
        assert self._file is not None
        if self._is_regular:
            os.ftruncate(self._file, self._size)

    def close(self) -> None:
        """Leaves no empty file behind."""
        file, self._file = self._file, None
        if file is None or self._path is None:
            return
        os.close(file)
        if self._is_new and self._is_regular and not self._size:
            self._path.unlink(missing_ok=True)


def _standard_output() -> int:
    try:
        sys.stdout.flush()
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError) as error:
        raise SinkError("jsonl://-: this process has no standard output. Name a file: jsonl://FILE.") from error


def _write_all(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]
