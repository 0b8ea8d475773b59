"""EfficientNet B0 to B8 (Tan & Le 2019), as TensorFlow's TPU models have it.

Parameter paths: stem, stem_norm, stage{1..7}_block{1..n}/{expand, expand_norm, depthwise,
depthwise_norm, squeeze, excite, project, project_norm}, final, final_norm, head; the blocks of
stage 1 have no expand.
"""

from functools import partial
from math import ceil, sqrt

from flax import linen as nn
import jax
import jax.numpy as jnp

from augjax import check
from augjax.models.layers import Build, global_mean, normal, torch_uniform
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

Stage = tuple[int, int, int, int, int]  # kernel, stride of the first block, expansion, width, n
STAGES: tuple[Stage, ...] = (  # of B0
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
)
STEM_WIDTH, FINAL_WIDTH = 32, 1280  # of B0
TAPPED = (1, 2, 3, 5, 7)  # the last stage at each of the strides 2, 4, 8, 16, 32
SQUEEZE = 4  # a block's input channels over those of its squeeze
NORM = {"momentum": 0.99, "epsilon": 1e-3}


class MBConv(nn.Module):
    """project(excite(depthwise(expand(x)))), drop-connected, + x: [R, H, W, D] -> [R, H/s, W/s, w].

    expand and depthwise are each followed by their norm and swish, project by its norm alone.
    Without x where the shape changes, and without the layer `expand` where `expansion` is 1. The
    output is linear, so a quantiser does not see it; nor do the squeeze-excite's two layers, which
    read one vector of an image and hold a few per cent of the multiplications.
    """

    width: int
    kernel: int
    stride: int
    expansion: int
    survival: float  # probability that a row keeps this branch in training, see `drop_connected`
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, inner, y = self.build, x.shape[-1] * self.expansion, x
        if self.expansion != 1:
            y = _conv(build, inner, 1, "expand")(y)
            y = build.hooked(nn.swish(build.norm("expand_norm", **NORM)(y, mode)))
        y = build.depthwise(inner, self.kernel, "depthwise", self.stride, "SAME",
                            kernel_init=normal(sqrt(2) / self.kernel))(y)
        y = nn.swish(build.norm("depthwise_norm", **NORM)(y, mode))
        y = build.hooked(y * self._gate(y, max(1, x.shape[-1] // SQUEEZE)))
        y = _conv(build, self.width, 1, "project")(y)
        y = build.norm("project_norm", **NORM)(y, mode)
        if self.stride != 1 or x.shape[-1] != self.width:
            return y
        if mode.training and self.survival < 1:
            y = drop_connected(self.make_rng("dropout"), y, self.survival)
        return x + y

    def _gate(self, y, width):
        """Squeeze and excite: a factor in (0, 1) for every row and channel, [R, 1, 1, D]."""
        mean = global_mean(y)[:, None, None]
        squeezed = nn.swish(_conv(self.build, width, 1, "squeeze", use_bias=True)(mean))
        return nn.sigmoid(_conv(self.build, y.shape[-1], 1, "excite", use_bias=True)(squeezed))


class EfficientNet(nn.Module):
    """Stem at stride 2, seven stages, a 1x1 convolution, global mean, dropout, linear head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0..f4 in the compute
    type, `pooled` [R, D], before its dropout, and `logits` [R, K] in float32. No paper names taps:
    these are the linear outputs of the last block at each of the strides 2, 4, 8, 16 and 32.

    Every convolution pads as TensorFlow's "SAME": at stride 2 and an even side one pixel less
    before than after. Block i of L, counted from 0, survives with 1 - drop_connect * i / L.

    Source: spec M3 (tensorflow/tpu, efficientnet_model.py and efficientnet_builder.py).
    """

    stem_width: int
    stages: tuple[Stage, ...]
    final_width: int
    dropout: float
    drop_connect: float
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build, Block = self.build, self.build.block(MBConv)
        x = _conv(build, self.stem_width, 3, "stem", stride=2)(x)
        x = build.hooked(nn.swish(build.norm("stem_norm", **NORM)(x, mode)))
        count, number, features = sum(stage[-1] for stage in self.stages), 0, {}
        for stage, (kernel, first, expansion, width, blocks) in enumerate(self.stages, start=1):
            for block in range(1, blocks + 1):
                survival = 1 - self.drop_connect * number / count
                x = Block(width, kernel, first if block == 1 else 1, expansion, survival, build,
                          name=f"stage{stage}_block{block}")(x, mode)
                number += 1
            if stage in TAPPED:
                features[f"f{len(features)}"] = x
        x = _conv(build, self.final_width, 1, "final")(x)
        pooled = global_mean(nn.swish(build.norm("final_norm", **NORM)(x, mode)))
        read = nn.Dropout(self.dropout, name="drop")(pooled, deterministic=not mode.training)
        init = {"kernel_init": torch_uniform(build.classes)}  # U(+-1/sqrt(out)); the bias is 0
        return build.outputs(features, pooled, init, read)


def efficientnet(build: Build, width: float = 1.0, depth: float = 1.0, dropout: float = 0.2,
                 drop_connect: float = 0.2) -> nn.Module:
    """An EfficientNet: B0 with `width` times the channels and `depth` times the blocks of a stage.

    Args:
      width: times B0's channels, rounded to multiples of 8.
      depth: times B0's blocks of each stage, rounded up.
      dropout: share of the pooled vector that the head does not see in training.
      drop_connect: share of the rows that the last block's branch would lose in training, if it
        were one block further; see `EfficientNet`.

    Raises ConfigError. Source: spec M3.
    """
    for name, value in (("width", width), ("depth", depth)):
        check.require(value > 0, f"{name} of an efficientnet", "above 0", value, "B0 has 1.0")
    for name, value in (("dropout", dropout), ("drop_connect", drop_connect)):
        check.require(0 <= value < 1, f"{name} of an efficientnet", "a share in [0, 1)", value,
                      "use 0 for none")
    return EfficientNet(rounded(STEM_WIDTH * width), scaled(width, depth),
                        rounded(FINAL_WIDTH * width), dropout, drop_connect, build)


def scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """B0's stages with `width` times the channels and `depth` times the blocks."""
    return tuple((*shape, rounded(channels * width), ceil(blocks * depth))
                 for *shape, channels, blocks in STAGES)


def rounded(channels: float) -> int:
    """The nearest multiple of 8 that is no more than 10 % below `channels`, and at least 8."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def drop_connected(key: jax.Array, x: jax.Array, survival: float) -> jax.Array:
    """Rows of x [R, H, W, D] times 1/survival with probability `survival`, else times 0.

    Every row draws for itself; its mean over keys is x. Source: spec M3 (tensorflow/tpu, utils.py).
    """
    kept = jax.random.bernoulli(key, survival, (x.shape[0], 1, 1, 1))
    return jnp.where(kept, x * (1 / survival), jnp.zeros((), x.dtype))


def _conv(build, features, kernel, name, **options):
    """A convolution that pads and starts as TensorFlow's: N(0, sqrt(2 / (k^2 out)))."""
    init = normal(sqrt(2 / (kernel**2 * features)))
    return build.conv(features, kernel, name, padding="SAME", kernel_init=init, **options)


SCALES = {  # {model: (width, depth, pixels a side, dropout)}, spec M3
    "efficientnet_b0": (1.0, 1.0, 224, 0.2),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2),
    "efficientnet_b2": (1.1, 1.2, 260, 0.3),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5),
    "efficientnet_b8": (2.2, 3.6, 672, 0.5),
}
EFFICIENTNETS = {
    name: Model(partial(efficientnet, width=width, depth=depth, dropout=dropout), smallest=32,
                resolution=pixels)
    for name, (width, depth, pixels, dropout) in SCALES.items()
}
