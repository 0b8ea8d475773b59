"""Rows of a program: eight integers that say how one operation is done to one image.

    0..5   matrix of geometry | bits, threshold or addend [0] | pattern of a float32 argument [0]
           | left, top, right, bottom of a cutout | patterns of six float32 of an affine [pix]
    6      fill, 8 bits per channel, red lowest
    7      free

The adapters below turn a public operation into an entry (image, row) -> image of a table of names.
"""

from collections.abc import Callable, Sequence

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

ROW = 8
GREY = 128

Fill = int | Sequence[int] | jax.Array
Branch = Callable[[jax.Array, jax.Array], jax.Array]  # ([H, W, C] uint8, [ROW] int32) -> image


def pack_fill(fill: int | Sequence[int], channels: int) -> int:
    """One integer for a colour; a single number stands for all channels."""
    values = np.broadcast_to(np.asarray(fill), (channels,))
    return sum(int(value) << (8 * channel) for channel, value in enumerate(values))


def unpack_fill(row: jax.Array, channels: int) -> jax.Array:
    """[..., ROW] int32 -> [..., C] uint8."""
    return ((row[..., 6:7] >> (8 * jnp.arange(channels))) & 255).astype(jnp.uint8)


def colour(fill: Fill, channels: int) -> jax.Array:
    """A fill as [C] uint8."""
    return jnp.broadcast_to(jnp.asarray(fill, jnp.uint8), (channels,))


def floats(row: jax.Array, count: int) -> jax.Array:
    """The first `count` numbers of a row [..., ROW] as float32 [..., count]."""
    return lax.bitcast_convert_type(row[..., :count], jnp.float32)


def plain(operation: Callable[[jax.Array], jax.Array]) -> Branch:
    """An operation without arguments."""
    return lambda image, row: operation(image)


def whole(operation: Callable[[jax.Array, jax.Array], jax.Array]) -> Branch:
    """An operation with one integer."""
    return lambda image, row: operation(image, row[0])


def real(operation: Callable[[jax.Array, jax.Array], jax.Array]) -> Branch:
    """An operation with one float32."""
    return lambda image, row: operation(image, floats(row, 1)[0])


def filled(operation: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]) -> Branch:
    """An operation with a matrix or box, and a colour for what comes in from outside."""
    return lambda image, row: operation(image, row, unpack_fill(row, image.shape[-1]))
