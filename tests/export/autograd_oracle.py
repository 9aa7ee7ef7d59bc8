"""What PyTorch itself says: activations, gradients and pixel images under each pixel rule.

Hooks miss functional ReLUs and break on in-place ones, so every rectifier is replaced where it is called, by a
TorchFunctionMode with a custom autograd.Function. What rectifies is what docs/method.md says: also an activation that
a network spells out as x * sigmoid(x).
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

# name of a call: its function of one tensor, and the names of the arguments behind that tensor
RECTIFIERS = {
    "relu": (F.relu, ("inplace",)),
    "relu6": (F.relu6, ("inplace",)),
    "hardtanh": (F.hardtanh, ("min_val", "max_val", "inplace")),
    "clamp": (torch.clamp, ("min", "max")),
    "clamp_min": (torch.clamp_min, ("min",)),
    "leaky_relu": (F.leaky_relu, ("negative_slope", "inplace")),
    "prelu": (F.prelu, ("weight",)),
    "elu": (F.elu, ("alpha", "inplace")),
    "celu": (F.celu, ("alpha", "inplace")),
    "selu": (F.selu, ("inplace",)),
    "gelu": (F.gelu, ("approximate",)),
    "silu": (F.silu, ("inplace",)),
    "mish": (F.mish, ("inplace",)),
    "hardswish": (F.hardswish, ("inplace",)),
    "softplus": (F.softplus, ("beta", "threshold")),
}
PRODUCTS = ("mul", "__mul__", "__rmul__", "__imul__", "multiply")


def rectifier(name, args, kwargs):
    """The function of one tensor behind a call, and whether it writes in place; None where it is no rectifier."""
    stem = name.rstrip("_") if not name.startswith("__") else name
    if stem not in RECTIFIERS or not args:
        return None
    function, names = RECTIFIERS[stem]
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    in_place = bool(given.pop("inplace", False)) or stem != name
    bound = {"hardtanh": given.get("min_val", -1.0), "clamp": given.get("min"), "clamp_min": given.get("min")}
    if stem in bound and not (isinstance(bound[stem], (int, float)) and bound[stem] == 0):
        return None  # bounds that do not start at zero
    return partial(function, **given), in_place


def swish(x, slope):
    return x * torch.sigmoid(slope * x)


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
        self.rule, self.pooled = rule, None
        self.rectified = {}  # by what was rectified and how: that tensor and the result
        self.made = {}  # of a sigmoid or a scaled tensor, by its id: the tensor, what it was made from, the slope

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if function is F.adaptive_avg_pool2d:  # the last one: squeeze-and-excitation pools too
            self.pooled = args[0]
        if self.rule == "gradient":
            return function(*args, **kwargs)
        found = rectifier(name, args, kwargs) or self._spelled_out(name, args)
        if found is not None:
            return self._rectified(name, args, *found)
        result = function(*args, **kwargs)
        self._remember(name, args, result)
        return result

    def _rectified(self, name, args, plain, in_place):
        """The same rectifier twice on a tensor is one: exporters merge the two."""
        x = next(arg for arg in args if isinstance(arg, torch.Tensor))
        if not in_place:
            how = tuple((k, id(v) if isinstance(v, torch.Tensor) else v) for k, v in plain.keywords.items())
            key = (id(x), x._version, name, how)
            if key not in self.rectified:
                self.rectified[key] = (x, Rectifier.apply(x, plain, self.rule))
            return self.rectified[key][1]
        x.copy_(Rectifier.apply(x.clone(), plain, self.rule))
        return x

    def _remember(self, name, args, result):
        if name in ("sigmoid", "sigmoid_"):
            source, slope = self._scaled(args[0])
            self.made[id(result)] = (result, "sigmoid", source, slope)
        elif name in PRODUCTS and any(isinstance(arg, (int, float)) for arg in args[:2]):
            x, number = args[:2] if isinstance(args[0], torch.Tensor) else (args[1], args[0])
            self.made[id(result)] = (result, "scaled", x, number)

    def _scaled(self, x):
        _, kind, source, slope = self.made.get(id(x), (x, "", x, 1.0))
        return (source, slope) if kind == "scaled" else (x, 1.0)

    def _spelled_out(self, name, args):
        """x * sigmoid(slope * x), which is SiLU or a GELU in short."""
        if len(args) < 2 or (name not in PRODUCTS and name != "mul_"):
            return None
        for x, gate in (args[:2], args[1::-1]):
            _, kind, source, slope = self.made.get(id(gate), (None, "", None, 1.0))
            if kind == "sigmoid" and source is x:
                return partial(swish, slope=slope), name in ("mul_", "__imul__")
        return None


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


def redrawn(network, shape, seed=0, batch=8):
    """The network in evaluation mode with all parameters drawn anew at scale ~1 and BatchNorm statistics calibrated.

    Default initialisation proves little: layer scales of 1e-6 and zero-initialised branches hide whole blocks.
    shape: of one picture, [C,H,W] or [C,T,H,W]; a number is the side of a square one in colour.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (3, shape, shape) if isinstance(shape, int) else tuple(shape)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2, generator=generator)
            elif parameter.dim() < 2 or parameter[0].numel() == 1 or "layer_scale" in name:  # a factor a channel
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif "pos_embed" in name or name.endswith("token"):
                parameter.normal_(0, 0.5, generator=generator)
            else:
                fan_in = parameter[0].numel()
                parameter.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    network.eval()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:  # they alone train: the rest would drop branches at random, or ask for its auxiliary heads
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    if norms:
        with torch.no_grad():
            network(torch.randn(batch, *shape, generator=generator))
    return network.eval()


def relative_errors(found, expected):
    """Largest difference over the largest value, and the relative L2 error."""
    difference = np.asarray(found, np.float64) - expected
    return np.abs(difference).max() / np.abs(expected).max(), np.linalg.norm(difference) / np.linalg.norm(expected)
