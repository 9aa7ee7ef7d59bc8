"""Every address of the server, asked as a program would."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from page_requests import Answer, ask, port_of, write_one

from gcpp_edge.colormaps import COLORMAPS
from gcpp_edge.errors import InputError, MissingDependencyError, SinkError
from gcpp_edge.pipeline.events import Event, Trouble
from gcpp_edge.pipeline.uris import parse_uri
from gcpp_edge.web.access import HEADERS
from gcpp_edge.web.sink import WebSink, open_web_sink

TOKEN = "a-token-of-the-tests"


def picture_of(answer: Answer) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


@pytest.fixture
def sink(open_sink: Callable[..., WebSink]) -> WebSink:
    return open_sink()


class TestPage:
    def test_it_is_html_and_loads_files_of_its_own_alone(self, sink: WebSink) -> None:
        answer = ask(sink, "/")
        assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
        loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.body.decode())
        assert loaded and all(name.startswith("/") for name in loaded)
        for name in loaded:
            if name.startswith("/page/"):
                assert ask(sink, name).status == 200, name

    def test_every_answer_has_the_headers(self, sink: WebSink) -> None:
        for path in ("/", "/settings", "/nothing", "/metrics", "/snapshot.png"):
            answer = ask(sink, path)
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
            assert answer.headers["Cache-Control"] in ("no-store", "no-cache")

    def test_a_file_that_the_browser_has_is_not_sent_again(self, sink: WebSink) -> None:
        first = ask(sink, "/")
        again = ask(sink, "/", If_None_Match=first.headers["ETag"])
        assert (again.status, again.body) == (304, b"")

    @pytest.mark.parametrize(
        "name",
        [
            "nothing.js", "../sink.py", "..%2Fsink.py", "%2e%2e/sink.py", "..%5Csink.py", "index", ".",
            "a" * 300 + ".js", "a%00.js", "app.js%00", "%FF.js", "app.js/", "APP.JS", "",
        ],
        ids=lambda name: name[:20],
    )  # fmt: skip
    def test_other_files_are_not_there(self, sink: WebSink, name: str) -> None:
        assert ask(sink, f"/page/{name}").status == 404


class TestSettings:
    def test_they_are_told(self, sink: WebSink) -> None:
        assert ask(sink, "/settings").json() == {
            "method": None, "target": -1, "alpha": 0.5, "colormap": "jet", "smooth_s": 0.0, "every": 1,
        }  # fmt: skip

    @pytest.mark.parametrize(
        "change",
        [
            {"alpha": 0.25},
            {"method": "gradcam"},
            {"method": None},
            {"target": -2},
            {"target": "class 3"},
            {"colormap": "turbo", "smooth_s": 0.5},
            {"every": 3},
            {},
        ],
        ids=str,
    )
    def test_a_change_reaches_the_stream_and_comes_back(self, sink: WebSink, stream: Any, change: Any) -> None:
        answer = ask(sink, "/settings", change)
        assert answer.status == 200 and stream.changes == [change]
        assert answer.json() == ask(sink, "/settings").json() == vars(stream.settings)
        assert {name: answer.json()[name] for name in change} == change

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({"alpha": 2}, "alpha: expected a number from 0 to 1, found 2"),
            ({"alpha": "0.5"}, "alpha: expected a number"),
            ({"alpha": True}, "alpha: expected a number"),
            ({"colormap": "pink"}, "Unknown colormap 'pink'"),
            ({"colormap": ["jet"]}, "colormap: expected one value"),
            ({"method": {}}, "method: expected one value"),
            ({"method": "magic"}, "Unknown method 'magic'"),
            ({"target": "clas 3"}, "no class of this name"),
            ({"target": 99}, "classes 0 to 5"),
            ({"target": 1.5}, "expected a class index"),
            ({"every": 0}, "every: expected a number from 1"),
            ({"colour": 1}, "Unknown setting 'colour'"),
            ([1], "expected a JSON object|Expected a JSON object"),
            (b"alpha=1", "Expected JSON"),
            (b"", "Expected JSON"),
            (b'{"alpha": NaN}', "alpha: expected a number"),
            (b"[" * 16000, "Expected JSON"),
            ({"self": 1}, "Unknown setting 'self'"),
            ({"settings": 1}, "Unknown setting 'settings'"),
            ({"contract": [1]}, "Unknown setting 'contract'"),
            ({"": 1}, "Unknown setting ''"),
            ({"method": ""}, "Unknown method ''"),
            ({"method": False}, "Unknown method False"),
            ({"method": 0}, "Unknown method 0"),
            ({"target": None}, "expected a class index"),
            ({"target": ""}, "empty text"),
            ({"colormap": None}, "Unknown colormap None"),
            ({"smooth_s": None}, "smooth_s: expected a number"),
            ({"every": 1.5}, "every: expected a whole number"),
            (b'{"alpha": "\xff"}', "Expected JSON"),
            (b'{"target": "\\ud800"}', "no class of this name"),
            (b'{"target": ' + b"9" * 5000 + b"}", "Expected JSON"),
            (b'{"target": ' + b"9" * 4000 + b"}", "classes 0 to 5"),
            (b'{"alpha": 1e999}', "alpha: expected a number"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_what_the_model_refuses_is_said_in_a_line_and_changes_nothing(
        self, sink: WebSink, stream: Any, body: Any, said: str
    ) -> None:
        before = stream.settings
        answer = ask(sink, "/settings", body)
        assert answer.status == 400 and re.search(said, answer.json()["error"])
        assert stream.settings == before

    @pytest.mark.parametrize("charset", ["nosuch", "base64", "undefined", "utf-16", "latin-1"])
    def test_json_has_one_charset(self, sink: WebSink, stream: Any, charset: str) -> None:
        kind = f"application/json; charset={charset}"
        answer = ask(sink, "/settings", {"alpha": 0.25}, Content_Type=kind)
        assert (answer.status, stream.changes) == (400, []) and "charset" in answer.json()["error"]
        assert ask(sink, "/settings", {"alpha": 0.25}, Content_Type="application/json; charset=UTF-8").status == 200

    def test_a_long_body_is_refused(self, sink: WebSink) -> None:
        assert ask(sink, "/settings", b" " * 100_000).status == 413

    def test_what_is_not_offered_is_refused(self, sink: WebSink) -> None:
        assert ask(sink, "/report", {}).status == 405


class TestPictures:
    @pytest.mark.parametrize("path", ["/snapshot.png", "/snapshot.jpg", "/frame.jpg"])
    def test_there_is_none_before_the_first_frame(self, sink: WebSink, path: str) -> None:
        answer = ask(sink, path)
        assert answer.status == 503 and b"no picture yet" in answer.body

    def test_a_snapshot_is_the_overlay_to_the_bit(self, sink: WebSink, stream: Any) -> None:
        write_one(sink, stream)
        result = write_one(sink, stream)
        answer = ask(sink, "/snapshot.png")
        assert answer.headers["Content-Type"] == "image/png" and answer.headers["X-Frame-Id"] == "1"
        assert 'filename="frame-000001.png"' in answer.headers["Content-Disposition"]
        np.testing.assert_array_equal(picture_of(answer), result.picture())

    @pytest.mark.parametrize(("path", "drawn"), [("/snapshot.jpg", "picture"), ("/frame.jpg", "frame_bgr")])
    def test_the_others_are_near_it(self, sink: WebSink, stream: Any, path: str, drawn: str) -> None:
        result = write_one(sink, stream)
        answer = ask(sink, path)
        assert answer.headers["Content-Type"] == "image/jpeg" and answer.headers["X-Timestamp"] == "0.000000"
        wanted = getattr(result, drawn)().astype(int)
        assert np.abs(picture_of(answer).astype(int) - wanted).mean() < 20


class TestWhatIsTold:
    def test_the_model(self, sink: WebSink, stream: Any) -> None:
        told = ask(sink, "/model").json()
        assert told["labels"] == [f"class {number}" for number in range(6)] and told["classes"] == 6
        assert told["methods"] == ["gradcam", "gradcam++", "gradcam++-signed"]  # no constant gradients, no softmax
        assert told["method"] == "gradcam++" and told["source"] == "test://scene" and told["layers"] == ["body"]
        assert tuple(told["colormaps"]) == COLORMAPS and told["colormaps"]["gray"][::17] == ["#000000", "#ffffff"]
        assert told["runtime"] == stream.runtime_name and told["input"] == [16, 16]

    def test_the_report(self, sink: WebSink, stream: Any) -> None:
        stream.counts.troubles.append(Trouble("source", "gone"))
        write_one(sink, stream)
        told = ask(sink, "/report").json()
        assert told == stream.report().as_dict() | {"troubles": [{"where": "source", "text": "gone"}]}

    def test_metrics(self, sink: WebSink, stream: Any) -> None:
        write_one(sink, stream)
        answer = ask(sink, "/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"\ngcpp_edge_frames_captured_total 1\n" in answer.body
        assert b'source="test://scene"' in answer.body

    @pytest.mark.parametrize(
        ("state", "status", "reason"),
        [
            ("running", 200, None),
            ("opening", 503, "no frame yet"),
            ("stalled", 503, "longer than expected"),
            ("lost", 503, "is lost"),
            ("ended", 503, "ended"),
        ],
    )
    def test_health(self, sink: WebSink, stream: Any, state: str, status: int, reason: str | None) -> None:
        stream.counts.source_state = state
        answer = ask(sink, "/healthz")
        told = answer.json()
        assert answer.status == status and told["status"] == ("ok" if status == 200 else "failing")
        assert told["source"] == state
        assert reason is None or reason in told["reason"]


class TestRecords:
    """What comes by WebSocket."""

    def messages(self, sink: WebSink, is_enough: Callable[[list[Any]], bool], between: Any = None) -> list[Any]:
        """All until there are enough; `between` is called once the first is there."""

        async def read() -> list[Any]:
            import aiohttp

            found: list[Any] = []
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{sink.address}records") as channel:
                while not is_enough(found):
                    message = await asyncio.wait_for(channel.receive(), 10)
                    assert message.type is aiohttp.WSMsgType.TEXT, message
                    found.append(json.loads(message.data, parse_constant=lambda name: pytest.fail(name)))
                    if len(found) == 1 and between is not None:
                        await asyncio.to_thread(between)
            return found

        return asyncio.run(read())

    def test_a_frame_is_a_record_with_settings_and_counters(self, sink: WebSink, stream: Any) -> None:
        result = write_one(sink, stream)
        found = self.messages(sink, lambda found: any(one["kind"] == "frame" for one in found))
        record = found[-1]
        assert {name: record[name] for name in result.record()} == json.loads(json.dumps(result.record()))
        assert record["settings"] == vars(stream.settings) and len(record["top"]) == 5
        assert record["counters"]["captured"] == 1 and record["counters"]["viewers"] == 1
        assert record["counters"]["source_state"] == "running"

    def test_a_change_by_another_viewer_comes_without_a_frame(self, sink: WebSink) -> None:
        def change() -> None:
            assert ask(sink, "/settings", {"alpha": 0.125}).status == 200

        found = self.messages(sink, lambda found: bool(found) and found[-1]["settings"]["alpha"] == 0.125, change)
        assert {one["kind"] for one in found} == {"status"}

    def test_events_and_troubles_come_with_their_times(self, sink: WebSink, stream: Any) -> None:
        stream.counts.troubles.append(Trouble("source", "gone"))
        capture = stream.result().capture
        for number in range(5):  # all of them, though frames are skipped
            sink.write(stream.result(events=(Event("centre", "raised", 0.1, capture, f"event {number}"),)))

        def entries(found: list[Any]) -> list[Any]:
            return [entry for one in found if one["kind"] == "log" for entry in one["entries"]]

        found = entries(self.messages(sink, lambda found: len(entries(found)) == 6))
        assert [one["text"] for one in found if one["kind"] == "raised"] == [f"event {n}" for n in range(5)]
        assert [one["text"] for one in found if one["kind"] == "trouble"] == ["gone"]
        assert all(abs(one["at"] - time.time()) < 20 for one in found)
        assert [one["number"] for one in found] == list(range(1, 7))

    def test_numbers_that_are_none_are_null(self, sink: WebSink, stream: Any) -> None:
        result = stream.result()
        result.latency_ms = float("nan")
        sink.write(result)
        found = self.messages(sink, lambda found: any(one["kind"] == "frame" for one in found))
        assert found[-1]["latency_ms"] is None


class TestToken:
    def test_the_address_leads_to_the_page_by_a_cookie(self, open_sink: Callable[..., WebSink]) -> None:
        sink = open_sink(token=TOKEN)
        path = "/" + sink.address.split("/", 3)[3]
        first = ask(sink, f"{path}&view=2")
        assert (first.status, first.headers["Location"]) == (303, "/?view=2")
        cookie = first.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and f"gcpp_edge_{port_of(sink)}=" in cookie
        assert ask(sink, "/", Cookie=cookie.partition(";")[0]).status == 200

    def test_the_cookie_of_a_foreign_page_s_visitor_changes_nothing(
        self, open_sink: Callable[..., WebSink], stream: Any
    ) -> None:
        sink = open_sink(token=TOKEN)
        of_browser = {"Cookie": f"gcpp_edge_{port_of(sink)}={TOKEN}", "Sec_Fetch_Site": "cross-site"}
        followed = ask(sink, "/", Sec_Fetch_Mode="navigate", **of_browser)  # a link in a chat, and its redirect
        assert followed.status == 200
        sent = ask(sink, "/settings", {"alpha": 1}, Sec_Fetch_Mode="navigate", **of_browser)
        posted = ask(sink, "/settings", {"alpha": 1}, Cookie=of_browser["Cookie"], Origin="http://evil.example")
        assert sent.status == posted.status == 403 and stream.changes == []

    @pytest.mark.parametrize(
        "path", ["/", "/page/style.css", "/stream.mjpg", "/records", "/settings", "/metrics", "/no"]
    )
    def test_nothing_is_given_without_it(self, open_sink: Callable[..., WebSink], path: str) -> None:
        answer = ask(open_sink(token=TOKEN), path)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"

    def test_a_bearer_is_given_all(self, open_sink: Callable[..., WebSink]) -> None:
        sink = open_sink(token=TOKEN)
        for path in ("/", "/settings", "/metrics", "/report"):
            assert ask(sink, path, Authorization=f"Bearer {TOKEN}").status == 200

    def test_health_tells_a_stranger_yes_or_no(self, open_sink: Callable[..., WebSink], stream: Any) -> None:
        sink = open_sink(token=TOKEN)
        assert ask(sink, "/healthz").json() == {"status": "ok"}
        stream.counts.source_state = "lost"
        assert ask(sink, "/healthz").json() == {"status": "failing"}

    def test_all_addresses_need_one_and_it_is_in_the_address(self, open_sink: Callable[..., WebSink]) -> None:
        sink = open_sink("http://127.0.0.1:0", host="0.0.0.0")
        token = sink.address.partition("?token=")[2]
        assert len(token) >= 32 and token not in sink.name
        assert ask(sink, "/").status == 401
        assert ask(sink, "/settings", Authorization=f"Bearer {token}").status == 200


SECURITY = [
    ("/", None, {"Host": "evil.example"}, 403),
    ("/", None, {"Host": "localhost:1"}, 200),
    ("/settings", {}, {"Origin": "http://evil.example"}, 403),
    ("/settings", {}, {"Origin": "http://127.0.0.1:1"}, 403),
    ("/settings", {}, {}, 200),
    ("/settings", {}, {"Content_Type": "text/plain"}, 415),
    ("/settings", {}, {"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ("/records", None, {"Origin": "http://evil.example"}, 403),
    ("/stream.mjpg", None, {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, 403),
    ("/nothing", {}, {"Origin": "http://evil.example"}, 403),
]


@pytest.mark.parametrize(("path", "body", "headers", "status"), SECURITY, ids=str)
def test_foreign_requests_are_refused_on_the_wire(
    sink: WebSink, stream: Any, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    assert ask(sink, path, body, **headers).status == status
    assert status == 200 or stream.changes == []


class TestOpening:
    def test_what_is_wrong_is_said_in_a_line(self, stream: Any, sink: WebSink) -> None:
        with pytest.raises(SinkError, match="is taken by another program"):
            open_web_sink(parse_uri(sink.address), stream)
        with pytest.raises(InputError, match="unknown option 'qualty'"):
            open_web_sink(parse_uri("http://127.0.0.1:0?qualty=3"), stream)
        with pytest.raises(InputError, match="quality: expected a whole number 1 to 100"):
            open_web_sink(parse_uri("http://127.0.0.1:0?quality=300"), stream)

    def test_a_missing_library_is_named_with_its_install_line(
        self, stream: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'gcpp-edge\[web\]'"):
            open_web_sink(parse_uri("http://127.0.0.1:0"), stream)

    def test_it_is_a_viewer_with_a_name_and_an_address(self, sink: WebSink) -> None:
        assert sink.is_viewer and sink.name == "http://127.0.0.1:0" and port_of(sink) != 0
