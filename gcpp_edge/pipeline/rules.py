"""Rules of a monitor, and how they are written: `probability<0.4`, `inside:0.2,0.2,0.8,0.8<0.5 after 5 clear 0.6`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

from gcpp_edge.errors import InputError
from gcpp_edge.pipeline.measures import MEASURES, Measure, checked_box

AFTER = 3  # frames: at 30 a second a tenth of one, longer than a single bad frame
MARGIN = 0.1  # of the way that a threshold has to the ends of its scale
FORM = "MEASURE<NUMBER or MEASURE>NUMBER, then `after FRAMES` and `clear NUMBER` as you like"


@dataclass(frozen=True)
class Named:
    """A measure of the table, with its numbers: `inside` and a box, the others without."""

    name: str
    numbers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in MEASURES:
            raise InputError(f"Unknown measure {self.name!r}. Known: {known_measures()}.")
        if not MEASURES[self.name].argument and self.numbers:
            raise InputError(f"{self.name}: takes no numbers, found {self}.")
        if MEASURES[self.name].argument:
            checked_box(self.numbers)

    def begin(self) -> Measure:
        """The measure, with a memory of its own."""
        return MEASURES[self.name].begin(*self.numbers)

    def __str__(self) -> str:
        return f"{self.name}:{','.join(map(_written, self.numbers))}" if self.numbers else self.name


@dataclass(frozen=True)
class Rule:
    """Raised when a number of the explanation is beyond a threshold, cleared when it is back beyond another.

    name: what events say. function: a Named measure, or one of your own from an Explanation to a number (None: it has
    nothing to say of this frame). comparison: "<" or ">", both strict. after: frames in a row that raise it, and that
    clear it. clear: it is back where it reaches this; None for a margin behind the threshold (clear_at).
    Raises InputError for what cannot hold or cannot clear.
    """

    name: str
    function: Named | Measure
    comparison: str
    threshold: float
    after: int = AFTER
    clear: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("A rule needs a name, found an empty one.")
        if self.comparison not in ("<", ">"):
            raise InputError(f"{self.name}: expected the comparison < or >, found {self.comparison!r}.")
        self._require_on_scale(self.threshold)
        self._require_on_scale(self.clear_at)
        if self.is_share and self.threshold == (0 if self.comparison == "<" else 1):
            raise InputError(f"{self.name}: it can never hold, since {self.function} is a share, 0 to 1.")
        if isinstance(self.after, bool) or not isinstance(self.after, int) or self.after < 1:
            raise InputError(f"{self.name}: expected after to be 1 frame or more, found {self.after!r}.")
        if self.is_beyond(self.clear_at):
            side = "at or above" if self.comparison == "<" else "at or below"
            raise InputError(f"{self.name}: expected clear {side} the threshold, found {_written(self.clear_at)}.")

    @property
    def is_share(self) -> bool:
        """Whether its number is known to lie in [0, 1]."""
        return isinstance(self.function, Named) and MEASURES[self.function.name].is_share

    @property
    def clear_at(self) -> float:
        """Where it is back: `clear`, or MARGIN of the threshold behind it, of a share min(threshold, 1 - threshold).

        So that it can clear: 10 % behind 0.95 would be above 1.
        """
        if self.clear is not None:
            return self.clear
        room = min(self.threshold, 1 - self.threshold) if self.is_share else abs(self.threshold)
        return self.threshold + (MARGIN if self.comparison == "<" else -MARGIN) * room

    def is_beyond(self, value: float) -> bool:
        """Whether the value is beyond the threshold."""
        return value < self.threshold if self.comparison == "<" else value > self.threshold

    def is_back(self, value: float) -> bool:
        """Whether the value has reached where it clears."""
        return value >= self.clear_at if self.comparison == "<" else value <= self.clear_at

    def __str__(self) -> str:
        """As it is written; of a Named measure parse_rule reads it back."""
        subject = self.function if isinstance(self.function, Named) else self.name
        after = "" if self.after == AFTER else f" after {self.after}"
        clear = "" if self.clear is None else f" clear {_written(self.clear)}"
        return f"{subject}{self.comparison}{_written(self.threshold)}{after}{clear}"

    def _require_on_scale(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise InputError(f"{self.name}: expected a number, found {value!r}.")
        if self.is_share and not 0 <= value <= 1:
            raise InputError(f"{self.name}: {self.function} is a share, 0 to 1, found {_written(value)}.")


def parse_rule(text: str) -> Rule:
    """The rule that is written, named by its condition. InputError says what is wrong, and what is known."""
    found = re.fullmatch(r"\s*([^<>]*?)\s*([<>])\s*([^\s<>]+)((?:\s+[^\s<>]+)*)\s*", text)
    if found is None:
        raise InputError(f"Rule {text!r}: expected {FORM}. Measures: {known_measures()}.")
    subject, comparison, threshold, rest = found.groups()
    try:
        measure = _parse_measure(subject)
        number = _number("a threshold", threshold)
        options = _parse_options(rest.split())
        after = _frames(options["after"]) if "after" in options else AFTER
        clear = _number("clear", options["clear"]) if "clear" in options else None
        return Rule(f"{measure}{comparison}{_written(number)}", measure, comparison, number, after, clear)
    except InputError as error:
        raise InputError(f"Rule {text!r}: {error}") from error


def known_measures() -> str:
    """The measures with their arguments, in one line."""
    return ", ".join(f"{name}:{known.argument}" if known.argument else name for name, known in MEASURES.items())


def _parse_measure(subject: str) -> Named:
    name, colon, argument = subject.partition(":")
    if colon and not argument:
        raise InputError(
            f"expected {name}:{MEASURES[name].argument if name in MEASURES else '...'}, found nothing there."
        )
    return Named(name, tuple(_number(name, part) for part in argument.split(",")) if argument else ())


def _parse_options(words: list[str]) -> dict[str, str]:
    if len(words) % 2 or not set(words[::2]) <= {"after", "clear"} or len(set(words[::2])) != len(words) // 2:
        raise InputError(f"expected `after FRAMES` and `clear NUMBER`, each once, found {' '.join(words)!r}.")
    return dict(zip(words[::2], words[1::2], strict=True))


def _number(what: str, text: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise InputError(f"{what}: expected a number, found {text!r}.")
    return float(text)


def _frames(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(f"after: expected a whole number of frames, found {text!r}.")
    return int(text)


def _written(number: float) -> str:
    """The shortest text that reads back as this number."""
    text = repr(float(number))
    return text[:-2] if text.endswith(".0") else text
