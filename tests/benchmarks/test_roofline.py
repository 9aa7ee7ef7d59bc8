"""The roofline on paper: its counts, by hand on a small graph, and the tables that the docs show."""

import json
from types import SimpleNamespace

import onnx.parser
import pytest
import roofline

PAGE = roofline.PAGE

TWO_LAYERS = """
<ir_version: 8, opset_import: ["" : 13]>
small (float[1,2,4,4] x, float[4,2,1,1] w, float[3,4,1,1] v) => (float[1,3,4,4] y, float[1,3,4,4] gated) {
  a = Conv(x, w)
  b = Relu(a)
  y = Conv(b, v)
  mask = HardSigmoid(y)
  gated = Mul(y, mask)
}
"""


def groups(text):
    model = onnx.parser.parse_model(text)
    outputs = tuple(output.name for output in model.graph.output)
    return roofline.groups_of(model, SimpleNamespace(nodes=len(model.graph.node), outputs=outputs))


def test_elementwise_nodes_join_what_they_follow_and_only_stored_tensors_count():
    first, second = groups(TWO_LAYERS)
    assert (first.flops, second.flops) == (2 * 64 * 2, 2 * 48 * 4)
    assert first.elements == 32 + 8 + 64  # x, w, b
    assert second.elements == 64 + 12 + 48 + 48  # b, v, y, gated


def test_a_gather_reads_what_it_gives():
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    small (int64[1] row, float[1000,50] w) => (float[1,50] y) { y = Gather(w, row) }
    """
    (group,) = groups(text)
    assert group.elements == 50 + 1 + 50


def test_a_group_takes_the_longer_of_its_operations_and_its_bytes():
    board = roofline.Board("b", "", 500, 1.0, 100.0, 10.0, ())  # 1 TFLOPS in fp32
    busy, idle = roofline.Group(flops=10**9, elements=1), roofline.Group(flops=1, elements=25 * 10**6)
    assert roofline.time_us([busy, idle], board, "fp32") == pytest.approx(1000 + 1000)
    assert roofline.time_us([busy, idle], board, "fp16") == pytest.approx(100 + 500)


def test_the_tables_of_the_page_are_those_of_the_saved_result():
    page = PAGE.read_text("utf-8")
    assert {match[2] for match in roofline.MARKED.finditer(page)} == {"boards", "counts", "times", "kernels"}
    assert roofline.with_tables(page, json.loads(roofline.RESULTS.read_text("utf-8"))) == page


def test_every_board_of_the_saved_result_names_its_sources_on_the_page():
    page = PAGE.read_text("utf-8")
    for board in json.loads(roofline.RESULTS.read_text("utf-8"))["boards"]:
        assert board["sources"]
        for source in board["sources"]:
            assert source.split(" ")[0].rstrip(",") in page
