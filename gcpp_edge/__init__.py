"""The device half: an explained model in, maps of where the network looked out.

    import gcpp_edge

    with gcpp_edge.load("resnet50.explained.onnx") as explainer:
        explanation = explainer(frame)
        picture = explanation.overlay()

Names are imported when they are first used, so that `import gcpp_edge` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gcpp_edge.errors import (
    CaptureError,
    ContractVersionError,
    DeviceError,
    ExportError,
    FrameError,
    GcppError,
    InputError,
    LayerError,
    MethodError,
    MissingDependencyError,
    MissingRuleError,
    ModelError,
    NotExplainedError,
    PictureError,
    RuntimeFailure,
    SelfCheckError,
    ShapeError,
    SinkError,
    SourceError,
    StreamError,
    TargetError,
    UnsupportedGraphError,
)

if TYPE_CHECKING:
    from gcpp_edge.boxes import Box
    from gcpp_edge.explainer import Explainer
    from gcpp_edge.explanation import Explanation
    from gcpp_edge.loading import load
    from gcpp_edge.pipeline.monitor import Monitor
    from gcpp_edge.pipeline.rules import Rule
    from gcpp_edge.pipeline.stream import Stream

    __version__: str

__all__ = [
    "Box",
    "CaptureError",
    "ContractVersionError",
    "DeviceError",
    "Explainer",
    "Explanation",
    "ExportError",
    "FrameError",
    "GcppError",
    "InputError",
    "LayerError",
    "MethodError",
    "MissingDependencyError",
    "MissingRuleError",
    "ModelError",
    "Monitor",
    "NotExplainedError",
    "PictureError",
    "Rule",
    "RuntimeFailure",
    "SelfCheckError",
    "ShapeError",
    "SinkError",
    "SourceError",
    "Stream",
    "StreamError",
    "TargetError",
    "UnsupportedGraphError",
    "__version__",
    "load",
]

_HOMES = {
    "Box": "gcpp_edge.boxes",
    "Explainer": "gcpp_edge.explainer",
    "Explanation": "gcpp_edge.explanation",
    "Monitor": "gcpp_edge.pipeline.monitor",
    "Stream": "gcpp_edge.pipeline.stream",
    "Rule": "gcpp_edge.pipeline.rules",
    "load": "gcpp_edge.loading",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("gcpp-edge")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
