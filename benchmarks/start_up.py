"""How long a command takes from nothing to one explained picture, and where that goes.

    python benchmarks/start_up.py [--rounds 15] [--output FILE]

New processes, in turn; medians of wall-clock milliseconds and of processor milliseconds. EfficientNet-Lite0 with its
guided level: "first time" cuts it to the map level and keeps the cut, "explain" finds the cut there. `imports` is what
`python -X importtime` says of "explain": milliseconds by package, each package's own modules alone.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

from common import contract_of, cut, parser_of, save

from gcpp_edge.contract import PLAIN

IMPORTED = re.compile(r"import time: +(\d+) \| +\d+ \| +([\w.]+)$")
IMPORT_RUNS = 5
NETWORK = "gcpp_edge.export.demo_network:efficientnet_lite0"
BARE = """
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
session = onnxruntime.InferenceSession({path!r}, options, providers=["CPUExecutionProvider"])
session.run(None, {{session.get_inputs()[0].name: numpy.zeros((1, 3, 224, 224), numpy.float32)}})
"""


def main() -> None:
    options = parser_of(__doc__, "start_up", rounds=15).parse_args()
    options.threads = "the runtime's choice"
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_in(Path(folder))
        found = measure(commands, Path(folder), options.rounds)
        for name, row in found.items():
            print(f"{name:34} {row['ms']:7.0f} ms, {row['processor_ms']:7.0f} ms of a processor", flush=True)
        imports = imports_of(commands["gcpp-edge explain"], environment(Path(folder) / "cache"))
        print(imports)
    save(options, "start_up", {"network": "EfficientNet-Lite0", "processes": found, "imports": imports})


def commands_in(folder: Path) -> dict[str, list[str]]:
    """By name, with the files that they need."""
    import onnx
    from skimage import data, io

    from gcpp_edge.export import export_file

    model, plain, picture = folder / "lite0.onnx", folder / "plain.onnx", folder / "cat.png"
    export_file(NETWORK, model, guided=True, check=False)
    whole = onnx.load(model)
    plain.write_bytes(cut(whole, contract_of(whole).levels[PLAIN]))
    io.imsave(picture, data.chelsea())
    program = str(Path(sys.executable).with_name("gcpp-edge"))
    explain = [sys.executable, program, "explain", str(model), str(picture), "-o", str(folder / "overlay.png")]
    return {
        "python": [sys.executable, "-c", "pass"],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import onnxruntime": [sys.executable, "-c", "import onnxruntime"],
        "plain network in ONNX Runtime": [sys.executable, "-c", BARE.format(path=str(plain))],
        "gcpp-edge --version": [sys.executable, program, "--version"],
        "gcpp-edge explain": explain,
        "gcpp-edge explain, first time": explain,
    }


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"GCPP_EDGE_CACHE": str(cache)}


def measure(commands: dict[str, list[str]], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each, in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for index in range(rounds + 1):
        for name, command in commands.items():
            is_first = name.endswith("first time")
            cache = folder / ("empty" if is_first else "cache")
            if is_first:
                shutil.rmtree(cache, ignore_errors=True)
            took = run(command, environment(cache))
            if index:  # the first fills the page cache, and ours
                times[name].append(took)
    return {
        name: {
            "ms": round(statistics.median(wall for wall, _ in rows), 1),
            "processor_ms": round(statistics.median(own for _, own in rows), 1),
        }
        for name, rows in times.items()
    }


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Milliseconds by the clock, and of a processor. Raises RuntimeError where the command fails."""
    began = perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return 1e3 * took, 1e3 * (usage.ru_utime + usage.ru_stime)


def imports_of(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Milliseconds by package, the least of some runs for each module, largest first."""
    least: dict[str, float] = {}
    for _ in range(IMPORT_RUNS):
        timed = [command[0], "-X", "importtime", *command[1:]]
        said = subprocess.run(timed, env=environment, capture_output=True, text=True, check=True).stderr
        for name, microseconds in modules_of(said).items():
            least[name] = min(least.get(name, microseconds), microseconds)
    by_package: Counter[str] = Counter()
    for name, microseconds in least.items():
        by_package[name.split(".")[0]] += microseconds / 1e3
    return {name: round(ms, 1) for name, ms in by_package.most_common(12)}


def modules_of(said: str) -> dict[str, int]:
    """Microseconds of each module alone, out of what -X importtime writes."""
    found = {}
    for line in said.splitlines():
        if match := IMPORTED.match(line):
            found[match[2]] = int(match[1])
    return found


if __name__ == "__main__":
    main()
