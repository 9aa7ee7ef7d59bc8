"""Who may ask for what. No request is answered before it has passed here.

Three things are held off. A foreign page in the viewer's browser: by the Host header (its name may have been pointed
at this machine, "DNS rebinding"), by Origin and Sec-Fetch-Site, and since a write must be JSON, which no form sends.
Strangers on the network: by the token, wherever the place is not loopback. And what a page could be made to load: by
the Content-Security-Policy, which knows this server alone.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from gcpp_edge.web.address import is_loopback

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
NO_STORE = {"Cache-Control": "no-store"}
HEALTH = "/healthz"  # open to all, who then learn yes or no and nothing else
RECORDS = "/records"
_JSON = "application/json"
_READING = ("GET", "HEAD")


class Refusal(NamedTuple):
    """An answer in place of what was asked for. text: one line."""

    status: int
    text: str


class Request(NamedTuple):
    """What is looked at of a request. headers and cookies by name; token: of the query, "" where there is none."""

    method: str
    path: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    token: str = ""


@dataclass(frozen=True)
class Access:
    """The rules of one server. token: what viewers need, None for nothing. is_loopback: of the place it listens on."""

    token: str | None
    is_loopback: bool
    cookie: str = "gcpp_edge"  # its name: cookies know no ports, so it holds the port

    def refusal(self, request: Request) -> Refusal | None:
        """Why this request gets nothing, None where it is answered."""
        host = request.headers.get("Host", "")
        if self.is_loopback and not is_loopback(_host_name(host)):
            return Refusal(403, f"Host {host!r} is not this machine. Open http://127.0.0.1 or http://localhost.")
        if request.path != HEALTH and not self.is_known(request):
            return Refusal(401, "A token is needed: open the address that was printed when the stream was started.")
        return _foreign(request, host) or _unfit(request)

    def is_known(self, request: Request) -> bool:
        """Whether it bears the token, where one is needed."""
        if self.token is None:
            return True
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        given = (
            bearer.strip() if kind.lower() == "bearer" else "",
            request.cookies.get(self.cookie, ""),
            request.token,
        )
        # bytes: compare_digest refuses text that is not ASCII. No short cut, so that time tells nothing.
        return sum(hmac.compare_digest(one.encode(), self.token.encode()) for one in given) > 0


def _foreign(request: Request, host: str) -> Refusal | None:
    """Refusal of what another site's page sends, by what its browser says of it. What is no browser says nothing."""
    origin = request.headers.get("Origin")
    is_guarded = request.method not in _READING or request.path == RECORDS
    if is_guarded and origin is not None and origin.partition("://")[2].lower() != host.lower():
        return Refusal(403, f"Origin {origin!r} is not this page.")
    site, mode = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Sec-Fetch-Mode", "")
    is_followed_link = mode == "navigate" and not is_guarded
    if site not in ("none", "same-origin") and not is_followed_link:
        return Refusal(403, "Asked for by another site's page.")
    return None


def _unfit(request: Request) -> Refusal | None:
    """Refusal of a write that is not JSON: a form on a foreign page can send anything else without being asked."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if request.method in _READING or kind == _JSON:
        return None
    return Refusal(415, f"Expected Content-Type {_JSON}, found {kind or 'none'!r}.")


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
