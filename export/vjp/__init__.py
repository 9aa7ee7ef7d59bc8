"""The table of vector-Jacobian products: one rule an operator, a file per family.

A rule takes a `Call` (the node) and the gradient of its output, emits nodes, and returns one gradient per input, None
where there is none. To add an operator, write its rule in the file of its family (or a new one, imported below) and add
its row to tests/export/test_vjp.py, which fails for a rule without one.

Operators without a gradient are listed too: a decision, never an accident.
"""

from gcpp_edge.export.vjp import (
    activation,
    arithmetic,
    convolution,
    linear,
    normalisation,
    pooling,
    quantisation,
    reduction,
    resampling,
    selection,
    shape,
    trigonometry,
)
from gcpp_edge.export.vjp.registry import (
    RULES,
    WITHOUT_GRADIENT,
    Call,
    Gradient,
    OneHot,
    Phased,
    Rule,
    Sparse,
    find_rule,
)

__all__ = [
    "RULES",
    "WITHOUT_GRADIENT",
    "Call",
    "Gradient",
    "OneHot",
    "Phased",
    "Rule",
    "Sparse",
    "activation",
    "arithmetic",
    "convolution",
    "find_rule",
    "linear",
    "normalisation",
    "pooling",
    "quantisation",
    "reduction",
    "resampling",
    "selection",
    "shape",
    "trigonometry",
]
