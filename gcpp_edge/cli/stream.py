"""`gcpp-edge stream`: a camera or a video in, explanations out, frame by frame."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from gcpp_edge.cli import terminal
from gcpp_edge.cli.explain import METHOD_HELP, target_of
from gcpp_edge.errors import GcppError, InputError

if TYPE_CHECKING:
    from gcpp_edge.pipeline.counters import Report
    from gcpp_edge.pipeline.events import Event
    from gcpp_edge.pipeline.stream import Stream
    from gcpp_edge.pipeline.uris import Uri

TOKEN_VARIABLE = "GCPP_EDGE_TOKEN"
STATUS_S = 0.25  # between two looks at the counters


def stream(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="An explained model, as `gcpp-edge export` writes it.")],
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="/dev/video0, v4l2://0, csi://0, rtsp://..., http://... (MJPEG), a video, a folder of pictures or "
            "'pattern*.jpg', gst://PIPELINE, test://.",
        ),
    ],
    outputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OUTPUT",
            help="display://, out.mp4, frames/%06d.png, rtp://HOST:PORT, rtsp://..., http://127.0.0.1:8080 (the live "
            "page), jsonl://FILE.",
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP, show_default="as the file says")] = None,
    target: Annotated[
        str, typer.Option(help="The class to explain: an index, a rank (-1 the best, -2 the next), or a name.")
    ] = "-1",
    every: Annotated[int, typer.Option(min=1, help="Explain one frame of so many; the others carry its map.")] = 1,
    policy: Annotated[
        str | None,
        typer.Option(
            help="latest: the newest frame wins, the others are dropped; all: every frame is explained.",
            show_default="latest for what is live or shown, else all",
        ),
    ] = None,
    max_fps: Annotated[float, typer.Option(min=0, help="Frames a second at most; 0: as many as come.")] = 0.0,
    smooth: Annotated[float, typer.Option(min=0, help="Smooth maps with this time constant, in seconds.")] = 0.0,
    overlay_alpha: Annotated[
        float, typer.Option("--overlay-alpha", "--alpha", min=0.0, max=1.0, help="Weight of the colours in overlays.")
    ] = 0.5,
    colormap: Annotated[str, typer.Option(help="Colours of overlays.")] = "jet",
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Tell when this holds, such as 'probability<0.4' or 'spread>0.6 after 5'. May be repeated."),
    ] = None,
    loop: Annotated[int, typer.Option(min=0, help="How often a video or folder is played; 0: for ever.")] = 1,
    duration: Annotated[
        float, typer.Option(min=0, help="End after so many seconds, of a file by its own time; 0: never.")
    ] = 0.0,
    headless: Annotated[
        bool, typer.Option("--headless", help="Leave display:// out, as if it were not named.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Let the live page listen here, such as 0.0.0.0; it then asks for a token.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar=TOKEN_VARIABLE, help="The live page's token; without one it is made up and printed."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 leaves it to choose.")] = 0,
    device: Annotated[str, typer.Option(help="Where to run: auto, tensorrt, cuda or cpu.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """Explains every frame of a camera or a video, until it ends or Ctrl-C, and finishes its files then.

    [bold]Examples[/bold]

      gcpp-edge stream model.onnx /dev/video0 http://127.0.0.1:8080

      gcpp-edge stream model.onnx clip.mp4 out.mp4 jsonl://out.jsonl

      gcpp-edge stream model.onnx csi://0 display:// --smooth 0.3 --max-fps 15

      gcpp-edge stream model.onnx rtsp://camera/live 'frames/%06d.png' --every 10 --rule 'probability<0.4'

      gcpp-edge stream model.onnx test:// http://127.0.0.1:8080 --duration 60

    Addresses take options, as in 'v4l2://0?width=1280&height=720&fps=30'. The exit status is 2 where an output broke.
    The summary is printed then, too; beside jsonl://- it goes to standard error.
    """
    import gcpp_edge
    from gcpp_edge.pipeline.sinks import open_sink
    from gcpp_edge.pipeline.sinks.overwriting import refuse_overwriting
    from gcpp_edge.pipeline.sources.files import paths_of
    from gcpp_edge.pipeline.uris import parse_uri

    places = _places_of(outputs or [], headless)
    prints_records = any((place.scheme, place.place) == ("jsonl", "-") for place in places)
    if as_json and prints_records:
        raise InputError("--json and jsonl://- both print to standard output. Choose one.")
    refuse_overwriting([model, *paths_of(parse_uri(source))], places)
    if not any(place.scheme == "http" for place in places):
        _refuse_options_of_the_page(context)
    console = terminal.remarks()
    monitor = None
    if rule:
        from gcpp_edge.pipeline.monitor import Monitor

        monitor = Monitor(rule, on_event=lambda event: _say_event(console, event))
    with ExitStack() as stack:
        explainer = stack.enter_context(gcpp_edge.load(model, device=device, threads=threads))
        running = stack.enter_context(
            explainer.stream(
                source,
                policy=policy,
                method=method,
                target=target_of(target),
                every=every,
                max_fps=max_fps,
                smooth_s=smooth,
                loop=loop,
                duration_s=duration,
                monitor=monitor,
                on_trouble=lambda trouble: terminal.complain(console, f"{trouble.where}: {trouble.text}"),
            )
        )
        running.change(alpha=overlay_alpha, colormap=colormap)
        for place in places:
            sink = open_sink(place, running, host=host, token=token)
            running.add(sink)
            if address := getattr(sink, "address", ""):
                terminal.remark(f"live page: {address}")
        failure = None
        with _signals(running):
            _watch(running, console)
            try:
                running.run()
            except GcppError as error:
                failure = error
    report = running.report()
    if as_json:
        terminal.print_json({"model": model, "source": running.name, "policy": running.policy} | report.as_dict())
    else:
        (console if prints_records else terminal.answers()).print(_summary(report))
    if failure is not None:
        raise failure
    raise typer.Exit(2 if any(sink.broken for sink in report.sinks.values()) else 0)


def _places_of(outputs: list[str], headless: bool) -> list[Uri]:
    """Where results go; a display that is not wanted is left out, and that is said."""
    from gcpp_edge.pipeline.uris import parse_uri

    places = [parse_uri(output) for output in outputs]
    kept = [place for place in places if not (headless and place.scheme == "display")]
    if len(kept) < len(places):
        terminal.remark("display:// is left out (--headless).")
    return kept


def _refuse_options_of_the_page(context: typer.Context) -> None:
    """Raises InputError for what was asked of a live page where there is none. The environment may name a token."""
    for name in ("host", "token"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(f"--{name} is for the live page, and no output is one. Add http://127.0.0.1:8080.")


def _say_event(console: Console, event: Event) -> None:
    with suppress(SystemExit):  # rich's, where nobody reads standard error any more
        console.print(Text(event.text, "yellow" if event.kind == "raised" else "green"), soft_wrap=True)


@contextmanager
def _signals(running: Stream) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the stream, and the files are finished; a second one aborts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, before[each])
        running.stop()

    for ending in (signal.SIGINT, signal.SIGTERM):
        before[ending] = signal.signal(ending, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _watch(running: Stream, console: Console) -> None:
    """Waits for the end, with a line of figures where somebody watches."""
    running.start()
    if not console.is_terminal:
        while not running.wait(STATUS_S):
            pass
        return
    with console.status("waiting for the first frame") as status:
        while not running.wait(STATUS_S):
            status.update(_line(running))


def _line(running: Stream) -> str:
    report, latest = running.report(), running.latest
    parts = [f"{report.captured} frames", f"{report.fps:.1f} fps"]
    if latest is not None:
        found = latest.explanation
        chance = "" if found.class_index < 0 else f" {found.probability:.0%}"
        parts.append(f"{found.label}{chance}")
    parts.append(f"{report.latencies.percentile(50):.1f} ms, p99 {report.latencies.percentile(99):.1f}")
    parts += [f"{count} {name}" for name, count in _losses(report).items() if count]
    if report.source_state not in ("running", "opening"):
        parts.append(f"source {report.source_state}")
    return escape("  ".join(parts))


def _losses(report: Report) -> dict[str, int]:
    return {name: getattr(report, name) for name in ("stale", "skipped", "failed", "unreadable")}


def _summary(report: Report) -> Any:
    """What a stream did, as a table of facts."""
    counted = ("captured", "explained", "carried", *_losses(report), "reconnects", "stalls", "resets", "events")
    counts = {name: getattr(report, name) for name in counted}
    rows = [(name, str(count)) for name, count in counts.items() if count or name in ("captured", "explained")]
    latency = report.latencies
    mapped = report.explained + report.carried
    if mapped and report.seconds:
        rows.append(("rate", f"{mapped / report.seconds:.1f} frames a second over {report.seconds:.1f} s"))
        figures = ", ".join(f"p{percent} {latency.percentile(percent):.1f}" for percent in (50, 90, 99))
        rows.append(("frame to map", f"{figures} ms"))
    for name, sink in report.sinks.items():
        dropped = f", {sink.dropped} dropped" if sink.dropped else ""
        rows.append((name, f"{sink.written} written{dropped}" + (f", broken: {sink.broken}" if sink.broken else "")))
    return terminal.facts("", rows)
