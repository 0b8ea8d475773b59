"""Residual networks for small images (He et al. 2016, section 4.2), as RepDistiller has them.

Parameter paths: stem, stem_norm, stage{1..3}_block{1..n}/{conv1, norm1, conv2, norm2, shortcut,
shortcut_norm}, extra_block{1..}, head.
"""

from functools import partial
from typing import Any

from flax import linen as nn
import jax

from augjax import check
from augjax.models.layers import Build, global_mean
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

WIDTHS = (16, 16, 32, 64)  # stem and three stages
WIDTHS_X4 = (32, 64, 128, 256)


class BasicBlock(nn.Module):
    """relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut): [R, H, W, D] -> [R, H/s, W/s, width].

    The shortcut is a 1x1 convolution and a norm where the shape changes, else what conv1 reads.
    """

    width: int
    stride: int
    build: Build
    zero_gamma: bool = False  # norm2 starts at zero, and so the block at its shortcut
    padding: Any = None  # of the 3x3 convolutions; None is PyTorch's

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, width = self.build, self.width
        x = build.hooked(x)
        y = build.conv(width, 3, "conv1", self.stride, padding=self.padding)(x)
        y = build.hooked(nn.relu(build.norm("norm1")(y, mode)))
        y = build.conv(width, 3, "conv2", padding=self.padding)(y)
        y = build.norm("norm2", zero_scale=self.zero_gamma)(y, mode)
        if x.shape != y.shape:
            x = build.conv(width, 1, "shortcut", self.stride)(x)
            x = build.norm("shortcut_norm")(x, mode)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Stem, three stages of `blocks` basic blocks at strides 1, 2, 2, global mean, linear head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0 (stem) to f3, each
    after its ReLU and in the compute type, `pooled` [R, D] and `logits` [R, K] in float32.

    `extra_blocks` more blocks of the last stage's shape stand between it and the pooling; f3 stays
    the last stage's output. They are made to be dropped once trained (spec C5).

    Source: spec M1 (RepDistiller models/resnet.py).
    """

    blocks: int
    widths: tuple[int, int, int, int]
    extra_blocks: int
    zero_extra_gamma: bool
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build, Block = self.build, self.build.block(BasicBlock)
        stem, *stages = self.widths
        x = build.conv(stem, 3, "stem")(x)
        x = nn.relu(build.norm("stem_norm")(x, mode))
        features = {"f0": x}
        for stage, width in enumerate(stages, start=1):
            for block in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                x = Block(width, stride, build, name=f"stage{stage}_block{block}")(x, mode)
            features[f"f{stage}"] = x
        for block in range(1, self.extra_blocks + 1):
            x = Block(width, 1, build, self.zero_extra_gamma, name=f"extra_block{block}")(x, mode)
        return build.outputs(features, global_mean(x))


def resnet(build: Build, depth: int, widths: tuple[int, ...] = WIDTHS, extra_blocks: int = 0,
           zero_extra_gamma: bool = False) -> nn.Module:
    """A ResNet of `depth` = 6n + 2 layers.

    Args:
      depth: 8, 14, 20, 32, 44, 56, 110, ...
      widths: channels of the stem and the three stages.
      extra_blocks: see `ResNet`; "ResNet20+20" of spec C5 has 10.
      zero_extra_gamma: the extra blocks start as identities.

    Raises ConfigError. Source: spec M1.
    """
    check.require(
        depth >= 8 and (depth - 2) % 6 == 0, "depth of a resnet", "6n + 2 with n >= 1", depth,
        "choose 8, 20, 32, 44, 56 or 110",
    )
    check.require(
        len(widths) == 4 and min(widths) >= 1, "widths of a resnet",
        "four positive channel counts (stem and three stages)", tuple(widths),
        "give for example (16, 16, 32, 64)",
    )
    return ResNet((depth - 2) // 6, tuple(widths), extra_blocks, zero_extra_gamma, build)


RESNETS = {
    **{f"resnet{depth}": Model(partial(resnet, depth=depth), smallest=8)
       for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": Model(partial(resnet, depth=depth, widths=WIDTHS_X4), smallest=8)
       for depth in (8, 32)},
    "resnet8_tiny": Model(partial(resnet, depth=8, widths=(8, 8, 16, 32)), smallest=8),
}
