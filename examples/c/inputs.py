"""What the C example reads, of an explained model and a picture: writes the files and prints the command.

    python examples/c/inputs.py lite0.explained.onnx cat.jpg inputs/ [TARGET]

TARGET: a class index, its name, or a negative rank (-1, the best class). ONNX Runtime runs the network here; in a
program of your own its C interface does, and the kernel `gcpp_preprocess` makes the network's input of a frame.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from gcpp_edge.colormaps import palette_rgb
from gcpp_edge.contract import CLASS, TARGET, Contract
from gcpp_edge.errors import GcppError, InputError
from gcpp_edge.explanation import UNSEEN_DIM
from gcpp_edge.geometry import fit_frame, frame_from_map, input_from_frame
from gcpp_edge.inference import pixel_arithmetic
from gcpp_edge.kernels import Axis, table
from gcpp_edge.methods import METHODS
from gcpp_edge.model_file import read_model_file
from gcpp_edge.pictures import make_folder, read_picture
from gcpp_edge.targets import resolve_target


def write_inputs(model: Path, picture: Path, folder: Path, target: str = "-1") -> list[str]:
    """The words behind `explain` for the files that it writes into the folder.

    Raises GcppError: InputError for a model that the example does not run.
    """
    contract = read_model_file(model).contract
    require_runnable(contract, model)
    frame = read_picture(picture)
    make_folder(folder)
    arrays = network_outputs(model, contract, frame, resolve_target(asked(target), contract))
    for name, values in arrays.items():
        values.astype("<f4").tofile(folder / f"{name}.f32")
    palette_rgb("jet").tofile(folder / "jet.palette")
    write_ppm(folder / "frame.ppm", frame)
    files = ["activations.f32", "gradients.f32", None, "jet.palette", "frame.ppm", "overlay.ppm"]
    shape = "x".join(map(str, (contract.layer.channels, *contract.layer.space)))
    return [*options(contract, *frame.shape[:2]), *(str(folder / name) if name else shape for name in files)]


def require_runnable(contract: Contract, model: Path) -> None:
    """Raises InputError for a file with more than the example reads."""
    for is_so, what in (
        (contract.target.kind == CLASS, "explains one class of the picture"),
        (not contract.preprocessing.frames, "takes pictures, not clips"),
        (not contract.frame.height, "leaves preprocessing to the kernel"),
        (not contract.others, "has one layer"),
        (not contract.extra_inputs, "has no further inputs"),
        (not METHODS[contract.method].needs_weights, "has a method that the cam kernel weighs itself"),
    ):
        if not is_so:
            raise InputError(f"{model}: the C example runs a file that {what}.")


def network_outputs(model: Path, contract: Contract, frame: np.ndarray, target: int) -> dict[str, np.ndarray]:
    """Activations and gradients for a BGR frame."""
    pixels = contract.preprocessing
    image = np.empty(pixels.input_shape, np.float32)
    axes = input_from_frame(fit_frame(*frame.shape[:2], pixels))
    table().preprocess(frame, "bgr", *axes, pixels.color, *pixel_arithmetic(pixels), image)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    given = {one.name: one.type for one in session.get_inputs()}
    if given[contract.input] == "tensor(float16)":
        image = image.astype(np.float16)
    names = [contract.layer.activations, contract.layer.gradients]
    found = session.run(names, {contract.input: image[None], TARGET: np.array([target], np.int64)})
    return dict(zip(("activations", "gradients"), found, strict=True))


def options(contract: Contract, height: int, width: int) -> list[str]:
    """What the example must know besides: method, geometry, brightness of what was not seen."""
    method, layer = METHODS[contract.method], contract.layer
    axes = frame_from_map(fit_frame(height, width, contract.preprocessing), *layer.space)
    words = ["--rule", method.rule, "--dim", str(UNSEEN_DIM)]
    words += ["--rows", text(axes.rows), "--columns", text(axes.columns)]
    if layer.gradient_scale != 1:
        words += ["--gradient-scale", repr(layer.gradient_scale)]
    return words if method.relu else [*words, "--no-relu"]


def text(axis: Axis) -> str:
    """SCALE,OFFSET,START,STOP with all of their digits."""
    return f"{axis.scale!r},{axis.offset!r},{axis.start},{axis.stop}"


def write_ppm(path: Path, frame: np.ndarray) -> None:
    """A BGR frame as a binary PPM."""
    height, width = frame.shape[:2]
    path.write_bytes(b"P6\n%d %d\n255\n" % (width, height) + frame[:, :, ::-1].tobytes())


def asked(target: str) -> int | str:
    """An index or a rank as a number, a name as it is."""
    return int(target) if target.lstrip("-").isdigit() else target


def main() -> None:
    """Writes the files and prints the command that reads them."""
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    model, picture, folder = map(Path, sys.argv[1:4])
    try:
        words = write_inputs(model, picture, folder, *sys.argv[4:])
    except GcppError as error:
        sys.exit(f"inputs: {error}")
    print(shlex.join([str(Path(__file__).with_name("explain")), *words]))


if __name__ == "__main__":
    main()
