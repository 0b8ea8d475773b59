"""Wide residual networks (Zagoruyko & Komodakis 2016), as RepDistiller has them.

Parameter paths: stem, stage{1..3}_block{1..n}/{norm1, conv1, norm2, conv2, shortcut}, head_norm,
head.
"""

from functools import partial

from flax import linen as nn
import jax

from augjax import check
from augjax.models.layers import Build, global_mean, torch_uniform
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

WIDTHS = (16, 32, 64)  # of the stages, before they are widened; the stem's is the first


class PreActivationBlock(nn.Module):
    """conv2(drop(relu(norm2(conv1(a))))) + shortcut, a = relu(norm1(x)): [R, H/s, W/s, width].

    The shortcut is x, or a 1x1 convolution of a where the channels change. A quantiser sees a, but
    not x: an identity shortcut stays as it is (spec C7, tensorpack).
    """

    width: int
    stride: int
    dropout: float
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, width = self.build, self.width
        a = build.hooked(nn.relu(build.norm("norm1")(x, mode)))
        y = build.conv(width, 3, "conv1", self.stride)(a)
        y = nn.relu(build.norm("norm2")(y, mode))
        y = nn.Dropout(self.dropout, name="drop")(y, deterministic=not mode.training)
        y = build.conv(width, 3, "conv2")(build.hooked(y))
        if x.shape[-1] != width:
            x = build.conv(width, 1, "shortcut", self.stride)(a)
        return x + y


class WideResNet(nn.Module):
    """Stem, three stages of `blocks` blocks at strides 1, 2, 2, norm, ReLU, global mean, head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0 (stem) to f3, which
    are raw sums, in the compute type, and `pooled` [R, D] and `logits` [R, K] in float32.

    Source: spec M1 (RepDistiller models/wrn.py).
    """

    blocks: int
    widen: int
    dropout: float
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build, Block = self.build, self.build.block(PreActivationBlock)
        x = build.conv(WIDTHS[0], 3, "stem")(x)
        features = {"f0": x}
        for stage, width in enumerate(WIDTHS, start=1):
            for block in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                x = Block(width * self.widen, stride, self.dropout, build,
                          name=f"stage{stage}_block{block}")(x, mode)
            features[f"f{stage}"] = x
        pooled = global_mean(nn.relu(build.norm("head_norm")(x, mode)))
        start = {"kernel_init": torch_uniform(pooled.shape[-1])}  # the bias starts at zero
        return build.outputs(features, pooled, start)


def wide_resnet(build: Build, depth: int, widen: int, dropout: float = 0.0) -> nn.Module:
    """A wide ResNet of `depth` = 6n + 4 layers.

    Args:
      depth: 10, 16, 22, 28, 40, ...
      widen: stages have `widen` times 16, 32 and 64 channels.
      dropout: share of activations that is dropped between the two convolutions of a block.

    Raises ConfigError. Source: spec M1.
    """
    check.require(
        depth >= 10 and (depth - 4) % 6 == 0, "depth of a wide resnet", "6n + 4 with n >= 1", depth,
        "choose 10, 16, 22, 28 or 40",
    )
    check.require(widen >= 1, "widen of a wide resnet", "at least 1", widen, "use 1, 2, 4 or 10")
    check.require(
        0 <= dropout < 1, "dropout of a wide resnet", "a share in [0, 1)", dropout, "use 0 for none"
    )
    return WideResNet((depth - 4) // 6, widen, dropout, build)


WIDE_RESNETS = {
    f"wrn_{depth}_{widen}": Model(partial(wide_resnet, depth=depth, widen=widen), smallest=8)
    for depth, widen in ((16, 1), (16, 2), (16, 4), (40, 1), (40, 2), (28, 10))
}
