"""What `gcpp-edge bench` measured and compared, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gcpp_edge.bench.comparison import COST, FASTER, SAME, SLOWER, TOTAL
from gcpp_edge.bench.measure import median_rest
from gcpp_edge.bench.subject import REST, STAGES
from gcpp_edge.cli import terminal
from gcpp_edge.contract import GUIDED, MAP, PLAIN

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gcpp_edge.bench.comparison import Change, Comparison
    from gcpp_edge.bench.measure import Measured
    from gcpp_edge.bench.summary import Ratio, Summary

ENDS = {
    PLAIN: "the network alone with its preprocessing, explainer.scores(frame)",
    MAP: "from the same frame to a finished overlay",
    GUIDED: "from the same frame to a finished overlay and the guided image",
}


def print_run(console: Console, one: Measured, all_stages: bool) -> None:
    """What was measured, the levels, their stages, and what the explanation costs."""
    tables = [terminal.facts("", heading(one.about)), levels_table(one)]
    if all_stages:
        tables += [stages_table(one, level) for level in one.levels]
    elif any(level.stages for level in one.levels.values()):
        tables.append(medians_table(one))
    tables.append(terminal.facts("", cost_rows(one)))
    for each in tables:
        console.print(each)
        console.print()


def heading(about: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What was measured."""
    (height, width), (columns, rows) = about["input"], about["frame"]
    yield "model", f"{about['model']}, {about['method']} at {', '.join(about['layers'])}"
    how = f"{threads_text(about['threads'])}, {'spinning' if about['spin'] else 'no spinning'}"
    if about["backend"] != "cpu":
        how = "frames as CUDA graphs" if about["cuda_graph"] else "frames call by call"
    yield "runtime", f"{about['runtime']}; {how}"
    yield (
        "frame",
        f"{columns} x {rows} {about['format']}, batch {about['batch']}; the network's input {width} x {height}",
    )


def threads_text(threads: int) -> str:
    """What was asked for."""
    return terminal.count_text(threads, "thread") if threads else "threads as the runtime chooses"


def levels_table(one: Measured) -> Table:
    """Whole calls, a row a level."""
    rows = (
        (name, *figures(level.total), f"{one.frames_per_second(name):.1f}", _times(one.cost.get(name)))
        for name, level in one.levels.items()
    )
    title = f"ms a call, {one.samples.rounds} of each in turn in {one.samples.seconds:.1f} s"
    first = next(iter(one.levels.values())).total
    return terminal.table(title, ("level", *_columns(first), ">frames/s", ">cost"), rows)


def stages_table(one: Measured, level: str) -> Table:
    """A level's stages, a row a stage."""
    found = one.levels[level]
    rows = [
        (stage, *figures(summary), share_text(summary.median, found.total.median))
        for stage, summary in found.stages.items()
    ]
    if one.apart:
        rest = median_rest(found)
        blank = ("-",) * (len(figures(found.total)) - 1)
        rows.append((REST, *_median_alone(rest, blank), share_text(rest, found.total.median)))
    rows.append(("total", *figures(found.total), "100%"))
    where = ", on the GPU, each by itself" if one.apart else ""
    return terminal.table(f"stages of {level}, ms a call{where}", ("stage", *_columns(found.total), ">share"), rows)


def _median_alone(value: float, blank: Sequence[str]) -> tuple[str, ...]:
    """min and mean are not known, the median is."""
    return (*blank[:2], ms_text(value), *blank[2:])


def medians_table(one: Measured) -> Table:
    """Medians of the stages, a column a level."""
    levels = one.levels
    names = [stage for stage in STAGES if any(stage in level.stages for level in levels.values())]
    rows = [
        (stage, *(ms_text(level.stages[stage].median) if stage in level.stages else "-" for level in levels.values()))
        for stage in names
        if stage != REST
    ]
    rows.append((REST, *(ms_text(median_rest(level)) for level in levels.values())))
    rows.append(("total", *(ms_text(level.total.median) for level in levels.values())))
    where = " on the GPU, each stage by itself" if one.apart else ""
    return terminal.table(f"stages, median ms{where}", ("stage", *(f">{name}" for name in levels)), rows)


def overview_table(measured: Sequence[Measured]) -> Table:
    """A row a run."""
    levels = [name for name in ENDS if any(name in one.levels for one in measured)]
    several = len({one.about["backend"] for one in measured}) > 1
    rows = []
    for one in measured:
        cells = [one.about["model"] + ("" if not one.doubts else " ~")]
        cells += [one.about["backend"]] if several else []
        for name in levels:
            cells.append(ms_text(one.levels[name].total.median) if name in one.levels else "-")
            cells += [] if name == PLAIN else [_times(one.cost.get(name))]
        shown = one.levels[levels[-1]] if levels[-1] in one.levels else one.levels[MAP]
        tail = list(shown.total.percentiles.items())[-1:]
        rows.append((*cells, *(ms_text(value) for _, value in tail), f"{one.frames_per_second(levels[-1]):.1f}"))
    columns = ["model", *(["backend"] if several else [])]
    for name in levels:
        columns += [f">{name} ms"] if name == PLAIN else [f">{name} ms", ">cost"]
    last = f"{levels[-1]} p{list(measured[0].levels[MAP].total.percentiles)[-1]}"
    return terminal.table("median ms a call", (*columns, f">{last}", ">frames/s"), rows)


def cost_rows(one: Measured) -> Iterator[tuple[str, str]]:
    """The price of each explanation, and how sure it is."""
    plain = one.levels[PLAIN].total.median
    for name, ratios in one.cost.items():
        total = ratios["total"]
        network = f"; the network alone {ratios['network'].value:.3f} x" if "network" in ratios else ""
        more = one.levels[name].total.median - plain
        yield f"cost of {name}", f"{total.value:.3f} x plain, {more:+.3g} ms{network}"
        yield (
            "how sure",
            f"{total.low:.3f} to {total.high:.3f} in parts of the run, {total.by_round:.3f} round by round, "
            f"{total.fastest:.3f} by the fastest calls",
        )


def definition_rows(measured: Sequence[Measured], with_stages: bool, with_cold: bool) -> Iterator[tuple[str, str]]:
    """Where each level ends, and what the other words mean."""
    for name, words in ENDS.items():
        if any(name in one.levels for one in measured):
            yield name, words
    yield "cost", "median of a level / median of plain, which ran in turn with it"
    if with_stages and any(level.stages for one in measured for level in one.levels.values()):
        yield REST, "what the stages leave of the total: checks, copies of results, Python"
    if len(measured) > 1 and any(one.doubts for one in measured):
        yield "~", "unstable, for the reasons below"
    if with_cold:
        yield "cold", "in processes and a cache of their own; the file itself is in the system's memory"


def cold_table(name: str, cold: dict[str, float]) -> Table:
    """Starting anew."""
    rows = ((what, ms_text(took)) for what, took in cold.items())
    return terminal.table(f"cold {name}".strip(), ("what", ">ms"), rows)


def machine_rows(found: dict[str, Any], measured: Sequence[Measured]) -> Iterator[tuple[str, str]]:
    """What the figures depend on."""
    virtual = ", virtual" if found.get("virtual") else ""
    yield "machine", f"{found.get('board') or found['processor']}, {found['cores']} cores for us{virtual}"
    clocks = [text for text in (clock_text(measured, "mhz"), clock_text(measured, "gpu_mhz", "GPU ")) if text]
    clocks += [f"governor {found['governor']}"] if "governor" in found else []
    if "mhz_limits" in found:
        clocks.append("limits {:.0f} to {:.0f} MHz".format(*found["mhz_limits"]))
    if "boost" in found:
        clocks.append(f"boost {found['boost']}")
    if "power_mode" in found:
        clocks.append(f"power mode {found['power_mode']}")
    if not {"governor", "power_mode"} & found.keys():
        clocks.append("no governor or power mode to be seen")
    yield "clocks", ", ".join(clocks)
    if "gpu" in found:
        name, driver, *limits = found["gpu"].values()
        yield "gpu", f"{name}, driver {driver}, at most {', '.join(limits)}"
    versions = {"gcpp-edge": found["gcpp_edge"], **found.get("versions", {}), "numpy": found["numpy"]}
    yield "versions", ", ".join(f"{name} {value}" for name, value in versions.items()) + f", Python {found['python']}"


def clock_text(measured: Sequence[Measured], name: str, whose: str = "") -> str:
    """While it ran: "2400 MHz", or from the lowest to the highest; "" where nothing said."""
    seen = [mhz for one in measured for mhz in getattr(one.conditions, name)]
    if not seen:
        return ""
    lowest, highest = f"{min(seen):.0f}", f"{max(seen):.0f}"
    return f"{whose}{lowest} MHz" if lowest == highest else f"{whose}{lowest} to {highest} MHz"


def comparison_table(found: Comparison, everything: bool) -> Table:
    """Every total and cost, and what changed beyond the noise; or everything."""
    shown = [each for each in found.changes if everything or each.verdict != SAME or each.what in (TOTAL, COST)]
    models = list(dict.fromkeys(f"{change.model} {change.backend}" for change in found.changes))
    columns = ("level", "what", ">old", ">new", ">change", ">noise", "")
    if len(models) == 1:
        return terminal.table(f"{models[0]}, medians, ms a call", columns, map(_change_row, shown))
    rows = ((f"{change.model} {change.backend}", *_change_row(change)) for change in shown)
    return terminal.table("medians, ms a call", ("model", *columns), rows)


def verdict(found: Comparison) -> str:
    """In one line."""
    unsure = len(found.of(SLOWER, is_sure=False)) + len(found.of(FASTER, is_sure=False))
    sentence = f"{len(found.of(SLOWER))} slower and {len(found.of(FASTER))} faster beyond the noise"
    return sentence + (f"; {unsure} more cannot be told, because a run was unstable" if unsure else "")


def _change_row(change: Change) -> tuple[str, ...]:
    text = (lambda value: f"{value:.3f} x") if change.what == COST else ms_text
    return (
        change.level,
        change.what,
        text(change.old),
        text(change.new),
        f"{change.share:+.1%}",
        f"±{change.noise:.1%}",
        "" if change.verdict == SAME else change.verdict + ("" if change.is_sure else "?"),
    )


def _columns(summary: Summary) -> list[str]:
    return [">min", ">mean", ">median", *(f">p{name}" for name in summary.percentiles if name != "50")]


def figures(summary: Summary) -> tuple[str, ...]:
    """Under `_columns`. The 50th percentile is the median."""
    tail = (value for name, value in summary.percentiles.items() if name != "50")
    return tuple(map(ms_text, (summary.min, summary.mean, summary.median, *tail)))


def ms_text(value: float) -> str:
    """Microseconds where they count: "0.052", "8.91", "78.3", "1210"."""
    if abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def share_text(part: float, whole: float) -> str:
    """Of the total's median."""
    return f"{part / whole:.1%}" if whole else "-"


def _times(ratios: dict[str, Ratio] | None) -> str:
    return f"{ratios['total'].value:.3f} x" if ratios else ""
