"""Erasing: a box of every image is filled. Layers on uint8, before normalisation. Source: spec B1.

A fill that is 0 after normalisation is the data set's mean: `mean_fill`.
"""

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.augment.crops import Layer
from augjax.augment.calls import check_probability, colour_of, number, uniform
from augjax.augment.engine import check_images, Program
from augjax.augment.ops import cutout
from augjax.augment.parallel import over_data
from augjax.augment.policies import Policy
from augjax.types import record

TRIES = 10  # boxes drawn before an image is left whole
STEPS = 1024  # areas and aspect ratios are drawn from so many equally likely values
ASPECT = (0.3, 1 / 0.3)  # height over width of an erased box

Fill = int | Sequence[int]


def mean_fill(mean: Sequence[float]) -> tuple[int, ...]:
    """The pixel that normalisation takes nearest to 0; `mean` is that of pixels / 255."""
    return tuple(round(255 * value) for value in mean)


@record
class Erasing:
    """The numbers of a view whose images are erased and have no policy; see `with_erasing`."""

    erased: Any  # [] float32, or a schedule: the share of images


@record
class ErasingPolicy:
    """A view's policy, and beside it the numbers of its erasing; see `with_erasing`."""

    policy: Policy
    erased: Any

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> Program:
        """The policy's own program for images [B, H, W, C] of `image_shape` (H, W, C)."""
        return self.policy.draw(keys, image_shape)


def with_erasing(probability: Any, policy: Policy | None = None) -> Erasing | ErasingPolicy:
    """What a view takes for a policy when `random_erasing(None)` is among its layers.

    `probability` is traced: another one compiles nothing. Raises ConfigError.
    """
    check_probability("probability of erasing", probability)
    share = number(probability)
    return Erasing(share) if policy is None else ErasingPolicy(policy, share)


def cutout_square(side: int = 16, fill: Fill = 0) -> Layer:
    """Fills a square of `side` pixels about a pixel drawn uniformly, clipped at the borders.

    With side 16 and the mean as fill this is AutoAugment's and PBA's last layer on CIFAR. A layer,
    (keys [B], images [B, H, W, C] uint8) -> images.

    Raises ConfigError for a side that is not even and positive and a fill that is no pixel, and
    when called for other images or where the fill has other channels.
    """
    check.require(
        isinstance(side, int) and side >= 2 and side % 2 == 0, "side of cutout_square",
        "an even number of pixels from 2 on", side, "the square reaches side / 2 to every side",
    )
    fill = colour_of(fill)

    def layer(keys, images, policy=None):
        del policy
        _check(images, fill)
        return over_data(jax.vmap(one))(keys, images)

    def one(key, image):
        y_bits, x_bits = jax.random.bits(key, (2,))
        x = (x_bits % image.shape[1]).astype(jnp.int32)
        y = (y_bits % image.shape[0]).astype(jnp.int32)
        half = side // 2
        return cutout(image, jnp.stack([x - half, y - half, x + half, y + half]), fill)

    return layer


def random_erasing(
    probability: float | None = 0.5, fill: Fill = 0, area: tuple[float, float] = (0.02, 1 / 3)
) -> Layer:
    """Random erasing by one colour: timm's mode "const" where `fill` is the mean.

    Without a probability the layer takes the one that stands in the view's `with_erasing`.
    A box of a share of the image drawn uniformly from `area`, height over width log-uniformly
    from 0.3 to 1/0.3, anywhere inside; an image for which ten such boxes do not fit stays whole.
    Raises ConfigError for shares outside their range and a fill that is no pixel, when called as
    `cutout_square`, and where the view has no such probability.
    Source: Zhong et al. 2017; timm/data/random_erasing.py.
    """
    check_erasing(0.0 if probability is None else probability, area)
    fill = colour_of(fill)

    def layer(keys, images, policy=None):
        _check(images, fill)
        boxes = erased_boxes(*images.shape[1:3], _share(probability, policy), area)

        def one(key, image):
            return cutout(image, boxes(key), fill)

        return over_data(jax.vmap(one))(keys, images)

    return layer


def random_noise_erasing(
    probability: float = 0.5, area: tuple[float, float] = (0.02, 1 / 3)
) -> Layer:
    """Random erasing by noise, every pixel's channels uniform in 0..255, as the paper has it.

    timm's mode "pixel" fills with normal noise after normalisation, which uint8 cannot hold. The
    boxes are those of `random_erasing`, and so are the errors. Source: Zhong et al. 2017, RE-R.
    """
    check_erasing(probability, area)

    def layer(keys, images, policy=None):
        del policy
        check_images(images)
        boxes = erased_boxes(images.shape[1], images.shape[2], probability, area)
        return over_data(jax.vmap(lambda key, image: one(boxes(key), key, image)))(keys, images)

    def one(box, key, image):
        noise = jax.random.bits(jax.random.fold_in(key, 1), image.shape, jnp.uint8)
        y = jnp.arange(image.shape[0], dtype=jnp.int32)[:, None, None]
        x = jnp.arange(image.shape[1], dtype=jnp.int32)[None, :, None]
        inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
        return jnp.where(inside, noise, image)

    return layer


def _share(probability, policy):
    """The layer's own probability, or that of the view."""
    if probability is not None:
        return probability
    check.require(
        hasattr(policy, "erased"), "policy of a view that erases", "augment.with_erasing(share)",
        type(policy).__name__, "wrap the view's policy, or give random_erasing a probability",
    )
    return policy.erased


def erased_boxes(height: int, width: int, probability: Any, area: tuple[float, float]):
    """key -> (left, top, right, bottom) [4] int32 in an image of that size; empty: nothing erased.

    Sides come from tables of square roots made on the host, so no backend rounds them differently.
    """
    middles = (np.arange(STEPS) + 0.5) / STEPS
    root_area = np.sqrt((area[0] + (area[1] - area[0]) * middles) * height * width)
    low, high = (math.log(ratio) for ratio in ASPECT)
    root_aspect = np.exp((low + (high - low) * middles) / 2)
    sides, aspects = np.float32(root_area), np.float32([root_aspect, 1 / root_aspect])

    def boxes(key):
        bits = jax.random.bits(jax.random.fold_in(key, 0), (2 * TRIES + 3,))
        side = jnp.asarray(sides)[bits[:TRIES] % STEPS]  # [TRIES] float32
        aspect = jnp.asarray(aspects)[:, bits[TRIES : 2 * TRIES] % STEPS]  # [2, TRIES]
        tall, wide = jnp.round(side * aspect).astype(jnp.int32)  # [TRIES] each
        fits = (tall < height) & (wide < width)
        first = jnp.argmax(fits)
        tall, wide = tall[first], wide[first]
        erase = fits.any() & (uniform(bits[-3]) < probability)
        top, left = (
            (drawn % jnp.maximum(size - side + 1, 1).astype(jnp.uint32)).astype(jnp.int32)
            for drawn, size, side in ((bits[-2], height, tall), (bits[-1], width, wide))
        )
        return jnp.where(erase, jnp.stack([left, top, left + wide, top + tall]), 0)

    return boxes


def check_erasing(probability: float, area: tuple[float, float]) -> None:
    """Raises ConfigError unless both are in range."""
    check.require(
        0 <= probability <= 1, "probability of erasing", "a probability in [0, 1]", probability,
        "0.25 erases a box of every fourth image",
    )
    check.require(
        0 < area[0] <= area[1] <= 1, "area of erasing", "shares 0 < low <= high <= 1", area,
        "give the smallest and the largest share of the image",
    )


def _check(images, fill):
    check_images(images)
    colour_of(fill, images.shape[-1])
