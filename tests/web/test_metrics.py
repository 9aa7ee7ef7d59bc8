"""The text that Prometheus reads, line by line."""

import re

import pytest

from gcpp_edge.pipeline.counters import BUCKETS_MS, STATES, OfSink, Report
from gcpp_edge.web.metrics import metrics_text

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})(\{{{LABEL}(?:,{LABEL})*\}})? (-?[0-9.e+-]+)")
SUFFIXES = ("_bucket", "_sum", "_count")


def parsed(text: str) -> dict[str, float]:
    """Values by name with labels. Every line is one that the format knows, and stands in its family."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    values: dict[str, float] = {}
    helped = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped = line.split(" ")[2]
            assert helped not in kinds and len(line.split(" ", 3)[3]) > 5
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == helped and kind in ("counter", "gauge", "histogram")
            kinds[name] = kind
            assert name.endswith("_total") == (kind == "counter")
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            name = found[1]
            if kinds[helped] == "histogram":
                assert name.startswith(helped) and name[len(helped) :] in SUFFIXES
            else:
                assert name == helped
            assert name + (found[2] or "") not in values
            values[name + (found[2] or "")] = float(found[3])
    return values


@pytest.fixture
def report() -> Report:
    report = Report(
        captured=20, explained=9, carried=3, stale=4, skipped=2, failed=1, under_way=1, reconnects=2, fps=29.5,
        source_state="lost", sinks={"file://a.mp4": OfSink(8, 1), 'odd "name"\\\n': OfSink(1, 0, "disk full")},
    )  # fmt: skip
    for latency in (0.5, 1.0, 1.5, 40.0, 9000.0):
        report.latencies.add(latency)
    return report


def test_counters_and_states_are_told(report: Report) -> None:
    values = parsed(metrics_text(report, {"pictures": 2, "records": 1}, 5, {"version": "1", "source": "csi://0"}))
    assert values["gcpp_edge_frames_captured_total"] == 20
    outcomes = [value for name, value in values.items() if name.startswith("gcpp_edge_frames_total")]
    assert outcomes == [9, 3, 4, 2, 1]
    assert sum(outcomes) + values["gcpp_edge_frames_under_way"] == values["gcpp_edge_frames_captured_total"]
    assert values["gcpp_edge_source_reconnects_total"] == 2
    assert values['gcpp_edge_source_state{state="lost"}'] == 1
    states = [name for name in values if name.startswith("gcpp_edge_source_state")]
    assert states == [f'gcpp_edge_source_state{{state="{state}"}}' for state in STATES]
    assert sum(values[name] for name in states) == 1
    assert values['gcpp_edge_web_viewers{kind="pictures"}'] == 2 and values["gcpp_edge_web_encodes_total"] == 5
    assert values['gcpp_edge_sink_results_total{sink="file://a.mp4",outcome="dropped"}'] == 1
    assert values['gcpp_edge_info{version="1",source="csi://0"}'] == 1


def test_the_histogram_counts_upwards_in_seconds(report: Report) -> None:
    values = parsed(metrics_text(report, {}, 0, {}))
    buckets = {name: value for name, value in values.items() if "_bucket" in name}
    assert len(buckets) == len(BUCKETS_MS) + 1
    assert list(buckets.values()) == sorted(buckets.values())
    assert values['gcpp_edge_latency_seconds_bucket{le="0.001"}'] == 2  # 1 ms is in it
    assert values['gcpp_edge_latency_seconds_bucket{le="0.002"}'] == 3
    assert values['gcpp_edge_latency_seconds_bucket{le="5"}'] == 4
    assert values['gcpp_edge_latency_seconds_bucket{le="+Inf"}'] == values["gcpp_edge_latency_seconds_count"] == 5
    assert values["gcpp_edge_latency_seconds_sum"] == pytest.approx(9.043)


def test_odd_names_are_escaped(report: Report) -> None:
    text = metrics_text(report, {}, 0, {"source": 'a"b\\c\nd'})
    assert 'gcpp_edge_info{source="a\\"b\\\\c\\nd"} 1\n' in text
    assert parsed(text)[r'gcpp_edge_sink_broken{sink="odd \"name\"\\\n"}'] == 1


def test_a_stream_that_has_not_begun_has_metrics() -> None:
    assert parsed(metrics_text(Report(), {}, 0, {}))["gcpp_edge_latency_seconds_count"] == 0
