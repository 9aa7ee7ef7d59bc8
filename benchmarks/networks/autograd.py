"""What PyTorch's autograd says of a network: activations and gradients at a layer, and the guided image.

The layer is a value of the exported program, by name: the exporter calls its ONNX tensors after them. The guided image
comes from the module itself under the oracle of tests/export/autograd_oracle.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from autograd_oracle import Oracle

from gcpp_edge.contract import Layer
from gcpp_edge.export.probes import map_of
from networks.subject import Subject, scores_of

Arrays = dict[str, np.ndarray]


def _broadcast_in_dim(x: Any, shape: Any, axes: Any) -> Any:
    sizes = [1] * len(shape)
    for axis, size in zip(axes, x.shape, strict=True):
        sizes[axis] = size
    return x.reshape(sizes).expand(*shape)


INSTEAD = {  # the first has strides that differ between back ends, the others no backward pass of their own
    torch.ops.aten.view.default: torch.reshape,
    torch.ops.aten.copy.default: lambda x, source, non_blocking=False: source.to(x.dtype).expand(x.shape),
    torch.ops.prims.convert_element_type.default: lambda x, dtype: x.to(dtype),
    torch.ops.prims.var.default: lambda x, axes, correction=1: torch.var(x, axes, correction=correction),
    torch.ops.prims.broadcast_in_dim.default: _broadcast_in_dim,
}


@dataclass
class Autograd:
    """program: the exported one. layer: what is explained. logits: the name of a value of the program."""

    subject: Subject
    program: Any
    layer: Layer
    logits: str

    def __post_init__(self) -> None:
        self.tail = self.program.module()
        for parameter in (*self.tail.parameters(), *self.subject.module.parameters()):
            parameter.requires_grad_(False)  # their gradients would cost as much again

    @property
    def missing(self) -> set[str]:
        """Names that the program lacks."""
        return {self.layer.tensor, self.logits} - {node.name for node in self.tail.graph.nodes}

    def exact(self, pictures: Any) -> Arrays:
        """In float64."""
        self.subject.module.double()
        try:
            return self._all(pictures.double(), torch.float64)
        finally:
            self.subject.module.float()

    def single(self, pictures: Any) -> Iterator[Arrays]:
        """In float32, once for each of PyTorch's convolution back ends."""
        yield self._all(pictures, torch.float32)
        with torch.backends.mkldnn.flags(enabled=False):
            yield self._all(pictures, torch.float32)
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}[pictures.dim()]
        self.subject.module.to(memory_format=layout)
        with contextlib.suppress(RuntimeError):  # a network's own view() may not take it
            yield self._all(pictures.to(memory_format=layout), torch.float32)
        self.subject.module.to(memory_format=torch.contiguous_format)

    def _all(self, pictures: Any, dtype: Any) -> Arrays:
        self.tail.to(dtype)
        activations, gradients = zip(
            *(self._at_layer(picture[None], place, dtype) for place, picture in enumerate(pictures)),
            strict=True,
        )
        return {
            "activations": map_of(self.layer, np.concatenate(activations)),
            "gradients": map_of(self.layer, np.concatenate(gradients)),
            "guided": self._pixels(pictures),
        }

    def _at_layer(self, picture: Any, place: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """A picture alone: a program may fix its batch."""
        watcher = _Watcher(self.tail, self.layer.tensor, self.logits, dtype)
        watcher.run(picture)
        gradient = torch.autograd.grad(self.subject.score(watcher.seen, place), watcher.features)[0]
        return watcher.features.detach().numpy(), gradient.numpy()

    def _pixels(self, pictures: Any) -> np.ndarray:
        leaf = pictures.clone().requires_grad_()
        with Oracle("guided"):
            scores = scores_of(self.subject.module(leaf))
        return np.asarray(torch.autograd.grad(self.subject.score(scores), leaf)[0].numpy())


class _Watcher(torch.fx.Interpreter):
    """Runs a program in a dtype, and starts its autograd at one value."""

    def __init__(self, module: Any, layer: str, logits: str, dtype: Any) -> None:
        super().__init__(module)
        self.layer, self.logits, self.dtype = layer, logits, dtype

    def run_node(self, node: Any) -> Any:
        result = super().run_node(node)
        if node.name == self.layer:
            self.features = result = result.detach().requires_grad_()
        if node.name == self.logits:
            self.seen = result
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Where a program names float32, the dtype that it runs in is meant."""
        args, kwargs = torch.fx.node.map_aggregate((args, kwargs), self._meant)
        target = INSTEAD.get(target, target)
        return super().call_function(target, args, kwargs)

    def _meant(self, value: Any) -> Any:
        return self.dtype if value is torch.float32 else value
