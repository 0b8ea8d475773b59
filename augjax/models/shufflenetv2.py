"""ShuffleNetV2 for small images (Ma et al. 2018), as RepDistiller has it.

Parameter paths: stem, stem_norm, stage{1..3}_block1/{conv1..5, norm1..5},
stage{1..3}_block{2..}/{conv1..3, norm1..3}, extra_block{1..}, final, final_norm, head.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from augjax import check
from augjax.models.layers import Build, global_mean
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

STEM_WIDTH = 24
WIDTHS = (116, 232, 464, 1024)  # of the three stages and the last convolution
BLOCKS = (4, 8, 4)  # of the stages: one that halves the image, then units
torch_conv = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(+-1/sqrt(fan_in))


def shuffled(left: jax.Array, right: jax.Array) -> jax.Array:
    """Channels in turn from either half: [R, H, W, D/2] twice -> [R, H, W, D]."""
    return jnp.stack((left, right), axis=-1).reshape(*left.shape[:-1], 2 * left.shape[-1])


class DownBlock(nn.Module):
    """Halves the image in two branches of width/2 channels: [R, H, W, D] -> [R, H/2, W/2, width].

    left = relu(norm2(conv2(norm1(conv1(x)))))
    right = relu(norm5(conv5(norm4(conv4(relu(norm3(conv3(x))))))))

    conv1 and conv4 are depthwise, at stride 2; the output is shuffled(left, right).
    """

    width: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, half = self.build, self.width // 2
        x = build.hooked(x)
        left = build.depthwise(x.shape[-1], 3, "conv1", 2, kernel_init=torch_conv)(x)
        left = build.norm("norm1")(left, mode)
        left = build.conv(half, 1, "conv2", kernel_init=torch_conv)(left)
        left = nn.relu(build.norm("norm2")(left, mode))
        right = build.conv(half, 1, "conv3", kernel_init=torch_conv)(x)
        right = build.hooked(nn.relu(build.norm("norm3")(right, mode)))
        right = build.depthwise(half, 3, "conv4", 2, kernel_init=torch_conv)(right)
        right = build.norm("norm4")(right, mode)
        right = build.conv(half, 1, "conv5", kernel_init=torch_conv)(right)
        right = nn.relu(build.norm("norm5")(right, mode))
        return shuffled(left, right)


class Unit(nn.Module):
    """One half of the channels as it is, the other convolved, shuffled: [R, H, W, width] -> same.

    right = relu(norm3(conv3(norm2(conv2(relu(norm1(conv1(right)))))))), conv2 depthwise.
    """

    width: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, half = self.build, self.width // 2
        left, right = jnp.split(build.hooked(x), 2, axis=-1)
        right = build.conv(half, 1, "conv1", kernel_init=torch_conv)(right)
        right = build.hooked(nn.relu(build.norm("norm1")(right, mode)))
        right = build.depthwise(half, 3, "conv2", kernel_init=torch_conv)(right)
        right = build.norm("norm2")(right, mode)
        right = build.conv(half, 1, "conv3", kernel_init=torch_conv)(right)
        return shuffled(left, nn.relu(build.norm("norm3")(right, mode)))


class ShuffleNetV2(nn.Module):
    """A 1x1 stem, three stages that halve the image, a 1x1 convolution, global mean, linear head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0 (stem) to f3, each
    after its ReLU and shuffle and in the compute type, `pooled` [R, D] and `logits` [R, K] in
    float32.

    `extra_blocks` more units of the last stage's shape stand before the 1x1 convolution; f3 stays
    the last stage's output. They are made to be dropped once trained (spec C5). They cannot start
    as identities: they shuffle.

    Source: spec M1 (RepDistiller models/ShuffleNetv2.py).
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    extra_blocks: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build = self.build
        Down, Plain = build.block(DownBlock), build.block(Unit)
        *widths, final_width = self.widths
        x = build.conv(STEM_WIDTH, 1, "stem", kernel_init=torch_conv)(x)
        x = nn.relu(build.norm("stem_norm")(x, mode))
        features = {"f0": x}
        for stage, (width, blocks) in enumerate(zip(widths, self.blocks), start=1):
            for block in range(1, blocks + 1):
                Block = Down if block == 1 else Plain
                x = Block(width, build, name=f"stage{stage}_block{block}")(x, mode)
            features[f"f{stage}"] = x
        for block in range(1, self.extra_blocks + 1):
            x = Plain(width, build, name=f"extra_block{block}")(x, mode)
        x = build.conv(final_width, 1, "final", kernel_init=torch_conv)(build.hooked(x))
        x = nn.relu(build.norm("final_norm")(x, mode))
        return build.outputs(features, global_mean(x))


def shufflenetv2_cifar(build: Build, extra_blocks: int = 0, widths: Sequence[int] = WIDTHS,
                       blocks: Sequence[int] = BLOCKS) -> nn.Module:
    """The ShuffleNetV2 of RepDistiller, of width 1.

    Args:
      extra_blocks: see `ShuffleNetV2`; "ShuffleNetV2+20" of spec C5 has 7.
      widths: channels of the three stages and of the last convolution.
      blocks: of each stage.

    Raises ConfigError. Source: spec M1, C5.
    """
    check.require(
        len(widths) == 4 and min(widths) >= 2 and not any(width % 2 for width in widths[:3]),
        "widths of a shufflenetv2", "four channel counts, those of the stages even", tuple(widths),
        f"give for example {WIDTHS}",
    )
    check.require(
        len(blocks) == 3 and min(blocks) >= 1, "blocks of a shufflenetv2",
        "three counts of at least 1", tuple(blocks), f"give for example {BLOCKS}",
    )
    return ShuffleNetV2(tuple(blocks), tuple(widths), extra_blocks, build)


SHUFFLENETS_V2 = {"shufflenetv2_cifar": Model(shufflenetv2_cifar, smallest=8)}
