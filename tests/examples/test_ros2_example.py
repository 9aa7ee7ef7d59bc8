"""The ROS 2 example without ROS: conversion, logic, and the node on stand-ins for rclpy (ros_stand_ins.py)."""

import importlib
import json
import sys
from array import array
from concurrent.futures import Future
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge import FrameError
from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.events import CLEARED, RAISED, Event, Trouble
from gcpp_edge.pipeline.settings import Settings, changed

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ros2"
FIXTURE = ROOT / "tests" / "fixtures" / "explained-v1.onnx"
sys.path += [str(EXAMPLE), str(Path(__file__).parent)]

import ros_stand_ins as ros  # noqa: E402
from gcpp_edge_ros import conversion, logic  # noqa: E402

MESSAGES = logic.Messages(ros.Image, ros.String, ros.DiagnosticArray, ros.DiagnosticStatus, ros.KeyValue)
HEIGHT, WIDTH = 20, 30
WAIT_S = 20  # for what another thread does; a test that waits for it in vain fails


def header(number=0):
    """With nanoseconds that a float64 of seconds would lose."""
    return ros.Header(stamp=ros.Time(sec=1_893_456_000 + number, nanosec=123_456_789), frame_id="camera_optical")


def image_of(pixels, encoding, step=None, number=0, is_bigendian=0):
    """A message of rows that are `step` bytes long; what lies behind the pixels is 0xAA."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    padded = np.full((len(rows), step or rows.shape[1]), 0xAA, np.uint8)
    padded[:, : rows.shape[1]] = rows
    height = len(pixels) * 2 // 3 if encoding == "nv12" else len(pixels)
    return ros.Image(
        header=header(number), height=height, width=pixels.shape[1], encoding=encoding,
        is_bigendian=is_bigendian, step=padded.shape[1], data=array("B", padded.tobytes()),
    )  # fmt: skip


def pixels_of(encoding, seed=0):
    random = np.random.default_rng(seed)
    found = conversion.ENCODINGS[encoding]
    if encoding == "mono16":
        return random.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
    height = HEIGHT * 3 // 2 if encoding == "nv12" else HEIGHT
    return random.integers(0, 256, (height, WIDTH) + (found.channels,) * (found.channels > 1), np.uint8)


# conversion


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("encoding", conversion.ENCODINGS)
def test_an_image_is_viewed_as_it_lies(encoding, padding):
    pixels = pixels_of(encoding)
    image = image_of(pixels, encoding, pixels[0].nbytes + padding)
    frame, format = conversion.frame_of(image)
    assert format == conversion.ENCODINGS[encoding].format
    np.testing.assert_array_equal(frame, pixels)
    assert np.shares_memory(frame, np.frombuffer(image.data, np.uint8)), "it was copied"


def test_sixteen_bits_come_in_the_byte_order_of_the_message():
    pixels = pixels_of("mono16")
    frame, _ = conversion.frame_of(image_of(pixels.astype(">u2"), "mono16", is_bigendian=1))
    np.testing.assert_array_equal(frame, pixels)
    swapped, _ = conversion.frame_of(image_of(pixels.astype(">u2"), "mono16", is_bigendian=0))
    assert (swapped != pixels).any()


def test_a_last_row_that_is_longer_than_the_data_is_not_read():
    image = image_of(pixels_of("bgr8"), "bgr8", 100)
    del image.data[-1]
    with pytest.raises(FrameError, match=r"expected 20 rows of 100 bytes \(2000\), found 1999"):
        conversion.frame_of(image)


REFUSED = {
    "yuv422": ({"encoding": "yuv422"}, "encoding 'yuv422' is not taken; expected one of bgr8, rgb8, bgra8"),
    "yuyv": ({"encoding": "yuyv"}, "encoding 'yuyv' is not taken"),
    "bayer": ({"encoding": "bayer_rggb8"}, "encoding 'bayer_rggb8' is not taken"),
    "depth": ({"encoding": "32FC1"}, "encoding '32FC1' is not taken"),
    "no encoding": ({"encoding": ""}, "encoding '' is not taken"),
    "no rows": ({"height": 0}, "expected at least 1 x 1 pixel, found 0 x 30"),
    "no columns": ({"width": 0}, "expected at least 1 x 1 pixel, found 20 x 0"),
    "short step": ({"step": 89}, "30 pixels of bgr8 take 90 bytes a row, found step 89"),
    "no step": ({"step": 0}, "take 90 bytes a row, found step 0"),
    "too many rows": ({"height": 21}, "expected 21 rows of 90 bytes (1890), found 1800"),
    "huge": ({"height": 2**32 - 1, "step": 2**32 - 1}, "found 1800"),
    "no data": ({"data": array("B")}, "expected 20 rows of 90 bytes (1800), found 0"),
    "odd nv12": ({"encoding": "nv12", "width": 29}, "nv12 has even sides, found 20 x 29"),
    "half an nv12": ({"encoding": "nv12", "height": 20, "step": 90}, "expected 30 rows of 90 bytes (2700), found 1800"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_an_image_that_does_not_fit_is_refused_in_one_line(change, message):
    image = image_of(pixels_of("bgr8"), "bgr8")
    for name, value in change.items():
        setattr(image, name, value)
    with pytest.raises(FrameError) as caught:
        conversion.frame_of(image)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "bgra8", "rgba8", "mono8"])
def test_what_is_filled_is_read_back(encoding):
    pixels = pixels_of(encoding)
    wider = np.repeat(pixels, 2, axis=1)[:, ::2]  # rows whose pixels lie apart
    message = conversion.fill_image(ros.Image(), header(3), wider, encoding)
    frame, _ = conversion.frame_of(message)
    np.testing.assert_array_equal(frame, pixels)
    assert message.header == header(3) and message.step == pixels[0].nbytes


# logic, on a stream that does what the test says


class FakeStream:
    """Takes frames and leaves their futures to the test."""

    def __init__(self, contract, monitor, on_trouble):
        self.contract, self.monitor, self.on_trouble = contract, monitor, on_trouble
        self.settings, self.submitted = Settings(), []

    def submit(self, frame, timestamp=None, *, format="bgr", copy=True):
        self.submitted.append((frame, timestamp, format, copy, Future()))
        return self.submitted[-1][-1]

    def change(self, **changes):
        self.settings = changed(self.settings, self.contract, **changes)
        return self.settings

    def close(self):
        for *_, future in self.submitted:
            future.cancel()


class Outlet:
    """Keeps what is published."""

    def __init__(self):
        self.sent, self.warnings, self.unwanted = [], [], set()

    def is_wanted(self, name):
        return name not in self.unwanted

    def publish(self, name, message):
        self.sent.append((name, message))

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture(scope="module")
def explainer():
    for package in ("onnxruntime", "onnx"):
        pytest.importorskip(package, reason="an explained model is run with gcpp-edge[onnxruntime]")
    with gcpp_edge.load(FIXTURE, device="cpu", threads=1) as explainer:
        yield explainer


class Setup(SimpleNamespace):
    """explaining, its outlet and the stream under it."""

    def answer(self, index=-1, is_judged=True):
        """What the stream does when a frame is done."""
        index %= len(self.stream.submitted)
        frame, timestamp, format, _, future = self.stream.submitted[index]
        explanation = self.explainer(frame, self.stream.settings.target, format=format)
        capture = Capture(index, timestamp, 0.0)
        explanation = type(explanation)(**{**vars(explanation), "capture": capture})
        if self.stream.monitor and is_judged:
            self.stream.monitor(explanation, capture)
        future.set_running_or_notify_cancel()
        future.set_result(explanation)

    def sent(self, name):
        return [message for topic, message in self.outlet.sent if topic == name]


@pytest.fixture
def setup(explainer):
    def make(monitor=None, **settings):
        outlet, made = Outlet(), []

        def stream(policy, monitor, on_trouble):
            assert policy == "latest"
            made.append(FakeStream(explainer.contract, monitor, on_trouble))
            return made[0]

        fake = SimpleNamespace(stream=stream)
        explaining = logic.Explaining(fake, "latest", settings, monitor, MESSAGES, outlet)
        return Setup(explaining=explaining, outlet=outlet, stream=made[0], explainer=explainer)

    return make


def test_frames_go_in_without_a_copy_and_with_their_time(setup):
    it = setup()
    image = image_of(pixels_of("rgba8"), "rgba8", 160)
    it.explaining.take(image)
    frame, timestamp, format, copies, _ = it.stream.submitted[0]
    assert format == "rgba" and copies is False and np.shares_memory(frame, np.frombuffer(image.data, np.uint8))
    assert timestamp == pytest.approx(1_893_456_000.123, abs=1e-3)


OVERLAYS = {name: name for name in ("bgr8", "rgb8", "bgra8", "rgba8")}
OVERLAYS |= dict.fromkeys(("mono8", "mono16", "nv12"), "bgr8")


@pytest.mark.parametrize(("encoding", "drawn"), OVERLAYS.items())
def test_every_output_carries_the_header_of_its_image(setup, explainer, encoding, drawn):
    it = setup(alpha=0.25, colormap="turbo", target=3)
    pixels = pixels_of(encoding)
    it.explaining.take(image_of(pixels, encoding, pixels[0].nbytes + 3, number=7))
    it.answer()
    expected = explainer(pixels, 3, format=conversion.ENCODINGS[encoding].format)
    (overlay,), (heatmap,), (text,) = it.sent("overlay"), it.sent("heatmap"), it.sent("explanation")
    assert overlay.header == heatmap.header == header(7)
    assert overlay.encoding == drawn and heatmap.encoding == "mono8"
    np.testing.assert_array_equal(conversion.frame_of(overlay)[0], expected.overlay("turbo", 0.25))
    np.testing.assert_array_equal(conversion.frame_of(heatmap)[0], expected.heatmap(dtype=np.uint8))
    record = json.loads(text.data)
    assert record["stamp"] == {"sec": 1_893_456_007, "nanosec": 123_456_789}
    assert record["frame_id"] == "camera_optical" and record["class_index"] == 3 and record["label"] == expected.label
    assert record["probability"] == pytest.approx(expected.probability) and record["latency_ms"] > 0


def test_headers_stay_with_their_frames_whatever_the_order(setup):
    it = setup()
    for number in range(3):
        it.explaining.take(image_of(pixels_of("bgr8", number), "bgr8", number=number))
    for index in (2, 0):
        it.answer(index)
    assert [message.header.stamp.sec - 1_893_456_000 for message in it.sent("overlay")] == [2, 0]


def test_nothing_is_published_of_a_frame_that_gave_way_or_failed(setup):
    it = setup()
    for number in range(2):
        it.explaining.take(image_of(pixels_of("bgr8"), "bgr8", number=number))
    it.stream.submitted[0][-1].cancel()
    it.stream.submitted[1][-1].set_exception(FrameError("no"))
    assert it.outlet.sent == []
    it.stream.on_trouble(Trouble("explain", "frame: refused"))
    assert it.outlet.warnings == ["explain: frame: refused"]


def test_what_nobody_listens_to_is_not_made(setup):
    it = setup()
    it.outlet.unwanted = {"overlay", "explanation"}
    it.explaining.take(image_of(pixels_of("bgr8"), "bgr8"))
    it.answer()
    assert [name for name, _ in it.outlet.sent] == ["heatmap"]


def test_an_image_that_is_refused_is_told_once_for_each_run_of_it(setup):
    it = setup()
    good, bad = image_of(pixels_of("bgr8"), "bgr8"), image_of(pixels_of("mono8"), "mono8")
    bad.encoding = "yuv422"
    for image in (bad, bad, good, bad):
        it.explaining.take(image)
    assert len(it.outlet.warnings) == 2 and len(it.stream.submitted) == 1


class FakeMonitor:
    failures, troubles = 3, ["told"]

    def __init__(self, *events):
        self.events = list(events)

    def __call__(self, explanation, capture=None):
        return self.events.pop(0)


def test_events_become_diagnostics_of_their_frame(setup):
    raised = Event("low probability", RAISED, 0.125, None, "probability 0.125 is below 0.3")
    cleared = Event("low probability", CLEARED, 0.5, None, "probability is well again")
    it = setup(FakeMonitor((raised,), (), (cleared, raised)))
    for number in range(3):
        it.explaining.take(image_of(pixels_of("bgr8"), "bgr8", number=number))
        it.answer()
    first, last = it.sent("events")
    assert first.header == header(0) and last.header == header(2)
    (status,) = first.status
    assert (status.level, status.name, status.hardware_id) == (b"\1", "explain: low probability", "camera_optical")
    assert status.message == raised.text and status.values == [ros.KeyValue(key="value", value="0.125")]
    assert [one.level for one in last.status] == [b"\0", b"\1"]
    records = [json.loads(message.data)["events"] for message in it.sent("explanation")]
    assert [len(events) for events in records] == [1, 0, 2]
    it.explaining.take(image_of(pixels_of("bgr8"), "bgr8", number=3))
    it.answer(3, is_judged=False)
    assert len(it.sent("events")) == 2, "events were published again with a frame that the monitor has not seen"
    assert it.stream.monitor.failures == 3 and it.stream.monitor.troubles == ["told"]


SETTINGS = {
    "target as a number": ({"target": 4}, {"target": 4}),
    "target as digits": ({"target": "-2"}, {"target": -2}),
    "target as a name": ({"target": "class 5"}, {"target": "class 5"}),
    "no method": ({"method": ""}, {"method": None}),
    "method": ({"method": "gradcam"}, {"method": "gradcam"}),
    "alpha without a point": ({"alpha": 1}, {"alpha": 1}),
    "several": ({"smooth_s": 0.5, "colormap": "magma"}, {"smooth_s": 0.5, "colormap": "magma"}),
}


@pytest.mark.parametrize(("given", "taken"), SETTINGS.values(), ids=SETTINGS)
def test_settings_are_changed_as_the_stream_takes_them(setup, given, taken):
    it = setup()
    assert it.explaining.change(given) == ""
    assert {name: getattr(it.stream.settings, name) for name in taken} == taken


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"target": 6}, "target 6: this model has classes 0 to 5"),
        ({"target": True}, "expected a class index"),
        ({"method": "lime"}, "Unknown method 'lime'"),
        ({"alpha": 2.0}, "alpha: expected a number from 0 to 1, found 2.0"),
        ({"colormap": "pink"}, "Unknown colormap 'pink'"),
        ({"smooth_s": -1.0}, "smooth_s: expected a number"),
    ],
)
def test_a_setting_that_is_refused_changes_nothing_and_says_why(setup, given, reason):
    it = setup()
    before = it.stream.settings
    assert reason in it.explaining.change({"alpha": 0.1} | given) and it.stream.settings == before


# the node


@pytest.fixture
def start(monkeypatch, explainer):
    """The node with these parameters, on stand-ins for rclpy."""
    nodes = []

    def make(**parameters):
        monkeypatch.setattr(ros.Node, "overrides", {"model": str(FIXTURE), "device": "cpu", "threads": 1} | parameters)
        nodes.append(module(monkeypatch).ExplainNode())
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def module(monkeypatch, **functions):
    """explain_node.py, imported where rclpy is the stand-in."""
    for name, made in ros.modules(**functions).items():
        monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.delitem(sys.modules, "gcpp_edge_ros.explain_node", raising=False)
    return importlib.import_module("gcpp_edge_ros.explain_node")


def wait_for(condition):
    end = monotonic() + WAIT_S
    while not condition():
        assert monotonic() < end, "it did not happen"
        sleep(0.005)


def test_the_logic_needs_no_ros():
    assert not {"rclpy", "sensor_msgs", "std_msgs", "diagnostic_msgs"} & set(sys.modules)
    assert "cv_bridge" not in (EXAMPLE / "gcpp_edge_ros" / "explain_node.py").read_text(encoding="utf-8")


def test_topics_have_their_quality_of_service(start):
    node = start()
    kind, _, qos = node.subscriptions_made["image"]
    assert node.name == "explain" and kind is ros.Image
    assert (qos.depth, qos.history, qos.reliability) == (1, ros.Policy.KEEP_LAST, ros.Policy.BEST_EFFORT)
    kinds = {topic: kind for topic, (kind, _) in node.publishers_made.items()}
    assert kinds == {
        "~/overlay": ros.Image,
        "~/heatmap": ros.Image,
        "~/explanation": ros.String,
        "~/events": ros.DiagnosticArray,
    }
    assert [publisher.qos.depth for _, publisher in node.publishers_made.values()] == [1, 1, 10, 10]


def test_images_come_out_explained_with_their_headers(start, explainer):
    node = start(policy="all", target="class 2", alpha=1)
    _, callback, _ = node.subscriptions_made["image"]
    frames = [pixels_of("bgr8", number) for number in range(8)]
    for number, frame in enumerate(frames):
        callback(image_of(frame, "bgr8", 96, number=number))
    sent = {topic.removeprefix("~/"): publisher.sent for topic, (_, publisher) in node.publishers_made.items()}
    wait_for(lambda: len(sent["heatmap"]) == len(frames))
    for number, frame in enumerate(frames):
        expected = explainer(frame, 2)
        assert sent["overlay"][number].header == sent["heatmap"][number].header == header(number)
        np.testing.assert_array_equal(conversion.frame_of(sent["overlay"][number])[0], expected.overlay(alpha=1))
        record = json.loads(sent["explanation"][number].data)
        assert record["id"] == number and record["stamp"]["nanosec"] == 123_456_789
    assert node.explaining.stream.report().explained == len(frames)


def test_rules_of_a_real_monitor_raise_events_with_the_header_of_their_image(start):
    node = start(policy="all", rules=" probability<1 after 2; evidence<-1; ")
    for number in range(4):
        node.subscriptions_made["image"][1](image_of(pixels_of("bgr8", number), "bgr8", number=number))
    wait_for(lambda: len(node.publishers_made["~/heatmap"][1].sent) == 4)
    (message,) = node.publishers_made["~/events"][1].sent
    (status,) = message.status
    assert message.header == header(1) and status.level == ros.DiagnosticStatus.WARN
    assert status.name == "explain: probability<1" and "probability<1 holds" in status.message
    records = [json.loads(message.data)["events"] for message in node.publishers_made["~/explanation"][1].sent]
    assert [len(events) for events in records] == [0, 1, 0, 0]


def test_the_newest_image_wins_and_every_output_is_of_one_that_came(start):
    node = start()
    _, callback, _ = node.subscriptions_made["image"]
    for number in range(50):
        callback(image_of(pixels_of("mono8", number), "mono8", number=number))
    sent = node.publishers_made["~/heatmap"][1].sent
    last = header(49)
    wait_for(lambda: sent and sent[-1].header == last)
    numbers = [message.header.stamp.sec for message in sent]
    assert numbers == sorted(set(numbers))
    node.destroy_node()
    report = node.explaining.stream.report()
    assert report.explained == len(sent) and report.explained + report.stale == report.captured == 50


def test_a_parameter_is_changed_while_it_runs_or_refused_with_the_reason(start):
    node = start()
    assert node.set_parameters_atomically(alpha=0.75, target="class 1").successful
    assert node.explaining.stream.settings.alpha == 0.75 and node.explaining.stream.settings.target == "class 1"
    refused = node.set_parameters_atomically(alpha=0.1, target="zebra")
    assert not refused.successful and "target 'zebra': no class of this name" in refused.reason
    assert node.explaining.stream.settings.alpha == 0.75
    assert node.set_parameters_atomically(use_sim_time=True).successful
    for fixed in ("model", "device", "threads", "policy", "rules"):
        assert not node.set_parameters_atomically(**{fixed: "other"}).successful


def test_a_camera_with_another_encoding_is_told_in_the_log_once(start):
    node = start()
    image = image_of(pixels_of("mono8"), "mono8")
    image.encoding = "yuv422"
    for _ in range(3):
        node.subscriptions_made["image"][1](image)
    warnings = [text for kind, text in node.get_logger().lines if kind == "warning"]
    assert len(warnings) == 1 and "encoding 'yuv422' is not taken" in warnings[0]


def test_nothing_is_published_once_ros_shuts_down(start):
    node = start(policy="all")
    node.context.is_running = False
    node.subscriptions_made["image"][1](image_of(pixels_of("bgr8"), "bgr8"))
    node.destroy_node()
    assert node.is_destroyed and node.explaining.stream.report().explained == 1
    assert not any(publisher.sent for _, publisher in node.publishers_made.values())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "No model. Name one: --ros-args -p model:="),
        ({"model": "nowhere.onnx"}, "nowhere.onnx"),
        ({"model": str(FIXTURE), "device": "abacus"}, "abacus"),
        ({"model": str(FIXTURE), "device": "cpu", "target": 77}, "target 77: this model has classes 0 to 5"),
        ({"model": str(FIXTURE), "device": "cpu", "policy": "oldest"}, "policy: expected latest or all"),
        ({"model": str(FIXTURE), "device": "cpu", "rules": "moon>0.5"}, "Unknown measure 'moon'"),
    ],
)
def test_what_it_cannot_start_with_is_one_line_and_it_ends(monkeypatch, parameters, message):
    shut = []
    functions = {"init": lambda args: None, "spin": lambda node: None, "try_shutdown": lambda: shut.append(True)}
    monkeypatch.setattr(ros.Node, "overrides", parameters)
    with pytest.raises(SystemExit) as ended:
        module(monkeypatch, **functions).main()
    text = str(ended.value.code)
    assert text.startswith("explain: ") and message in text and "\n" not in text and shut == [True]


def test_a_stream_that_has_ended_ends_the_node_so_that_it_can_be_started_again(monkeypatch, explainer):
    def spin(node):
        node.explaining.close()  # as after an error that no frame is to blame for
        node.subscriptions_made["image"][1](image_of(pixels_of("bgr8"), "bgr8"))

    functions = {"init": lambda args: None, "spin": spin, "try_shutdown": lambda: None}
    monkeypatch.setattr(ros.Node, "overrides", {"model": str(FIXTURE), "device": "cpu"})
    with pytest.raises(SystemExit, match="explain: This stream has ended"):
        module(monkeypatch, **functions).main()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ros.ExternalShutdownException])
def test_it_ends_quietly_when_it_is_stopped(monkeypatch, explainer, interrupt):
    spun = []

    def spin(node):
        spun.append(node)
        raise interrupt

    functions = {"init": lambda args: None, "spin": spin, "try_shutdown": lambda: None}
    monkeypatch.setattr(ros.Node, "overrides", {"model": str(FIXTURE), "device": "cpu"})
    module(monkeypatch, **functions).main()
    assert spun[0].is_destroyed and spun[0].explaining.stream.report().source_state == "ended"


# the package


def test_the_package_is_one_that_ros_builds(monkeypatch):
    package = ElementTree.parse(EXAMPLE / "package.xml").getroot()
    name = package.findtext("name")
    assert package.findtext("export/build_type") == "ament_python" and (EXAMPLE / "resource" / name).exists()
    needed = {element.text for element in package.findall("exec_depend")}
    assert needed >= {"rclpy", "sensor_msgs", "std_msgs", "diagnostic_msgs", "rcl_interfaces"}
    given = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(EXAMPLE)
    exec(compile((EXAMPLE / "setup.py").read_text(encoding="utf-8"), "setup.py", "exec"), {})
    assert given["name"] == name and given["packages"] == [name] and given["version"] == package.findtext("version")
    for _, files in given["data_files"]:
        assert all((EXAMPLE / file).exists() for file in files)
    (script,) = given["entry_points"]["console_scripts"]
    place, function = script.split(" = ")[1].split(":")
    assert callable(getattr(sys.modules.get(place) or module_of(monkeypatch, place), function))
    assert name in (EXAMPLE / "setup.cfg").read_text(encoding="utf-8")


def module_of(monkeypatch, place):
    assert place == "gcpp_edge_ros.explain_node"
    return module(monkeypatch)
