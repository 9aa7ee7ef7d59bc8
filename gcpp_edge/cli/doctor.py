"""`gcpp-edge doctor`: what this machine has, what is missing and how to get it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from gcpp_edge.bench.machine import machine
from gcpp_edge.cli import terminal
from gcpp_edge.errors import GcppError

EXTRAS = {
    "cli": "the command line and its pictures",
    "onnxruntime": "running explained models",
    "export": "making explained models from PyTorch",
    "cuda": "running on NVIDIA GPUs",
    "web": "the live page of streams",
    "plot": "pictures of measurements",
    "demo": "the demo's network, weights and pictures",
}
GPU_PACKAGES = ("pycuda", "cuda-bindings")
GPU_DEVICES = ("nvidia[0-9]*", "nvgpu", "nvhost-gpu")  # the last two are those of a Jetson
EXIT_BROKEN = 2


def doctor(as_json: Annotated[bool, typer.Option("--json", help=terminal.JSON_HELP)] = False) -> None:
    """Says what this machine has: versions, providers, kernels, what is missing and how to get it.

    The exit status is 0 unless the core itself cannot work.

    [bold]Examples[/bold]

      gcpp-edge doctor

      gcpp-edge doctor --json
    """
    found = findings()
    if as_json:
        terminal.print_json(found)
    else:
        _print(found)
    if found["kernels"]["problem"]:
        raise typer.Exit(EXIT_BROKEN)


def findings() -> dict[str, Any]:
    """Everything that the command says, ready for JSON."""
    return {
        "machine": machine(),
        "kernels": _kernels(),
        "runtimes": _runtimes() | {"tensorrt": _tensorrt()},
        "gpu": _gpu(),
        "video": _video(),
        "backends": _backends(),
        "cache": _cache(),
        "extras": [_extra(name) for name in EXTRAS],
    }


def _kernels() -> dict[str, Any]:
    from gcpp_edge import kernels

    found: dict[str, Any] = {"available": kernels.available(), "without_c_because": kernels.reason(), "problem": ""}
    try:
        found["used"] = kernels.table().isa
    except GcppError as error:
        found |= {"used": "", "problem": str(error)}
    return found


def _runtimes() -> dict[str, Any]:
    try:
        import onnxruntime
    except ImportError as error:
        return {"onnxruntime": "", "providers": [], "problem": str(error)}
    return {
        "onnxruntime": onnxruntime.__version__,
        "providers": [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()],
        "problem": "",
    }


def _tensorrt() -> list[dict[str, Any]]:
    """The TensorRT packages that are here; importing one tells whether its libraries are, too."""
    from gcpp_edge.runtimes.tensorrt_library import TITLES, is_installed

    return [_tensorrt_package(module, title) for module, title in TITLES.items() if is_installed(module)]


def _tensorrt_package(module: str, title: str) -> dict[str, Any]:
    from gcpp_edge.runtimes.tensorrt_library import usable

    found: dict[str, Any] = {"name": title, "module": module, "version": "", "features": [], "problem": ""}
    try:
        library = usable(module)
    except GcppError as error:
        return found | {"version": str(getattr(sys.modules.get(module), "__version__", "")), "problem": str(error)}
    features = library.features._asdict()
    return found | {"version": library.version, "features": [name for name, is_there in features.items() if is_there]}


def _gpu() -> dict[str, Any]:
    """What the GPU half stands on, looked for and not loaded: a driver starts by being loaded."""
    import ctypes.util

    return {
        "driver_library": ctypes.util.find_library("cuda") or "",
        "devices": sorted(str(path) for pattern in GPU_DEVICES for path in Path("/dev").glob(pattern)),
        **{name: _version(name) for name in GPU_PACKAGES},
    }


def _video() -> dict[str, Any]:
    """What this OpenCV can read streams from and show them in."""
    from gcpp_edge.pipeline.sinks.display import has_windows
    from gcpp_edge.pipeline.sources.opencv import has_backend

    version = _opencv_version()
    if not version:
        return {"opencv": "", "captures_by": [], "windows": False}
    found = [name for name in ("FFMPEG", "GSTREAMER", "V4L2") if has_backend(name)]
    return {"opencv": version, "captures_by": found, "windows": has_windows()}


def _backends() -> dict[str, str]:
    """What a model can run on, the first of them by itself; and why not on the others."""
    from gcpp_edge.backends import BACKENDS

    return {name: backend.why_not() for name, backend in BACKENDS.items()}


def _cache() -> dict[str, Any]:
    from gcpp_edge.level_cache import cache_folder

    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    files = [entry for entry in folder.rglob("*") if entry.is_file()] if folder.is_dir() else []
    return {
        "folder": folder,
        "writable": existing.is_dir() and os.access(existing, os.W_OK),
        "files": len(files),
        "bytes": sum(entry.stat().st_size for entry in files),
    }


def _extra(name: str) -> dict[str, Any]:
    """What an extra of this package asks for, with versions; `install` is empty when all of it is there."""
    versions = {package: _version(package) for package in _asked_for(name)}
    complete = bool(versions) and all(versions.values())
    return {
        "name": name,
        "purpose": EXTRAS[name],
        "packages": versions,
        "install": "" if complete else f"pip install 'gcpp-edge[{name}]'",
    }


def _asked_for(extra: str) -> Iterator[str]:
    try:
        requirements = metadata.requires("gcpp-edge") or []
    except metadata.PackageNotFoundError:
        return
    for requirement in requirements:
        package, _, marker = requirement.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker):
            yield re.split(r"[^A-Za-z0-9._-]", package.strip())[0]


def _version(package: str) -> str:
    """The installed version, "" for none. A system's own OpenCV, as on a Jetson, has no package to ask."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return _opencv_version() if package.startswith("opencv-") else ""


def _opencv_version() -> str:
    try:
        import cv2
    except ImportError:
        return ""
    return str(cv2.__version__)


def _print(found: dict[str, Any]) -> None:
    answers = terminal.answers()
    for title, rows in (
        ("machine", _machine_rows(found["machine"])),
        ("kernels", _kernel_rows(found["kernels"])),
        ("runtime", _runtime_rows(found["runtimes"])),
        ("gpu", _gpu_rows(found["gpu"])),
        ("video", _video_rows(found["video"])),
        ("device", _backend_rows(found["backends"])),
        ("cache", _cache_rows(found["cache"])),
    ):
        answers.print(terminal.facts(title, rows))
        answers.print()
    answers.print(terminal.table("extras", ("extra", "for", "has", "missing"), map(_extra_row, found["extras"])))
    for extra in found["extras"]:
        if extra["install"]:
            answers.print(f"to get {extra['name']}: {extra['install']}", markup=False)


def _machine_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "gcpp-edge", found["gcpp_edge"]
    yield "python", f"{found['python']} ({sys.executable}), numpy {found['numpy']}"
    yield "system", found["system"]
    yield "processor", f"{found['processor']}, {found['cores']} cores for us"


def _kernel_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "used", found["problem"] or f"{found['used']} (set GCPP_ISA to choose another)"
    yield "available", ", ".join(found["available"])
    if found["without_c_because"]:
        yield "no C kernels", found["without_c_because"]


def _runtime_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "onnxruntime", found["onnxruntime"] or f"missing ({found['problem']})"
    if found["providers"]:
        yield "providers", ", ".join(found["providers"])
    for each in found["tensorrt"]:
        yield (
            each["name"].lower(),
            f"{each['version']} (not usable: {each['problem']})" if each["problem"] else each["version"],
        )
    if not found["tensorrt"]:
        yield "tensorrt", "missing (it comes with JetPack; elsewhere: pip install tensorrt, or tensorrt-rtx)"


def _gpu_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "driver", found["driver_library"] or "missing (no libcuda.so.1: no NVIDIA driver, or a container without it)"
    yield "devices", ", ".join(found["devices"]) or "none"
    for name in GPU_PACKAGES:
        yield name, found[name] or "missing"


def _video_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "opencv", found["opencv"] or "missing (pip install 'gcpp-edge[cli]')"
    if found["opencv"]:
        names = {"FFMPEG": "FFmpeg", "GSTREAMER": "GStreamer", "V4L2": "V4L2"}
        yield "captures by", ", ".join(names[name] for name in found["captures_by"]) or "nothing"
        yield "windows", "yes" if found["windows"] else "no (headless: display:// needs opencv-python)"


def _backend_rows(found: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, reason in found.items():
        yield name, f"no: {reason}" if reason else "can be used, as far as can be seen without trying"


def _cache_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "folder", f"{found['folder']} ({'writable' if found['writable'] else 'NOT writable'})"
    yield "holds", f"{found['files']} files, {terminal.size_text(found['bytes'])}"


def _extra_row(extra: dict[str, Any]) -> tuple[str, ...]:
    has = ", ".join(f"{name} {version}" for name, version in extra["packages"].items() if version)
    missing = ", ".join(name for name, version in extra["packages"].items() if not version)
    return extra["name"], extra["purpose"], has or "nothing", missing
