"""The pictures and weights that lie beside the project where it is developed; users do not have them."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Labelled:
    """A picture file and its class."""

    path: Path
    class_index: int


def data_or_skip(*parts):
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"test data {'/'.join(parts)} is not beside the project (../shared/data)")
    return path


@pytest.fixture(scope="session")
def imagenet():
    """The 300 ImageNet pictures with their classes."""
    folder = data_or_skip("images", "imagenet")
    with open(folder / "labels.csv", newline="") as file:
        rows = [Labelled(_picture(folder, row["file"]), int(row["class_index"])) for row in csv.DictReader(file)]
    assert len(rows) == 300
    return rows


def _picture(folder, name):
    return next(path for path in (folder / name, folder / "images" / name) if path.exists())


@pytest.fixture(scope="session")
def squeezenet_file():
    return data_or_skip("models", "squeezenet1.1_fp16.onnx")
