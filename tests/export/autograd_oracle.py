"""What PyTorch itself says: activations, gradients and pixel images under each pixel rule.

Hooks miss functional ReLUs and break on in-place ones, so every rectifier is replaced where it is called, by a
TorchFunctionMode with a custom autograd.Function.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

RECTIFIERS = {
    F.relu: F.relu,
    F.relu_: F.relu,
    torch.relu: F.relu,
    torch.relu_: F.relu,
    torch.Tensor.relu: F.relu,
    torch.Tensor.relu_: F.relu,
    F.relu6: F.relu6,
    F.hardtanh: F.relu6,
    F.hardswish: F.hardswish,
    F.silu: F.silu,
    F.gelu: F.gelu,
    F.mish: F.mish,
}


def rectifier(function, args, kwargs):
    """The function of one tensor behind a call, without its in-place form; None where the call is no rectifier."""
    if function is F.leaky_relu:
        return partial(F.leaky_relu, negative_slope=args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01))
    if function is F.gelu:
        return partial(F.gelu, approximate=kwargs.get("approximate", "none"))
    return RECTIFIERS.get(function)


class Rectifier(torch.autograd.Function):
    """A rectifier whose backward pass is changed as docs/method.md says."""

    @staticmethod
    def forward(ctx, x, function, rule):
        ctx.save_for_backward(x)
        ctx.function, ctx.rule = function, rule
        return function(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        gradient = gradient.clamp(min=0)
        if ctx.rule == "deconvnet":
            return gradient, None, None
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.function(leaf)
        return torch.autograd.grad(y, leaf, gradient)[0], None, None


class Oracle(TorchFunctionMode):
    """Runs a network with changed rectifiers and remembers what enters its global pooling."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.pooled, self.inside = rule, None, False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.adaptive_avg_pool2d:  # the last one: squeeze-and-excitation pools too
            self.pooled = args[0]
        plain = None if self.rule == "gradient" or self.inside else rectifier(function, args, kwargs)
        if plain is not None:
            self.inside = True
            try:
                return Rectifier.apply(args[0], plain, self.rule)
            finally:
                self.inside = False
        return function(*args, **kwargs)


def explained(network, image, targets, rule, watch=None):
    """Activations, gradients at the layer and gradient at the image, as arrays.

    watch: module path of the layer; None for what enters the global pooling. rule: the pixel rule of the whole pass.
    """
    image = image.clone().requires_grad_()
    seen = []
    module = network.get_submodule(watch) if watch else None
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output)) if module else None
    oracle = Oracle(rule)
    with oracle:
        scores = network(image)
    if handle:
        handle.remove()
    layer = seen[-1] if watch else oracle.pooled
    seed = scores[torch.arange(len(targets)), targets].sum()
    gradient, pixel = torch.autograd.grad(seed, (layer, image))
    return layer.detach().numpy(), gradient.numpy(), pixel.numpy()


def redrawn(network, size, seed=0):
    """The network in evaluation mode with all parameters drawn anew at scale ~1 and BatchNorm statistics calibrated.

    Default initialisation proves little: layer scales of 1e-6 and zero-initialised branches hide whole blocks.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2, generator=generator)
            elif parameter.dim() < 2 or "layer_scale" in name:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                fan_in = parameter[0].numel()
                parameter.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        network.train()
        with torch.no_grad():
            network(torch.randn(8, 3, size, size, generator=generator))
    return network.eval()


def relative_errors(found, expected):
    """Largest difference over the largest value, and the relative L2 error."""
    difference = np.asarray(found, np.float64) - expected
    return np.abs(difference).max() / np.abs(expected).max(), np.linalg.norm(difference) / np.linalg.norm(expected)
