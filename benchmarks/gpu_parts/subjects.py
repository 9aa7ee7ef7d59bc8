"""The networks that are measured, as `gcpp-edge export` and PyTorch both take them. Weights are random but for Lite0's.

What a network costs does not depend on its weights; that maps agree does, so these are drawn the same way each time.
"""

from __future__ import annotations

from typing import Any


def resnet50() -> Any:
    return _torchvision("resnet50")


def vgg16() -> Any:
    return _torchvision("vgg16")


def mobilenet_v3_large() -> Any:
    return _torchvision("mobilenet_v3_large")


def efficientnet_lite0() -> Any:
    from gcpp_edge.export import demo_network

    return demo_network.efficientnet_lite0()


def _torchvision(name: str) -> Any:
    import torch

    from gcpp_edge.export.from_torch import import_torchvision

    import_torchvision()
    from torchvision.models import get_model

    torch.manual_seed(0)
    return get_model(name, weights=None).eval()


def layer_of(module: Any, name: str) -> Any:
    """The submodule that the explained model names as its layer."""
    return module.get_submodule(name)


SUBJECTS = {function.__name__: function for function in (resnet50, efficientnet_lite0, mobilenet_v3_large, vgg16)}
