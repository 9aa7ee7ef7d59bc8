"""Pictures that a call makes along with the map."""

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge.errors import InputError
from gcpp_edge.made import resolve_made


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), ()),
        ("overlay", ("overlay",)),
        (["overlay", "heatmap", "overlay"], ("heatmap", "overlay")),
    ],
)
def test_each_picture_is_made_once(asked, expected) -> None:
    assert resolve_made(asked) == expected


def test_an_unknown_picture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="make: unknown picture 'panel'. Known: heatmap, overlay."):
        resolve_made(["heatmap", "panel"])


@pytest.mark.parametrize("format", ["bgr", "rgba", "gray"])
def test_what_is_made_is_what_is_drawn_afterwards(shared_model, random_frame, format) -> None:
    frame = random_frame(20, 30, {"bgr": 3, "rgba": 4, "gray": 0}[format])
    with gcpp_edge.load(shared_model.path) as explainer:
        explanation = explainer(frame, make=("heatmap", "overlay"), format=format)
    assert list(explanation.made) == ["heatmap", "overlay"]
    np.testing.assert_array_equal(explanation.made["heatmap"], explanation.heatmap())
    np.testing.assert_array_equal(explanation.made["overlay"], explanation.overlay())
    assert explanation.on_device == {}


def test_nothing_is_made_that_nobody_asked_for(shared_model, random_frame) -> None:
    with gcpp_edge.load(shared_model.path) as explainer:
        assert explainer(random_frame()).made == {}


def test_every_frame_of_a_batch_and_of_a_stream_has_its_pictures(shared_model, random_frame) -> None:
    frames = [random_frame(seed=seed) for seed in range(2)]
    with gcpp_edge.load(shared_model.path) as explainer:
        for found in (explainer(frames, make="overlay"), list(explainer.each(frames, make="overlay"))):
            for explanation in found:
                np.testing.assert_array_equal(explanation.made["overlay"], explanation.overlay())
