"""MobileNetV2 (Sandler et al. 2018): RepDistiller's for small images, and ImageNet's.

Parameter paths: stem, stem_norm, stage{1..7}_block{1..n}/{expand, expand_norm, depthwise,
depthwise_norm, project, project_norm}, extra_block{1..}, final, final_norm, head.
"""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax

from augjax import check
from augjax.models.layers import Build, global_mean, normal
from augjax.models.norm import Mode
from augjax.models.table import Model
from augjax.types import Outputs

# A stage: expansion, channels, blocks, stride of the first block
Stage = tuple[int | None, int, int, int]
CIFAR_STAGES: tuple[Stage, ...] = (  # half of the paper's channels, and stage 2 keeps its pixels
    (1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2),
    (6, 160, 1, 1),
)
IMAGENET_STAGES: tuple[Stage, ...] = (
    (None, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)
FINAL_WIDTH = 1280


class InvertedResidual(nn.Module):
    """x + norm(project(relu(norm(depthwise(relu(norm(expand(x)))))))): [R, H/s, W/s, width].

    Without x where the shape changes, and without the layer `expand` where `expansion` is None. The
    output is linear, so a quantiser does not see it.
    """

    width: int
    stride: int
    expansion: int | None
    relu: Callable[[jax.Array], jax.Array]
    build: Build
    zero_gamma: bool = False  # project_norm starts at zero, and so the block at its shortcut

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        build, inner = self.build, x.shape[-1] * (self.expansion or 1)
        y = x
        if self.expansion is not None:
            y = build.conv(inner, 1, "expand")(y)
            y = build.hooked(self.relu(build.norm("expand_norm")(y, mode)))
        y = build.depthwise(inner, 3, "depthwise", self.stride)(y)
        y = build.hooked(self.relu(build.norm("depthwise_norm")(y, mode)))
        y = build.conv(self.width, 1, "project")(y)
        y = build.norm("project_norm", zero_scale=self.zero_gamma)(y, mode)
        return x + y if self.stride == 1 and x.shape[-1] == self.width else y


class MobileNetV2(nn.Module):
    """Stem at stride 2, seven stages, a 1x1 convolution, global mean, dropout, linear head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0.. in the compute
    type and `pooled` [R, D], before its dropout, and `logits` [R, K] in float32. `taps` numbers the
    stages that are tapped; stage 0 is the stem, tapped after its ReLU, the others are linear.

    `extra_blocks` more blocks of the last stage's shape, but expanding by 6, stand before the 1x1
    convolution; the last tap stays the last stage's output. They are made to be dropped once
    trained (spec C5).

    Source: spec M1 (RepDistiller models/mobilenetv2.py), M3 (torchvision mobilenetv2.py).
    """

    stem_width: int
    stages: tuple[Stage, ...]
    taps: tuple[int, ...]
    relu: Callable[[jax.Array], jax.Array]
    dropout: float
    extra_blocks: int
    zero_extra_gamma: bool
    build: Build

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build, relu, Block = self.build, self.relu, self.build.block(InvertedResidual)
        x = build.conv(self.stem_width, 3, "stem", 2)(x)
        x = relu(build.norm("stem_norm")(x, mode))
        ends = [x]
        x = build.hooked(x)
        for stage, (expansion, width, blocks, first) in enumerate(self.stages, start=1):
            for block in range(1, blocks + 1):
                stride = first if block == 1 else 1
                x = Block(width, stride, expansion, relu, build,
                          name=f"stage{stage}_block{block}")(x, mode)
            ends.append(x)
        for block in range(1, self.extra_blocks + 1):
            x = Block(width, 1, 6, relu, build, self.zero_extra_gamma,
                      name=f"extra_block{block}")(x, mode)
        x = build.conv(FINAL_WIDTH, 1, "final")(x)
        pooled = global_mean(relu(build.norm("final_norm")(x, mode)))
        read = nn.Dropout(self.dropout, name="drop")(pooled, deterministic=not mode.training)
        features = {f"f{tap}": ends[stage] for tap, stage in enumerate(self.taps)}
        return build.outputs(features, pooled, {"kernel_init": normal(0.01)}, read)


def mobilenetv2_cifar(build: Build, extra_blocks: int = 0, zero_extra_gamma: bool = False,
                      stages: Sequence[Stage] = CIFAR_STAGES) -> nn.Module:
    """The MobileNetV2 of RepDistiller: half of the width, plain ReLUs, no dropout.

    Its first stage expands by 1, with a convolution that the paper leaves out.

    Args:
      extra_blocks: see `MobileNetV2`; "MobileNetV2+20" of spec C5 has 7.
      zero_extra_gamma: the extra blocks start as identities.
      stages: (expansion, channels, blocks, stride) of each stage.

    Raises ConfigError. Source: spec M1, C5.
    """
    return MobileNetV2(16, _checked(stages), (0, 2, 3, 5, 7), nn.relu, 0.0, extra_blocks,
                       zero_extra_gamma, build)


def mobilenetv2(build: Build, dropout: float = 0.2, stages: Sequence[Stage] = IMAGENET_STAGES
                ) -> nn.Module:
    """The MobileNetV2 of ImageNet, of width 1.

    Args:
      dropout: share of the pooled vector that the head does not see in training.
      stages: (expansion, channels, blocks, stride) of each stage; no expansion is None.

    Raises ConfigError. Source: spec M3.
    """
    check.require(
        0 <= dropout < 1, "dropout of mobilenetv2", "a share in [0, 1)", dropout, "use 0 for none"
    )
    return MobileNetV2(32, _checked(stages), (1, 2, 3, 5, 7), nn.relu6, dropout, 0, False, build)


def _checked(stages):
    check.require(
        len(stages) == 7 and all(len(stage) == 4 for stage in stages), "stages of mobilenetv2",
        "seven of (expansion, channels, blocks, stride)", stages, "see CIFAR_STAGES",
    )
    return tuple(map(tuple, stages))


MOBILENETS_V2 = {
    "mobilenetv2_cifar": Model(mobilenetv2_cifar, smallest=16),
    "mobilenetv2": Model(mobilenetv2, smallest=32, resolution=224),
}
