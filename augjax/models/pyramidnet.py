"""Pyramidal residual networks for small images (Han et al. 2017), plain or with ShakeDrop.

Parameter paths: stem, stem_norm, stage{1..3}_block{1..n}/{norm1, conv1, norm2, conv2, norm3,
conv3, norm4}, head_norm, head.
"""

from functools import partial

from flax import linen as nn
import jax
import jax.numpy as jnp

from augjax import check
from augjax.models.layers import Build, global_mean, shaken
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

STEM = 16
EXPANSION = 4  # a block's output over its width


def shake_drop(key: jax.Array, rows: int, survival: float) -> tuple[jax.Array, jax.Array]:
    """Factors [R, 1, 1, 1] of a residual branch in the forward and in the backward pass.

    b + alpha - b alpha and b + beta - b beta, with b ~ Bernoulli(survival), alpha ~ U(-1, 1) and
    beta ~ U(0, 1) for every row.

    Source: Yamada et al. 2018; spec M2 (arcelien/pba autoaugment/shake_drop.py).
    """
    of_kept, of_alpha, of_beta = jax.random.split(key, 3)
    shape = (rows, 1, 1, 1)
    kept = jax.random.bernoulli(of_kept, survival, shape)
    alpha = jax.random.uniform(of_alpha, shape, minval=-1.0, maxval=1.0)
    beta = jax.random.uniform(of_beta, shape)
    return jnp.where(kept, 1.0, alpha), jnp.where(kept, 1.0, beta)


class PyramidBlock(nn.Module):
    """norm4(conv3(..conv2(..conv1(norm1(x))))) + shortcut: [R, H, W, D] -> [R, H/s, W/s, 4 width].

    1x1, 3x3 with the stride, 1x1; a norm before each and behind the last, a ReLU before the second
    and the third. The shortcut is x, averaged over 2x2 pixels at stride 2, with zeros for the
    channels that it lacks. conv1 reads no ReLU's output, so it has no hook (spec C7).

    With a `survival` below 1 the branch is shaken in training (`shake_drop`), and multiplied by
    `survival` in prediction, which is the forward factor's mean.
    """

    width: int
    stride: int
    survival: float
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, width = self.build, self.width
        y = build.norm("norm1")(x, mode)
        y = build.conv(width, 1, "conv1")(y)
        y = build.hooked(nn.relu(build.norm("norm2")(y, mode)))
        y = build.conv(width, 3, "conv2", self.stride)(y)
        y = build.hooked(nn.relu(build.norm("norm3")(y, mode)))
        y = build.conv(EXPANSION * width, 1, "conv3")(y)
        y = build.norm("norm4")(y, mode)
        if self.survival < 1 and mode.training:
            y = shaken(y, *shake_drop(self.make_rng("dropout"), y.shape[0], self.survival))
        elif self.survival < 1:
            y = y * self.survival
        if self.stride == 2:  # the last pixel of an odd side stands alone
            mean = nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)
            x = mean.astype(x.dtype)  # Flax divides by a float32 count
        return y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, y.shape[-1] - x.shape[-1])))


class PyramidNet(nn.Module):
    """Stem, three stages at strides 1, 2, 2 of ever wider blocks, norm, ReLU, global mean, head.

    Block l of L has width 16 + widening l / L, rounded, and survives with 1 - drop l / L.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0 (the stem's norm)
    to f3, each a raw sum, `pooled` [R, D] and `logits` [R, K].

    Source: spec M2 (clovaai/CutMix-PyTorch pyramidnet.py; arcelien/pba autoaugment/shake_drop.py).
    """

    blocks: int
    widening: int
    drop: float
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build, Block = self.build, self.build.block(PyramidBlock)
        x = build.conv(STEM, 3, "stem")(x)
        x = build.norm("stem_norm")(x, mode)
        features = {"f0": x}
        for stage in (1, 2, 3):
            for block in range(1, self.blocks + 1):
                share = ((stage - 1) * self.blocks + block) / (3 * self.blocks)  # l / L
                width, survival = round(STEM + self.widening * share), 1 - self.drop * share
                stride = 2 if stage > 1 and block == 1 else 1
                name = f"stage{stage}_block{block}"
                x = Block(width, stride, survival, build, name=name)(x, mode)
            features[f"f{stage}"] = x
        x = nn.relu(build.norm("head_norm")(x, mode))
        return build.outputs(features, global_mean(x))


def pyramidnet(build: Build, depth: int, widening: int, drop: float = 0.0) -> nn.Module:
    """A PyramidNet of `depth` = 9n + 2 layers.

    Args:
      depth: 200, 272, ...
      widening: what the last block's width is above the stem's 16.
      drop: share of the rows whose last residual branch ShakeDrop shakes; 0 is no ShakeDrop.

    Raises ConfigError. Source: spec M2.
    """
    check.require(
        depth >= 11 and (depth - 2) % 9 == 0, "depth of a pyramidnet", "9n + 2 with n >= 1", depth,
        "choose 200 or 272",
    )
    check.require(
        widening >= 0 and 0 <= drop < 1, "widening and drop of a pyramidnet",
        "widening >= 0 and drop in [0, 1)", (widening, drop), "give for example 200 and 0.5",
    )
    return PyramidNet((depth - 2) // 9, widening, drop, build)


PYRAMIDNETS = {
    "pyramidnet_200_240": Model(partial(pyramidnet, depth=200, widening=240), smallest=8),
    "pyramidnet_272_200": Model(partial(pyramidnet, depth=272, widening=200, drop=0.5), smallest=8),
}
