"""Many pictures, one after the other: a bad one is named and left out, the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gcpp_edge.cli import terminal
from gcpp_edge.errors import FrameError, PictureError
from gcpp_edge.pictures import output_names, read_picture

if TYPE_CHECKING:
    from gcpp_edge.explanation import Explanation

Record = dict[str, Any]


class Outcome(NamedTuple):
    """records: one a picture that was explained. failed: {"picture", "error"}, one a picture that was refused."""

    records: list[Record]
    failed: list[Record]


def for_each_picture(
    files: Sequence[Path], explain: Callable[[Path, Any, str], Record], read: Callable[[Path], Any] = read_picture
) -> Outcome:
    """explain(file, frame, name for what is made of it) for every picture that can be read, under a progress bar."""
    names = output_names(files)
    outcome = Outcome([], [])
    console = terminal.remarks()
    with terminal.progress_bar(console, "explaining") as through:
        for file in through(files):
            try:
                outcome.records.append(explain(file, read(file), names[file]))
            except (PictureError, FrameError) as error:
                terminal.complain(console, str(error))
                outcome.failed.append({"picture": str(file), "error": str(error)})
    return outcome


def describe(file: Path, explanation: Explanation, threshold: float) -> Record:
    """What is known of an explained picture, ready for JSON. threshold: share of the peak that a box encloses.

    Of a clip, boxes are lists, one a picture.
    """
    is_clip = explanation.map.ndim == 3
    pictures: list[int | None] = list(range(len(explanation.frame))) if is_clip else [None]
    boxes = [[box._asdict() for box in explanation.boxes(threshold, index)] for index in pictures]
    where = {} if explanation.detection is None else {"detection": explanation.detection}
    return {
        "picture": str(file),
        **where,
        "class_index": explanation.class_index,
        "label": explanation.label,
        "score": explanation.score,
        "probability": explanation.probability,
        "evidence": explanation.evidence,
        "peak": explanation.peak,
        "poles": explanation.poles,
        "method": explanation.method,
        "mode": explanation.mode,
        "ms": milliseconds(explanation),
        "boxes": boxes if is_clip else boxes[0],
    }


def milliseconds(explanation: Explanation) -> dict[str, float]:
    """What each stage took, and their total."""
    return {**explanation.timings_ms, "total": sum(explanation.timings_ms.values())}


def class_text(record: Record) -> str:
    """The class of a record for people: "Egyptian cat (285)"."""
    return f"{record['label']} ({record['class_index']})"
