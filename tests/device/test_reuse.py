"""A call with out= fills an explanation again: the same numbers, the same arrays, and nothing of their size is made."""

import threading
import tracemalloc

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge.errors import InputError, ShapeError
from gcpp_edge.reuse import is_below_infinity, is_finite, kept

SMALL = 16_000  # bytes of Python objects; the smallest picture below has 49 kB


def arrays(explanation) -> dict:
    guided = explanation.drawing.guided
    found = {"map": explanation.map, "scores": explanation.scores, **explanation.made}
    return found if guided is None else found | {"guided": guided}


@pytest.mark.parametrize("options", [{}, {"guided": True}, {"make": ("heatmap", "overlay")}, {"method": "gradcam"}])
def test_a_filled_explanation_is_the_one_of_a_plain_call_in_the_arrays_of_before(shared_model, random_frame, options):
    with gcpp_edge.load(shared_model.path) as explainer:
        explanation = explainer(random_frame(seed=1), 0, **options)
        before = arrays(explanation)
        frame = random_frame(seed=2)
        expected = explainer(frame, 3, **options)
        assert explainer(frame, 3, out=explanation, **options) is explanation
    after = arrays(explanation)
    assert {name: id(array) for name, array in before.items()} == {name: id(array) for name, array in after.items()}
    for name, array in arrays(expected).items():
        np.testing.assert_array_equal(after[name], array)
    assert (explanation.class_index, explanation.target, explanation.method) == (3, 3, expected.method)
    assert explanation.frame is frame
    assert (explanation.label, explanation.evidence) == (expected.label, expected.evidence)
    np.testing.assert_array_equal(explanation.overlay(), expected.overlay())


def test_what_does_not_fit_any_more_is_made_anew(shared_model, random_frame) -> None:
    with gcpp_edge.load(shared_model.path) as explainer:
        explanation = explainer(random_frame(20, 30), make="overlay")
        explainer(random_frame(10, 14), guided=True, make="overlay", out=explanation)
        assert explanation.made["overlay"].shape == (10, 14, 3)
        assert explanation.guided().any()
        explainer(random_frame(10, 14), out=explanation)
        assert explanation.made == {}
        with pytest.raises(InputError, match="guided=True"):
            explanation.guided()


def test_a_batch_fills_a_list_of_them(shared_model, random_frame) -> None:
    frames = [random_frame(seed=seed) for seed in range(3)]
    with gcpp_edge.load(shared_model.path) as explainer:
        outs = explainer(frames[::-1])
        maps = [id(one.map) for one in outs]
        found = explainer(frames, out=outs)
        expected = explainer(frames)
    assert [id(one) for one in found] == [id(one) for one in outs]
    assert [id(one.map) for one in found] == maps
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.map, other.map)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_each_gives_the_same_explanation_every_time(shared_model, random_frame) -> None:
    frames = [random_frame(seed=seed) for seed in range(3)]
    with gcpp_edge.load(shared_model.path) as explainer:
        expected = [explainer(frame).scores for frame in frames]
        explanation = explainer(frames[0])
        found = [(one is explanation, one.scores.copy()) for one in explainer.each(frames, out=explanation)]
    for (is_same, scores), other in zip(found, expected, strict=True):
        assert is_same
        np.testing.assert_array_equal(scores, other)


@pytest.mark.parametrize("out", ["text", 3, [], "twice"])
def test_what_is_no_explanation_for_each_frame_is_refused(shared_model, random_frame, out) -> None:
    frames = [random_frame(seed=seed) for seed in range(2)]
    with gcpp_edge.load(shared_model.path) as explainer:
        if out == "twice":
            out = [explainer(frames[0])] * 2
        with pytest.raises(InputError, match="out: expected a list of 2 different Explanations"):
            explainer(frames, out=out)
        with pytest.raises(InputError, match="out: expected an Explanation of"):
            explainer(frames[0], out=out)


def test_scores_fill_the_caller_s_buffer(shared_model, random_frame) -> None:
    frames = [random_frame(seed=seed) for seed in range(2)]
    out = np.full((2, 7), np.nan, np.float32)
    with gcpp_edge.load(shared_model.path) as explainer:
        assert explainer.scores(frames, out=out) is out
        np.testing.assert_array_equal(out, explainer.scores(frames))
        with pytest.raises(ShapeError, match=r"scores: expected an out of float32 \(2, 7\)"):
            explainer.scores(frames, out=out[:1])


@pytest.mark.parametrize(
    ("format", "shape"), [("bgr", (128, 160, 3)), ("gray", (128, 160)), ("gray16", (128, 160)), ("nv12", (192, 160))]
)
def test_with_out_a_frame_allocates_nothing_of_a_picture_s_size(make_model, format, shape) -> None:
    model = make_model(size=(64, 64))
    frame = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint16 if format == "gray16" else np.uint8)
    overlay, product = np.empty((128, 160, 3), np.uint8), np.empty((64, 64, 3), np.float32)
    heatmap, scores = np.empty((128, 160), np.float32), np.empty((1, 7), np.float32)
    with gcpp_edge.load(model.path) as explainer:
        explanation = explainer(frame, guided=True, make="overlay", format=format)

        def work() -> None:
            explainer(frame, guided=True, make="overlay", format=format, out=explanation)
            explanation.overlay(out=overlay)
            explanation.guided(out=product)
            explanation.heatmap(out=heatmap)
            explainer.scores(frame, format=format, out=scores)

        for _ in range(3):
            work()
        tracemalloc.start()
        work()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        expected = explainer(frame, guided=True, format=format)
    assert peak < SMALL
    np.testing.assert_array_equal(overlay, expected.overlay())
    np.testing.assert_array_equal(product, expected.guided())
    np.testing.assert_array_equal(explanation.made["overlay"], overlay)


def test_explainers_in_threads_say_what_each_says_alone(make_model, random_frame) -> None:
    frames = [random_frame(40, 60, seed=seed) for seed in range(8)]
    explainers = [gcpp_edge.load(make_model().path, threads=1) for _ in range(3)]
    expected = [explainers[0](frame, 2, guided=True) for frame in frames]
    wrong, barrier = [], threading.Barrier(len(explainers))

    def work(explainer: gcpp_edge.Explainer) -> None:
        explanation, out = explainer(frames[0]), np.empty_like(frames[0])
        barrier.wait()
        for _ in range(20):
            for frame, wanted in zip(frames, expected, strict=True):
                explainer(frame, 2, guided=True, out=explanation).overlay(out=out)
                same = (explanation.map, wanted.map), (out, wanted.overlay()), (explanation.guided(), wanted.guided())
                if not all(np.array_equal(*pair) for pair in same):
                    wrong.append(frame)

    threads = [threading.Thread(target=work, args=(explainer,)) for explainer in explainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for explainer in explainers:
        explainer.close()
    assert not wrong


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("values", "finite", "below"),
    [
        ([], True, True),
        ([1, -2], True, True),
        ([1, np.nan, 2], False, False),
        ([np.inf, 1], False, False),
        ([1, -np.inf], False, True),
        ([-np.inf, np.nan], False, False),
    ],
)
def test_numbers_are_told_from_what_is_none_without_a_warning(values, finite, below, dtype) -> None:
    array = np.array(values, dtype)
    with np.errstate(all="raise"):
        assert (is_finite(array), is_below_infinity(array)) == (finite, below)


def test_a_copy_goes_into_the_old_array_where_it_fits() -> None:
    values, old = np.arange(6, dtype=np.float16).reshape(2, 3), np.empty((2, 3), np.float32)
    assert kept(values, old) is old
    np.testing.assert_array_equal(old, values)
    for other in (None, np.empty((3, 2), np.float32), np.empty((2, 3), np.float64)):
        made = kept(values, other)
        assert made is not other and made.dtype == np.float32 and not np.shares_memory(made, values)
