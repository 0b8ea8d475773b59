"""The wide residual network of AutoAugment's TensorFlow code: shortcuts without parameters.

Parameter paths: stem, stage{1..3}_block{1..n}/{norm1, conv1, norm2, conv2}, head_norm, head.
"""

from functools import partial

from flax import linen as nn
import jax
import jax.numpy as jnp

from augjax import check
from augjax.models.layers import Build, global_mean, torch_uniform
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

WIDTHS = (16, 32, 64)  # of the stages, before they are widened; the stem's is the first


def fitted(x: jax.Array, like: jax.Array) -> jax.Array:
    """x in the shape of `like`: its squares of pixels averaged, zero channels on both sides."""
    size, more = x.shape[1] // like.shape[1], like.shape[-1] - x.shape[-1]
    x = nn.avg_pool(x, (size, size), (size, size)) if size > 1 else x
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))


class PaddedBlock(nn.Module):
    """conv2(relu(norm2(conv1(a)))) + fitted(x), a = relu(norm1(x)): [R, H/s, W/s, width].

    `activates` puts a on the shortcut too. A quantiser leaves the shortcut as it is.
    """

    width: int
    stride: int
    activates: bool
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, width = self.build, self.width
        a = nn.relu(build.norm("norm1")(x, mode))
        y = build.conv(width, 3, "conv1", self.stride)(build.hooked(a))
        y = build.hooked(nn.relu(build.norm("norm2")(y, mode)))
        y = build.conv(width, 3, "conv2")(y)
        return y + fitted(a if self.activates else x, y)


class WideResNetTF(nn.Module):
    """As `WideResNet`, but every stage's input is added to its output, and the stem to the last.

    Called with normalised images [R, H, W, C], H and W multiples of 4; returns Outputs with the
    taps f0 (stem) to f3, raw sums with all their shortcuts, in the compute type, and `pooled`
    [R, D] and `logits` [R, K] in float32.

    At stride 2 the original pads below and to the right; this network pads above and to the left,
    as every other one here, and so is its mirror image: equal on flipped images, with flipped
    kernels.

    Source: spec M2 (AutoAugment's wrn.py and custom_ops.py).
    """

    blocks: int
    widen: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        check.require(
            x.shape[1] % 4 == 0 and x.shape[2] % 4 == 0, "images of wrn_28_10_tf",
            "H and W that are multiples of 4 (its shortcuts average squares of pixels)",
            list(x.shape), "choose another image_shape",
        )
        build, Block = self.build, self.build.block(PaddedBlock)
        x = build.conv(WIDTHS[0], 3, "stem")(x)
        features = {"f0": x}
        for stage, width in enumerate(WIDTHS, start=1):
            start = x
            for block in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                activates = stage == 1 and block == 1
                x = Block(width * self.widen, stride, activates, build,
                          name=f"stage{stage}_block{block}")(x, mode)
            x = x + fitted(start, x)
            if stage == len(WIDTHS):
                x = x + fitted(features["f0"], x)
            features[f"f{stage}"] = x
        pooled = global_mean(nn.relu(build.norm("head_norm")(x, mode)))
        # TensorFlow's linear layer starts from the number of classes; its bias at zero
        return build.outputs(features, pooled, {"kernel_init": torch_uniform(build.classes)})


def wide_resnet_tf(build: Build, depth: int, widen: int) -> nn.Module:
    """A wide ResNet of `depth` = 6n + 4 layers, in AutoAugment's form; see `WideResNetTF`.

    Raises ConfigError. Source: spec M2.
    """
    check.require(
        depth >= 10 and (depth - 4) % 6 == 0, "depth of a wide resnet", "6n + 4 with n >= 1", depth,
        "choose 10, 16, 22, 28 or 40",
    )
    check.require(widen >= 1, "widen of a wide resnet", "at least 1", widen, "use 1, 2, 4 or 10")
    return WideResNetTF((depth - 4) // 6, widen, build)


WIDE_RESNETS_TF = {
    "wrn_28_10_tf": Model(partial(wide_resnet_tf, depth=28, widen=10), smallest=8),
}
