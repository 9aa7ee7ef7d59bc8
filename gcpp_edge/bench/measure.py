"""One model on one backend: its levels in turn, what they come to, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcpp_edge.bench.conditions import Conditions, Watch
from gcpp_edge.bench.gpu_stages import gpu_stages_ms
from gcpp_edge.bench.sampling import Plan, Samples, sample
from gcpp_edge.bench.stability import doubts, too_few
from gcpp_edge.bench.subject import NETWORK, REST, STAGES, Subject
from gcpp_edge.bench.summary import PERCENTILES, Ratio, Summary, ratio_of, summarise
from gcpp_edge.contract import PLAIN

SPIN_PAUSE_MS = 10.0  # longer than ONNX Runtime's threads spin


@dataclass(frozen=True)
class Level:
    """What a level took: calls as a whole, and their stages, of which a GPU's are measured apart."""

    total: Summary
    stages: dict[str, Summary]


@dataclass(frozen=True)
class Measured:
    """about: what was measured, ready for JSON. samples: every time.

    cost: by level above the plain one: "total" from the frame on, and "network", by the plain level's. doubts: why not
    to believe it (stability). remarks: what else to know. apart: stages were measured by themselves, on a GPU, and have
    no rounds.
    """

    about: dict[str, Any]
    samples: Samples
    levels: dict[str, Level]
    cost: dict[str, dict[str, Ratio]]
    conditions: Conditions
    doubts: list[str]
    remarks: list[str]
    apart: bool

    def frames_per_second(self, level: str) -> float:
        """Of calls one behind the other."""
        return 1e3 * float(self.about["batch"]) / self.levels[level].total.mean

    def as_json(self) -> dict[str, Any]:
        """For a document of results."""
        return self.about | {
            "rounds": self.samples.rounds,
            "seconds": round(self.samples.seconds, 3),
            "interrupted": self.samples.interrupted,
            "stages_measured_apart": self.apart,
            "levels": {name: self._level_json(name) for name in self.levels},
            "cost": {
                name: {part: ratio.as_json() for part, ratio in ratios.items()} for name, ratios in self.cost.items()
            },
            "conditions": self.conditions.as_json(),
            "doubts": self.doubts,
            "remarks": self.remarks,
        }

    def _level_json(self, name: str) -> dict[str, Any]:
        level = self.levels[name]
        stages = {stage: summary.as_json() for stage, summary in level.stages.items()}
        return {
            "frames_per_second": round(self.frames_per_second(name), 3),
            "total": level.total.as_json(),
            "stages": stages,
        }


def measure(subject: Subject, plan: Plan, load: float, percentiles: Sequence[float] = PERCENTILES) -> Measured:
    """Every level of the subject, in turn. load: the load average before anything of ours ran.

    Raises KeyboardInterrupt where Ctrl-C comes before the first complete round; later it ends the run.
    """
    spins = subject.settings.spin and not subject.on_gpu
    watch = Watch(load, subject.on_gpu)

    def between(share: float) -> None:
        watch.look()
        plan.between(share)

    pause_ms = SPIN_PAUSE_MS if spins else 0.0
    samples = sample(subject.runs(), plan._replace(between=between, pause_ms=pause_ms))
    conditions = watch.done()
    stages = {name: stages_of(samples, name) for name in samples.ms}
    if subject.on_gpu:
        stages = {} if samples.interrupted else {name: gpu_stages_ms(subject, name) for name in samples.ms}
    levels = {
        name: Level(
            summarise(values, percentiles),
            {stage: summarise(times, percentiles) for stage, times in stages.get(name, {}).items()},
        )
        for name, values in samples.ms.items()
    }
    remarks = too_few(samples.rounds, percentiles)
    if spins:
        remarks.append(f"threads spin, so a pause of {SPIN_PAUSE_MS:g} ms before each call keeps levels apart")
    doubted = doubts(samples.ms, conditions)
    cost = {name: _cost(samples, stages, name, not subject.on_gpu) for name in levels if name != PLAIN}
    return Measured(about(subject), samples, levels, cost, conditions, doubted, remarks, subject.on_gpu)


def _cost(
    samples: Samples, stages: dict[str, dict[str, list[float]]], level: str, stages_in_turn: bool
) -> dict[str, Ratio]:
    found = {"total": ratio_of(samples.ms[level], samples.ms[PLAIN])}
    ones, others = (stages.get(name, {}).get(NETWORK) for name in (level, PLAIN))
    if ones and others:
        found[NETWORK] = ratio_of(ones, others, stages_in_turn)
    return found


def stages_of(samples: Samples, name: str) -> dict[str, list[float]]:
    """Each stage of a run, by round; what they leave of the total is the last one."""
    taken, totals = samples.stages_ms[name], samples.ms[name]
    if not any(taken):
        return {}
    stages = {stage: [one[stage] for one in taken] for stage in STAGES if stage in taken[0]}
    stages[REST] = [total - sum(one.values()) for total, one in zip(totals, taken, strict=True)]
    return stages


def about(subject: Subject) -> dict[str, Any]:
    """What is measured: the figures of two files are of the same thing where this is the same."""
    explainer, settings, contract = subject.explainer, subject.settings, subject.explainer.contract
    pixels, frame = contract.preprocessing, subject.frames[0]
    height, width = (frame.shape[1:3] if pixels.frames else frame.shape[:2])[:2]
    return {
        "model": Path(explainer._file.path).name,
        "path": str(explainer._file.path),
        "bytes": explainer._file.bytes,
        "source": contract.source_name,
        "layers": [layer.name for layer in contract.layers],
        "explains": contract.target.kind,
        "method": settings.method or contract.method,
        "input": [pixels.height, pixels.width],
        "frame": [width, height],
        "format": subject.format,
        "batch": settings.batch,
        "backend": explainer.backend,
        "runtime": explainer.runtime_name,
        "passed_over": explainer.passed_over,
        "threads": settings.threads,
        "spin": settings.spin,
        "cuda_graph": subject.on_gpu and settings.recorded,
    }


def median_rest(level: Level) -> float:
    """What the stages leave of the total: the median of that, or what their medians leave where they have no rounds."""
    if REST in level.stages:
        return level.stages[REST].median
    return level.total.median - sum(stage.median for stage in level.stages.values())
