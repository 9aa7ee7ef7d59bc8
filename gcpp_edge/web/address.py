"""Where the live page is served: the machine itself unless somebody says otherwise, and then not without a token."""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from gcpp_edge.errors import InputError, SinkError
from gcpp_edge.pipeline.uris import Uri

DEFAULT_PORT = 8080
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")  # goes into URLs and cookies as it is
_ANY = {
    "0.0.0.0": "192.0.2.1",
    "::": "2001:db8::1",
}  # wildcards, and an address that is not this machine's (RFC 5737, 3849)


class Place(NamedTuple):
    """What to listen on. host: an address or a name. is_loopback: nobody but this machine gets there."""

    host: str
    port: int
    is_loopback: bool


def place_of(uri: Uri, host: str | None) -> Place:
    """Where to listen. host: what was allowed beyond the URI, which by itself may name this machine alone.

    Raises InputError.
    """
    try:
        split = urlsplit(f"//{uri.place}")
        named, port = split.hostname or "", split.port
    except ValueError as error:
        raise InputError(f"{uri.shown}: expected {uri.scheme}://HOST:PORT ({error}).") from error
    if split.path not in ("", "/") or split.username is not None or not named:
        raise InputError(
            f"{uri.shown}: expected {uri.scheme}://HOST:PORT and nothing else, as in http://127.0.0.1:8080."
        )
    port = DEFAULT_PORT if port is None else port
    chosen = named if host is None else host.strip().strip("[]").lower()
    place = Place("127.0.0.1" if chosen == "localhost" else chosen, port, is_loopback(chosen))
    if host is None and not place.is_loopback:
        raise InputError(
            f"{uri.shown}: others on the network could watch. Allow it with --host {named}, which needs a token and "
            f"makes one, or use http://127.0.0.1:{port}."
        )
    return place


def is_loopback(host: str) -> bool:
    """Whether this is a name or an address of the machine itself that no other can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def token_for(place: Place, given: str | None) -> str | None:
    """The token that viewers need: the given one, a new one for a place that others reach, None on loopback.

    Raises InputError.
    """
    if given is None:
        return None if place.is_loopback else secrets.token_urlsafe(24)
    if not _TOKEN.fullmatch(given):
        raise InputError("token: expected at least 16 letters, digits, - or _. Leave it out, and one is made.")
    return given


def listen(place: Place, shown: str) -> socket.socket:
    """A listening socket. Raises SinkError, which says what to do."""
    try:
        family, _, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=64, dualstack_ipv6=place.host == "::")
    except OSError as error:
        raise SinkError(f"{shown}: {_reason(error, place)}") from error


def _reason(error: OSError, place: Place) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {place.port} is taken by another program. Name another one, or 0 for any that is free."
    if error.errno == errno.EACCES:
        return f"port {place.port} is not for ordinary users. Name one from 1024 on."
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{place.host} is no address of this machine. Use one of its own, or 0.0.0.0 for all of them."
    return f"cannot be listened on ({error.strerror or error})."


def address_of(listening: socket.socket, place: Place, token: str | None) -> str:
    """The URL that a viewer opens, with the token where there is one."""
    port = listening.getsockname()[1]
    host = _own_address(place.host) if place.host in _ANY else place.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")


def _own_address(wildcard: str) -> str:
    """The address under which a network finds this machine, else its name. Connecting a UDP socket sends nothing."""
    family = socket.AF_INET6 if wildcard == "::" else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_ANY[wildcard], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
