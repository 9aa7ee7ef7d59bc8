"""Addresses of sources and sinks: `scheme://place?option=value&option=value`, or a plain path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote

from gcpp_edge.errors import InputError

Value = TypeVar("Value")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_DEVICE = re.compile(r"/dev/video\d+(\?.*)?")
# A "?" begins options where nothing but options follows: it is a wildcard in file names, and part of URLs in pipelines.
_OPTIONS = re.compile(r"(.*?)\?((?:[A-Za-z_][\w.-]*=[^&?\s]*)(?:&[A-Za-z_][\w.-]*=[^&?\s]*)*)", re.DOTALL)

# Up to the last "@" of a word: a password may hold an "@" or a "/" that should have been written as %40 or %2F.
_PASSWORD = re.compile(r"(://[^:/?\s\"']*:)[^\s\"']*@")
_SECRET = re.compile(
    r"((?:^|[?&\s])[\w.-]*(?:password|passwd|passwort|passphrase|pwd|user-pw|token|secret|api_?key|auth)[\w.-]*=)"
    r"(?:\"[^\"]*\"|'[^']*'|[^&\s\"']+)",
    re.IGNORECASE,
)
_MASK = r"\1***"

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def masked(text: str) -> str:
    """The text with *** for passwords: in `user:password@`, and in options such as `password=` and `token=`."""
    return _SECRET.sub(_MASK, _PASSWORD.sub(_MASK + "@", text))


@dataclass(frozen=True)
class Uri:
    """An address, taken apart. Its readers of options raise InputError that names option and value.

    scheme: lower case; "file" for a plain path, "v4l2" for /dev/video0. place: what stands between "://" and the
    options. query: the options as they were written. shown: the address without passwords, for people and records; only
    that is in its repr.
    """

    scheme: str
    shown: str
    place: str = field(repr=False)
    query: str = field(repr=False, default="")

    @property
    def options(self) -> dict[str, str]:
        """Values by name; the last of those that are given more than once."""
        pairs = (pair.partition("=") for pair in self.query.split("&") if pair)
        return {name: unquote(value) for name, _, value in pairs}

    def require_options(self, known: Iterable[str]) -> None:
        """Raises InputError for an option that is not one of these."""
        known = tuple(known)
        unknown = [name for name in self.options if name not in known]
        if unknown:
            names = ", ".join(known) or "none"
            raise InputError(f"{self.shown}: unknown option {unknown[0]!r}. Known for {self.scheme}://: {names}.")

    def whole_number(self, name: str, default: int, low: int, high: int) -> int:
        """An option that is a whole number from low to high."""
        return self._read(name, default, int, lambda value: low <= value <= high, f"a whole number {low} to {high}")

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """An option that is a number from low to high."""
        return self._read(name, default, float, lambda value: low <= value <= high, f"a number {low:g} to {high:g}")

    def choice(self, name: str, default: str, choices: Iterable[str]) -> str:
        """An option that is one of these words, in whatever case; as it stands among them."""
        words = {word.lower(): word for word in choices}
        return self._read(name, default, lambda text: words[text.lower()], lambda _: True, " or ".join(words.values()))

    def flag(self, name: str, default: bool) -> bool:
        """An option that is 1 or 0, or a word for them."""
        words = dict.fromkeys(_YES, True) | dict.fromkeys(_NO, False)
        return self._read(name, default, lambda text: words[text.lower()], lambda _: True, "1 or 0")

    def without(self, *names: str) -> str:
        """The whole address without options of these names, the others as they were written."""
        kept = [pair for pair in self.query.split("&") if pair and pair.partition("=")[0] not in names]
        return f"{self.scheme}://{self.place}" + ("?" + "&".join(kept) if kept else "")

    def _read(
        self, name: str, default: Value, read: Callable[[str], Value], holds: Callable[[Value], bool], expected: str
    ) -> Value:
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = read(text)
        except (ValueError, KeyError):
            pass
        else:
            if holds(value):
                return value
        raise InputError(f"{self.shown}: {name}: expected {expected}, found {text!r}.") from None


def parse_uri(text: str) -> Uri:
    """The address, taken apart. A plain path is a file's, /dev/video0 a camera's. Raises InputError for none."""
    text = str(text)
    if not text.strip():
        raise InputError("An empty address. Name a file, a folder, or scheme://place.")
    named = _SCHEME.fullmatch(text)
    if named:
        scheme, rest = named[1].lower(), named[2]
    else:
        scheme, rest = "v4l2" if _DEVICE.fullmatch(text) else "file", text
    split = _OPTIONS.fullmatch(rest)
    place, query = (split[1], split[2]) if split else (rest, "")
    if not place and scheme != "test" and scheme != "display":
        raise InputError(f"{masked(text)}: nothing is named after {scheme}://.")
    return Uri(scheme, masked(text), place, query)
