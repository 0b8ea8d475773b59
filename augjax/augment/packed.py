"""Geometry on a CPU: a whole colour is one integer, so that fetching a pixel is one load.

Gathered as bytes, every byte of the result computes its own place; LLVM turns a gather of 32-bit
numbers into vector instructions. Packing and unpacking cost as much as three copies of the image.
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from augjax.augment.rows import colour, Fill
from augjax.augment.staging import staged

# (matrix [6 or ROW] int32, pixels [H, W] uint32, fill uint32) -> pixels [H, W] uint32
Move = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def by_colours(move: Move, image: jax.Array, matrix: jax.Array, fill: Fill) -> jax.Array:
    """Does `move` to the colours of an image: [H, W, 1 or 3] uint8, [6] int32 -> same shape."""
    channels = image.shape[-1]
    pixels = staged(lambda matrix, image: pack(image), matrix, image)
    outside = pack(colour(fill, channels))
    return unpack(staged(move, matrix, pixels, outside), channels)


def pack(image: jax.Array) -> jax.Array:
    """[..., 1 or 3] uint8 -> [...] uint32."""
    *lead, channels = image.shape
    free = jnp.zeros((*lead, 4 - channels), jnp.uint8)
    return lax.bitcast_convert_type(jnp.concatenate([image, free], -1), jnp.uint32)


def unpack(pixels: jax.Array, channels: int) -> jax.Array:
    """[...] uint32 -> [..., channels] uint8."""
    return lax.bitcast_convert_type(pixels, jnp.uint8)[..., :channels]


def pick(pixels: jax.Array, source: jax.Array) -> jax.Array:
    """[H, W] at row * W + column, which must lie inside."""
    return pixels.reshape(-1).at[source].get(mode="promise_in_bounds")


def channel(pixels: jax.Array, number: int) -> jax.Array:
    """One channel of [...] uint32 -> [...] int32, 0..255."""
    return ((pixels >> (8 * number)) & 255).astype(jnp.int32)


def joined(channels: list[jax.Array]) -> jax.Array:
    """Channels, int32 0..255 -> uint32."""
    return sum(c.astype(jnp.uint32) << (8 * number) for number, c in enumerate(channels))
