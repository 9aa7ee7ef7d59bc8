"""The page in a browser: headless Chromium, driven by selenium, on a stream that is fed by a thread."""

import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from page_requests import ask, port_of, until

from gcpp_edge.pipeline.events import Event, Trouble
from gcpp_edge.web.sink import WebSink

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytest.importorskip("selenium", reason="the page is driven with selenium: pip install 'gcpp-edge[test]'")
if not CHROMIUM or not DRIVER:
    pytest.skip("the page is driven in Chromium: apt install chromium chromium-driver", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1280,900",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
MODEL = Path(__file__).resolve().parent.parent / "fixtures" / "explained-v1.onnx"
PIXELS = "return document.getElementById(arguments[0]).toDataURL()"


class Page:
    """A browser on the page."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def open(self, address: str) -> None:
        self.browser.get_log("browser"), self.browser.get_log("performance")  # what came before
        self.browser.get(address)

    def at(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return str(self.browser.execute_script("return document.getElementById(arguments[0]).textContent", name))

    def pixels(self, name: str = "picture") -> str:
        return str(self.browser.execute_script(PIXELS, name))

    def frame(self) -> int:
        return int(self.browser.execute_script("return document.getElementById('picture').dataset.frame ?? -1"))

    def slide(self, name: str, value: float) -> None:
        self.browser.execute_script(
            "const r = document.getElementById(arguments[0]); r.value = arguments[1];"
            "r.dispatchEvent(new Event('input', { bubbles: true }))",
            name,
            value,
        )

    def choose_target(self, value: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, f'[name="target"][value="{value}"] + span').click()

    def until_live(self) -> None:
        until(lambda: self.text("state") == "Live" and self.frame() >= 0)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    yield Page(browser)
    browser.get("about:blank")


@pytest.fixture
def sink(open_sink: Callable[..., WebSink]) -> WebSink:
    return open_sink()


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def live(page: Page, sink: WebSink, feed: Any) -> Page:
    """The page with the stream running."""
    feed(sink, fps=25)
    page.open(sink.address)
    page.until_live()
    return page


def test_the_picture_moves_and_the_figures_follow(live: Page, stream: Any) -> None:
    seen = {live.pixels()}
    until(lambda: seen.add(live.pixels()) or len(seen) >= 4)
    before = live.frame()
    until(lambda: live.frame() > before + 5)
    until(lambda: live.text("label").startswith("class ") and live.text("captured") not in ("–", "0"))
    assert len(live.browser.find_elements(By.CSS_SELECTOR, "#top li")) == 5
    assert len(live.browser.find_elements(By.CSS_SELECTOR, "#top li[aria-current]")) == 1
    assert live.text("fps") == "30.0" and live.text("source-state") == "running"
    assert live.text("source") == "test://scene" and stream.runtime_name in live.text("about")


def test_every_control_acts_on_the_stream(live: Page, stream: Any) -> None:
    def is_now(**wanted: Any) -> None:
        until(lambda: {name: getattr(stream.settings, name) for name in wanted} == wanted)

    live.slide("alpha", 0.8)
    is_now(alpha=0.8)
    assert live.text("alpha-value") == "80 %"
    live.slide("smooth_s", 0.5)
    is_now(smooth_s=0.5)
    Select(live.at("colormap")).select_by_value("viridis")
    is_now(colormap="viridis")
    Select(live.at("method")).select_by_value("gradcam")
    is_now(method="gradcam")
    live.choose_target("-2")
    is_now(target=-2)
    live.choose_target("class")
    live.at("class").send_keys("class 4", Keys.ENTER)
    is_now(target=4)
    until(lambda: live.text("label") == "class 4")
    live.choose_target("-1")
    is_now(target=-1)


def test_a_slider_that_is_dragged_ends_at_its_last_value(live: Page, stream: Any) -> None:
    for step in range(40):
        live.slide("alpha", step / 40)
    until(lambda: stream.settings.alpha in (0.97, 0.98))  # 39 / 40, in steps of 0.01
    until(lambda: live.text("alpha-value") == f"{round(stream.settings.alpha * 100)} %")


def test_what_is_refused_is_said_beside_the_control(live: Page, stream: Any) -> None:
    live.choose_target("class")
    live.at("class").send_keys("no such class", Keys.ENTER)
    until(lambda: "no class of this name" in live.text("target-error"))
    assert live.at("class").get_attribute("aria-invalid") == "true" and stream.settings.target == -1
    live.at("class").clear()
    live.at("class").send_keys("3", Keys.ENTER)
    until(lambda: stream.settings.target == 3 and live.text("target-error") == "")


def test_what_another_viewer_changes_shows(live: Page, sink: WebSink) -> None:
    assert ask(sink, "/settings", {"alpha": 0.11, "colormap": "magma", "target": "class 2"}).status == 200
    until(lambda: live.text("alpha-value") == "11 %")
    until(lambda: live.at("colormap").get_attribute("value") == "magma")
    until(lambda: live.at("class").get_attribute("value") == "class 2")


def test_the_plot_grows(live: Page, stream: Any) -> None:
    count = (
        "const c = document.getElementById('plot'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let n = 0; for (let i = 0; i < d.length; i += 4) n += arguments[0] === 'red'"
        " ? d[i] > 150 && d[i + 1] < 120 && d[i + 3] > 200 : d[i + 2] > 150 && d[i] < 110 && d[i + 3] > 30; return n"
    )
    first = until(lambda: live.browser.execute_script(count, "blue"))
    until(lambda: live.browser.execute_script(count, "blue") > first + 20)
    assert live.browser.execute_script(count, "red") == 0
    stream.counts.stale += 20
    until(lambda: live.browser.execute_script(count, "red") > 20)


def test_pause_freezes_this_view_and_resume_goes_on(live: Page, sink: WebSink, stream: Any) -> None:
    live.at("pause").click()
    until(lambda: sink._site.viewers["pictures"] == 0)  # nothing is encoded for it
    frozen, plot, captured = live.pixels(), live.pixels("plot"), stream.counts.captured
    until(lambda: stream.counts.captured > captured + 15)
    assert (live.pixels(), live.pixels("plot"), live.text("state")) == (frozen, plot, "Paused")
    live.at("pause").click()
    until(lambda: live.pixels() != frozen and live.pixels("plot") != plot)
    assert live.text("state") == "Live"


def test_a_snapshot_is_saved_as_png(live: Page, tmp_path: Path) -> None:
    live.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    live.at("snapshot").click()
    file = until(lambda: next(tmp_path.glob("frame-*.png"), None))
    picture = cv2.imread(str(file))
    assert picture is not None and picture.shape == (48, 64, 3) and picture.std() > 5


def test_it_comes_back_after_the_server_was_started_anew(
    page: Page, open_sink: Callable[..., WebSink], feed: Any
) -> None:
    first = open_sink()
    port = port_of(first)
    feeder = feed(first, fps=25)
    page.open(first.address)
    page.until_live()
    feeder.stop()
    first.close()
    until(lambda: page.text("state") == "Reconnecting…" and page.at("stage").get_attribute("data-note") == "again")
    last = page.frame()
    feed(open_sink(f"http://127.0.0.1:{port}"), fps=25)
    until(lambda: page.text("state") == "Live" and page.frame() > last + 2)


def test_the_log_has_events_and_troubles(page: Page, sink: WebSink, stream: Any) -> None:
    stream.counts.troubles.append(Trouble("source", "no frame for 2 s"))
    result = stream.result()
    sink.write(stream.result(events=(Event("centre", "raised", 0.2, result.capture, "too little <b>evidence</b>"),)))
    page.open(sink.address)
    until(lambda: "no frame for 2 s" in page.text("journal") and "centre raised" in page.text("journal"))
    assert "too little <b>evidence</b>" in page.text("journal")


def test_a_lost_source_is_seen(live: Page, stream: Any) -> None:
    stream.counts.source_state = "lost"
    until(lambda: live.text("state") == "Source lost")
    stream.counts.source_state = "running"
    until(lambda: live.text("state") == "Live")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(live: Page, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    live.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        found = live.browser.execute_script(
            "const e = document.documentElement; return [e.scrollWidth - e.clientWidth, innerWidth]"
        )
        assert found == [0, width]
    finally:
        live.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_controls_have_names_and_the_keyboard_reaches_them(live: Page) -> None:
    unnamed = live.browser.execute_script(
        "return [...document.querySelectorAll('input, select, button')]"
        ".filter((e) => !e.labels?.length && !e.textContent.trim()).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    live.browser.find_element(By.TAG_NAME, "body").send_keys(" ")
    until(lambda: live.text("state") == "Paused")


def test_nothing_is_asked_of_others_and_the_console_is_clean(live: Page, sink: WebSink) -> None:
    before = live.frame()
    until(lambda: live.frame() > before + 5)
    assert [entry for entry in live.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(entry["message"])["message"] for entry in live.browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    foreign = [url for url in asked if not url.startswith((sink.address, "data:", "blob:"))]
    assert len(asked) >= 8 and foreign == []


def test_a_token_leaves_the_address(page: Page, open_sink: Callable[..., WebSink], feed: Any) -> None:
    sink = open_sink(token="a-token-of-the-tests")
    feed(sink, fps=25)
    page.open(sink.address)
    page.until_live()
    assert "token" not in page.browser.current_url


def test_the_page_of_the_command_itself_and_of_the_one_that_is_started_after_it(page: Page, port: int) -> None:
    """A real stream in a process of its own; killed, and another started at the same address."""
    code = "import sys; from gcpp_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    source, address = "test://?width=160&height=120&fps=50", f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", code, "stream", str(MODEL), source, address]

    def settings() -> Any:
        with urllib.request.urlopen(f"{address}/settings", timeout=10) as answer:
            return json.load(answer)

    for run in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None and address in process.stderr.readline()
                if run == 0:
                    page.open(address)
                until(lambda: page.text("state") == "Live" and page.text("captured") != "–", seconds=30)
                before = page.pixels()
                until(lambda: page.pixels() != before)  # noqa: B023  it is called at once
                page.slide("alpha", 0.2 + run / 10)
                until(lambda: settings()["alpha"] == pytest.approx(0.2 + run / 10))  # noqa: B023
                assert page.text("source") == source
            finally:
                process.kill()
        until(lambda: "econnecting" in page.text("state"), seconds=30)
