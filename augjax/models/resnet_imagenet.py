"""Residual networks of four stages (He et al. 2015): for ImageNet, and with a CIFAR stem.

Parameter paths: stem, stem_norm, stage{1..4}_block{1..n}/{conv1, norm1, conv2, norm2[, conv3,
norm3], shortcut, shortcut_norm}, head.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from flax import linen as nn
import jax

from augjax import check
from augjax.models.layers import Build, global_mean
from augjax.models.norm import Mode
from augjax.models.resnet import BasicBlock
from augjax.models.table import Model
from augjax.types import Outputs

WIDTHS = (64, 128, 256, 512)
EXPANSION = 4  # a bottleneck's output over its width
# What 3x3 convolutions and the max pool pad with. The two differ at stride 2, where SAME pads an
# even side by one pixel, at its end, and PyTorch by one at either end.
PADDINGS = {"torch": None, "same": "SAME"}


class Bottleneck(nn.Module):
    """relu(conv3(conv2(conv1(x))) + shortcut): [R, H, W, D] -> [R, H/s, W/s, 4 width].

    1x1, 3x3 with the stride, 1x1, each with its norm and the first two with their ReLU. The
    shortcut is a 1x1 convolution and a norm where the shape changes, else what conv1 reads.
    """

    width: int
    stride: int
    build: Build
    padding: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, width = self.build, self.width
        x = build.hooked(x)
        y = build.conv(width, 1, "conv1")(x)
        y = build.hooked(nn.relu(build.norm("norm1")(y, mode)))
        y = build.conv(width, 3, "conv2", self.stride, padding=self.padding)(y)
        y = build.hooked(nn.relu(build.norm("norm2")(y, mode)))
        y = build.conv(EXPANSION * width, 1, "conv3")(y)
        y = build.norm("norm3")(y, mode)
        if x.shape != y.shape:
            x = build.conv(EXPANSION * width, 1, "shortcut", self.stride)(x)
            x = build.norm("shortcut_norm")(x, mode)
        return nn.relu(x + y)


class ImageNetResNet(nn.Module):
    """Stem, four stages at strides 1, 2, 2, 2, global mean, linear head.

    The stem is a 7x7 convolution at stride 2 and a 3x3 max pool at stride 2, the CIFAR stem a 3x3
    convolution. Called with normalised images [R, H, W, C]; returns Outputs with the taps f0
    (stem, before its pool) to f4, each after its ReLU, `pooled` [R, D] and `logits` [R, K].

    Source: spec M1, M2 and M3 (torchvision and timm resnet.py; RepDistiller models/resnetv2.py).
    """

    blocks: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    bottleneck: bool
    cifar_stem: bool
    padding: Any
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build = self.build
        Block = build.block(Bottleneck if self.bottleneck else BasicBlock)
        kernel, stride = (3, 1) if self.cifar_stem else (7, 2)
        x = build.conv(self.widths[0], kernel, "stem", stride)(x)  # 3 pixels a side in Flax too
        x = nn.relu(build.norm("stem_norm")(x, mode))
        features = {"f0": x}
        if not self.cifar_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), self.padding or ((1, 1), (1, 1)))
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths), start=1):
            for block in range(1, blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                x = Block(width, stride, build, padding=self.padding,
                          name=f"stage{stage}_block{block}")(x, mode)
            features[f"f{stage}"] = x
        return build.outputs(features, global_mean(x))


def resnet_imagenet(build: Build, blocks: tuple[int, ...], bottleneck: bool = False,
                    cifar_stem: bool = False, widths: tuple[int, ...] = WIDTHS,
                    padding: str = "torch", momentum: float = 0.9, epsilon: float = 1e-5
                    ) -> nn.Module:
    """A ResNet of four stages.

    Args:
      blocks: of each stage.
      bottleneck: blocks of three convolutions (1x1, 3x3, 1x1) instead of two (3x3).
      cifar_stem: a 3x3 convolution that keeps the resolution, and no pooling.
      widths: channels of each stage, a quarter of what bottlenecks give; the stem has the first.
      padding: "torch", or "same" for weights of Flax's own ImageNet example, whose 3x3
        convolutions and max pool pad as TensorFlow does (examples/imagenet/models.py).
      momentum, epsilon: of BatchNorm.

    Raises ConfigError. Source: spec M1, M2, M3.
    """
    for what, values in (("blocks", blocks), ("widths", widths)):
        check.require(
            len(values) == 4 and min(values) >= 1, f"{what} of a resnet",
            "four positive numbers, one per stage", tuple(values),
            "give for example (2, 2, 2, 2) blocks of widths (64, 128, 256, 512)",
        )
    padding = PADDINGS[check.one_of("padding of a resnet", padding, PADDINGS)]
    build = replace(build, momentum=momentum, epsilon=epsilon)
    return ImageNetResNet(tuple(blocks), tuple(widths), bottleneck, cifar_stem, padding, build)


BLOCKS_18, BLOCKS_50 = (2, 2, 2, 2), (3, 4, 6, 3)  # ResNet-34 has ResNet-50's

IMAGENET_RESNETS = {
    "resnet18": Model(partial(resnet_imagenet, blocks=BLOCKS_18), 32, 224),
    "resnet34": Model(partial(resnet_imagenet, blocks=BLOCKS_50), 32, 224),
    "resnet50": Model(partial(resnet_imagenet, blocks=BLOCKS_50, bottleneck=True), 32, 224),
    "resnet200": Model(
        partial(resnet_imagenet, blocks=(3, 24, 36, 3), bottleneck=True), 32, 224),
    "resnet18_cifar": Model(partial(resnet_imagenet, blocks=BLOCKS_18, cifar_stem=True), 8),
    "resnet18_role_kd": Model(partial(  # spec C7
        resnet_imagenet, blocks=BLOCKS_18, cifar_stem=True, momentum=0.99, epsilon=1e-3), 8),
    "resnet50_cifar": Model(
        partial(resnet_imagenet, blocks=BLOCKS_50, bottleneck=True, cifar_stem=True), 8),
}
