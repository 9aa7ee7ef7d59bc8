"""The counters in the text format of Prometheus, version 0.0.4.

Source: prometheus.io/docs/instrumenting/exposition_formats. Names and units as its naming guide has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple

from gcpp_edge.pipeline.counters import BUCKETS_MS, FATES, STATES, Latencies, Report

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Sample(NamedTuple):
    """A value with its labels. suffix: what the name ends in, of a histogram's parts."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Family(NamedTuple):
    """Samples of one name. kind: counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    samples: Iterable[Sample]


def metrics_text(report: Report, viewers: Mapping[str, int], encodes: int, about: Mapping[str, str]) -> str:
    """Everything, a family after the other. about: labels of gcpp_edge_info."""
    families = [*_of_stream(report), _of_latency(report.latencies), *_of_sinks(report)]
    families.append(Family("web_viewers", GAUGE, "Viewers of the live page.", _by("kind", viewers)))
    families.append(Family("web_encodes_total", COUNTER, "Pictures encoded for the live page.", [Sample(encodes)]))
    families.append(Family("info", GAUGE, "What runs, as labels.", [Sample(1, about)]))
    return "".join(map(_family_text, families))


def _of_stream(report: Report) -> Iterable[Family]:
    outcomes = {name: getattr(report, name) for name in FATES}
    state = {name: int(name == report.source_state) for name in STATES}
    yield Family("frames_captured_total", COUNTER, "Frames that the source gave.", [Sample(report.captured)])
    yield Family("frames_total", COUNTER, "Frames by what became of them.", _by("outcome", outcomes))
    yield Family("frames_under_way", GAUGE, "Frames that are not done yet.", [Sample(report.under_way)])
    for name, value, text in (
        ("frames_unreadable", report.unreadable, "Frames that the source could not read."),
        ("source_reconnects", report.reconnects, "Times that the source was lost and found again."),
        ("source_stalls", report.stalls, "Times that nothing came for longer than expected."),
        ("smoothing_resets", report.resets, "Times that smoothing began anew."),
        ("monitor_events", report.events, "Events that the monitor raised or cleared."),
        ("monitor_failures", report.monitor_failures, "Rules of the monitor that failed on a frame."),
    ):
        yield Family(f"{name}_total", COUNTER, text, [Sample(value)])
    yield Family("source_state", GAUGE, "1 for the state that the source is in.", _by("state", state))
    yield Family("frames_per_second", GAUGE, "Frames a second that got a map, lately.", [Sample(report.fps)])
    yield Family("stream_seconds", GAUGE, "Seconds since the first frame.", [Sample(report.seconds)])


def _of_latency(latencies: Latencies) -> Family:
    limits = [f"{limit / 1000:g}" for limit in BUCKETS_MS] + ["+Inf"]
    counts = list(accumulate(latencies.buckets))
    samples = [Sample(count, {"le": limit}, "_bucket") for limit, count in zip(limits, counts, strict=True)]
    samples += [Sample(latencies.total_ms / 1000, suffix="_sum"), Sample(counts[-1], suffix="_count")]
    return Family("latency_seconds", HISTOGRAM, "From a frame's arrival to its map.", samples)


def _of_sinks(report: Report) -> Iterable[Family]:
    results = [
        Sample(count, {"sink": name, "outcome": outcome})
        for name, sink in report.sinks.items()
        for outcome, count in (("written", sink.written), ("dropped", sink.dropped))
    ]
    broken = {name: int(bool(sink.broken)) for name, sink in report.sinks.items()}
    if results:
        yield Family("sink_results_total", COUNTER, "Results that a sink was handed.", results)
        yield Family("sink_broken", GAUGE, "1 for a sink that was closed early.", _by("sink", broken))


def _by(label: str, values: Mapping[str, float]) -> list[Sample]:
    return [Sample(value, {label: name}) for name, value in values.items()]


def _family_text(family: Family) -> str:
    name = f"gcpp_edge_{family.name}"
    head = f"# HELP {name} {_escaped(family.help)}\n# TYPE {name} {family.kind}\n"
    return head + "".join(
        f"{name}{sample.suffix}{_labels_text(sample.labels)} {sample.value}\n" for sample in family.samples
    )


def _labels_text(labels: Mapping[str, str]) -> str:
    quoted = (f'{name}="{_escaped(value, QUOTE)}"' for name, value in labels.items())
    return "{" + ",".join(quoted) + "}" if labels else ""


QUOTE = '"'


def _escaped(text: str, also: str = "") -> str:
    """Backslash and line feed escaped, and what else stands in `also`."""
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace(also, "\\" + also) if also else text
