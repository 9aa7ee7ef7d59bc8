"""A window on the screen."""

from __future__ import annotations

import re
import subprocess
import sys

from gcpp_edge.errors import SinkError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Control
from gcpp_edge.pipeline.sinks.hud import annotated
from gcpp_edge.pipeline.uris import Uri

ESCAPE = 27
TRIAL_S = 20.0  # that a first window may take

# In a process of its own: without a screen, or without its plugin for one, Qt ends the whole process.
_TRIAL = "import cv2; cv2.namedWindow('gcpp-edge'); cv2.waitKey(1); cv2.destroyAllWindows()"
_ADVICE = "Leave it out with --headless, or watch on the live page: http://127.0.0.1:8080."


def opened(uri: Uri, control: Control) -> Display:
    """A window. Raises SinkError where this OpenCV or this session has none to give."""
    uri.require_options(())
    cv2 = opencv()
    if not has_windows():
        raise SinkError(
            f"{uri.shown}: this OpenCV ({cv2.__version__}, headless) has no windows. Run: pip uninstall "
            f"opencv-python-headless, then pip install opencv-python. {_ADVICE}"
        )
    reason = _why_no_window()
    if reason:
        raise SinkError(f"{uri.shown}: no window can be opened ({reason}). {_ADVICE}")
    return Display(uri.shown, control)


def has_windows() -> bool:
    """Whether this OpenCV was built with windows; there may still be no screen."""
    return not re.search(r"GUI:\s+NONE", opencv().getBuildInformation())


def _why_no_window() -> str:
    """Empty where a process like this one can open a window."""
    try:
        trial = subprocess.run([sys.executable, "-c", _TRIAL], capture_output=True, timeout=TRIAL_S, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"trying it failed: {type(error).__name__}"
    if trial.returncode == 0:
        return ""
    words = [line.strip() for line in trial.stderr.splitlines() if line.strip()]
    return words[0][:120] if words else f"a process that tried ended with {trial.returncode}"


class Display:
    """The annotated overlay in a window. q, Esc or closing the window ends the stream.

    The window is made, shown and closed in the thread of the sink, as toolkits want it.
    """

    is_viewer = True

    def __init__(self, name: str, control: Control) -> None:
        self.name, self._control = name, control
        self._title = f"gcpp-edge {control.name}".strip()
        self._is_open = False

    def write(self, result: Result) -> None:
        """Raises SinkError where the window cannot be shown any more."""
        cv2 = opencv()
        picture = annotated(result, self._control.report().fps)
        try:
            if not self._is_open:
                cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                cv2.resizeWindow(self._title, picture.shape[1], picture.shape[0])
                self._is_open = True
            elif cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
                self._control.stop()
                return
            cv2.imshow(self._title, picture)
            if cv2.waitKey(1) & 0xFF in (ESCAPE, ord("q")):
                self._control.stop()
        except cv2.error as error:
            raise SinkError(f"{self.name}: the window cannot be shown any more ({error.err}).") from error

    def close(self) -> None:
        """Takes the window away."""
        if not self._is_open:
            return
        self._is_open = False
        cv2 = opencv()
        try:
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)
        except cv2.error:  # the user has closed it
            return
