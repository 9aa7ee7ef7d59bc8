"""The CUDA kernels as code for a GPU: what was built with the package, else compiled once with NVRTC, and kept."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from gcpp_edge.errors import MissingDependencyError, RuntimeFailure
from gcpp_edge.kernels.cuda_sources import FATBIN, MADE_FROM, MAIN, digest, sources

OPTIONS = ("--std=c++17",)

_DIGEST_BYTES = 32  # a kept image begins with the sha256 of what follows


def image(capability: tuple[int, int]) -> bytes:
    """A module with every kernel, for a GPU of this compute capability: fatbin, cubin or PTX.

    Kept in the user's cache folder, which is trusted only where nobody else can write to it.
    Raises MissingDependencyError where there is neither a built image nor NVRTC, RuntimeFailure if it does not compile.
    """
    built = built_image(capability)
    if built is not None:
        return built
    nvrtc = _nvrtc(capability)
    version = ".".join(map(str, _call(nvrtc.nvrtcVersion)))
    path = _kept_path(version, capability)
    kept = _read(path)
    if kept is None:
        kept = compile_image(nvrtc, capability)
        _write(path, kept)
    return kept


def built_image(capability: tuple[int, int]) -> bytes | None:
    """The image that was built with the package, or None: not built, of other sources, or not for this GPU."""
    try:
        made_from = json.loads(MADE_FROM.read_text(encoding="utf-8"))
        if made_from["sources"] == digest() and _covers(made_from["archs"], capability):
            return FATBIN.read_bytes()
    except (OSError, ValueError, KeyError, TypeError):  # not there, or half of it
        return None
    return None


def compile_image(nvrtc: Any, capability: tuple[int, int]) -> bytes:
    """The kernels compiled by NVRTC (the module cuda.bindings.nvrtc): machine code, or PTX for a GPU newer than it."""
    option, is_machine_code = _architecture(_call(nvrtc.nvrtcGetSupportedArchs)[0], capability)
    files = sources()
    main = files.pop(MAIN)
    names, texts = [name.encode() for name in files], [text.encode() for text in files.values()]
    (program,) = _call(nvrtc.nvrtcCreateProgram, main.encode(), MAIN.encode(), len(files), texts, names)
    try:
        options = [option.encode() for option in (option, *OPTIONS)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if int(status):
            log = _text(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode(errors="replace")
            raise RuntimeFailure(f"NVRTC does not compile the CUDA kernels with {option}:\n{log.strip(chr(0)).strip()}")
        if is_machine_code:
            return _text(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        return _text(program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _covers(archs: list[int], capability: tuple[int, int]) -> bool:
    """Whether an image with machine code for `archs`, and PTX for the newest of them, runs on this GPU."""
    wanted = 10 * capability[0] + capability[1]
    return max(archs) <= wanted or any(arch // 10 == capability[0] and arch <= wanted for arch in archs)


def _architecture(supported: list[int], capability: tuple[int, int]) -> tuple[str, bool]:
    """The option that names what is compiled for, and whether that is machine code."""
    wanted = 10 * capability[0] + capability[1]
    if wanted in supported:
        return f"--gpu-architecture=sm_{wanted}", True
    older = [arch for arch in supported if arch < wanted]
    if not older:
        raise RuntimeFailure(
            f"This NVRTC no longer compiles for a GPU of compute capability {capability[0]}.{capability[1]}; it begins "
            f"at {min(supported)}. Install an older one: pip install 'cuda-bindings<13' nvidia-cuda-nvrtc-cu12"
        )
    return f"--gpu-architecture=compute_{max(older)}", False


def _nvrtc(capability: tuple[int, int]) -> Any:
    """The module cuda.bindings.nvrtc, with its library."""
    try:
        nvrtc = import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()  # the library is loaded at the first call
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependencyError(
            f"No CUDA kernels for a GPU of compute capability {capability[0]}.{capability[1]} were built with the "
            f"package, and NVRTC, which would compile them now, is missing ({error}). Install it: "
            "pip install cuda-bindings nvidia-cuda-nvrtc. Or reinstall gcpp-edge where nvcc is (GCPP_NVCC names it)."
        ) from error
    return nvrtc


def _call(function: Any, *arguments: Any) -> tuple[Any, ...]:
    """What a function of NVRTC gives besides its status. RuntimeFailure if that is not success."""
    status, *values = function(*arguments)
    if int(status):
        raise RuntimeFailure(f"NVRTC failed: {function.__name__} gives {status}.")
    return tuple(values)


def _text(program: Any, size_of: Any, read: Any) -> bytes:
    (size,) = _call(size_of, program)
    buffer = bytearray(size)
    _call(read, program, buffer)
    return bytes(buffer)


def _kept_path(version: str, capability: tuple[int, int]) -> Path:
    from gcpp_edge.level_cache import cache_folder

    name = f"cuda-kernels-{digest()[:16]}-nvrtc{version}-sm{capability[0]}{capability[1]}.image"
    return cache_folder() / name


def _read(path: Path) -> bytes | None:
    """What was kept, or None: not there, damaged, or where another user could have put it."""
    try:
        if not (_is_private(path.parent) and _is_private(path)):
            return None
        whole = path.read_bytes()
    except OSError:
        return None
    found = whole[_DIGEST_BYTES:]
    return found if found and hashlib.sha256(found).digest() == whole[:_DIGEST_BYTES] else None


def _is_private(path: Path) -> bool:
    """Whether nobody but this user can write here."""
    status = path.lstat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _write(path: Path, data: bytes) -> None:
    """Keep it, whole or not at all. A folder that cannot be written, or by others too, is no error: nothing is kept."""
    temporary = ""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(path.parent):
            return
        descriptor, temporary = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
            file.flush()
            os.fsync(file.fileno())  # devices lose power: a rename must not outrun its data
        os.replace(temporary, path)
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
