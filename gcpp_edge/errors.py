"""Every error that the product raises on purpose, in one tree.

    GcppError
    ├── ModelError                 a file that cannot be used
    │   ├── NotExplainedError      an ONNX file without our metadata
    │   └── ContractVersionError   written by a newer exporter
    ├── ExportError                a network that cannot be exported
    │   ├── SourceError            the source, its weights or its options
    │   ├── LayerError             no such layer, or none with a spatial extent
    │   ├── MissingRuleError       an operator without a VJP rule
    │   ├── UnsupportedGraphError  a graph that the differentiator does not take
    │   └── SelfCheckError         gradients that fail the check at export
    ├── InputError                 what the caller passed
    │   ├── FrameError             dtype, shape or values of a frame
    │   ├── PictureError           a picture file that cannot be read
    │   ├── ShapeError             arrays that do not fit together
    │   ├── TargetError            a class index, name or rank out of range
    │   └── MethodError            an unknown method
    ├── MissingDependencyError     an extra that is not installed
    ├── DeviceError                a GPU that is missing, refused something, or is closed
    │   ├── DeviceMemoryError      not enough memory
    │   └── DeviceLostError        nothing works there any more until the model is loaded again
    ├── StreamError                something that a stream reads from or writes to
    │   ├── CaptureError           a camera, file or address that cannot be opened, or was lost
    │   └── SinkError              an output that cannot be opened, or written any more
    └── RuntimeFailure             the inference runtime refused or failed

A message says what, where, expected, found, and what to do. The command line prints it as one line and exits with
status 2.
"""


class GcppError(Exception):
    """Root of all errors raised on purpose."""


class ModelError(GcppError):
    """A model file that cannot be used."""


class NotExplainedError(ModelError):
    """An ONNX file that carries no explanation metadata."""


class ContractVersionError(ModelError):
    """A file written for a newer contract than this package reads."""


class ExportError(GcppError):
    """A network that cannot be exported."""


class SourceError(ExportError):
    """The source of an export, its weights or its options are unusable."""


class LayerError(ExportError):
    """A layer that does not exist or has no spatial extent."""


class MissingRuleError(ExportError):
    """An operator between the layer and the scores has no VJP rule."""


class UnsupportedGraphError(ExportError):
    """A graph that the differentiator does not take."""


class SelfCheckError(ExportError):
    """The exported gradients do not hold against the check."""


class InputError(GcppError):
    """Something that the caller passed cannot be used."""


class FrameError(InputError):
    """A frame of a wrong dtype, shape or value."""


class PictureError(InputError):
    """A picture file that cannot be read."""


class ShapeError(InputError):
    """Arrays that do not fit together."""


class TargetError(InputError):
    """A class index, name or rank that the network does not have."""


class MethodError(InputError):
    """An unknown CAM method."""


class MissingDependencyError(GcppError):
    """An optional package that is needed here is not installed."""


class DeviceError(GcppError):
    """The device or its driver refused something, or the device is closed."""


class DeviceMemoryError(DeviceError):
    """The device or the host has not enough memory of the kind that was asked for."""


class DeviceLostError(DeviceError):
    """The device stopped working for this process: every later call fails too."""


class StreamError(GcppError):
    """Something that a stream reads from or writes to cannot be used."""


class CaptureError(StreamError):
    """A camera, file or address that cannot be opened, or that was lost."""


class SinkError(StreamError):
    """An output that cannot be opened, or cannot be written any more."""


class RuntimeFailure(GcppError):
    """The inference runtime refused the model or failed while running it."""
