"""Parses and builds a model with TensorRT for RTX, which needs no GPU for that, and returns its complaints.

Without a GPU the compute capability must not be CURRENT: engines are built for SM86, Ampere's, which Jetson Orin's is
nearest to. SM75 refuses every float32 product. An engine is not run: that needs a GPU.
"""

from typing import NamedTuple

import pytest

from gcpp_edge.export.weights import filled

trt = pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT for RTX is not installed; `make test` installs it where it has wheels"
)


class Activation(NamedTuple):
    """The slope and the offset of an activation layer."""

    alpha: float
    beta: float


class Complaints(trt.ILogger):
    """Keeps the lines of errors."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def log(self, severity, text):
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.lines.append(text)


def complaints_of(model):
    """Why an onnx.ModelProto cannot be built, in the words of the parser or the builder; empty where it is built."""
    logger = Complaints()
    builder = trt.Builder(logger)
    network, parser = parsed(model, builder, logger)
    if parser.num_errors:
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        return [f"{error.node_name()}: {error.desc()}" for error in errors]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.builder_optimization_level = 0
    config.add_optimization_profile(profile_of(network, builder))
    engine = builder.build_serialized_network(network, config)
    return [] if engine is not None else logger.lines or ["not built, for no reason given"]


def parsed(model, builder, logger):
    """The strongly typed network of a model, and the parser, which must outlive it."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parser.parse(filled(model).SerializeToString())
    return network, parser


def profile_of(network, builder, batch=(1, 2, 4)):
    """The optimization profile of a network with symbolic batches: smallest, usual and largest."""
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        value = network.get_input(i)
        if -1 in tuple(value.shape):
            profile.set_shape(value.name, *(tuple(n if size == -1 else size for size in value.shape) for n in batch))
    return profile


def activations_of(model, kind):
    """The activation layers of a kind, such as "HARD_SIGMOID", in the parsed network: objects with alpha and beta."""
    logger = Complaints()
    builder = trt.Builder(logger)
    network, _parser = parsed(model, builder, logger)
    found = [network.get_layer(i) for i in range(network.num_layers)]
    layers = [layer for layer in found if layer.type == trt.LayerType.ACTIVATION]
    for layer in layers:
        layer.__class__ = trt.IActivationLayer  # the only way to the fields of a layer's own class
    return [Activation(layer.alpha, layer.beta) for layer in layers if layer.type == getattr(trt.ActivationType, kind)]
