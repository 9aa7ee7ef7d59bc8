"""What the soak of a stream sees, and what its saved result promises. No time is asserted."""

import json

import pytest

for package in ("torch", "aiohttp"):
    pytest.importorskip(package, reason="the soak needs both: pip install 'gcpp-edge[export,web]'")
import soak  # noqa: E402


def test_what_grows_shows_in_every_figure():
    samples = [{"threads": 4.0 + number} for number in range(8)]
    assert soak.change(samples, "threads") == {"first": 4.5, "last": 10.5, "most": 11.0, "a_sample": 1.0}


def test_a_gap_in_the_records_is_counted(tmp_path):
    records = tmp_path / "out.jsonl"
    records.write_text("".join(json.dumps({"id": number, "latency_ms": number}) + "\n" for number in (0, 1, 3, 4, 7)))
    assert soak.gaps(records, 10) == 5
    assert soak.latencies(records) == {"p50": 3, "p90": 7, "p99": 7, "p99.9": 7, "p100": 7}


def test_the_saved_result_shows_that_nothing_grows_and_that_every_frame_is_accounted_for(pytestconfig):
    saved = json.loads((pytestconfig.rootpath / "benchmarks/results/soak.json").read_text(encoding="utf-8"))
    assert saved["frames"] >= 20_000 and list(saved["runs"]) == ["idle", "loaded"]
    for run in saved["runs"].values():
        counters, sinks = run["counters"], run["sinks"]
        assert run["adds_up"] and counters["captured"] == saved["frames"] and counters["under_way"] == 0
        records = next(counts for name, counts in sinks.items() if name.startswith("jsonl"))
        assert run["gaps_in_records"] == counters["stale"] + records["dropped"]
        assert all(one["written"] + one["dropped"] == counters["explained"] for one in sinks.values())
        memory = run["memory"]
        assert memory["threads"]["first"] == memory["threads"]["last"]
        assert memory["descriptors"]["first"] == memory["descriptors"]["last"]
        assert memory["rss_kilobytes"]["last"] - memory["rss_kilobytes"]["first"] < 4_000
        assert run["troubles"] == []


def test_the_pages_say_what_was_saved(pytestconfig):
    """Figures of docs/live.md and the README, as the saved result has them."""
    root = pytestconfig.rootpath
    saved = json.loads((root / "benchmarks/results/soak.json").read_text(encoding="utf-8"))
    live = (root / "docs/live.md").read_text(encoding="utf-8")
    readme = (root / "README.md").read_text(encoding="utf-8")
    for run in saved["runs"].values():
        counters, latency, memory = run["counters"], run["latency_ms"], run["memory"]["rss_kilobytes"]
        shown = [f"{latency[name]:.1f}" for name in ("p50", "p99")]
        assert f"{counters['explained']:,}, {counters['stale']:,}" in live
        assert f"{shown[0]}, {shown[1]}, {latency['p100']:.0f} ms" in live
        assert f"{memory['first'] / 1024:.1f}, {memory['last'] / 1024:.1f} MiB" in live
    ms = saved["ms_a_frame"]
    for value in ms.values():
        assert f"{value:.2f}" in live
    idle = saved["runs"]["idle"]["latency_ms"]
    assert f"adds {ms['stream'] - ms['call']:.2f} ms" in readme
    assert f"{idle['p50']:.1f} ms" in readme and f"{idle['p99']:.1f} ms" in readme
