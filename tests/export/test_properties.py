"""Random small graphs out of the table of rules: their gradients are those that finite differences give."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="PyTorch computes float64 convolutions for the evaluator")

from float64_evaluator import run_float64
from vjp_cases import Case, forward_of, gradient_of, weights

# what keeps the shape and is smooth: no step of a difference crosses a kink
SMOOTH = {
    "Sigmoid": {},
    "Tanh": {},
    "Softplus": {},
    "Erf": {},
    "Gelu": {},
    "Mish": {},
    "Sin": {},
    "Cos": {},
    "Atan": {},
    "Asinh": {},
    "Softmax": {"axis": 1},
    "LogSoftmax": {"axis": -1},
    "Neg": {},
}
# what has kinks: a difference across one is noticed below
KINKED = {
    "Relu": {},
    "LeakyRelu": {"alpha": 0.25},
    "Elu": {"alpha": 0.5},
    "Selu": {},
    "HardSigmoid": {"alpha": 0.25},
    "HardSwish": {},
    "Abs": {},
    "Softsign": {},
    "ThresholdedRelu": {"alpha": 0.25},
    "Shrink": {"lambd": 0.25},
}
JOINS = ("Add", "Sub", "Mul", "Max", "Min", "Mean")


class Builder:
    """A graph that grows node by node; `shapes` holds every tensor so far."""

    def __init__(self, shape):
        self.shapes, self.nodes, self.constants = {"x": shape}, [], {}

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def add(self, operator, inputs, shape, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append((operator, inputs, [name], attributes))
        self.shapes[name] = tuple(int(size) for size in shape)
        return name

    def case(self):
        last = self.nodes[-1]
        return Case("drawn", self.shapes["x"], (*self.nodes[:-1], (last[0], last[1], ["y"], last[3])), self.constants)


def pointwise(draw, build, name):
    operator, attributes = draw(st.sampled_from(sorted({**SMOOTH, **KINKED}.items(), key=lambda item: item[0])))
    build.add(operator, [name], build.shapes[name], **attributes)


def convolved(draw, build, name):
    batch, channels, height, width = build.shapes[name]
    kernel, stride, pad = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 1))
    group = draw(st.sampled_from([1, channels]))
    outputs = channels * draw(st.integers(1, 2)) if group > 1 else draw(st.integers(1, 4))
    sizes = [(size + 2 * pad - kernel) // stride + 1 for size in (height, width)]
    if min(sizes) < 1:
        return
    array = weights(outputs, channels // group, kernel, kernel, seed=len(build.nodes)) / 2
    build.add(
        "Conv",
        [name, build.constant(array)],
        (batch, outputs, *sizes),
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[pad] * 4,
        group=group,
    )


def pooled(draw, build, name):
    batch, channels, height, width = build.shapes[name]
    operator, kernel, stride = draw(st.sampled_from(["MaxPool", "AveragePool"])), 2, draw(st.integers(1, 2))
    sizes = [(size - kernel) // stride + 1 for size in (height, width)]
    if min(sizes) >= 1:
        build.add(operator, [name], (batch, channels, *sizes), kernel_shape=[kernel] * 2, strides=[stride] * 2)


def scaled(draw, build, name):
    """By a constant that broadcasts."""
    shape = draw(st.sampled_from([(), (1,), (build.shapes[name][1], 1, 1), build.shapes[name]]))
    operator = draw(st.sampled_from(JOINS))
    build.add(operator, [name, build.constant(weights(*shape, seed=len(build.nodes)))], build.shapes[name])


def joined(draw, build, name):
    """With an earlier tensor of the same shape, or with its own mean over space, which broadcasts."""
    same = [other for other, shape in build.shapes.items() if shape == build.shapes[name]]
    other = draw(st.sampled_from([*same, "mean"]))
    if other == "mean":
        other = build.add("GlobalAveragePool", [name], (*build.shapes[name][:2], 1, 1))
    operator = draw(st.sampled_from(JOINS))
    build.add(operator, [name, other], build.shapes[name])


def moved(draw, build, name):
    """Axes turned, channels put side by side, borders padded or cut."""
    shape = build.shapes[name]
    way = draw(st.sampled_from(["turn", "concat", "pad", "cut", "gather"]))
    if way == "turn":
        build.add("Transpose", [name], [shape[i] for i in (0, 1, 3, 2)], perm=[0, 1, 3, 2])
    elif way == "concat" and shape[1] <= 4:
        build.add("Concat", [name, name], (shape[0], 2 * shape[1], *shape[2:]), axis=1)
    elif way == "pad":
        pads = build.constant(np.array([0, 0, 1, 0, 0, 0, 0, 1]))
        build.add("Pad", [name, pads], (*shape[:2], shape[2] + 1, shape[3] + 1), mode="edge")
    elif way == "cut" and shape[3] > 1:
        bounds = [build.constant(np.array([number])) for number in (1, shape[3], 3)]
        build.add("Slice", [name, *bounds], (*shape[:3], shape[3] - 1))
    elif way == "gather":
        build.add("Gather", [name, build.constant(np.array([0, -1, 0]))], (shape[0], 3, *shape[2:]), axis=1)


STEPS = (pointwise, pointwise, convolved, pooled, scaled, joined, moved)


@st.composite
def graphs(draw):
    build = Builder((2, draw(st.integers(1, 3)), draw(st.integers(3, 6)), draw(st.integers(3, 6))))
    for _ in range(draw(st.integers(1, 6))):
        step = draw(st.sampled_from(STEPS))
        step(draw, build, draw(st.sampled_from([list(build.shapes)[-1], list(build.shapes)[-1], "x"])))
    if not build.nodes:
        pointwise(draw, build, "x")
    return build.case()


def difference(y_at, x, direction, seed, step):
    return ((y_at(x + step * direction) - y_at(x - step * direction)) * seed).sum() / (2 * step)


@given(case=graphs(), number=st.integers(0, 2**16))
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_a_random_graph_equals_finite_differences(case, number):
    generator = np.random.default_rng(number)
    x, direction = generator.uniform(-2, 2, case.shape), generator.normal(size=case.shape)
    forward = forward_of(case)

    def y_at(point):
        return run_float64(forward, {"x": point})["y"]

    seed = generator.normal(size=y_at(x).shape)
    coarse, fine = (difference(y_at, x, direction, seed, step) for step in (1e-5, 1e-6))
    found = (gradient_of(case, x, seed) * direction).sum()
    size = max(abs(fine), np.abs(seed).sum() * 1e-3)
    assume(abs(coarse - fine) <= 1e-4 * size)  # else a kink lies between: neither difference is the derivative
    assert found == pytest.approx(fine, rel=1e-4, abs=1e-5 * size)


def test_random_graphs_hold_most_operators():
    """The property above says little if its graphs are trivial; hypothesis itself fails it where it skips too many."""
    seen, counted = set(), []

    @given(case=graphs())
    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    def collect(case):
        seen.update(node[0] for node in case.nodes)
        counted.append(len(case.nodes))

    collect()
    expected = {"Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "Transpose", "Concat", "Pad", "Slice", "Gather"}
    assert expected | set(JOINS) <= seen
    assert len(seen & {*SMOOTH, *KINKED}) >= 12  # half of them
    assert np.mean(counted) > 2
