"""cam: every instruction set of this machine against the reference."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

RULES = ("gradcam", "gradcam++", "gradcam++-signed")
TOLERANCE = 1e-5  # of the sum of |w_k A_k|: float32 sums against float64


@dataclass(frozen=True)
class Case:
    name: str
    space: tuple[int, ...]
    channels: int = 5
    batch: int = 1
    targets: tuple[int, ...] = ()  # (K,): K gradients for the same activations
    activations: str = "float32"
    gradients: str = "float32"
    constant: bool = False
    shift: float = 0.3  # of the activations: with -3, ΣA is negative in every channel
    scale: float = 1.0  # of the gradients as they are stored

    def __str__(self):
        return self.name

    def arrays(self):
        random = np.random.default_rng(abs(hash((self.space, self.channels, self.batch))))
        shape = (self.batch, self.channels, *self.space)
        slopes = (*self.targets, self.channels, *([1] * len(self.space) if self.constant else self.space))
        activations = random.standard_normal(shape) + self.shift
        gradients = away_from_poles(activations, random.standard_normal((self.batch, *slopes)))
        return activations.astype(self.activations), (gradients * self.scale).astype(self.gradients)


def away_from_poles(activations, gradients):
    """Gradients without those that bring 2 + ΣA·g near 0, where float32 and float64 may part."""
    axes = tuple(range(2, activations.ndim))
    total = np.maximum(activations.sum(axis=axes, keepdims=True), 0)
    if gradients.ndim > activations.ndim:
        total = total[:, None]
    return np.where(np.abs(2 + total * gradients) < 0.5, 1, gradients)


CASES = [
    Case("no positions", (0, 3)),
    Case("no channels", (3, 3), channels=0),
    Case("no pictures", (3, 3), batch=0),
    Case("one position", (1, 1)),
    Case("half a lane less one", (1, 3)),
    Case("half a lane", (2, 2)),
    Case("half a lane and one", (1, 5)),
    Case("half a lane and two", (1, 6)),
    Case("a lane less one", (1, 7)),
    Case("a lane", (2, 4)),
    Case("a lane and one", (3, 3)),
    Case("two lanes less one", (3, 5)),
    Case("two lanes", (4, 4)),
    Case("two lanes and one", (1, 17)),
    Case("two lanes and two", (1, 18), channels=6),
    Case("three lanes", (4, 6)),
    Case("three lanes and seven", (31, 1)),
    Case("the last maps of most networks", (7, 7), channels=67),
    Case("a wide map", (14, 14), channels=9),
    Case("an early layer", (56, 56), channels=3),
    Case("more channels than threads in a block", (7, 7), channels=1031),
    Case("an early layer, odd", (33, 35), channels=3, batch=2),
    Case("an early layer in float16", (40, 40), channels=5, activations="float16", gradients="float16"),
    Case("an early layer, constant gradients", (40, 40), channels=5, batch=2, constant=True),
    Case("a batch", (7, 7), channels=6, batch=3),
    Case("one axis", (19,)),
    Case("three axes", (3, 4, 5)),
    Case("constant gradients", (7, 7), batch=2, constant=True),
    Case("constant gradients, one position", (1, 1), constant=True),
    Case("constant gradients, no positions", (0, 7), constant=True),
    Case("constant gradients, three axes", (2, 3, 5), constant=True),
    Case("negative sums of activations", (7, 7), shift=-3),
    Case("negative sums, constant gradients", (7, 7), shift=-3, constant=True),
    Case("float16", (7, 7), batch=2, activations="float16", gradients="float16"),
    Case("float16, a lane", (2, 4), activations="float16", gradients="float16"),
    Case("float16, less than a lane", (1, 5), activations="float16", gradients="float16"),
    Case("float16, constant gradients", (7, 7), batch=2, activations="float16", gradients="float16", constant=True),
    Case("float16 activations, float32 gradients", (5, 5), activations="float16"),
    Case("float32 activations, float16 gradients", (5, 5), gradients="float16"),
    Case("float32 activations, constant float16 gradients", (5, 5), gradients="float16", constant=True),
    Case("gradients times 1024", (7, 7), batch=2, activations="float16", gradients="float16", scale=2.0**10),
    Case("gradients times 1024, less than a lane", (1, 5), gradients="float16", scale=2.0**10),
    Case("gradients times 1024, constant", (7, 7), gradients="float16", constant=True, scale=2.0**10),
    Case("gradients over 256", (5, 7), activations="float16", gradients="float16", scale=2.0**-8),
    Case("gradients over 256, constant, less than a lane", (1, 3), constant=True, scale=2.0**-8),
    Case("gradients times 3", (5, 5), scale=3.0),
    Case("negative sums, gradients times 1024", (7, 7), shift=-3, scale=2.0**10),
    Case("three targets", (7, 7), batch=2, targets=(3,)),
    Case("three targets, less than a lane", (1, 5), batch=2, targets=(3,), gradients="float16"),
    Case("three targets, constant gradients", (5, 7), batch=2, targets=(3,), constant=True),
    Case("no targets", (3, 3), batch=2, targets=(0,)),
]


def run(table, case_arrays, rule, relu, output, guarded=np.asarray, scale=1.0):
    activations, gradients = (guarded(array) for array in case_arrays)
    maps = gradients.shape[: gradients.ndim - activations.ndim + 1]
    out = output((*maps, *activations.shape[2:]), np.float32)
    weights = output((*maps, activations.shape[1]), np.float32)
    poles = output(maps, np.int64)
    table.cam(activations, gradients, rule, relu, out, weights, gradient_scale=scale, poles=poles)
    return out, weights, poles


def assert_same(result, expected, arrays):
    out, weights, poles = result
    activations = np.abs(arrays[0].astype(np.float64))
    importance = np.abs(expected[1].astype(np.float64))
    flat = activations.reshape(*activations.shape[:2], math.prod(activations.shape[2:]))
    scale = np.einsum("n...c,ncs->n...s", importance, flat)
    tolerance = TOLERANCE * scale.max(initial=0) + 1e-12
    np.testing.assert_allclose(out, expected[0], rtol=0, atol=tolerance)
    np.testing.assert_allclose(weights, expected[1], rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_array_equal(poles, expected[2])


@pytest.mark.parametrize("relu", [True, False], ids=["relu", "raw"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cam_equals_the_reference(compiled, reference, case, rule, relu, output, guarded):
    arrays = case.arrays()
    expected = run(reference, arrays, rule, relu, output, scale=case.scale)
    assert_same(run(compiled, arrays, rule, relu, output, guarded, case.scale), expected, arrays)


@pytest.mark.parametrize("rule", RULES)
def test_cam_does_without_weights_and_poles(compiled, rule, output):
    arrays = Case("", (7, 7), channels=6, batch=3).arrays()
    expected, _, _ = run(compiled, arrays, rule, True, output)
    out = output(expected.shape, np.float32)
    compiled.cam(*arrays, rule, True, out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("rule", RULES)
def test_constant_gradients_give_what_repeated_ones_give(compiled, rule, output):
    activations, gradients = Case("", (5, 7), batch=2, constant=True).arrays()
    repeated = np.broadcast_to(gradients, activations.shape).copy()
    once = run(compiled, (activations, gradients), rule, False, output)
    assert_same(run(compiled, (activations, repeated), rule, False, output), once, (activations, gradients))


@pytest.mark.parametrize("scale", [2.0**10, 2.0**-8, 2.0**100, 2.0**-100], ids="{:.3g}".format)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("constant", [False, True], ids=["own", "constant"])
@pytest.mark.parametrize("space", [(1, 5), (7, 7)], ids=["scalar", "vectors"])
def test_a_power_of_two_costs_no_accuracy(compiled, reference, space, constant, rule, scale, output):
    activations, gradients = Case("", space, channels=9, constant=constant).arrays()
    stored = gradients * np.float32(scale)
    plain = run(reference, (activations, gradients), rule, False, output)
    for table in (reference, compiled):
        found = run(table, (activations, stored), rule, False, output, scale=scale)
        assert_same(found, plain, (activations, gradients))


@pytest.mark.parametrize("scale", [1.0, 2.0**10, 2.0**-8])
@pytest.mark.parametrize("positions", [3, 8, 21])
@pytest.mark.parametrize("constant", [False, True], ids=["own", "constant"])
def test_a_pole_counts_every_position_and_adds_nothing(compiled, reference, positions, constant, scale, output):
    activations = np.zeros((1, 2, positions), np.float32)
    activations[0, :, 0] = 4  # ΣA = 4: the pole lies at g = -1/2
    gradients = np.full((1, 2, 1 if constant else positions), -0.5, np.float32)
    gradients[0, 1] = -0.5 + 1e-2
    gradients *= np.float32(scale)
    result = run(compiled, (activations, gradients), "gradcam++-signed", False, output, scale=scale)
    assert list(result[2]) == [positions] and result[1][0, 0] == 0
    expected = run(reference, (activations, gradients), "gradcam++-signed", False, output, scale=scale)
    assert_same(result, expected, (activations, gradients))


@pytest.mark.parametrize("rule", ["gradcam++", "gradcam++-signed"])
@pytest.mark.parametrize("space", [(7, 7), (5, 8)], ids=str)
@pytest.mark.parametrize("slope", [1e5, 2.8e18, 4.5e18, 1e19, 1e25, 1e30], ids="{:.2g}".format)
def test_enormous_gradients_keep_their_weight(compiled, reference, space, rule, slope, output):
    """2 + ΣA·g of 1e5 to 1e30: the product of two, or its inverse, may have no float32 of full precision."""
    activations, gradients = Case("", space, channels=6).arrays()
    activations[0, 2:4] = np.abs(activations[0, 2:4]) * 2 / space[0] / space[1]
    gradients = np.abs(gradients)
    gradients[0, 2], gradients[0, 3, 1, 1] = slope, slope
    expected = run(reference, (activations, gradients), rule, False, output)
    found = run(compiled, (activations, gradients), rule, False, output)
    assert_same(found, expected, (activations, gradients))


@pytest.mark.parametrize("channel", range(9))
def test_a_pole_leaves_the_channels_beside_it_alone(compiled, reference, channel, output):
    activations, gradients = Case("", (7, 7), channels=9).arrays()
    alone = run(compiled, (activations, gradients), "gradcam++-signed", False, output)[1]
    activations[0, channel], gradients[0, channel] = 4 / 49, np.abs(gradients[0, channel])
    gradients[0, channel, [3, 6], [3, 6]] = -0.5  # ΣA = 4
    arrays = (activations, gradients)
    result = run(compiled, arrays, "gradcam++-signed", False, output)
    assert list(result[2]) == [2]
    assert_same(result, run(reference, arrays, "gradcam++-signed", False, output), arrays)
    np.testing.assert_allclose(np.delete(result[1], channel, 1), np.delete(alone, channel, 1), rtol=0, atol=TOLERANCE)


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 65504.0]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("where", ["activations", "gradients"])
@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("position", [0, 8, 20], ids=["first", "second lane", "tail"])
def test_special_values_give_the_class_of_result_of_the_reference(
    compiled, reference, value, where, rule, dtype, position, output
):
    activations, gradients = Case("", (3, 7), channels=3, activations=dtype, gradients=dtype).arrays()
    with np.errstate(over="ignore"):
        (activations if where == "activations" else gradients).reshape(1, 3, -1)[0, 1, position] = value
    expected = run(reference, (activations, gradients), rule, True, output)
    result = run(compiled, (activations, gradients), rule, True, output)
    for found, wanted in zip(result[:2], expected[:2], strict=True):
        size = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * size)


def test_a_map_that_is_zero_everywhere_stays_zero(compiled, output):
    zeros = np.zeros((1, 4, 5, 5), np.float32)
    out, weights, _ = run(compiled, (zeros, zeros), "gradcam++", True, output)
    assert not out.any() and not weights.any()


def test_tiny_gradients_keep_their_weight(compiled, output):
    activations = np.ones((1, 1, 3, 3), np.float32)
    gradients = np.full((1, 1, 3, 3), 1e-13, np.float32)  # g³ is below float32, 1 / (2 + ΣA·g) is not
    _, weights, _ = run(compiled, (activations, gradients), "gradcam++", True, output)
    assert weights[0, 0] == pytest.approx(9 * 1e-13 / 2, rel=1e-5)


@pytest.mark.parametrize("rule", RULES[1:])
def test_a_term_has_all_digits_of_float32(compiled, rule, output):
    random = np.random.default_rng(6)
    activations = np.zeros((1, 999, 8), np.float32)
    activations[..., 0] = random.uniform(0, 100, (1, 999))  # ΣA is exact, and so is the sum of equal terms
    slopes = random.uniform(0.01, 3, (1, 999, 1)).astype(np.float32)
    _, weights, _ = run(compiled, (activations, slopes.repeat(8, axis=2)), rule, False, output)
    expected = 8 * slopes.astype(np.float64) / (2 + activations[..., :1].astype(np.float64) * slopes)
    np.testing.assert_allclose(weights, expected[..., 0], rtol=4e-7)


def test_the_reference_is_the_paper_where_the_paper_can_be_computed(reference, output):
    random = np.random.default_rng(1)
    activations = random.uniform(0, 1, (1, 3, 4, 4)).astype(np.float32)
    gradients = random.uniform(0.1, 1, (1, 3, 4, 4)).astype(np.float32)
    a, g = activations.astype(np.float64), gradients.astype(np.float64)
    alpha = g**2 / (2 * g**2 + a.sum(axis=(2, 3), keepdims=True) * g**3)  # Eq. 19
    weights = (alpha * np.maximum(g, 0)).sum(axis=(2, 3))  # Eq. 5
    out, found, _ = run(reference, (activations, gradients), "gradcam++", True, output)
    np.testing.assert_allclose(found, weights, rtol=1e-6)
    np.testing.assert_allclose(out, np.einsum("nc,ncij->nij", weights, a), rtol=1e-6)
