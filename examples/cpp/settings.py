"""What the C++ example must know of an explained model, as lines of words: made once, where Python is.

    python examples/cpp/settings.py lite0.explained.onnx 1080x1920 > lite0.settings

The second argument is the camera's frame, height x width. Names of tensors, preprocessing, geometry, method, palette
and labels come from the file's own metadata; the example computes none of it again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from gcpp_edge.colormaps import palette_bgr
from gcpp_edge.contract import CLASS, MAP, TARGET, TARGET_CLASS
from gcpp_edge.errors import GcppError, InputError
from gcpp_edge.explanation import UNSEEN_DIM
from gcpp_edge.geometry import fit_frame, frame_from_map, input_from_frame
from gcpp_edge.inference import pixel_arithmetic
from gcpp_edge.kernels import Axis
from gcpp_edge.methods import METHODS
from gcpp_edge.model_file import ModelFile, read_model_file

ALPHA = 0.5  # how much of the colours an overlay has


def settings(file: ModelFile, height: int, width: int) -> Iterator[str]:
    """The lines: a key and its words. Raises InputError for a file that the example does not run."""
    contract, pixels = file.contract, file.contract.preprocessing
    method = METHODS[contract.method]
    _require(contract.target.kind == CLASS, file, "explains one class of the picture")
    _require(not pixels.frames, file, "takes pictures, not clips")
    _require(not contract.frame.height, file, "leaves preprocessing to the kernel")
    _require(not contract.others, file, "has one layer")
    _require(not contract.extra_inputs, file, "has no further inputs")
    _require(not method.needs_weights, file, "has a method that the cam kernel weighs itself")
    fit = fit_frame(height, width, pixels)
    layer = contract.layer
    yield f"frame {height} {width}"
    yield f"input {contract.input} {pixels.channels} {pixels.height} {pixels.width}"
    yield f"target {TARGET}"
    yield f"scores {contract.scores.output} {contract.scores.classes}"
    yield f"target_class {TARGET_CLASS}"
    yield f"activations {layer.activations} {layer.channels} {layer.space[0]} {layer.space[1]}"
    yield f"gradients {layer.gradients} {int(layer.constant)} {layer.gradient_scale!r}"
    yield f"outputs {' '.join(contract.levels[MAP].outputs)}"
    yield f"method {method.rule} {int(method.relu)}"
    yield f"color {pixels.color}"
    for name, values in zip(("scale", "bias", "fill"), pixel_arithmetic(pixels), strict=True):
        yield f"{name} {' '.join(repr(float(value)) for value in values)}"
    for name, axes in (("preprocess", input_from_frame(fit)), ("overlay", frame_from_map(fit, *layer.space))):
        yield f"{name}_rows {_axis(axes.rows)}"
        yield f"{name}_columns {_axis(axes.columns)}"
    yield f"blend {ALPHA} {UNSEEN_DIM}"
    yield f"palette {' '.join(map(str, palette_bgr('jet').ravel()))}"
    for index, label in enumerate(contract.labels):
        yield f"label {index} {' '.join(label.split())}"


def _axis(axis: Axis) -> str:
    return f"{axis.scale!r} {axis.offset!r} {axis.start} {axis.stop}"


def _require(is_so: bool, file: ModelFile, what: str) -> None:
    if not is_so:
        raise InputError(f"{file.path}: the C++ example runs a file that {what}.")


def main() -> None:
    """Prints them."""
    if len(sys.argv) != 3 or not all(part.isdigit() for part in sys.argv[2].split("x")):
        sys.exit(__doc__)
    height, width = map(int, sys.argv[2].split("x"))
    try:
        print("\n".join(settings(read_model_file(sys.argv[1]), height, width)))
    except GcppError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
