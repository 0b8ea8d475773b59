"""PyTorch networks whose every tensor is drawn, and what they say: the other side of the parity.

Running statistics follow the size of what a norm reads, so that activations stay in range in every
depth; scales lie in +-(0.5, 1.5), so that no branch is switched off.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

STATISTICS = {"mean": (0.45, 0.5, 0.4), "std": (0.22, 0.25, 0.2)}


def pixels(size: int, rows: int = 4) -> np.ndarray:
    """[rows, size, size, 3] uint8 noise."""
    return np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), np.uint8)


def normalised(image: np.ndarray, mean, std) -> torch.Tensor:
    """[R, H, W, 3] uint8 -> [R, 3, H, W] float32."""
    scaled = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    spread = [torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (mean, std)]
    return (scaled - spread[0]) / spread[1]


class Tensors:
    """Layers as functions of a name: whoever is called first draws the tensors of that name.

    On the meta device nothing is computed: names and shapes alone.
    """

    def __init__(self, device: str = "cpu"):
        self.values: dict[str, torch.Tensor] = {}
        self.device, self.generator = device, torch.Generator().manual_seed(1)

    def draw(self, name: str, shape, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
        if self.device == "meta":
            value = torch.empty(shape, device="meta")
        else:
            value = low + (high - low) * torch.rand(shape, generator=self.generator)
        self.values[name] = value
        return value

    def conv(self, x, name, out, kernel=3, stride=1, groups=1, bias=False):
        inputs = x.shape[1] // groups
        bound = (3 / (inputs * kernel**2)) ** 0.5  # keeps the variance
        weight = self.draw(f"{name}.weight", (out, inputs, kernel, kernel), -bound, bound)
        shift = self.draw(f"{name}.bias", (out,)) if bias else None
        return F.conv2d(x, weight, shift, stride, kernel // 2, 1, groups)

    def linear(self, x, name, out):
        bound = (3 / x.shape[1]) ** 0.5
        weight = self.draw(f"{name}.weight", (out, x.shape[1]), -bound, bound)
        return F.linear(x, weight, self.draw(f"{name}.bias", (out,)))

    def norm(self, x, name, epsilon=1e-5):
        size = (x.shape[1],)
        weight = self.draw(f"{name}.weight", size, 0.5, 1.5)
        bias = self.draw(f"{name}.bias", size, -0.5, 0.5)
        mean = self.draw(f"{name}.running_mean", size)
        var = self.draw(f"{name}.running_var", size, 0.8, 1.25)
        if self.device != "meta":
            fit(self.generator, x, weight, mean, var)
        self.values[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(x, mean, var, weight, bias, eps=epsilon)


def fit(generator, x, weight, mean, var) -> None:
    """Turns drawn (mean, var, weight) into those of a norm that reads x; in place.

    The size of the whole layer, not of each channel: a channel in which little happens would be
    blown up with its rounding, layer after layer.
    """
    size = x.square().mean().sqrt()
    mean.mul_(0.3 * size)
    var.mul_(size.square())
    weight.mul_(torch.randint(0, 2, weight.shape, generator=generator) * 2.0 - 1)


def draw_module(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Draws every tensor of a module in place, as above; returns the logits of x."""
    generator = torch.Generator().manual_seed(2)

    def uniform(tensor, low, high):
        with torch.no_grad():
            tensor.uniform_(low, high, generator=generator)

    def calibrate(norm, inputs):
        with torch.no_grad():
            fit(generator, inputs[0], norm.weight, norm.running_mean, norm.running_var)

    hooks = []
    for part in model.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            bound = (3 / part.weight[0].numel()) ** 0.5
            uniform(part.weight, -bound, bound)
            if part.bias is not None:
                uniform(part.bias, -1, 1)
        elif isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in ((part.weight, 0.5, 1.5), (part.bias, -0.5, 0.5),
                                      (part.running_mean, -1, 1), (part.running_var, 0.8, 1.25)):
                uniform(tensor, low, high)
            hooks.append(part.register_forward_pre_hook(calibrate))
    with torch.no_grad():
        logits = model.eval()(x)
    for hook in hooks:
        hook.remove()
    return logits


def tapped(model: nn.Module, x: torch.Tensor, taps: dict[str, str], head: str):
    """({tap: [R, D, H, W], "pooled": [R, D]}, logits) of a module, taps by their submodule."""
    found = {}

    def keep(name):
        return lambda module, inputs, output: found.update({name: output.clone()})

    hooks = [model.get_submodule(path).register_forward_hook(keep(tap))
             for tap, path in taps.items()]
    hooks.append(model.get_submodule(head).register_forward_pre_hook(
        lambda module, inputs: found.update(pooled=inputs[0].clone())))
    with torch.no_grad():
        logits = model(x)
    for hook in hooks:
        hook.remove()
    return found, logits
