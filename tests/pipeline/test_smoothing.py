"""Maps and ranges over time, by hand; and when they begin anew."""

from dataclasses import replace
from math import inf, log, nan
from typing import Any

import numpy as np
import pytest
from explanations import GREY, explained

from gcpp_edge.contract import Geometry
from gcpp_edge.explanation import Explanation
from gcpp_edge.methods import Range
from gcpp_edge.pipeline.smoothing import Smoother

HALF = log(2)  # time constants after which a step is half of the way


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A few large patches: another seed is another scene."""
    patches = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3))
    return np.kron(patches, np.ones((16, 16, 1))).astype(np.uint8)


def test_a_step_is_half_shown_after_log_2_time_constants() -> None:
    smoother = Smoother()
    smoother(explained([[0, 4], [8, 2]]), 10.0, 0.5)
    found = smoother(explained([[2, 0], [4, 6]]), 10.0 + 0.5 * HALF, 0.5)
    assert np.allclose(found.map, [[1, 2], [6, 4]])
    assert found.drawing.range == pytest.approx(Range(0, 7))
    found = smoother(explained([[2, 0], [4, 6]]), 10.0 + HALF, 0.5)
    assert np.allclose(found.map, [[1.5, 1], [5, 5]])
    assert found.drawing.range == pytest.approx(Range(0, 6.5))
    assert smoother.resets == 0


def test_the_result_does_not_depend_on_the_frame_rate() -> None:
    """A step seen at 10 and at 100 frames a second is the same after 0.3 seconds."""
    found = []
    for fps in (10, 100):
        smoother = Smoother()
        smoother(explained([[0, 1]]), 0.0, 0.2)
        for frame in range(1, round(0.3 * fps) + 1):
            result = smoother(explained([[3, 5]]), frame / fps, 0.2)
        found.append(result.map)
    assert np.allclose(found[0], found[1], atol=1e-5)
    assert np.allclose(found[0], np.array([3, 5]) - np.array([3, 4]) * np.exp(-1.5), atol=1e-5)


def test_a_smoothed_map_stays_within_its_range_and_is_the_weighted_mean_of_the_frames_pictures() -> None:
    random = np.random.default_rng(1)
    smoother = Smoother()
    weight = 1 - np.exp(-0.04 / 0.3)
    shown, span = None, 0.0
    for frame in range(30):
        raw = random.uniform(0, random.uniform(0, 9), (5, 6)).astype(np.float32)
        found = smoother(explained(raw), frame * 0.04, 0.3)
        low, high = found.drawing.range
        own, own_span = (raw - raw.min()) / np.ptp(raw), float(np.ptp(raw))
        if shown is None:
            shown, span = own, own_span
        else:
            shown = ((1 - weight) * span * shown + weight * own_span * own) / ((1 - weight) * span + weight * own_span)
            span = (1 - weight) * span + weight * own_span
        assert low - 1e-5 <= found.map.min() and found.map.max() <= high + 1e-5
        assert np.allclose((found.map - low) / (high - low), shown, atol=1e-5)


def test_equal_frames_look_as_without_smoothing() -> None:
    smoother = Smoother()
    one = explained([[0, 4], [8, 2]], picture(0))
    for frame in range(5):
        found = smoother(one, frame * 0.03, 0.5)
        assert np.array_equal(found.heatmap(), one.heatmap())
        assert np.array_equal(found.overlay(), one.overlay())


def test_evidence_and_peak_stay_the_frame_s_own() -> None:
    smoother = Smoother()
    smoother(explained([[0, 4]]), 0.0, 0.5)
    found = smoother(explained([[1, 1]]), 0.1, 0.5)
    assert (found.evidence, found.peak) == (2, 1)
    assert found.map[0, 1] > 2


def test_pictures_that_were_made_of_the_raw_map_are_left_out_and_the_argument_is_untouched() -> None:
    raw = explained([[0, 4], [1, 2]])
    raw.made["heatmap"] = raw.heatmap()
    raw.on_device["map"] = object()
    before, shown = raw.map.copy(), raw.drawing.range
    smoother = Smoother()
    smoother(explained([[9, 9], [0, 1]]), 0.0, 0.5)
    found = smoother(raw, 0.1, 0.5)
    assert (found.made, found.on_device) == ({}, {})
    assert np.array_equal(raw.map, before)
    assert raw.drawing.range == shown
    assert set(raw.made) == {"heatmap"}


def test_what_was_returned_stays_true_when_the_arrays_of_calls_are_filled_again() -> None:
    raw, smoother = explained([[0, 4]]), Smoother()
    first = smoother(raw, 0.0, 0.5)
    raw.map[...] = 100
    assert np.array_equal(first.map, [[0, 4]])
    second = smoother(explained([[0, 4]]), 0.1, 0.5)
    first.map[...] = 50
    third = smoother(explained([[0, 4]]), 0.2, 0.5)
    assert np.array_equal(second.map, [[0, 4]])
    assert np.array_equal(third.map, [[0, 4]])


def test_without_a_time_constant_the_argument_comes_back_and_all_is_forgotten() -> None:
    smoother = Smoother()
    smoother(explained([[0, 4]]), 0.0, 0.5)
    raw = explained([[7, 1]])
    assert smoother(raw, 0.1, 0.0) is raw
    assert np.array_equal(smoother(raw, 0.2, 0.5).map, [[7, 1]])
    assert smoother.resets == 0


def test_a_changed_time_constant_counts_from_the_next_frame() -> None:
    smoother = Smoother()
    smoother(explained([[0, 4]]), 0.0, 9.0)
    assert np.allclose(smoother(explained([[2, 0]]), HALF, 1.0).map, [[1, 2]])


@pytest.mark.parametrize("later", [3.0, 2.9, -inf, nan])
def test_a_time_that_stands_still_or_goes_back_begins_anew(later: float) -> None:
    smoother = Smoother()
    smoother(explained([[0, 4]]), 3.0, 0.5)
    found = smoother(explained([[2, 0]]), later, 0.5)
    assert np.array_equal(found.map, [[2, 0]])
    assert found.drawing.range == Range(0, 2)
    assert smoother.resets == 1


CHANGES: dict[str, dict[str, Any]] = {
    "class": {"class_index": 2},
    "method": {"method": "gradcam"},
    "mode": {"mode": "authors"},
    "shape of the map": {"raw_map": [[1], [2]]},
    "size of the frame": {"frame": np.full((64, 48, 3), 90, np.uint8)},
    "geometry of the model": {"geometry": Geometry("letterbox")},
    "model": {"kind": "softmax"},
    "cut": {"frame": picture(1)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_belong_together_begins_anew_once(change: str) -> None:
    smoother = Smoother()
    same: dict[str, Any] = {"raw_map": [[0, 4]], "frame": picture(0)}
    smoother(explained(**same), 0.0, 0.5)
    smoother(explained(**same), 0.1, 0.5)
    assert smoother.resets == 0
    other = explained(**(same | {"raw_map": [[2, 0]]} | CHANGES[change]))
    found = smoother(other, 0.2, 0.5)
    assert np.array_equal(found.map, other.map)
    assert found.drawing.range == other.drawing.range
    assert smoother.resets == 1
    smoother(other, 0.3, 0.5)
    assert smoother.resets == 1


def test_another_target_for_the_same_class_goes_on() -> None:
    smoother = Smoother()
    smoother(explained([[0, 4]]), 0.0, 0.5)
    smoother(replace(explained([[2, 0]]), target=1), 0.1, 0.5)
    assert smoother.resets == 0


def test_clips_are_smoothed_and_cut_by_their_latest_picture() -> None:
    smoother = Smoother()
    old, new = picture(0), picture(1)

    def clip(value: float, *frames: np.ndarray) -> Explanation:
        return explained(np.full((2, 3, 3), value), list(frames), frames=3)

    smoother(clip(2, old, old, old), 0.0, 1.0)
    assert np.allclose(smoother(clip(4, old, old, old), HALF, 1.0).map, np.full((2, 3, 3), 3))
    assert np.allclose(smoother(clip(7, old, old, new), 1.0, 1.0).map, np.full((2, 3, 3), 7))
    smoother(clip(7, old, new, new), 1.1, 1.0)
    assert smoother.resets == 1


def test_pictures_out_of_clips_are_cut_as_pictures_are() -> None:
    smoother = Smoother()
    for frame, seed in enumerate((0, 0, 1, 1)):
        clip = explained(np.full((2, 3, 3), frame), [picture(5), picture(seed)], frames=2)
        found = smoother(clip.picture(-1), frame * HALF, 1.0)
    assert np.allclose(found.map, np.full((3, 3), 2.5))
    assert smoother.resets == 1


def test_of_several_layers_the_shown_map_is_smoothed_alone() -> None:
    smoother = Smoother()
    layers = {"a": np.array([[3, 0]], np.float32), "b": np.array([[0, 5]], np.float32)}
    smoother(replace(explained([[0, 1]]), layer_maps=layers), 0.0, 1.0)
    found = smoother(replace(explained([[1, 0]]), layer_maps=layers), HALF, 1.0)
    assert np.allclose(found.map, [[0.5, 0.5]])
    assert found.layer_maps is layers


def test_frames_on_a_gpu_are_smoothed_without_looking_for_cuts() -> None:
    smoother = Smoother()
    one, other = replace(explained([[0, 4]]), frame=object()), replace(explained([[2, 0]]), frame=object())
    smoother(one, 0.0, 1.0)
    assert np.allclose(smoother(other, HALF, 1.0).map, [[1, 2]])
    smoother(explained([[2, 0]], GREY), 2.0, 1.0)
    assert smoother.resets == 0
