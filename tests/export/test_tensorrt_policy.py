"""The policy names the node that TensorRT would refuse, and stays silent about what it takes.

test_tensorrt_rtx.py holds the same table against TensorRT for RTX itself.
"""

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import classifier
from tensorrt_forms import FORMS, form, model_of, quantized

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import Graph
from gcpp_edge.export.tensorrt_policy import BARRED, LIMITS, OPERATORS, OWN_LIMITS, TYPES, concerns, require_accepted

OURS = [
    form("a pad below 0", "below 0", "Pad", [np.array([0, 0, -1, 0, 0, 0, 0, 0])]),
    form(
        "a scatter", "not in its list", "ScatterElements", [np.zeros((1, 4, 8, 8), np.int64)], inputs=["x", "c0", "x"]
    ),
]


def graph_of(form):
    return Graph(model_of(form.nodes, form.inputs, form.constants))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_network_is_told_what_tensorrt_refuses(form):
    graph = graph_of(form)
    lines = concerns(graph, graph.nodes)
    assert bool(lines) == bool(form.refused), lines
    assert not form.refused or f"TensorRT, {form.nodes[0][0]}: " in lines[0]
    assert not form.refused or form.refused in lines[0]


@pytest.mark.parametrize("form", [*(form for form in FORMS if form.refused), *OURS], ids=lambda form: form.name)
def test_a_node_that_is_refused_is_not_emitted(form):
    graph = graph_of(form)
    with pytest.raises(UnsupportedGraphError, match=f'"{form.nodes[0][0]}0".*({form.refused}|not in its list)'):
        require_accepted(graph, graph.nodes)


@pytest.mark.parametrize("form", OURS, ids=lambda form: form.name)
def test_what_only_we_do_not_emit_is_no_concern(form):
    graph = graph_of(form)
    assert concerns(graph, graph.nodes) == []


def test_a_small_classifier_is_of_no_concern():
    graph = Graph(classifier())
    assert concerns(graph, graph.nodes) == []


def test_float64_is_told_once():
    graph = Graph(classifier(dtype=np.float64))
    (line,) = concerns(graph, graph.nodes)
    assert line.startswith(f"TensorRT, float64: it is computed in float32 ({len(graph.nodes)} nodes, the first is ")


def test_control_flow_is_told_though_it_loads():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 4])],
    )
    nodes = [("If", ["c"], ["y"], {"then_branch": branch, "else_branch": branch})]
    model = model_of(nodes, {"x": (TensorProto.FLOAT, [1, 4]), "c": (TensorProto.BOOL, [])}, {})
    graph = Graph(model)
    assert concerns(graph, graph.nodes) == [
        'TensorRT, If: control flow keeps the graph from being captured (node "If0").'
    ]


def test_zero_points_that_are_computed_are_named():
    form = quantized("computed", "zero points", 0)
    model = model_of(form.nodes, {**form.inputs, "z": (TensorProto.INT8, [])}, {"s": form.constants["s"]})
    graph = Graph(model)
    assert all("zero points" in line for line in concerns(graph, graph.nodes))
    assert len(concerns(graph, graph.nodes)) == 2


def test_limits_are_those_of_operators_in_the_table():
    assert {operator for limit in LIMITS + OWN_LIMITS for operator in limit.operators.split()} <= set(TYPES)
    assert set(TYPES) >= BARRED
    assert not OPERATORS & BARRED
