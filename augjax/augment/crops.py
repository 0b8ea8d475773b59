"""Crops and flips before any policy, by dm-pix, on uint8. Source: spec B1.

A layer is `(keys [B], images [B, H, W, C] uint8, policy) -> images`; these need no policy.
"""

from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp

from augjax import check
from augjax.augment.engine import check_images
from augjax.augment.parallel import over_data

Layer = Callable[..., jax.Array]


def pad_crop(pixels: int = 4, fill: int = 0) -> Layer:
    """Pads every side by `pixels` of `fill`, then cuts a window of the old size anywhere in it.

    With 4 black pixels and 9 x 9 offsets this is RepDistiller's CIFAR crop.
    """
    check.require(
        isinstance(pixels, int) and pixels >= 0, "pad of pad_crop", "whole pixels from 0 on", pixels,
        "give the number of pixels added on each side",
    )

    def layer(keys, images, policy=None):
        del policy
        check_images(images)
        return _each(lambda key, image: dm_pix.random_crop(key, _padded(image), image.shape), keys, images)

    def _padded(image):
        border = ((pixels, pixels), (pixels, pixels), (0, 0))
        return jnp.pad(image, border, constant_values=jnp.uint8(fill))

    return layer


def flip(keys: jax.Array, images: jax.Array, policy: object = None) -> jax.Array:
    """Mirrors every image left to right with probability 1/2."""
    del policy
    check_images(images)
    return _each(lambda key, image: dm_pix.random_flip_left_right(key, image), keys, images)


def _each(function, keys, images):
    """One image at a time, on each device its own."""
    return over_data(jax.vmap(function))(keys, images)
