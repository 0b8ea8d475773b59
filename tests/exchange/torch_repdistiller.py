"""RepDistiller's networks as functions of drawn tensors: their names, their layers, in short.

Each is (t: Tensors, x [R, 3, H, W], classes) -> ({tap: [R, D, H, W], "pooled": [R, D]}, logits).
Facts (names of tensors, widths, strides, where ReLUs stand): HobbitLong/RepDistiller at b84f547.
"""

from functools import partial

import torch
from torch.nn import functional as F

relu = F.relu


def _headed(t, features, x, head, classes):
    pooled = x.mean((2, 3))
    return {**features, "pooled": pooled}, t.linear(pooled, head, classes)


def _residual(t, x, at, convs, out, shortcut):
    """relu(x + branch); convs are (width, kernel, stride) each, with a norm, ReLUs between."""
    y = x
    for k, (width, kernel, stride) in enumerate(convs, start=1):
        y = t.norm(t.conv(y, f"{at}.conv{k}", width, kernel, stride), f"{at}.bn{k}")
        y = relu(y) if k < len(convs) else y
    stride = max(stride for _, _, stride in convs)
    if stride != 1 or x.shape[1] != out:
        x = t.norm(t.conv(x, f"{at}.{shortcut}.0", out, 1, stride), f"{at}.{shortcut}.1")
    return relu(x + y)


def resnet(t, x, classes, depth, widths=(16, 16, 32, 64)):
    x = relu(t.norm(t.conv(x, "conv1", widths[0]), "bn1"))
    features = {"f0": x}
    for i, width in enumerate(widths[1:], start=1):
        for j in range((depth - 2) // 6):
            stride = 2 if i > 1 and j == 0 else 1
            convs = ((width, 3, stride), (width, 3, 1))
            x = _residual(t, x, f"layer{i}.{j}", convs, width, "downsample")
        features[f"f{i}"] = x
    return _headed(t, features, x, "fc", classes)


def resnet50(t, x, classes):
    x = relu(t.norm(t.conv(x, "conv1", 64), "bn1"))
    features = {"f0": x}
    for i, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for j in range(blocks):
            convs = ((width, 1, 1), (width, 3, 2 if i > 1 and j == 0 else 1), (4 * width, 1, 1))
            x = _residual(t, x, f"layer{i}.{j}", convs, 4 * width, "shortcut")
        features[f"f{i}"] = x
    return _headed(t, features, x, "linear", classes)


def wide_resnet(t, x, classes, depth, widen):
    x = t.conv(x, "conv1", 16)
    features = {"f0": x}
    for i in (1, 2, 3):
        width = 16 * widen * 2 ** (i - 1)
        for j in range((depth - 4) // 6):
            at, stride = f"block{i}.layer.{j}", 2 if i > 1 and j == 0 else 1
            read = relu(t.norm(x, f"{at}.bn1"))
            if x.shape[1] != width:
                x = t.conv(read, f"{at}.convShortcut", width, 1, stride)
            y = relu(t.norm(t.conv(read, f"{at}.conv1", width, 3, stride), f"{at}.bn2"))
            x = x + t.conv(y, f"{at}.conv2", width)
        features[f"f{i}"] = x
    return _headed(t, features, relu(t.norm(x, "bn1")), "fc", classes)


def vgg(t, x, classes, counts):
    features = {}
    for i, (width, count) in enumerate(zip((64, 128, 256, 512, 512), counts)):
        x = F.max_pool2d(x, 2) if 1 <= i <= 3 else x
        for k in range(count):  # convolution, norm and ReLU are three places of a sequence
            x = t.conv(x, f"block{i}.{3 * k}", width, bias=True)
            x = relu(t.norm(x, f"block{i}.{3 * k + 1}"))
        features[f"f{i}"] = x
    return _headed(t, features, x, "classifier", classes)


def mobilenet_v2(t, x, classes):
    x = relu(t.norm(t.conv(x, "conv1.0", 16, 3, 2), "conv1.1"))
    ends = [x]
    stages = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1),
              (6, 80, 3, 2), (6, 160, 1, 1))
    for i, (expansion, width, blocks, first) in enumerate(stages):
        for j in range(blocks):
            at, stride, inner = f"blocks.{i}.{j}.conv", first if j == 0 else 1, x.shape[1]
            y = relu(t.norm(t.conv(x, f"{at}.0", inner * expansion, 1), f"{at}.1"))
            y = t.conv(y, f"{at}.3", inner * expansion, 3, stride, groups=inner * expansion)
            y = t.norm(t.conv(relu(t.norm(y, f"{at}.4")), f"{at}.6", width, 1), f"{at}.7")
            x = x + y if stride == 1 and inner == width else y
        ends.append(x)
    features = {f"f{tap}": ends[end] for tap, end in enumerate((0, 2, 3, 5, 7))}
    last = relu(t.norm(t.conv(x, "conv2.0", 1280, 1), "conv2.1"))
    return _headed(t, features, last, "classifier.0", classes)


def _interleaved(left, right):
    both = torch.stack((left, right), 2)  # [R, D/2, 2, H, W]
    return both.flatten(1, 2)


def shufflenet_v2(t, x, classes):
    def step(x, at, k, width, act=True, **options):
        x = t.norm(t.conv(x, f"{at}.conv{k}", width, **options), f"{at}.bn{k}")
        return relu(x) if act else x

    x = relu(t.norm(t.conv(x, "conv1", 24, 1), "bn1"))
    features = {"f0": x}
    for i, (width, units) in enumerate(((116, 3), (232, 7), (464, 3)), start=1):
        half, inputs = width // 2, x.shape[1]
        for j in range(units + 1):
            at = f"layer{i}.{j}"
            if j == 0:
                left = step(x, at, 1, inputs, act=False, stride=2, groups=inputs)
                left = step(left, at, 2, half, kernel=1)
                right = step(x, at, 3, half, kernel=1)
                right = step(right, at, 4, half, act=False, stride=2, groups=half)
                right = step(right, at, 5, half, kernel=1)
            else:
                left, right = x[:, :half], step(x[:, half:], at, 1, half, kernel=1)
                right = step(right, at, 2, half, act=False, groups=half)
                right = step(right, at, 3, half, kernel=1)
            x = _interleaved(left, right)
        features[f"f{i}"] = x
    last = relu(t.norm(t.conv(x, "conv2", 1024, 1), "bn2"))
    return _headed(t, features, last, "linear", classes)


WIDE = (32, 64, 128, 256)
COUNTERPARTS = {
    **{f"resnet{depth}": partial(resnet, depth=depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(resnet, depth=depth, widths=WIDE) for depth in (8, 32)},
    "ResNet50": resnet50,
    **{f"wrn_{depth}_{widen}": partial(wide_resnet, depth=depth, widen=widen)
       for depth in (16, 40) for widen in (1, 2)},
    "vgg8": partial(vgg, counts=(1, 1, 1, 1, 1)),
    "vgg11": partial(vgg, counts=(1, 1, 2, 2, 2)),
    "vgg13": partial(vgg, counts=(2, 2, 2, 2, 2)),
    "vgg16": partial(vgg, counts=(2, 2, 3, 3, 3)),
    "vgg19": partial(vgg, counts=(2, 2, 4, 4, 4)),
    "MobileNetV2": mobilenet_v2,
    "ShuffleV2": shufflenet_v2,
}
