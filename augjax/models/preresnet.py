"""Pre-activation residual networks for small images (He et al. 2016, "Identity Mappings").

Parameter paths: stem, stage{1..3}_block{1..n}/{norm1, conv1, norm2, conv2[, norm3, conv3],
shortcut}, head_norm, head.
"""

from functools import partial

from flax import linen as nn
import jax

from augjax import check
from augjax.models.layers import Build, global_mean
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

WIDTHS = (16, 16, 32, 64)  # stem and three stages
EXPANSION = 4  # a bottleneck's output over its width


class PreBasicBlock(nn.Module):
    """conv2(relu(norm2(conv1(relu(norm1(x)))))) + shortcut: [R, H, W, D] -> [R, H/s, W/s, width].

    The shortcut is x itself, or a 1x1 convolution of x, without a norm, where the shape changes.
    Neither is hooked: x is a sum, not an activation (spec C7).
    """

    width: int
    stride: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, width = self.build, self.width
        y = build.hooked(nn.relu(build.norm("norm1")(x, mode)))
        y = build.conv(width, 3, "conv1", self.stride)(y)
        y = build.hooked(nn.relu(build.norm("norm2")(y, mode)))
        y = build.conv(width, 3, "conv2")(y)
        if x.shape != y.shape:
            x = build.conv(width, 1, "shortcut", self.stride)(x)
        return x + y


class PreBottleneck(nn.Module):
    """conv3(conv2(conv1(x))) + shortcut: [R, H, W, D] -> [R, H/s, W/s, 4 width].

    1x1, 3x3 with the stride, 1x1, each after a norm and a ReLU; the shortcut as in PreBasicBlock.
    """

    width: int
    stride: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, width = self.build, self.width
        y = build.hooked(nn.relu(build.norm("norm1")(x, mode)))
        y = build.conv(width, 1, "conv1")(y)
        y = build.hooked(nn.relu(build.norm("norm2")(y, mode)))
        y = build.conv(width, 3, "conv2", self.stride)(y)
        y = build.hooked(nn.relu(build.norm("norm3")(y, mode)))
        y = build.conv(EXPANSION * width, 1, "conv3")(y)
        if x.shape != y.shape:
            x = build.conv(EXPANSION * width, 1, "shortcut", self.stride)(x)
        return x + y


class PreResNet(nn.Module):
    """Stem, three stages at strides 1, 2, 2, norm, ReLU, global mean, linear head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0 (the stem's
    convolution) to f3, each a raw sum, `pooled` [R, D] and `logits` [R, K].

    Source: spec M2 (bearpaw/pytorch-classification models/cifar/preresnet.py).
    """

    blocks: int
    widths: tuple[int, int, int, int]
    bottleneck: bool
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build = self.build
        Block = build.block(PreBottleneck if self.bottleneck else PreBasicBlock)
        stem, *stages = self.widths
        x = build.conv(stem, 3, "stem")(x)
        features = {"f0": x}
        for stage, width in enumerate(stages, start=1):
            for block in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                x = Block(width, stride, build, name=f"stage{stage}_block{block}")(x, mode)
            features[f"f{stage}"] = x
        x = nn.relu(build.norm("head_norm")(x, mode))
        return build.outputs(features, global_mean(x))


def preresnet(build: Build, depth: int, bottleneck: bool = False,
              widths: tuple[int, ...] = WIDTHS) -> nn.Module:
    """A pre-activation ResNet of `depth` = 6n + 2 layers, or 9n + 2 with bottlenecks.

    Args:
      depth: 20, 32, 44, 56, 110, ... or, with bottlenecks, 164, ...
      bottleneck: blocks of three convolutions (1x1, 3x3, 1x1) instead of two (3x3).
      widths: channels of the stem and the three stages, the stages' a quarter of what bottlenecks
        give.

    Raises ConfigError. Source: spec M2.
    """
    layers = 9 if bottleneck else 6  # of one block in each of three stages
    check.require(
        depth >= layers + 2 and (depth - 2) % layers == 0, "depth of a preresnet",
        f"{layers}n + 2 with n >= 1", depth, "choose 20, 32, 44, 56, 110, or 164 with bottlenecks",
    )
    check.require(
        len(widths) == 4 and min(widths) >= 1, "widths of a preresnet",
        "four positive channel counts (stem and three stages)", tuple(widths),
        "give for example (16, 16, 32, 64)",
    )
    return PreResNet((depth - 2) // layers, tuple(widths), bottleneck, build)


PRERESNETS = {
    **{f"preresnet{depth}": Model(partial(preresnet, depth=depth), smallest=8)
       for depth in (20, 32, 44, 56, 110)},
    "preresnet164": Model(partial(preresnet, depth=164, bottleneck=True), smallest=8),
}
