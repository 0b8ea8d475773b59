"""The operations: pure functions on one uint8 image [H, W, C], bit-equal to Pillow.

C is 1 or 3; H and W are any size up to 8192. Geometry samples the nearest pixel and takes a 16.16
matrix from `augjax.augment.matrices`; blends take a float32 factor, 1 being the identity. `fill`
is what comes in from outside: an integer or one per channel.

`OPS` is the one table of names. A row of a program is int32 [ROW]:

    0..5   matrix of geometry | bits, threshold or addend [0] | pattern of a float32 factor [0]
           | left, top, right, bottom of a cutout
    6      fill, 8 bits per channel, red lowest
    7      free

A new operation is one function here and one row of `OPS`. Source: spec/augmentation.md B2.
"""

from collections.abc import Callable, Sequence

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from augjax.augment import exact

ROW = 8  # int32 numbers that say how one operation is done to one image
GREY = 128

Fill = int | Sequence[int] | jax.Array


def identity(image: jax.Array) -> jax.Array:
    """The image itself."""
    return image


# --- tables: statistics of the image decide --------------------------------------------------------


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches every channel to 0..255; a channel of one value stays."""
    low, high = exact.darkest_and_brightest(image)
    # Built inside a branch, or XLA's CPU fuses the table into the look-up and builds it per pixel.
    table = lax.cond(
        (high > low).any(), exact.autocontrast_table, lambda low, high: _no_change(low), low, high
    )
    return look_up(image, table)


def equalize(image: jax.Array) -> jax.Array:
    """Flattens every channel's histogram."""
    counts = exact.histogram(image)
    several = (counts > 0).sum() > image.shape[-1]
    table = lax.cond(several, exact.equalize_table, lambda counts: _no_change(counts[:, 0]), counts)
    return look_up(image, table)


def _no_change(per_channel):
    return jnp.broadcast_to(jnp.arange(256, dtype=jnp.int32), (*per_channel.shape, 256))


def look_up(image: jax.Array, table: jax.Array) -> jax.Array:
    """out[..., c] = table[c, image[..., c]]: [H, W, C] uint8, [C, 256] -> [H, W, C] uint8."""
    channel = 256 * jnp.arange(image.shape[-1], dtype=jnp.int32)
    flat = table.astype(jnp.uint8).reshape(-1)
    return flat.at[image.astype(jnp.int32) + channel].get(mode="promise_in_bounds")


# --- points: every value for itself ----------------------------------------------------------------


def invert(image: jax.Array) -> jax.Array:
    """255 - v."""
    return 255 - image


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Keeps the top `bits` of 8: 0 is black, 8 or more the identity."""
    keep = 256 - (1 << (8 - jnp.clip(bits, 0, 8)))
    return image & keep.astype(jnp.uint8)


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Inverts values from `threshold` on; 256 is the identity."""
    return jnp.where(image.astype(jnp.int32) < threshold, image, 255 - image)


def solarize_add(image: jax.Array, addend: jax.Array) -> jax.Array:
    """Adds `addend` >= 0 to values below 128, up to 255."""
    brighter = jnp.clip(image.astype(jnp.int32) + jnp.clip(addend, 0, 255), 0, 255)
    return jnp.where(image < 128, brighter.astype(jnp.uint8), image)


# --- blends: away from or towards a degenerate image -----------------------------------------------


def color(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the image's greys: 0 is grey, above 1 more saturated."""
    return exact.blend(image, exact.grey(image)[..., None], float_bits(factor))


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with a constant, the rounded mean grey of the image."""
    return exact.blend(image, exact.mean_grey(image), float_bits(factor))


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with black."""
    return exact.blend(image, jnp.int32(0), float_bits(factor))


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the smoothed image: 0 is smooth, above 1 sharper."""
    return exact.blend(image, exact.smooth(image), float_bits(factor))


def float_bits(factor: jax.Array) -> jax.Array:
    """The bit pattern of a float32, as int32."""
    return lax.bitcast_convert_type(jnp.asarray(factor, jnp.float32), jnp.int32)


# --- geometry: nearest pixel, `fill` outside -------------------------------------------------------


def affine(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """out(x, y) = in(floor(A0 x + A1 y + X0), floor(A3 x + A4 y + Y0)), by one gather of pixels.

    `matrix` is [6] int32 (A0, A1, X0, A3, A4, Y0) in 16.16, offsets taken at pixel centres.
    """
    height, width, channels = image.shape
    y = jnp.arange(height, dtype=jnp.int32)[:, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, :]
    across = (matrix[2] + matrix[1] * y + matrix[0] * x) >> 16
    down = (matrix[5] + matrix[4] * y + matrix[3] * x) >> 16
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    source = jnp.where(inside, down * width + across, 0)
    pixels = image.reshape(-1, channels).at[source].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], pixels, _color(fill, channels))


def rotate(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Turns counter-clockwise about the centre; `matrix` from `matrices.rotation`."""
    return affine(image, matrix, fill)


def shear_x(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Slides every row by its own whole number of pixels; `matrix` from `matrices.shear_x`."""
    height, width, _ = image.shape
    shifts = (matrix[2] + matrix[1] * jnp.arange(height, dtype=jnp.int32)) >> 16
    slide = jax.vmap(lambda row, shift: lax.dynamic_slice(row, (shift, 0), (width, row.shape[-1])))
    return slide(_beside(image, fill, axis=1), jnp.clip(shifts, -width, width) + width)


def shear_y(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Slides every column by its own whole number of pixels; `matrix` from `matrices.shear_y`."""
    return affine(image, matrix, fill)


def translate_x(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Moves the image sideways; `matrix` from `matrices.translate_x`."""
    width = image.shape[1]
    shift = jnp.clip(matrix[2] >> 16, -width, width) + width
    return lax.dynamic_slice(_beside(image, fill, axis=1), (0, shift, 0), image.shape)


def translate_y(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Moves the image up or down; `matrix` from `matrices.translate_y`."""
    height = image.shape[0]
    shift = jnp.clip(matrix[5] >> 16, -height, height) + height
    return lax.dynamic_slice(_beside(image, fill, axis=0), (shift, 0, 0), image.shape)


def cutout(image: jax.Array, box: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Fills the pixels left <= x < right, top <= y < bottom of `box` [4] int32, in that order."""
    height, width, channels = image.shape
    y = jnp.arange(height, dtype=jnp.int32)[:, None, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, :, None]
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    return jnp.where(inside, _color(fill, channels), image)


def _color(fill, channels):
    return jnp.broadcast_to(jnp.asarray(fill, jnp.uint8), (channels,))


def _beside(image, fill, axis):
    """The image between two blocks of its own size in the fill's colour."""
    block = jnp.broadcast_to(_color(fill, image.shape[-1]), image.shape)
    return jnp.concatenate([block, image, block], axis)


# --- rows of a program -----------------------------------------------------------------------------


def pack_fill(fill: int | Sequence[int], channels: int) -> int:
    """One integer for a colour; a single number stands for all channels."""
    values = np.broadcast_to(np.asarray(fill), (channels,))
    return sum(int(value) << (8 * channel) for channel, value in enumerate(values))


def unpack_fill(row: jax.Array, channels: int) -> jax.Array:
    """[..., ROW] int32 -> [..., C] uint8."""
    return ((row[..., 6:7] >> (8 * jnp.arange(channels))) & 255).astype(jnp.uint8)


def _plain(operation):
    return lambda image, row: operation(image)


def _whole(operation):
    return lambda image, row: operation(image, row[0])


def _factor(operation):
    return lambda image, row: operation(image, lax.bitcast_convert_type(row[0], jnp.float32))


def _filled(operation):
    return lambda image, row: operation(image, row, unpack_fill(row, image.shape[-1]))


OPS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {  # name: (image, row) -> image
    "identity": _plain(identity),
    "autocontrast": _plain(autocontrast),
    "equalize": _plain(equalize),
    "invert": _plain(invert),
    "posterize": _whole(posterize),
    "solarize": _whole(solarize),
    "solarize_add": _whole(solarize_add),
    "color": _factor(color),
    "contrast": _factor(contrast),
    "brightness": _factor(brightness),
    "sharpness": _factor(sharpness),
    "rotate": _filled(rotate),
    "shear_x": _filled(shear_x),
    "shear_y": _filled(shear_y),
    "translate_x": _filled(translate_x),
    "translate_y": _filled(translate_y),
    "cutout": _filled(cutout),
}
