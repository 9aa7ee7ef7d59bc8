"""The figures that docs/method.md gives are those that the code gives; and its tables name what the code has."""

import re
from pathlib import Path

import numpy as np
import pytest

from gcpp_edge.contract import PIXEL_RULES
from gcpp_edge.kernels import table
from gcpp_edge.methods import METHODS, MODES

ROOT = Path(__file__).resolve().parent.parent.parent
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def weights_of_figure_2(rule: str) -> np.ndarray:
    """Of three maps of 80 positions, active at 15, 4 and 2 of them, with gradients of 1 there (Eq. 4)."""
    activations = np.zeros((1, 3, 8, 10), np.float32)
    for channel, count in enumerate((15, 4, 2)):
        activations[0, channel].flat[:count] = 1
    weights = np.empty((1, 3), np.float32)
    table("numpy").cam(activations, activations.copy(), rule, True, np.empty((1, 8, 10), np.float32), weights)
    return weights[0]


def test_the_table_of_figure_2_is_what_the_kernels_give() -> None:
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| 1 \| ([\d.]+) \|$", METHOD, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [15, 4, 2]
    assert weights_of_figure_2("gradcam") == pytest.approx([float(row[1]) for row in rows], abs=5e-5)
    assert weights_of_figure_2("gradcam++") == pytest.approx([float(row[2]) for row in rows], abs=5e-5)


def test_the_price_of_the_usual_epsilon_is_as_stated() -> None:
    g = 2e-4
    share = (g**2 / (2 * g**2 + 1e-6)) / 0.5
    assert f"{share:.0%}".replace("%", " %") in METHOD


@pytest.mark.parametrize("page", [METHOD, README], ids=["docs/method.md", "README.md"])
@pytest.mark.parametrize("name", [*METHODS, *MODES, *PIXEL_RULES])
def test_every_method_mode_and_rule_is_documented(name: str, page: str) -> None:
    assert f"`{name}`" in page or f'"{name}"' in page
