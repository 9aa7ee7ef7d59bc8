"""Who may ask for what, request by request."""

from typing import Any, NamedTuple

import pytest

from gcpp_edge.web.access import HEADERS, Access, Request

TOKEN = "a-token-of-the-tests"
HERE = {"Host": "127.0.0.1:8080"}
AWAY = {"Host": "robot.local:8080"}
JSON = {"Content-Type": "application/json"}
CHARSET = {"Content-Type": "Application/JSON; charset=utf-8"}
OPEN, CLOSED = Access(None, is_loopback=True), Access(TOKEN, is_loopback=False)


class Case(NamedTuple):
    name: str
    access: Access
    headers: dict[str, str]
    status: int | None  # None: answered
    method: str = "GET"
    path: str = "/"
    cookies: dict[str, str] = {}
    token: str = ""


CASES = [
    Case("loopback by address", OPEN, HERE, None),
    Case("loopback by name", OPEN, {"Host": "localhost:8080"}, None),
    Case("loopback by name, in capitals", OPEN, {"Host": "LOCALHOST"}, None),
    Case("loopback, version 6", OPEN, {"Host": "[::1]:8080"}, None),
    Case("another port, as through a tunnel", OPEN, {"Host": "localhost:9000"}, None),
    Case("a name pointed at loopback", OPEN, {"Host": "evil.example:8080"}, 403),
    Case("a name that begins like loopback", OPEN, {"Host": "127.0.0.1.evil.example"}, 403),
    Case("loopback as user name", OPEN, {"Host": "localhost@evil.example"}, 403),
    Case("no host", OPEN, {}, 403),
    Case("a host that is none", OPEN, {"Host": "[::1"}, 403),
    Case("health under a foreign name", OPEN, {"Host": "evil.example"}, 403, path="/healthz"),
    Case("write without an origin", OPEN, HERE | JSON, None, "POST", "/settings"),
    Case("write of the page", OPEN, HERE | JSON | {"Origin": "http://127.0.0.1:8080"}, None, "POST", "/settings"),
    Case("write of another site", OPEN, HERE | JSON | {"Origin": "http://evil.example"}, 403, "POST", "/settings"),
    Case("write of another port", OPEN, HERE | JSON | {"Origin": "http://127.0.0.1:3000"}, 403, "POST", "/settings"),
    Case("write of another name", OPEN, HERE | JSON | {"Origin": "http://localhost:8080"}, 403, "POST", "/settings"),
    Case("write of a file", OPEN, HERE | JSON | {"Origin": "null"}, 403, "POST", "/settings"),
    Case("write of an empty origin", OPEN, HERE | JSON | {"Origin": ""}, 403, "POST", "/settings"),
    Case("write of an origin that is none", OPEN, HERE | JSON | {"Origin": "http://[::1"}, 403, "POST", "/settings"),
    Case("write by a form", OPEN, HERE | {"Content-Type": "text/plain"}, 415, "POST", "/settings"),
    Case("write of no type", OPEN, HERE, 415, "POST", "/settings"),
    Case("write with a charset", OPEN, HERE | CHARSET, None, "POST", "/settings"),
    Case("records for the page", OPEN, HERE | {"Origin": "http://127.0.0.1:8080"}, None, path="/records"),
    Case("records for another site", OPEN, HERE | {"Origin": "http://evil.example"}, 403, path="/records"),
    Case("records for a program", OPEN, HERE, None, path="/records"),
    Case("a link followed", OPEN, HERE | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, None),
    Case("a picture in another page", OPEN, HERE | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    Case("a page of the same machine", OPEN, HERE | {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
    Case("the page's own picture", OPEN, HERE | {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, None),
    Case(
        "a form sent by navigating",
        OPEN,
        HERE | JSON | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        403,
        "POST",
        "/settings",
    ),
    Case("away without a token", CLOSED, AWAY, 401),
    Case("away with the token", CLOSED, AWAY, None, token=TOKEN),
    Case("away with a cookie", CLOSED, AWAY, None, cookies={"gcpp_edge": TOKEN}),
    Case("away with another server's cookie", CLOSED, AWAY, 401, cookies={"gcpp_edge_81": TOKEN}),
    Case("away as bearer", CLOSED, AWAY | {"Authorization": f"Bearer {TOKEN}"}, None),
    Case("away as bearer, small letters", CLOSED, AWAY | {"Authorization": f"bearer  {TOKEN}"}, None),
    Case("away by another scheme", CLOSED, AWAY | {"Authorization": f"Basic {TOKEN}"}, 401),
    Case("away with part of the token", CLOSED, AWAY, 401, token=TOKEN[:-1]),
    Case("away with more than the token", CLOSED, AWAY, 401, token=TOKEN + "x"),
    Case("away with a token that is not ASCII", CLOSED, AWAY, 401, token="ümlaut"),
    Case("away, a wrong cookie and the right token", CLOSED, AWAY, None, cookies={"gcpp_edge": "old"}, token=TOKEN),
    Case("metrics without a token", CLOSED, AWAY, 401, path="/metrics"),
    Case("health without a token", CLOSED, AWAY, None, path="/healthz"),
    Case("away write, elsewhere", CLOSED, AWAY | JSON | {"Origin": "http://evil.example"}, 403, "POST", token=TOKEN),
    Case("away write, TLS", CLOSED, AWAY | JSON | {"Origin": "https://robot.local:8080"}, None, "POST", token=TOKEN),
    Case("loopback with a token that was asked for", Access(TOKEN, is_loopback=True), HERE, 401),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_requests_are_answered_or_refused(case: Case) -> None:
    request = Request(case.method, case.path, case.headers, case.cookies, case.token)
    refusal = case.access.refusal(request)
    assert (refusal and refusal.status) == case.status
    if refusal is not None:
        assert refusal.text.endswith(".") and "\n" not in refusal.text
        assert TOKEN not in refusal.text


@pytest.mark.parametrize(("access", "token", "known"), [(OPEN, "", True), (CLOSED, "", False), (CLOSED, TOKEN, True)])
def test_details_are_for_those_who_are_known(access: Access, token: str, known: bool) -> None:
    assert access.is_known(Request("GET", "/healthz", AWAY, {}, token)) is known


def test_the_policy_lets_a_page_load_from_its_own_server_alone() -> None:
    policy: dict[str, Any] = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy.pop("default-src") == policy.pop("frame-ancestors") == "'none'"
    allowed = {word for words in policy.values() for word in words.split()}
    assert allowed <= {"'self'", "'none'", "data:", "blob:"}
