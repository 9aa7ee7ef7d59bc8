"""Stand-ins for what the ROS 2 example needs of ROS: messages that are as strict as the real ones, and rclpy's node.

Fields and types are those of the .msg files: builtin_interfaces/Time and rcl_interfaces/ParameterDescriptor and
SetParametersResult (ros2/rcl_interfaces), std_msgs/Header and String, sensor_msgs/Image, diagnostic_msgs/KeyValue,
DiagnosticStatus and DiagnosticArray (ros2/common_interfaces); they are the same from Humble to Rolling. Like the
classes that rosidl generates for Python they refuse a field that the message lacks and a value of another type; a
uint8[] is an array.array("B"), a byte is bytes of length 1.
"""

import enum
import types
from array import array

UINT8, UINT32, INT32 = range(2**8), range(2**32), range(-(2**31), 2**31)


class Message:
    """FIELDS: name to type; a range of integers; a list of a type of elements."""

    FIELDS = {}

    def __init__(self, **values):
        for name, kind in self.FIELDS.items():
            setattr(self, name, values.pop(name) if name in values else default(kind))
        assert not values, f"{type(self).__name__} has no field {', '.join(values)}"

    def __setattr__(self, name, value):
        assert name in self.FIELDS, f"{type(self).__name__} has no field {name}"
        kind = self.FIELDS[name]
        if isinstance(kind, range):
            fits = type(value) is int and value in kind
        elif isinstance(kind, list):
            fits = isinstance(value, list) and all(isinstance(one, kind[0]) for one in value)
        else:
            fits = type(value) is kind and (kind is not bytes or len(value) == 1)
            fits = fits and (kind is not array or value.typecode == "B")
        assert fits, f"{type(self).__name__}.{name} cannot be {value!r:.80}"
        super().__setattr__(name, value)

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None


def default(kind):
    if isinstance(kind, range):
        return 0
    if isinstance(kind, list):
        return []
    if kind is bytes:
        return b"\0"
    return array("B") if kind is array else kind()


class Time(Message):
    FIELDS = {"sec": INT32, "nanosec": UINT32}


class Header(Message):
    FIELDS = {"stamp": Time, "frame_id": str}


class String(Message):
    FIELDS = {"data": str}


class Image(Message):
    FIELDS = {
        "header": Header,
        "height": UINT32,
        "width": UINT32,
        "encoding": str,
        "is_bigendian": UINT8,
        "step": UINT32,
        "data": array,
    }


class KeyValue(Message):
    FIELDS = {"key": str, "value": str}


class DiagnosticStatus(Message):
    FIELDS = {"level": bytes, "name": str, "message": str, "hardware_id": str, "values": [KeyValue]}
    OK, WARN, ERROR, STALE = b"\0", b"\1", b"\2", b"\3"


class DiagnosticArray(Message):
    FIELDS = {"header": Header, "status": [DiagnosticStatus]}


class SetParametersResult(Message):
    FIELDS = {"successful": bool, "reason": str}


class ParameterDescriptor(Message):  # of its fields those that have a use here
    FIELDS = {"name": str, "description": str, "read_only": bool, "dynamic_typing": bool}


class Policy(enum.IntEnum):
    """Values of rmw: history KEEP_LAST 1, KEEP_ALL 2; reliability RELIABLE 1, BEST_EFFORT 2."""

    KEEP_LAST = RELIABLE = 1
    KEEP_ALL = BEST_EFFORT = 2


class QoSProfile(types.SimpleNamespace):
    pass


class ExternalShutdownException(Exception):
    pass


class Publisher:
    def __init__(self, qos):
        self.qos, self.sent, self.subscribers = qos, [], 1

    def publish(self, message):
        self.sent.append(message)

    def get_subscription_count(self):
        return self.subscribers


class Logger:
    def __init__(self):
        self.lines = []

    def info(self, text):
        self.lines.append(("info", text))

    def warning(self, text):
        self.lines.append(("warning", text))


class Node:
    """What the example uses of rclpy.node.Node, with its rules about parameters."""

    overrides = {}  # of the command line: -p NAME:=VALUE

    def __init__(self, name):
        self.name, self.subscriptions_made, self.publishers_made = name, {}, {}
        self.context = types.SimpleNamespace(is_running=True)
        self.context.ok = lambda: self.context.is_running
        self.is_destroyed, self._logger = False, Logger()
        self._given, self._callbacks = {}, []

    def get_logger(self):
        return self._logger

    def declare_parameter(self, name, value, descriptor):
        found = self.overrides.get(name, value)
        assert descriptor.dynamic_typing or type(found) is type(value), f"InvalidParameterTypeException: {name}"
        self._given[name] = (types.SimpleNamespace(name=name, value=found), descriptor)
        return self._given[name][0]

    def add_on_set_parameters_callback(self, callback):
        self._callbacks.append(callback)

    def set_parameters_atomically(self, **values):
        changed = [types.SimpleNamespace(name=name, value=value) for name, value in values.items()]
        for one in changed:
            if one.name in self._given and self._given[one.name][1].read_only:
                return SetParametersResult(successful=False, reason=f"{one.name} cannot be changed")
        for callback in self._callbacks:
            result = callback(changed)
            if not result.successful:
                return result
        return SetParametersResult(successful=True)

    def create_publisher(self, kind, topic, qos):
        self.publishers_made[topic] = (kind, Publisher(qos))
        return self.publishers_made[topic][1]

    def create_subscription(self, kind, topic, callback, qos):
        self.subscriptions_made[topic] = (kind, callback, qos)

    def destroy_node(self):
        self.is_destroyed = True


def modules(**functions):
    """What goes into sys.modules. functions: of rclpy itself (init, spin, try_shutdown)."""

    def module(name, **content):
        made = types.ModuleType(name)
        vars(made).update(content)
        return name, made

    return dict(
        [
            module("rclpy", **functions),
            module("rclpy.node", Node=Node),
            module("rclpy.executors", ExternalShutdownException=ExternalShutdownException),
            module("rclpy.qos", QoSProfile=QoSProfile, HistoryPolicy=Policy, ReliabilityPolicy=Policy),
            module("rcl_interfaces", msg=None),
            module(
                "rcl_interfaces.msg", SetParametersResult=SetParametersResult, ParameterDescriptor=ParameterDescriptor
            ),
            module("sensor_msgs", msg=None),
            module("sensor_msgs.msg", Image=Image),
            module("std_msgs", msg=None),
            module("std_msgs.msg", String=String, Header=Header),
            module("diagnostic_msgs", msg=None),
            module(
                "diagnostic_msgs.msg",
                DiagnosticArray=DiagnosticArray,
                DiagnosticStatus=DiagnosticStatus,
                KeyValue=KeyValue,
            ),
        ]
    )
