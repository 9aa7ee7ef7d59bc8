"""Where the page is served, and what is refused."""

import errno
import re
import socket
from typing import NamedTuple

import pytest

from gcpp_edge.errors import InputError, SinkError
from gcpp_edge.pipeline.uris import parse_uri
from gcpp_edge.web.address import Place, address_of, is_loopback, listen, place_of, token_for


class Case(NamedTuple):
    address: str
    host: str | None
    place: Place


CASES = [
    Case("http://127.0.0.1:9000", None, Place("127.0.0.1", 9000, True)),
    Case("http://localhost:9000/", None, Place("127.0.0.1", 9000, True)),
    Case("http://127.0.0.2", None, Place("127.0.0.2", 8080, True)),
    Case("http://[::1]:0", None, Place("::1", 0, True)),
    Case("http://127.0.0.1:9000?quality=70", "0.0.0.0", Place("0.0.0.0", 9000, False)),
    Case("http://0.0.0.0:9000", "0.0.0.0", Place("0.0.0.0", 9000, False)),
    Case("http://robot.local:9000", "robot.local", Place("robot.local", 9000, False)),
    Case("http://127.0.0.1:9000", "[::]", Place("::", 9000, False)),
    Case("http://0.0.0.0:9000", "localhost", Place("127.0.0.1", 9000, True)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_places_are_read(case: Case) -> None:
    assert place_of(parse_uri(case.address), case.host) == case.place


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://0.0.0.0:8080", "others on the network could watch.*--host 0.0.0.0"),
        ("http://192.168.1.5:8080", "--host 192.168.1.5"),
        ("http://robot.local", "--host robot.local"),
        ("http://[::]:8080", "others on the network"),
        ("http://127.0.0.1.evil.example:80", "others on the network"),
        ("http://127.0.0.1:8080/page", "nothing else"),
        ("http://user:word@127.0.0.1:8080", "nothing else"),
        ("http://127.0.0.1:port", "HOST:PORT"),
        ("http://127.0.0.1:99999", "HOST:PORT"),
        ("http://:8080", "HOST:PORT"),
        ("http://[::1:8080", "HOST:PORT"),
    ],
)
def test_places_are_refused_in_one_line(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        place_of(parse_uri(address), None)
    assert "\n" not in str(caught.value) and "word" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_loopback_is_what_nobody_else_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_token_is_made_where_others_reach_and_kept_where_it_is_given() -> None:
    here, away = Place("127.0.0.1", 1, True), Place("0.0.0.0", 1, False)
    assert token_for(here, None) is None
    made = token_for(away, None)
    assert made is not None and len(made) >= 32 and made != token_for(away, None)
    assert token_for(away, made) == token_for(here, made) == made


@pytest.mark.parametrize(
    "given", ["", "short", "fifteen-letters", "sixteen letters with spaces", "sixteen;letters;or;more"]
)
def test_a_token_that_can_be_guessed_or_breaks_a_cookie_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="at least 16"):
        token_for(Place("127.0.0.1", 1, True), given)


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SinkError, match=f"port {port} is taken by another program") as caught:
            listen(Place("127.0.0.1", port, True), "http://x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-name.invalid"])
def test_an_address_of_another_machine_is_said(host: str) -> None:
    with pytest.raises(SinkError, match="no address of this machine"):
        listen(Place(host, 0, False), "http://x")


def test_a_port_that_needs_privileges_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refused)
    with pytest.raises(SinkError, match="port 80 is not for ordinary users"):
        listen(Place("127.0.0.1", 80, True), "http://x")


def test_the_address_tells_the_port_and_the_token() -> None:
    place = Place("127.0.0.1", 0, True)
    with listen(place, "http://x") as listening:
        port = listening.getsockname()[1]
        assert port and address_of(listening, place, None) == f"http://127.0.0.1:{port}/"
        assert address_of(listening, place, "abc") == f"http://127.0.0.1:{port}/?token=abc"


def test_the_address_of_all_addresses_is_one_that_can_be_opened() -> None:
    place = Place("0.0.0.0", 0, False)
    with listen(place, "http://x") as listening:
        address = address_of(listening, place, None)
    assert re.fullmatch(r"http://[\w.-]+:\d+/", address) and "0.0.0.0" not in address
