"""AlexNet for small images, as role-kd quantises it.

Parameter paths: stem, stem_norm, conv{2..5}, norm{2..5}, fc{1, 2}, fc{1, 2}_norm, head; kernels
only, no biases.
"""

from flax import linen as nn
import jax

from augjax import check
from augjax.models.layers import Build
from augjax.models.norm import BatchNorm, Mode
from augjax.models.table import Model
from augjax.types import Outputs

WIDTHS = (64, 192, 384, 256, 256)
KERNELS = (11, 5, 3, 3, 3)
POOLED = (1, 2, 5)  # the layers with a 2x2 max pool behind them

he_fan_in = nn.initializers.he_normal()  # truncated, TF's variance_scaling_initializer()


class AlexNet(nn.Module):
    """Five convolutions and two hidden linear layers, each followed by norm and ReLU; linear head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0 to f4 of the five
    convolutions (after ReLU, quantiser and pool where there is one; f1 to f4 are those of
    distillation.md D7), `pooled` [R, hidden], the last hidden layer's output, and `logits` [R, K].

    The last map is flattened, so `fc1` has an input for each of its pixels: (H/8)(W/8) times its
    channels. There are no blocks that `remat` could compute again.

    Source: spec M2, C7 and D7 (role-kd ResNet.py, AlexNetCifar).
    """

    widths: tuple[int, int, int, int, int]
    hidden: int
    build: Build

    def norm(self, name: str) -> BatchNorm:
        return self.build.norm(name, momentum=0.99, epsilon=1e-3)

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> Outputs:
        build = self.build
        features = {}
        for layer, (width, kernel) in enumerate(zip(self.widths, KERNELS), start=1):
            conv, norm = ("stem", "stem_norm") if layer == 1 else (f"conv{layer}", f"norm{layer}")
            x = build.conv(width, kernel, conv, kernel_init=he_fan_in)(x)
            x = build.hooked(nn.relu(self.norm(norm)(x, mode)))
            if layer in POOLED:
                x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
            features[f"f{layer - 1}"] = x
        x = x.reshape(x.shape[0], -1)  # [R, (H/8)(W/8)D]
        for layer in (1, 2):
            x = nn.Dense(self.hidden, use_bias=False, dtype=build.dtype, kernel_init=he_fan_in,
                         name=f"fc{layer}")(x)
            x = nn.relu(self.norm(f"fc{layer}_norm")(x, mode))
            if layer == 1:  # the head is in full precision, and so is what it reads
                x = build.hooked(x)
        return build.outputs(features, x, {"use_bias": False, "kernel_init": he_fan_in})


def alexnet(build: Build, widths: tuple[int, ...] = WIDTHS, hidden: int = 4096) -> nn.Module:
    """An AlexNet at stride 1, for small images.

    Args:
      widths: channels of the five convolutions.
      hidden: width of the two hidden linear layers.

    Raises ConfigError. Source: spec M2.
    """
    check.require(
        len(widths) == 5 and min(*widths, hidden) >= 1, "widths of an alexnet",
        "five positive channel counts and a positive number of hidden units",
        (tuple(widths), hidden), "give for example (64, 192, 384, 256, 256) and 4096",
    )
    return AlexNet(tuple(widths), hidden, build)


ALEXNETS = {"alexnet_cifar": Model(alexnet, smallest=8)}
