"""Activations as networks call them: the exported graph rectifies where docs/method.md says, in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is needed to compare with autograd")

import torch.nn.functional as F  # noqa: E402, N812
from autograd_oracle import explained, redrawn, relative_errors  # noqa: E402
from float64_evaluator import run_float64  # noqa: E402
from torch import nn  # noqa: E402

from gcpp_edge.export.bake import bake  # noqa: E402
from gcpp_edge.export.from_torch import TorchSource, forward_model  # noqa: E402


def silu_in_place(x):
    x = x + 0
    return x.mul_(x.sigmoid())


def in_place(function, *args):
    return lambda x: function(x + 0, *args, inplace=True)


ACTIVATIONS = {
    "relu": F.relu,
    "relu in place": in_place(F.relu),
    "relu of a tensor": lambda x: (x + 0).relu_(),
    "relu6": F.relu6,
    "hardtanh from zero": lambda x: F.hardtanh(x, 0.0, 1.5),
    "hardtanh around zero": lambda x: F.hardtanh(x, -1.0, 1.0),
    "clamp from zero": lambda x: x.clamp(min=0),
    "clamp between": lambda x: x.clamp(-0.5, 0.5),
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "leaky relu in place": in_place(F.leaky_relu, 0.1),
    "prelu": nn.PReLU(8),
    "elu": lambda x: F.elu(x, 0.7),
    "celu": lambda x: F.celu(x, 1.5),
    "selu in place": in_place(F.selu),
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "silu in place": in_place(F.silu),
    "silu spelled out": lambda x: x.mul(x.sigmoid()),
    "silu spelled out in place": silu_in_place,
    "mish": F.mish,
    "mish spelled out": lambda x: x.mul(F.softplus(x).tanh()),
    "hardswish": F.hardswish,
    "hardswish by relu6": lambda x: x * (F.relu6(x + 3.0) / 6.0),
    "hardmish": lambda x: 0.5 * x * (x + 2).clamp(min=0, max=2),
    "squared relu": lambda x: torch.square(F.relu(x)),
    "star relu": lambda x: 0.9 * F.relu(x) ** 2 - 0.4,
    "softplus": lambda x: F.softplus(x, beta=2.0),
    "softsign": F.softsign,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "gated linear unit": lambda x: F.glu(torch.cat([x, x.flip(1)], 1), 1),
}


class Between(nn.Module):
    """Two convolutions with an activation behind each."""

    def __init__(self, activation):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.activation = activation

    def forward(self, x):
        x = self.activation(self.second(self.activation(self.first(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Branches(nn.Module):
    """Two branches, each with a ReLU of its own on the same tensor."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(self.left(F.relu(x)) + self.right(F.relu(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_equal_rectifiers_of_a_tensor_count_as_one():
    network = redrawn(Branches(), (3, 12, 12)).double()
    image = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = bake(forward_model(TorchSource(network), image).model, guided=True)
    found = run_float64(model, {"input": image.numpy(), "target": np.array([1, 4])})
    assert relative_errors(found["guided"], explained(network, image, [1, 4], "guided")[2])[0] < 1e-6


@pytest.mark.parametrize("rule", ["guided", "deconvnet", "gradient"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_has_the_pixel_image_that_autograd_gives(name, rule):
    network = redrawn(Between(ACTIVATIONS[name]), (3, 8, 8)).double()
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = bake(forward_model(TorchSource(network), image).model, guided=True, pixel_rule=rule)
    found = run_float64(model, {"input": image.numpy(), "target": np.array([1, 4])})
    activations, gradients, pixels = explained(network, image, [1, 4], rule)
    assert np.abs(pixels).max() > 0
    assert relative_errors(found["activations"], activations)[0] < 1e-6
    if rule == "gradient":
        assert relative_errors(np.broadcast_to(found["gradients"], gradients.shape), gradients)[0] < 1e-6
    assert relative_errors(found["guided"], pixels)[0] < 1e-6
