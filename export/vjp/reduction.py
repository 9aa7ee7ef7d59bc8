"""Rules of reductions and softmax. A mean over space spreads its gradient evenly: it stays [N,C,1,1]."""

from __future__ import annotations

from gcpp_edge.export.graph import Shape, Value, elements
from gcpp_edge.export.vjp.registry import Call, OneHot, Results, Sparse, rule


def reduced_axes(call: Call) -> list[int]:
    """The axes of a reduction, from its input (opset 18) or attribute, non-negative; all of them when not given."""
    axes = call.constant(1)
    axes = call.attribute("axes") if axes is None else axes.tolist()
    rank = len(call.x.shape)
    if not axes:
        return [] if call.attribute("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(axis % rank for axis in axes)


def kept_shape(shape: Shape, axes: list[int]) -> Shape:
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


@rule("ReduceMean", "ReduceSum", compact=True, sparse=True)
def reduce_mean_or_sum(call: Call, gradient: Sparse) -> Results:
    axes = reduced_axes(call)
    count = elements(call.x.shape[axis] for axis in axes) if call.node.op_type == "ReduceMean" else 1
    return [_spread(call, gradient, axes, 1 / count), *call.none()[1:]]


@rule("GlobalAveragePool", compact=True, sparse=True)
def global_average_pool(call: Call, gradient: Sparse) -> Results:
    axes = list(range(2, len(call.x.shape)))
    return [_spread(call, gradient, axes, 1 / elements(call.x.shape[2:]))]


def _spread(call: Call, gradient: Sparse, axes: list[int], share: float) -> Sparse:
    shape = kept_shape(call.x.shape, axes)
    if isinstance(gradient, OneHot):
        if axes and min(axes) >= 2 and all(size == 1 for size in shape[2:]):
            gradient = gradient.reshaped(call.emit, shape)
            return OneHot(gradient.indices, call.emit.scale(gradient.amount, share), call.x.shape)
        gradient = gradient.dense(call.emit)
    if len(gradient.shape) != len(shape):  # keepdims=0
        gradient = call.emit.reshape(gradient, _with_axes(gradient.shape, axes))
    return call.emit.scale(gradient, share)


def _with_axes(shape: Shape, axes: list[int]) -> Shape:
    sizes = list(shape)
    for axis in axes:
        sizes.insert(axis, 1)
    return tuple(sizes)


def kept(call: Call, value: Value, axes: list[int]) -> Value:
    """A reduction's result with the reduced axes back as size 1, as keepdims would leave them."""
    if len(value.shape) == len(call.x.shape):
        return value
    return call.emit.reshape(value, _with_axes(value.shape, axes))


@rule("ReduceL1", compact=True)
def reduce_l1(call: Call, gradient: Value) -> Results:
    axes = reduced_axes(call)
    return [call.emit.multiply(kept(call, gradient, axes), call.emit.apply("Sign", call.x)), *call.none()[1:]]


@rule("ReduceL2", compact=True)
def reduce_l2(call: Call, gradient: Value) -> Results:
    """x / |x|, and zero at zero."""
    emit, axes = call.emit, reduced_axes(call)
    share = emit.divide(kept(call, gradient, axes), emit.one_for_zero(kept(call, call.y, axes)))
    return [emit.multiply(call.x, share), *call.none()[1:]]


@rule("ReduceSumSquare", compact=True)
def reduce_sum_square(call: Call, gradient: Value) -> Results:
    axes = reduced_axes(call)
    return [call.emit.multiply(call.emit.scale(call.x, 2), kept(call, gradient, axes)), *call.none()[1:]]


@rule("ReduceLogSumExp", compact=True)
def reduce_log_sum_exp(call: Call, gradient: Value) -> Results:
    """The softmax: e^(x - y)."""
    emit, axes = call.emit, reduced_axes(call)
    softmax = emit.apply("Exp", emit.subtract(call.x, kept(call, call.y, axes)))
    return [emit.multiply(softmax, kept(call, gradient, axes)), *call.none()[1:]]


@rule("ReduceLogSum", compact=True)
def reduce_log_sum(call: Call, gradient: Value) -> Results:
    """1 / sum = e^-y."""
    emit, axes = call.emit, reduced_axes(call)
    share = emit.divide(kept(call, gradient, axes), emit.apply("Exp", kept(call, call.y, axes)))
    return [emit.dense(share, call.x.shape), *call.none()[1:]]


@rule("ReduceProd", compact=True)
def reduce_product(call: Call, gradient: Value) -> Results:
    """The product of the others: y / x, and where x = 0 the product of what is not, if it is the only zero."""
    emit, axes, x = call.emit, reduced_axes(call), call.x
    is_zero = emit.equal(x, emit.scalar(0, x))
    zeros = emit.reduce("ReduceSum", emit.cast(is_zero, x.dtype), axes)
    others = emit.one_for_zero(x)
    product = emit.reduce("ReduceProd", others, axes)
    alone = emit.keep_where(emit.equal(zeros, emit.scalar(1, zeros)), product)
    whole = emit.keep_where(emit.equal(zeros, emit.scalar(0, zeros)), product)
    share = emit.where(is_zero, alone, emit.divide(whole, others))
    return [emit.multiply(kept(call, gradient, axes), share), *call.none()[1:]]


@rule("Softmax")
def softmax(call: Call, gradient: Value) -> Results:
    """dx = y (g - sum(g y))."""
    emit, y, axis = call.emit, call.y, call.axis(default=-1)
    weighted = emit.reduce("ReduceSum", emit.multiply(gradient, y), [axis])
    return [emit.multiply(y, emit.subtract(gradient, weighted))]


@rule("LogSoftmax")
def log_softmax(call: Call, gradient: Value) -> Results:
    """dx = g - exp(y) sum(g)."""
    emit, axis = call.emit, call.axis(default=-1)
    total = emit.reduce("ReduceSum", gradient, [axis])
    return [emit.subtract(gradient, emit.multiply(emit.apply("Exp", call.y), total))]
