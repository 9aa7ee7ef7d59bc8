"""Which networks there are: torchvision's by kind, and the smallest of each of timm's families."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from gcpp_edge.export.from_torch import import_torchvision

FAMILIES = Path(__file__).resolve().parent.parent / "results" / "timm_families.json"
GROUPS = ("torchvision", "torchvision-video", "torchvision-segmentation", "timm")
KINDS = {"torchvision": "", "torchvision-video": ".video", "torchvision-segmentation": ".segmentation"}


def expand(given: str) -> list[str]:
    """The names, GROUP:MODEL each, of a group; a name is itself."""
    if given == "timm":
        return [f"timm:{entry['model']}" for entry in families().values()]
    if given in KINDS:
        models = torchvision_models()
        module = importlib.import_module(f"{models.__name__}{KINDS[given]}")
        return [f"{given}:{name.rpartition('/')[2]}" for name in models.list_models(module=module)]
    return [given]


def torchvision_models() -> Any:
    import_torchvision()
    return importlib.import_module("torchvision.models")


def families() -> dict[str, dict[str, Any]]:
    """By family of timm: its smallest member, that member's parameters, how many members. Kept in a file."""
    import_torchvision()
    timm = importlib.import_module("timm")
    if FAMILIES.exists():
        kept = json.loads(FAMILIES.read_text("utf-8"))
        if kept["timm"] == timm.__version__:
            return dict(kept["families"])
    found = {family: _smallest(timm, family) for family in timm.list_modules()}
    FAMILIES.write_text(json.dumps({"timm": timm.__version__, "families": found}, indent=1) + "\n", "utf-8")
    return found


def _smallest(timm: Any, family: str) -> dict[str, Any]:
    """Without timm's own miniatures for its unit tests, which nobody trains for use."""
    members = [name for name in timm.list_models(module=family) if not name.startswith("test_")]
    sizes = {name: _parameters(timm, name) for name in members}
    smallest = min(members, key=lambda name: (sizes[name], name))
    return {"model": smallest, "parameters": sizes[smallest], "members": len(members)}


def _parameters(timm: Any, name: str) -> int:
    with torch.device("meta"):  # shapes without memory
        return sum(parameter.numel() for parameter in timm.create_model(name).parameters())
