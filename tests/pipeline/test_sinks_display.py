"""The window, on an OpenCV that only remembers what it was asked; and what is written into pictures for viewers."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sink_results import FakeControl, make_result, number_in

from gcpp_edge.contract import SEED
from gcpp_edge.errors import SinkError
from gcpp_edge.explanation import NO_CLASS
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sinks import display, open_sink
from gcpp_edge.pipeline.sinks.hud import annotated, hud_lines

cv2 = pytest.importorskip("cv2", reason="windows are OpenCV's: pip install 'gcpp-edge[cli]'")


class FakeOpenCV:
    """Windows by title. keys: what is pressed, a key for each time that it is waited for. gui: of the build."""

    WINDOW_NORMAL, WINDOW_KEEPRATIO, WINDOW_GUI_NORMAL, WND_PROP_VISIBLE = 0, 0, 16, 4
    __version__ = "4.9.0"
    error = cv2.error

    def __init__(self, gui: str = "QT5") -> None:
        self.gui, self.keys, self.calls = gui, [], []
        self.shown: dict[str, np.ndarray | None] = {}

    def getBuildInformation(self) -> str:  # noqa: N802  OpenCV's own names
        return f"General\n  GUI:                 {self.gui}\n    VTK support:   NO\n"

    def namedWindow(self, title: str, flags: int) -> None:  # noqa: N802
        self.shown[title] = None

    def resizeWindow(self, title: str, width: int, height: int) -> None:  # noqa: N802
        self.calls.append((width, height))

    def imshow(self, title: str, picture: np.ndarray) -> None:
        assert title in self.shown
        self.shown[title] = picture

    def waitKey(self, milliseconds: int) -> int:  # noqa: N802
        return self.keys.pop(0) if self.keys else -1

    def getWindowProperty(self, title: str, which: int) -> float:  # noqa: N802
        return 1.0 if title in self.shown else -1.0

    def destroyWindow(self, title: str) -> None:  # noqa: N802
        if self.shown.pop(title, None) is None:
            raise cv2.error("no such window")


@pytest.fixture
def make_opencv(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeOpenCV]:
    """Puts a fake in the place of OpenCV. trial: the end of the process that tries a window."""

    def make(gui: str = "QT5", status: int = 0, stderr: str = "") -> FakeOpenCV:
        fake = FakeOpenCV(gui)
        monkeypatch.setattr(display, "opencv", lambda: fake)
        trial = SimpleNamespace(returncode=status, stderr=stderr)
        monkeypatch.setattr(display.subprocess, "run", lambda *_, **__: trial)
        return fake

    return make


def test_a_window_shows_the_newest_and_is_taken_away(make_opencv: Callable[..., FakeOpenCV]) -> None:
    fake, control = make_opencv(), FakeControl(name="/dev/video0")
    sink = open_sink("display://", control)
    assert sink.is_viewer and fake.shown == {}
    for number in range(3):
        sink.write(make_result(number))
    ((title, picture),) = fake.shown.items()
    assert title == "gcpp-edge /dev/video0" and number_in(picture) == 2 and fake.calls == [(64, 48)]
    assert control.stops == 0
    sink.close()
    sink.close()
    assert fake.shown == {}


@pytest.mark.parametrize("key, stops", [(ord("q"), 1), (27, 1), (ord("x"), 0), (-1, 0), (0x100000 | ord("q"), 1)])
def test_q_and_escape_end_the_stream(key: int, stops: int, make_opencv: Callable[..., FakeOpenCV]) -> None:
    fake, control = make_opencv(), FakeControl()
    fake.keys = [key]
    open_sink("display://", control).write(make_result())
    assert control.stops == stops


def test_a_window_that_is_closed_ends_the_stream_and_does_not_come_back(
    make_opencv: Callable[..., FakeOpenCV],
) -> None:
    fake, control = make_opencv(), FakeControl()
    sink = open_sink("display://", control)
    sink.write(make_result(0))
    fake.shown.clear()
    sink.write(make_result(1))
    assert control.stops == 1 and fake.shown == {}
    sink.close()


def test_an_opencv_without_windows_says_what_to_install(make_opencv: Callable[..., FakeOpenCV]) -> None:
    make_opencv("NONE")
    with pytest.raises(SinkError, match="no windows. Run: pip uninstall opencv-python-headless, then pip install open"):
        open_sink("display://", FakeControl())


@pytest.mark.parametrize(
    "status, stderr, reason",
    [
        (-6, "\nqt.qpa.xcb: could not connect to display\nmore\n", "qt.qpa.xcb: could not connect to display"),
        (1, "", "a process that tried ended with 1"),
    ],
)
def test_a_session_without_a_screen_is_told_before_a_toolkit_ends_the_process(
    status: int, stderr: str, reason: str, make_opencv: Callable[..., FakeOpenCV]
) -> None:
    make_opencv("QT5", status, stderr)
    with pytest.raises(SinkError, match="no window can be opened") as refusal:
        open_sink("display://", FakeControl())
    assert f"({reason}). Leave it out with --headless" in str(refusal.value)


def test_a_trial_that_hangs_is_given_up(
    make_opencv: Callable[..., FakeOpenCV], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_opencv()

    def hang(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired(sys.executable, 1)

    monkeypatch.setattr(display.subprocess, "run", hang)
    with pytest.raises(SinkError, match="trying it failed: TimeoutExpired"):
        open_sink("display://", FakeControl())


def test_a_window_that_fails_later_is_told(
    make_opencv: Callable[..., FakeOpenCV], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = make_opencv()
    sink = open_sink("display://", FakeControl())

    def fail(*_: Any) -> None:
        raise cv2.error("display gone")

    monkeypatch.setattr(fake, "imshow", fail)
    with pytest.raises(SinkError, match="the window cannot be shown any more"):
        sink.write(make_result())


@pytest.mark.skipif("GUI:                           NONE" not in cv2.getBuildInformation(), reason="has windows")
def test_this_opencv_has_none() -> None:
    with pytest.raises(SinkError, match="has no windows"):
        open_sink("display://", FakeControl())


def seed_result() -> Result:
    result = make_result()
    found = result.explanation
    vars(found).update(class_index=NO_CLASS)
    return result


def test_the_lines_say_what_is_found_and_how_fast() -> None:
    assert hud_lines(make_result(), 29.97) == ("tabby cat 90.9%", "gradcam++  12.5 ms  30.0 fps")
    assert hud_lines(make_result()) == ("tabby cat 90.9%", "gradcam++  12.5 ms")
    assert hud_lines(seed_result())[0] == SEED


@pytest.mark.parametrize("height, width", [(480, 640), (48, 64), (1080, 1920), (9, 7), (1, 1), (200, 3), (3, 200)])
@pytest.mark.parametrize("class_index", [0, 1])
def test_text_is_drawn_on_a_copy_at_any_size(height: int, width: int, class_index: int) -> None:
    result = make_result(height=height, width=width, class_index=class_index)
    before = result.picture().copy()
    drawn = annotated(result, 30.0)
    assert np.array_equal(result.picture(), before)
    assert drawn.shape == before.shape and drawn.dtype == np.uint8 and not np.array_equal(drawn, before)
    changed = np.argwhere((drawn != before).any(axis=2))
    # two lines at the top, no more
    assert changed[:, 0].max() <= max(2 * height // 18 + 1, 2 * 14 + 1)


def test_letters_that_the_font_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    from gcpp_edge.pipeline.sinks import hud

    written: list[str] = []
    real = cv2.putText

    def put(picture: np.ndarray, text: str, *rest: Any) -> Any:
        written.append(text)
        return real(picture, text, *rest)

    fake = SimpleNamespace(**{name: getattr(cv2, name) for name in dir(cv2) if not name.startswith("__")})
    fake.putText = put
    monkeypatch.setattr(hud, "opencv", lambda: fake)
    annotated(make_result(height=480, width=640, class_index=1))
    annotated(make_result(height=480, width=100))
    assert written[0] == "Wurstchen ? 90.9%"
    assert written[-1].startswith("gradc") and written[-1].endswith("..")
