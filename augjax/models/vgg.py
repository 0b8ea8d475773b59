"""VGG for small images (Simonyan & Zisserman 2015), as RepDistiller has it, with BatchNorm.

Parameter paths: stem, stem_norm, stage{0..4}_block{1..n}/{conv, norm}, head. The stem is the first
block of stage 0, so that stage s ends at tap f{s}.
"""

from functools import partial

from flax import linen as nn
import jax

from augjax import check
from augjax.models.layers import Build, global_mean, normal
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

WIDTHS = (64, 128, 256, 512, 512)
BLOCKS = {  # {depth: convolutions of each stage}
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
LARGE = 64  # pixels a side from which on stage 3 is pooled too


class ConvBlock(nn.Module):
    """relu(norm(conv(x))), the convolution with a bias: [R, H, W, D] -> [R, H, W, width]."""

    width: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        x = self.build.conv(self.width, 3, "conv", use_bias=True)(self.build.hooked(x))
        return nn.relu(self.build.norm("norm")(x, mode))


class VGG(nn.Module):
    """Five stages with a 2x2 maximum after the first three, global mean, linear head.

    Images of 64 pixels or more are pooled after the fourth stage too. Called with normalised images
    [R, H, W, C]; returns Outputs with the taps f0 to f4 of the stages, each after its ReLU and
    before its pooling, in the compute type, and `pooled` [R, D] and `logits` [R, K] in float32.

    Source: spec M1 (RepDistiller models/vgg.py).
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build, Block = self.build, self.build.block(ConvBlock)
        pools = 4 if min(x.shape[1:3]) >= LARGE else 3
        x = build.conv(self.widths[0], 3, "stem", use_bias=True)(x)
        x = nn.relu(build.norm("stem_norm")(x, mode))
        features = {}
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks)):
            for block in range(2 if stage == 0 else 1, blocks + 1):
                x = Block(width, build, name=f"stage{stage}_block{block}")(x, mode)
            features[f"f{stage}"] = x
            if stage < pools:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return build.outputs(features, global_mean(x), {"kernel_init": normal(0.01)})


def vgg(build: Build, depth: int, widths: tuple[int, ...] = WIDTHS) -> nn.Module:
    """A VGG of `depth` layers.

    Args:
      depth: 8, 11, 13, 16 or 19.
      widths: channels of the five stages.

    Raises ConfigError. Source: spec M1.
    """
    check.require(depth in BLOCKS, "depth of a vgg", f"one of {sorted(BLOCKS)}", depth,
                  "choose 8 or 13")
    check.require(
        len(widths) == 5 and min(widths) >= 1, "widths of a vgg", "five positive channel counts",
        tuple(widths), f"give for example {WIDTHS}",
    )
    return VGG(BLOCKS[depth], tuple(widths), build)


VGGS = {f"vgg{depth}": Model(partial(vgg, depth=depth), smallest=8) for depth in BLOCKS}
