"""Shake-Shake networks for small images (Gastaldi 2017), as AutoAugment has them.

Parameter paths: stem, stem_norm, stage{1..3}_block{1..n}/{branch{1, 2}_{conv1, norm1, conv2,
norm2}, shortcut1, shortcut2, shortcut_norm}, head.
"""

from functools import partial

from flax import linen as nn
import jax
import jax.numpy as jnp

from augjax import check
from augjax.models.layers import Build, global_mean, shaken, torch_uniform
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

STEM = 16


def shake_shake_factors(key: jax.Array, rows: int) -> jax.Array:
    """Factors of the two branches, [2 passes (forward, backward), 2 branches, R, 1, 1, 1].

    Two numbers from U(0, 1) divided by their sum, for every row and pass on its own.

    Source: spec M2 (arcelien/pba autoaugment/shake_shake.py; Gastaldi has U(0, 1) and 1 minus it).
    """
    draws = 1 - jax.random.uniform(key, (2, 2, rows, 1, 1, 1))  # (0, 1], so that no sum is 0
    return draws / draws.sum(1, keepdims=True)


class ShakeShakeBlock(nn.Module):
    """a_1 branch_1(x) + a_2 branch_2(x) + shortcut: [R, H, W, D] -> [R, H/s, W/s, width].

    A branch is norm2(conv2(relu(norm1(conv1(relu(x)))))); a is drawn in training
    (`shake_shake_factors`) and 1/2 in prediction. Where the width changes, the shortcut is two 1x1
    convolutions of half the width, one of x and one of x moved by a pixel, side by side in a norm.
    """

    width: int
    stride: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, width = self.build, self.width
        activated = build.hooked(nn.relu(x))
        branches = []
        for branch in ("branch1", "branch2"):
            y = build.conv(width, 3, f"{branch}_conv1", self.stride)(activated)
            y = build.hooked(nn.relu(build.norm(f"{branch}_norm1")(y, mode)))
            y = build.conv(width, 3, f"{branch}_conv2")(y)
            branches.append(build.norm(f"{branch}_norm2")(y, mode))
        if mode.training:
            factors = shake_shake_factors(self.make_rng("dropout"), x.shape[0])
            branches = [shaken(y, *pair) for y, pair in zip(branches, factors.swapaxes(0, 1))]
            y = sum(branches)
        else:
            y = 0.5 * sum(branches)
        if x.shape[-1] != width:
            halves = (
                build.conv(width // 2, 1, "shortcut1", self.stride)(x),
                build.conv(width // 2, 1, "shortcut2", self.stride)(_moved(x)),
            )
            x = build.norm("shortcut_norm")(jnp.concatenate(halves, -1), mode)
        return y + x


def _moved(x):
    """x[:, i + 1, j + 1] at [:, i, j], and 0 behind the last."""
    return jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))


class ShakeShake(nn.Module):
    """Stem, three stages at strides 1, 2, 2 and widths 1, 2, 4, ReLU, global mean, linear head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0 (the stem's norm)
    to f3, each a raw sum, `pooled` [R, D] and `logits` [R, K].

    Source: spec M2 (arcelien/pba autoaugment/shake_shake.py, custom_ops.py).
    """

    blocks: int
    width: int
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build, Block = self.build, self.build.block(ShakeShakeBlock)
        x = build.conv(STEM, 3, "stem")(x)
        x = build.norm("stem_norm")(x, mode)
        features = {"f0": x}
        for stage in (1, 2, 3):
            for block in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                width, name = self.width * 2 ** (stage - 1), f"stage{stage}_block{block}"
                x = Block(width, stride, build, name=name)(x, mode)
            features[f"f{stage}"] = x
        init = {"kernel_init": torch_uniform(build.classes)}  # its source's: 1 / sqrt(classes)
        return build.outputs(features, global_mean(nn.relu(x)), init)


def shake_shake(build: Build, width: int, depth: int = 26) -> nn.Module:
    """A Shake-Shake network of `depth` = 6n + 2 layers and 2x`width`d branches.

    Args:
      width: of the first stage, even.
      depth: 26, ...

    Raises ConfigError. Source: spec M2.
    """
    check.require(
        width >= 2 and width % 2 == 0, "width of a shake_shake", "an even number", width,
        "choose 32, 96 or 112",
    )
    check.require(
        depth >= 8 and (depth - 2) % 6 == 0, "depth of a shake_shake", "6n + 2 with n >= 1", depth,
        "choose 26",
    )
    return ShakeShake((depth - 2) // 6, width, build)


SHAKE_SHAKES = {
    f"shake_shake_26_2x{width}d": Model(partial(shake_shake, width=width), smallest=8)
    for width in (32, 96, 112)
}
