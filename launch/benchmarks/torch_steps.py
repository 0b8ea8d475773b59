"""PyTorch's side of the models' rows: timm's networks, two small ones, and a train step.

Equal footing: the same pixels, uint8 and on the device, normalised inside the step; SGD with
momentum on every parameter; on a GPU channels last, bfloat16 autocast and torch.compile, on a CPU
plain float32. Sources: timm's benchmark.py; for the networks RepDistiller's resnet.py and wrn.py.
"""

from collections.abc import Callable
import importlib.util
from typing import Any

import numpy as np

from launch import torchvision_beside_torch


def missing() -> str:
    """What is not installed of what these need, or nothing."""
    needed = [name for name in ("torch", "torchvision", "timm")
              if importlib.util.find_spec(name) is None]
    return f"{needed[0]} is not installed" if needed else ""


def how() -> str:
    """How these are run here."""
    import torch

    gpu = torch.cuda.is_available()
    return f"{torch.__version__}, " + (
        "compiled, channels last, bfloat16 autocast" if gpu else "eager, float32, one thread")


def network(name: str, classes: int) -> Any:
    """A torch module by timm's name, or one of the two written here."""
    if name in SMALL:
        return SMALL[name](classes)
    torchvision_beside_torch.load("torchvision")
    import timm

    rates = {"drop_rate": 0.2, "drop_path_rate": 0.2} if "efficientnet" in name else {}
    return timm.create_model(name, num_classes=classes, **rates)


def step(name: str, classes: int, pixels: np.ndarray, labels: np.ndarray, steps: int
         ) -> Callable[[], None]:
    """A call that trains `steps` times on pixels [B, S, S, 3] uint8, labels [B], and waits."""
    import torch

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    if gpu:
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(1)  # as one XLA device that is held to a core
    model = network(name, classes).to(device).train()
    if gpu:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    mean = torch.full((1, 3, 1, 1), 127.5, device=device)
    images = torch.tensor(pixels).permute(0, 3, 1, 2).to(device)  # channels last in memory
    target = torch.tensor(labels, dtype=torch.int64).to(device)

    def loss():
        with torch.autocast(device.type, torch.bfloat16, enabled=gpu):
            return torch.nn.functional.cross_entropy(model((images - mean) / 63.75), target)

    compiled = torch.compile(loss) if gpu else loss

    def call():
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            compiled().backward()
            optimizer.step()
        if gpu:
            torch.cuda.synchronize()
    return call


def resnet20(classes: int) -> Any:
    """The ResNet-20 of small images, with 1x1 shortcuts."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            self.body = nn.Sequential(
                _conv(before, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
                _conv(width, width, 3), nn.BatchNorm2d(width))
            self.past = nn.Sequential() if before == width else nn.Sequential(
                _conv(before, width, 1, stride), nn.BatchNorm2d(width))

        def forward(self, x):
            return nn.functional.relu(self.body(x) + self.past(x), inplace=True)

    layers, before = [_conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True)], 16
    for width in (16, 32, 64):
        for _ in range(3):
            layers.append(Block(before, width, 2 if width > before else 1))
            before = width
    return nn.Sequential(*layers, *_ending(before, classes))


def wrn_28_10(classes: int) -> Any:
    """The Wide ResNet of depth 28 and width 10, with 1x1 shortcuts."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            self.first = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(inplace=True))
            self.body = nn.Sequential(
                _conv(before, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
                _conv(width, width, 3))
            self.past = None if before == width else _conv(before, width, 1, stride)

        def forward(self, x):
            y = self.first(x)
            return self.body(y) + (x if self.past is None else self.past(y))

    layers, before = [_conv(3, 16, 3)], 16
    for width, stride in ((160, 1), (320, 2), (640, 2)):
        for block in range(4):
            layers.append(Block(before, width, 1 if block else stride))
            before = width
    layers += [nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *_ending(before, classes))


def _conv(before, width, kernel, stride=1):
    from torch import nn

    return nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False)


def _ending(width, classes):
    from torch import nn

    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)


SMALL = {"resnet20": resnet20, "wrn_28_10": wrn_28_10}
