"""The node: ROS alone, parameters, topics and their quality of service. What it does stands in logic.py."""

from __future__ import annotations

import sys
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String

import gcpp_edge
from gcpp_edge.errors import GcppError, InputError
from gcpp_edge_ros.logic import EVENTS, EXPLANATION, HEATMAP, OVERLAY, SETTINGS, Explaining, Messages, monitor_of

# name: default, and what it is. An integer is taken for a number with a point, and a target is a number or a name.
PARAMETERS: dict[str, tuple[Any, str]] = {
    "model": ("", "the explained model's file"),
    "device": ("auto", "what runs it: auto, cpu, cuda, tensorrt"),
    "threads": (0, "of the network and the kernels, 0 for as many as they choose"),
    "policy": ("latest", "latest: the newest image wins; all: each is explained"),
    "rules": ("", "what the monitor watches for, as in probability<0.4 after 5; spread>0.6"),
    "method": ("", "gradcam++, gradcam, ...; empty for the file's own"),
    "target": (-1, "which class: an index, a name, or a negative rank (-1, the best)"),
    "alpha": (0.5, "how much of the colours an overlay has, 0 to 1"),
    "colormap": ("jet", "jet, turbo, viridis, inferno, magma or gray"),
    "smooth_s": (0.0, "time constant that maps are smoothed with, in seconds, 0 for none"),
}

# A camera's images: the newest alone, and none is asked for again. It matches every publisher, reliable ones too.
IMAGES_IN = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# Reliable matches every subscriber; with a depth of 1 a slow one misses pictures and delays nothing.
PICTURES_OUT = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
RECORDS_OUT = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)

TOPICS = {
    OVERLAY: (Image, PICTURES_OUT),
    HEATMAP: (Image, PICTURES_OUT),
    EXPLANATION: (String, RECORDS_OUT),
    EVENTS: (DiagnosticArray, RECORDS_OUT),
}


class ExplainNode(Node):
    """Subscribes to `image`, publishes `~/overlay`, `~/heatmap`, `~/explanation` and `~/events`. It is the Outlet."""

    def __init__(self) -> None:
        super().__init__("explain")
        given = {name: self._declare(name, default, what) for name, (default, what) in PARAMETERS.items()}
        if not given["model"]:
            raise InputError("No model. Name one: --ros-args -p model:=resnet50.explained.onnx")
        self.outlets = {name: self.create_publisher(kind, f"~/{name}", qos) for name, (kind, qos) in TOPICS.items()}
        self.explainer = gcpp_edge.load(given["model"], device=given["device"], threads=given["threads"])
        settings = {name: given[name] for name in SETTINGS}
        messages = Messages(Image, String, DiagnosticArray, DiagnosticStatus, KeyValue)
        monitor = monitor_of(given["rules"])
        self.explaining = Explaining(self.explainer, given["policy"], settings, monitor, messages, self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.create_subscription(Image, "image", self.explaining.take, IMAGES_IN)
        self.get_logger().info(f"{given['model']} on {self.explainer.runtime_name}")

    def _declare(self, name: str, default: Any, what: str) -> Any:
        is_fixed = name not in SETTINGS
        described = ParameterDescriptor(description=what, read_only=is_fixed, dynamic_typing=not is_fixed)
        return self.declare_parameter(name, default, described).value

    def _on_set_parameters(self, parameters: list[Any]) -> SetParametersResult:
        """All of them or none; those that are not ours are left to others."""
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in SETTINGS}
        reason = self.explaining.change(changes) if changes else ""
        return SetParametersResult(successful=not reason, reason=reason)

    def is_wanted(self, name: str) -> bool:
        """Whether somebody subscribes to it."""
        return bool(self.outlets[name].get_subscription_count())

    def publish(self, name: str, message: Any) -> None:
        """Send it, unless ROS is shutting down."""
        if self.context.ok():
            self.outlets[name].publish(message)

    def warn(self, text: str) -> None:
        """To the log."""
        self.get_logger().warning(text)

    def destroy_node(self) -> None:
        """End the stream first: it publishes."""
        if hasattr(self, "explaining"):
            self.explaining.close()
        if hasattr(self, "explainer"):
            self.explainer.close()
        super().destroy_node()


def main(args: list[str] | None = None) -> None:
    """Run it until it is stopped. What cannot be used is one line on standard error, and status 1."""
    rclpy.init(args=args)
    node = None
    try:
        node = ExplainNode()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except GcppError as error:
        sys.exit(f"explain: {error}")
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
