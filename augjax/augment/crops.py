"""Crops and flips around a policy, by dm-pix, on uint8. Source: spec B1.

A layer is `(keys [B], images [B, H, W, C] uint8, policy) -> images`; these need no policy.
"""

from collections.abc import Callable, Sequence

import dm_pix
import jax
import jax.numpy as jnp

from augjax import check
from augjax.augment.calls import colour_of
from augjax.augment.engine import check_images
from augjax.augment.parallel import over_data
from augjax.augment.rows import colour

Layer = Callable[..., jax.Array]


def pad_crop(pixels: int = 4, fill: int | Sequence[int] = 0) -> Layer:
    """Pads every side by `pixels` of `fill`, then cuts a window of the old size anywhere in it.

    With 4 black pixels and 9 x 9 offsets this is RepDistiller's CIFAR crop; with 8, KT's for
    Tiny-ImageNet. Raises ConfigError unless `pixels` are whole and at least 0 and `fill` is a
    pixel, and when called for other images.
    """
    _check_pixels("pad_crop", pixels, lowest=0)
    fill = colour_of(fill)

    def crop(key, image):
        return dm_pix.random_crop(key, _padded(image, pixels, fill), image.shape)

    return _layer(crop)


def pad_crop_pba(pixels: int = 4, fill: int | Sequence[int] = 0) -> Layer:
    """`pad_crop` with offsets 0..2 `pixels` - 1: AutoAugment's and PBA's code excludes the last.

    Their padding is 0 after normalisation: give `mean_fill` of the data set.
    Raises ConfigError unless `pixels` are whole and at least 1 and `fill` is a pixel, and when
    called for other images. Source: arcelien/pba, pba/augmentation_transforms.py.
    """
    _check_pixels("pad_crop_pba", pixels, lowest=1)
    fill = colour_of(fill)

    def crop(key, image):
        padded = _padded(image, pixels, fill)[: 2 * pixels - 1 + image.shape[0]]
        return dm_pix.random_crop(key, padded[:, : 2 * pixels - 1 + image.shape[1]], image.shape)

    return _layer(crop)


def flip(keys: jax.Array, images: jax.Array, policy: object = None) -> jax.Array:
    """Mirrors every image left to right with probability 1/2: [B, H, W, C] uint8 -> same.

    A layer: `keys` [B], one for every image; no policy is needed. Raises ConfigError for other
    images.
    """
    return _layer(lambda key, image: dm_pix.random_flip_left_right(key, image))(keys, images)


def _layer(function):
    """One image at a time, on each device its own."""

    def layer(keys, images, policy=None):
        del policy
        check_images(images)
        return over_data(jax.vmap(function))(keys, images)

    return layer


def _padded(image, pixels, fill):
    height, width, channels = image.shape
    shape = (height + 2 * pixels, width + 2 * pixels, channels)
    field = jnp.broadcast_to(colour(colour_of(fill, channels), channels), shape)
    return jax.lax.dynamic_update_slice(field, image, (pixels, pixels, 0))


def _check_pixels(layer, pixels, lowest):
    check.require(
        isinstance(pixels, int) and pixels >= lowest, f"pad of {layer}",
        f"whole pixels from {lowest} on", pixels, "give the number of pixels added on each side",
    )
