"""What loading a guided file at the map level costs: the same as a map file, and much less than the file uncut.

Its sessions of EfficientNet-Lite0 run turn by turn in one process, with spinning off: threads of one session that spin
disturb the next. The figures are medians of milliseconds, and their ratio to the plain network's.

    python benchmarks/level_cost.py [--rounds 100] [--threads 1] [--output benchmarks/results/level_cost.json]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from common import interleaved_medians, parser_of, run_of, save

from gcpp_edge.cli.demo import NETWORK
from gcpp_edge.contract import ACTIVATIONS, GRADIENTS, GUIDED, MAP, PLAIN, TARGET_CLASS
from gcpp_edge.export import export_file
from gcpp_edge.level_cache import model_at_level
from gcpp_edge.model_file import read_model_file


def main() -> None:
    options = parser_of(__doc__, "level_cost", rounds=100).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = sessions(Path(folder), options.threads)
        medians = interleaved_medians(runs, options.rounds)
    found = {
        "network": "EfficientNet-Lite0, 224 x 224, batch 1, ONNX Runtime CPU, spinning off",
        "median_ms": medians,
        "ratio_to_plain": {name: round(value / medians["plain"], 4) for name, value in medians.items()},
        "cut_guided_file_over_map_file": round(medians["guided file cut to map"] / medians["map file"], 4),
    }
    save(options, "level_cost", found)
    for name, value in medians.items():
        print(f"{name:45} {value:8.2f} ms  {value / medians['plain']:.3f} x plain")


def sessions(folder: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Name -> one run of a session, on the same input."""
    for level in (MAP, GUIDED):
        export_file(NETWORK, folder / f"{level}.onnx", guided=level == GUIDED, check=False)
    map_file, guided_file = (read_model_file(folder / f"{level}.onnx") for level in (MAP, GUIDED))
    map_outputs = [guided_file.contract.scores.output, TARGET_CLASS, ACTIVATIONS, GRADIENTS]
    everything = [*map_outputs, GUIDED]
    return {
        "plain": run_of(model_at_level(map_file, PLAIN), map_file.contract, threads, map_outputs[:1]),
        "map file": run_of(model_at_level(map_file, MAP), map_file.contract, threads, map_outputs),
        "guided file cut to map": run_of(model_at_level(guided_file, MAP), guided_file.contract, threads, map_outputs),
        "guided file uncut, asked for the map alone": run_of(
            str(guided_file.path), guided_file.contract, threads, map_outputs
        ),
        "guided file, guided": run_of(str(guided_file.path), guided_file.contract, threads, everything),
    }


if __name__ == "__main__":
    main()
