"""Residual networks for small images (He et al. 2016, section 4.2), as RepDistiller has them.

Parameter paths: stem, stem_norm, stage{1..3}_block{1..n}/{conv1, norm1, conv2, norm2, shortcut,
shortcut_norm}, head. Convolutions pad one pixel on every side (PyTorch's rule; SAME would pad
another side at stride 2), so weights convert without a shift.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.models.net import from_linen
from augjax.models.norm import BatchNorm
from augjax.types import Net, Outputs, View

WIDTHS = (16, 16, 32, 64)  # stem and three stages
WIDTHS_X4 = (32, 64, 128, 256)

_kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _uniform(fan_in):
    """PyTorch's default for a linear layer: weight and bias U(-b, b), b = 1 / sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        bound = 1 / np.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class BasicBlock(nn.Module):
    """relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut): [R, H, W, D] -> [R, H/s, W/s, width].

    The shortcut is a 1x1 convolution and a norm where the shape changes, else x itself.
    """

    width: int
    stride: int
    norm: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, views: tuple[View, ...] | None, domain: Any) -> jax.Array:
        conv = partial(
            nn.Conv, self.width, use_bias=False, dtype=self.dtype, kernel_init=_kaiming_fan_out
        )
        y = conv(kernel_size=(3, 3), strides=self.stride, padding=1, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y, views, domain))
        y = conv(kernel_size=(3, 3), padding=1, name="conv2")(y)
        y = self.norm(name="norm2")(y, views, domain)
        if x.shape != y.shape:
            x = conv(kernel_size=(1, 1), strides=self.stride, padding=0, name="shortcut")(x)
            x = self.norm(name="shortcut_norm")(x, views, domain)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Stem, three stages of `blocks` basic blocks at strides 1, 2, 2, global mean, linear head.

    Called with normalised images [R, H, W, C]; returns Outputs with the taps f0 (stem) to f3,
    each after its ReLU and in the compute type, `pooled` [R, D] and `logits` [R, K] in float32.
    Parameters are float32. Convolutions start from kaiming fan-out, the head from PyTorch's
    default uniform.

    Source: spec M1 (RepDistiller models/resnet.py).
    """

    blocks: int
    widths: tuple[int, int, int, int]
    classes: int
    domains: int = 1
    bn_per_view: bool = False
    bn_images: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, views: tuple[View, ...] | None = None, domain: int | jax.Array = 0
    ) -> Outputs:
        norm = partial(
            BatchNorm, domains=self.domains, per_view=self.bn_per_view, images=self.bn_images,
            dtype=self.dtype,
        )
        stem, *stages = self.widths
        x = nn.Conv(
            stem, (3, 3), padding=1, use_bias=False, dtype=self.dtype,
            kernel_init=_kaiming_fan_out, name="stem",
        )(x)
        x = nn.relu(norm(name="stem_norm")(x, views, domain))
        features = {"f0": x}
        for stage, width in enumerate(stages, start=1):
            for block in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                name = f"stage{stage}_block{block}"
                x = BasicBlock(width, stride, norm, self.dtype, name=name)(x, views, domain)
            features[f"f{stage}"] = x
        pooled = x.astype(jnp.float32).mean((1, 2))
        torch_uniform = _uniform(pooled.shape[-1])
        head = nn.Dense(
            self.classes, kernel_init=torch_uniform, bias_init=torch_uniform, name="head"
        )
        return Outputs(head(pooled), features, pooled)


def resnet(
    depth: int,
    classes: int,
    image_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    widths: Sequence[int] = WIDTHS,
    domains: int = 1,
    bn_per_view: bool = False,
    bn_images: int | None = None,
    dtype: Any = jnp.float32,
) -> Net:
    """A ResNet of `depth` = 6n + 2 layers behind a Net.

    Args:
      depth: 8, 14, 20, 32, 44, 56, 110, ...
      classes: at least 2.
      image_shape: (H, W, C) that the network sees; at least 8 x 8, since two stages halve it.
      mean, std: per channel, of pixels divided by 255.
      widths: channels of the stem and the three stages.
      domains, bn_per_view, bn_images: see `BatchNorm`.
      dtype: type of the convolutions; parameters, statistics, head and logits stay float32.

    Raises ConfigError. Source: spec M1.
    """
    check.require(
        depth >= 8 and (depth - 2) % 6 == 0, "depth of a resnet", "6n + 2 with n >= 1", depth,
        "choose 8, 20, 32, 44, 56 or 110",
    )
    check.require(
        len(widths) == 4 and min(widths) >= 1, "widths of a resnet",
        "four positive channel counts (stem and three stages)", tuple(widths),
        "give for example (16, 16, 32, 64)",
    )
    check.require(classes >= 2, "classes", "at least 2", classes, "give the data set's class count")
    check.require(
        len(image_shape) == 3 and min(image_shape[:2]) >= 8, "image_shape of a resnet",
        "(H, W, C) with H and W of at least 8", tuple(image_shape),
        "enlarge the images or choose another model",
    )
    check.require(domains >= 1, "domains", "at least 1", domains, "use 1 for plain BatchNorm")
    module = ResNet(
        (depth - 2) // 6, tuple(widths), classes, domains, bn_per_view, bn_images, dtype
    )
    return from_linen(module, image_shape, mean, std)
