"""Load, build and first frame, in processes of their own: what a user waits for who starts anew.

The first process has an empty cache: loading there also cuts levels out of the file, or builds engines. The second has
what the first left. The file itself is in the system's memory for both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from gcpp_edge.bench.subject import Settings, Subject
from gcpp_edge.errors import RuntimeFailure

_PROGRAM = "from gcpp_edge.bench.cold import main; main()"


def cold_ms(path: Path, settings: Settings) -> dict[str, float]:
    """Milliseconds: interpreter and imports; load with nothing cached, and from the cache; first and second frame.

    Raises RuntimeFailure where the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="gcpp-edge-bench-") as folder:
        built = _in_a_process(path, settings, Path(folder))
        kept = _in_a_process(path, settings, Path(folder))
    return {
        "start and import": kept["import"],
        "load, nothing cached": built["load"],
        "load": kept["load"],
        "first frame": kept["first"],
        "second frame": kept["second"],
    }


def _in_a_process(path: Path, settings: Settings, folder: Path) -> dict[str, float]:
    request = {"path": str(path.resolve()), "settings": settings._asdict()}
    began = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps(request),
        cwd=folder,  # not where a checkout's folders would be taken for the package
        env=os.environ | {"GCPP_EDGE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    took_ms = 1e3 * (perf_counter() - began)
    if done.returncode:
        reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        raise RuntimeFailure(f"{path}: a process of its own for --cold failed ({reason}).")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"import": took_ms - found["total"]}


def main() -> None:
    """In the process: the request on standard input, the answer on standard output."""
    request: dict[str, Any] = json.load(sys.stdin)
    settings = Settings(**request["settings"] | {"frame": tuple(request["settings"]["frame"] or ()) or None})
    _import_runtime()
    began = perf_counter()
    with Subject(request["path"], settings) as subject:
        loaded = perf_counter()
        run = subject.guided if settings.guided else subject.map
        run()
        first = perf_counter()
        run()
        second = perf_counter()
    ends = {"load": loaded - began, "first": first - loaded, "second": second - first, "total": perf_counter() - began}
    print(json.dumps({name: 1e3 * seconds for name, seconds in ends.items()}))


def _import_runtime() -> None:
    """What every start pays and no model is to blame for."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:  # TensorRT alone will do
        return
