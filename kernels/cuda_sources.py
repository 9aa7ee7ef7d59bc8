"""The sources of the CUDA kernels, and what they are known by. Needs nothing but Python: setup.py runs it too."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MAIN = "gcpp.cu"
FATBIN = FOLDER / "cuda" / "gcpp.fatbin"  # made by setup.py where nvcc is; made_from.json says from what
MADE_FROM = FOLDER / "cuda" / "made_from.json"


def sources() -> dict[str, str]:
    """Every file by the name that it is included by, the main one first."""
    folder = FOLDER / "cuda"
    files = [folder / MAIN, *sorted({*folder.glob("*.h"), *folder.glob("*.cu")} - {folder / MAIN})]
    named = {file.name: file.read_text(encoding="utf-8") for file in files}
    return named | {f"../{file.name}": file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.h"))}


def digest() -> str:
    """Changes with every byte of the sources."""
    whole = hashlib.sha256()
    for name, text in sources().items():
        whole.update(f"{name}\0{len(text)}\0{text}".encode())
    return whole.hexdigest()
