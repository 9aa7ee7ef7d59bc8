"""What the benchmark of start-up reads out of Python and out of a process. No time is asserted."""

import json
import sys

import pytest

pytest.importorskip("onnxruntime", reason="the benchmarks run models: pip install 'gcpp-edge[onnxruntime]'")
pytest.importorskip("onnx", reason="the benchmarks cut models: pip install 'gcpp-edge[onnxruntime]'")
import start_up

SAID = """\
import time: self [us] | cumulative | imported package
import time:       120 |        120 |   numpy.lib
import time:      3000 |       3120 | numpy
something else
import time:        50 |         50 |     _io
"""


def test_each_module_counts_for_itself_alone():
    assert start_up.modules_of(SAID) == {"numpy.lib": 120, "numpy": 3000, "_io": 50}


def test_the_saved_result_is_what_the_readme_says_of_it(pytestconfig):
    saved = json.loads((pytestconfig.rootpath / "benchmarks/results/start_up.json").read_text("utf-8"))
    rows = {name: row["ms"] for name, row in saved["processes"].items()}
    assert rows["gcpp-edge explain"] < 1000
    readme = (pytestconfig.rootpath / "README.md").read_text("utf-8")
    sentence = readme.split("From nothing to one explained picture")[1].split("start_up.py")[0]
    for name in ("gcpp-edge explain", "plain network in ONNX Runtime"):
        assert f"{rows[name] / 1000:.2f} s" in sentence


def test_a_process_is_measured_and_one_that_fails_is_no_result():
    wall, own = start_up.run([sys.executable, "-c", "pass"], {})
    assert wall > 0 and own > 0
    with pytest.raises(RuntimeError, match="ended with 3"):
        start_up.run([sys.executable, "-c", "raise SystemExit(3)"], {})
