"""Workstation half: a trained network in, an explained ONNX model out.

explain_module(model, example_input, ...)   torch.nn.Module -> onnx.ModelProto
explain_onnx(model, ...)                    onnx.ModelProto or file -> onnx.ModelProto
export_file(source, output, ...)            what `gcpp-edge export` does -> Report
list_layers(source, ...)                    the layers that can be explained
inspect_coverage(source, ...)               whether a network can be explained, and what blocks it
"""

import importlib
from typing import Any

_PUBLIC = {
    "Coverage": "coverage",
    "LayerCandidate": "layers",
    "Report": "api",
    "explain_module": "api",
    "explain_onnx": "api",
    "export_file": "api",
    "inspect_coverage": "api",
    "list_layers": "api",
}


def __getattr__(name: str) -> Any:
    """Loads the exporter, and onnx with it, when it is first used."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"gcpp_edge.export.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
