"""Rows and small networks for the tests of the zoo."""

import jax
import jax.numpy as jnp
import numpy as np

from augjax import tree
from augjax.models import build
from augjax.types import Rows, View

ONE = (View("all"),)
PIXELS = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3)}


def rows_of(count, size=8, views=ONE, seed=0):
    """`count` rows of noise in five classes."""
    image = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    label = np.arange(count, dtype=np.int32) % 5
    return Rows(jnp.asarray(image), jnp.asarray(label), jnp.asarray(label), jnp.ones(count),
                jnp.arange(count), views)


def drawn(net, seed=0):
    """Variables in He's spread, drawn on the host: an `init` would take seconds to compile."""
    rng = np.random.default_rng(seed)

    def leaf(path, like):
        kind = path.rsplit("/")[-1]
        if kind == "kernel":
            fan_in = np.prod(like.shape[:-1])
            return jnp.asarray(rng.normal(0, np.sqrt(2 / fan_in), like.shape), jnp.float32)
        return jnp.full(like.shape, float(kind in ("scale", "var")), jnp.float32)

    return tuple(tree.map_with_path(leaf, part)
                 for part in jax.eval_shape(net.init, jax.random.key(0)))


def net_of(name, classes=5, size=8, **options):
    """The network called `name` for images [size, size, 3]."""
    return build(name, classes, (size, size, 3), **(PIXELS | options))


# Every stage of a MobileNetV2, one block each
STAGES = ((1, 8, 1, 1), (2, 8, 1, 1), (2, 8, 1, 2), (2, 12, 1, 2), (2, 12, 1, 1), (2, 12, 1, 2),
          (2, 16, 1, 1))

# One small member of every family for the laws that run: {model: (pixels, options)}
TOYS = {
    "resnet8_tiny": (8, {"extra_blocks": 1}),
    "resnet18": (32, {"blocks": (1, 1, 1, 1), "widths": (8, 8, 12, 16)}),
    "resnet50_cifar": (8, {"blocks": (1, 1, 1, 1), "widths": (4, 4, 6, 8)}),
    "preresnet20": (8, {"depth": 8, "widths": (4, 4, 6, 8)}),
    "preresnet164": (8, {"depth": 11, "widths": (4, 4, 6, 8)}),
    "alexnet_cifar": (8, {"widths": (8, 12, 16, 12, 12), "hidden": 24}),
    "pyramidnet_272_200": (8, {"depth": 11, "widening": 6}),
    "shake_shake_26_2x32d": (8, {"depth": 8, "width": 4}),
    "wrn_16_1": (8, {"depth": 10, "dropout": 0.3}),
    "wrn_28_10_tf": (8, {"depth": 10, "widen": 1}),
    "vgg8": (8, {"widths": (8, 8, 12, 16, 16)}),
    "mobilenetv2_cifar": (16, {"extra_blocks": 1, "stages": STAGES}),
    "mobilenetv2": (32, {"stages": ((None, 8, 1, 1), *STAGES[1:])}),
    "shufflenetv2_cifar": (
        8, {"extra_blocks": 1, "widths": (8, 12, 16, 24), "blocks": (2, 1, 1)}),
    "efficientnet_b0": (32, {"width": 0.25, "depth": 0.25}),
}
