"""Writes LSTM, GRU and RNN out, step by step: their own nodes have no rule here, and loops block a graph's capture.

What every step adds of its input is one product for all steps; both directions of a bidirectional layer are one more
axis, so a step is one node of each kind, whatever the directions. The weights are constants.

The names follow onnx's description of the three: W acts on the input, R on the state, `hidden` is H of a step.
States are [1,D,B,H] for D directions, a step's input is [1,D,B,gates H].
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.decompose import Writer, given, replaced
from gcpp_edge.export.graph import Graph, attribute

ACTIVATIONS = ("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")  # those without a parameter
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}

States = list[str]  # the hidden state, and for LSTM the cell's


def unroll(model: ModelProto) -> bool:
    """Replaces every recurrent node of a folded model. Returns whether there was one.

    Raises UnsupportedGraphError for what has no unrolled form: steps without a number, computed weights.
    """
    if not any(node.op_type in GATES for node in model.graph.node):
        return False
    graph = Graph(model)
    replaced(model, dict.fromkeys(GATES, lambda node, write: _unrolled(graph, node, write)))
    return True


@dataclass(frozen=True)
class _Cell:
    """One recurrent node. recurrence: R of each direction [D,H,gates H]; bias: of R, [D,gates H].

    made: the constants that its steps share, by what they are.
    """

    write: Writer
    hidden: int
    activations: tuple[str, ...]
    recurrence: np.ndarray
    bias: np.ndarray
    made: dict[Hashable, str] = field(default_factory=dict)

    def activated(self, index: int, name: str) -> str:
        return self.write.node(self.activations[index], name)

    def product(self, state: str, gates: slice) -> str:
        """The state times those gates' part of R."""
        part = self.recurrence[..., gates.start * self.hidden : gates.stop * self.hidden]
        return self.write.node("MatMul", state, self.shared(("R", gates.start, gates.stop), part))

    def shared(self, key: Hashable, array: np.ndarray) -> str:
        """The constant of this key: made by the first step that needs it, and not once a step."""
        if key not in self.made:
            self.made[key] = self.write.constant(np.ascontiguousarray(array))
        return self.made[key]

    def split(self, name: str, *gates: int) -> list[str]:
        """Parts of so many gates each."""
        return self.write.split(name, [count * self.hidden for count in gates], 3)


def _unrolled(graph: Graph, node: NodeProto, write: Writer) -> None:
    _refuse_unusual(graph, node)
    weights, recurrence = (_constant(graph, node, index) for index in (1, 2))
    directions, width, hidden = len(weights), weights.shape[1], recurrence.shape[2]
    biases = _constant(graph, node, 3) if given(node, 3) else np.zeros((directions, 2 * width), weights.dtype)
    cell = _Cell(write, hidden, _activations(node, directions), recurrence.transpose(0, 2, 1), biases[:, width:])
    batch_first = bool(attribute(node, "layout", 0))
    x = write.node("Transpose", node.input[0], perm=[1, 0, 2]) if batch_first else node.input[0]
    steps = graph.value(node.input[0]).shape[int(batch_first)]
    if not isinstance(steps, int):
        raise _refusal(node, "runs over the batch: its number of steps is not fixed")
    inputs = _time(node, write, _of_input(node, cell, x, weights, biases))
    states = [_initial(graph, node, write, index, cell, batch_first) for index in _state_inputs(node)]
    outputs = []
    for step in write.split(inputs, [1] * steps, 0):
        states = STEPS[node.op_type](cell, step, states, bool(attribute(node, "linear_before_reset", 0)))
        outputs.append(states[0])
    _finish(node, write, outputs, states, batch_first)


def _of_input(node: NodeProto, cell: _Cell, x: str, weights: np.ndarray, biases: np.ndarray) -> str:
    """[T,B,I] -> [T,D,B,gates H]: W x and what is added to it."""
    write, width = cell.write, weights.shape[1]
    bias = biases[:, :width] + cell.bias
    if node.op_type == "GRU" and attribute(node, "linear_before_reset", 0):
        bias[:, 2 * cell.hidden :] -= cell.bias[:, 2 * cell.hidden :]  # added later, before the reset
    ready = write.node("Unsqueeze", x, write.integers(1))
    product = write.node("MatMul", ready, write.constant(np.ascontiguousarray(weights.transpose(0, 2, 1))))
    return write.node("Add", product, write.constant(bias[:, None])) if bias.any() else product


def _time(node: NodeProto, write: Writer, name: str) -> str:
    """[T,D,..] with time turned round where a direction runs backwards; turns it back as well."""
    direction = attribute(node, "direction", "forward")
    if direction == "forward":
        return name
    if direction == "reverse":
        return _turned(write, name)
    ahead, back = write.split(name, [1, 1], 1)
    return write.node("Concat", ahead, _turned(write, back), axis=1)


def _turned(write: Writer, name: str) -> str:
    bounds = (write.integers(-1), write.integers(np.iinfo(np.int64).min), write.integers(0), write.integers(-1))
    return write.node("Slice", name, *bounds)


def _state_inputs(node: NodeProto) -> tuple[int, ...]:
    return (5, 6) if node.op_type == "LSTM" else (5,)


def _initial(graph: Graph, node: NodeProto, write: Writer, index: int, cell: _Cell, batch_first: bool) -> str:
    """The state before the first step [1,D,B,H]: zeros [1,D,1,H] unless it is given, which fold into constants."""
    name = given(node, index)
    directions = len(cell.recurrence)
    if not name or _is_zero(graph, name):
        return write.constant(np.zeros((1, directions, 1, cell.hidden), cell.recurrence.dtype))
    state = write.node("Transpose", name, perm=[1, 0, 2]) if batch_first else name
    return write.node("Unsqueeze", state, write.integers(0))


def _is_zero(graph: Graph, name: str) -> bool:
    """Whether a state is nothing but zeros, also as many as the batch asks for."""
    maker = graph.producers.get(name)
    source = maker.input[0] if maker is not None and maker.op_type == "Expand" else name
    constant = graph.constant(source)
    return constant is not None and not constant.any()


def _finish(node: NodeProto, write: Writer, outputs: list[str], states: States, batch_first: bool) -> None:
    """Y [T,D,B,H], Y_h and Y_c [D,B,H], with the batch first where that was asked for."""
    if node.output[0]:
        whole = _time(node, write, write.node("Concat", *outputs, axis=0))
        _leave(write, whole, [2, 0, 1, 3] if batch_first else None, node.output[0])
    for name, state in zip(node.output[1:], states, strict=False):
        if name:
            last = write.node("Squeeze", state, write.integers(0))
            _leave(write, last, [1, 0, 2] if batch_first else None, name)


def _leave(write: Writer, name: str, order: list[int] | None, output: str) -> None:
    if order is None:
        write.node("Identity", name, output=output)
    else:
        write.node("Transpose", name, perm=order, output=output)


# one step: its input with W's part done, the states, whether a GRU's reset comes behind R


def _lstm(cell: _Cell, x: str, states: States, _: bool) -> States:
    hidden, memory = states
    write = cell.write
    gates, candidate = cell.split(write.node("Add", x, cell.product(hidden, slice(0, 4))), 3, 1)
    let_in, let_out, keep = cell.split(cell.activated(0, gates), 1, 1, 1)
    new = write.node("Mul", let_in, cell.activated(1, candidate))
    memory = write.node("Add", write.node("Mul", keep, memory), new)
    return [write.node("Mul", let_out, cell.activated(2, memory)), memory]


def _gru(cell: _Cell, x: str, states: States, linear_before_reset: bool) -> States:
    (hidden,), write = states, cell.write
    of_gates, of_candidate = cell.split(x, 2, 1)
    gates = cell.activated(0, write.node("Add", of_gates, cell.product(hidden, slice(0, 2))))
    update, reset = cell.split(gates, 1, 1)
    if linear_before_reset:
        bias = cell.shared("bias", cell.bias[:, None, 2 * cell.hidden :])
        inner = write.node("Mul", reset, write.node("Add", cell.product(hidden, slice(2, 3)), bias))
    else:
        inner = cell.product(write.node("Mul", reset, hidden), slice(2, 3))
    candidate = cell.activated(1, write.node("Add", of_candidate, inner))
    kept = write.node("Mul", update, write.node("Sub", hidden, candidate))
    return [write.node("Add", candidate, kept)]


def _rnn(cell: _Cell, x: str, states: States, _: bool) -> States:
    return [cell.activated(0, cell.write.node("Add", x, cell.product(states[0], slice(0, 1))))]


STEPS: dict[str, Callable[[_Cell, str, States, bool], States]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


# what has no unrolled form


def _refusal(node: NodeProto, what: str) -> UnsupportedGraphError:
    return UnsupportedGraphError(
        f'{node.op_type} at node "{node.name or node.output[0]}" {what}. It is written out step by step, which needs '
        "a fixed number of steps and constant weights. Choose a later layer with --layer, or another network."
    )


def _refuse_unusual(graph: Graph, node: NodeProto) -> None:
    if given(node, 7):
        raise _refusal(node, "has peepholes")
    if attribute(node, "clip") is not None:
        raise _refusal(node, "clips its sums")
    if attribute(node, "input_forget", 0):
        raise _refusal(node, "couples its gates (input_forget)")
    if given(node, 4):
        lengths, x = graph.constant(node.input[4]), graph.value(node.input[0])
        if lengths is None or not (lengths == x.shape[int(bool(attribute(node, "layout", 0)))]).all():
            raise _refusal(node, "has sequences of several lengths")


def _constant(graph: Graph, node: NodeProto, index: int) -> np.ndarray:
    array = graph.constant(node.input[index])
    if array is None:
        raise _refusal(node, f'takes weights that are computed ("{node.input[index]}")')
    return array


def _activations(node: NodeProto, directions: int) -> tuple[str, ...]:
    defaults = DEFAULTS[node.op_type]
    given_ones = [name.decode() for name in attribute(node, "activations") or []] or [*defaults] * directions
    first = tuple(given_ones[: len(defaults)])
    if given_ones != [*first] * directions or not set(first) <= set(ACTIVATIONS):
        raise _refusal(node, f"has the activations {', '.join(given_ones)}; known are {', '.join(ACTIVATIONS)}")
    return first
