"""The operations: pure functions on one uint8 image [H, W, C], bit-equal to Pillow.

C is 1 or 3; H and W are any size up to 8192. Geometry samples the nearest pixel and takes a 16.16
matrix from `augjax.augment.matrices` (bilinear: `augjax.augment.bilinear`); blends take a float32
factor, 1 being the identity. `fill` is what comes in from outside: an integer or one per channel.

`OPS` is the one table of names, dm-pix's operations (`augjax.augment.pix`) included; how a row of
a program says what to do stands in `augjax.augment.rows`. A new operation is one function here and
one row of `OPS`. Source: spec/augmentation.md B2.
"""

import jax
from jax import lax
import jax.numpy as jnp

from augjax import check
from augjax.augment import bilinear, exact, pix
from augjax.augment.packed import by_colours, pick
from augjax.augment.rows import (
    Branch,
    colour,
    Fill,
    filled,
    GREY,
    pack_fill,
    plain,
    real,
    ROW,
    unpack_fill,
    whole,
)
from augjax.augment.staging import staged

__all__ = ["BILINEAR", "GREY", "INTERPOLATIONS", "OPS", "ROW", "Fill", "branch", "pack_fill",
           "unpack_fill"]  # with the operations themselves


def identity(image: jax.Array) -> jax.Array:
    """The image itself."""
    return image


# --- tables: statistics of the image decide ------------------------------------------------------


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches every channel to 0..255; a channel of one value stays."""
    by = staged(exact.stretch_of, *exact.darkest_and_brightest(image))
    corrected = jnp.stack([word.any() for word in by.lower]).any()  # half of all photographs
    by = jax.tree.map(lambda number: number[:, None], by)
    value = jnp.broadcast_to(jnp.arange(256, dtype=jnp.int32), (image.shape[-1], 256))
    table = lax.cond(corrected, exact.stretch, exact.stretch_quickly, value, by)
    return _look_up(image, table.reshape(-1))


def equalize(image: jax.Array) -> jax.Array:
    """Flattens every channel's histogram."""
    counts = [_counts(image[..., channel]) for channel in range(image.shape[-1])]

    def count(carry, present):
        darker, below = carry
        return (darker + present, jnp.where(present > 0, darker, below)), darker

    none = jnp.zeros(len(counts), jnp.int32)
    (_, below), darker = lax.scan(  # by 16 at once it would be 20 times slower
        count, (none, none), jnp.stack(counts, -1), unroll=8)
    value = jnp.broadcast_to(jnp.arange(256, dtype=jnp.int32)[:, None], darker.shape)
    table = staged(lambda *of: exact.equalized(*of).T.reshape(-1), value, darker, below)
    return _look_up(image, table)


def _counts(plane):
    """How often every value occurs: [H, W] uint8 -> [256] int32.

    Channel by channel, since uint8 can be the index as it is: of what a scatter reads, places of
    four bytes would be the most.
    """
    index, ones = plane.reshape(-1, 1), jnp.ones(plane.size, jnp.int32)
    numbers = lax.ScatterDimensionNumbers((), (0,), (0,))
    return lax.scatter_add(
        jnp.zeros(256, jnp.int32), index, ones, numbers, mode="promise_in_bounds")


def _places(image):
    """Where a value of [..., C] uint8 stands in a flat table [C * 256]."""
    return image.astype(jnp.int32) + 256 * jnp.arange(image.shape[-1], dtype=jnp.int32)


def _look_up(image, table):
    """out[..., c] = table[256 c + image[..., c]]: [H, W, C] uint8, [C * 256] int32 -> image.

    int32, since LLVM gathers no bytes by vectors; of one dimension, or its layout is transposed.
    """
    return table.at[_places(image)].get(mode="promise_in_bounds").astype(jnp.uint8)


# --- points: every value for itself --------------------------------------------------------------


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


def add_solarize(image: jax.Array, addend: jax.Array) -> jax.Array:
    """Adds `addend` >= 0 to every value, to 255 at most, then inverts from 128 on: ildoonet's."""
    brighter = jnp.clip(image.astype(jnp.int32) + jnp.clip(addend, 0, 255), 0, 255)
    return jnp.where(brighter < 128, brighter, 255 - brighter).astype(jnp.uint8)


# --- blends: away from or towards a degenerate image ---------------------------------------------


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
    return exact.sharpen(image, float_bits(factor))


def float_bits(factor: jax.Array) -> jax.Array:
    """The bit pattern of a float32, as int32."""
    return lax.bitcast_convert_type(jnp.asarray(factor, jnp.float32), jnp.int32)


# --- geometry: nearest pixel, `fill` outside -----------------------------------------------------


def affine(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """out(x, y) = in(floor(A0 x + A1 y + X0), floor(A3 x + A4 y + Y0)), by one gather of pixels.

    `matrix` is [6] int32 (A0, A1, X0, A3, A4, Y0) in 16.16, offsets taken at pixel centres.
    """
    height, width, _ = image.shape

    def move(matrix, pixels, outside):
        y = jnp.arange(height, dtype=jnp.int32)[:, None]
        x = jnp.arange(width, dtype=jnp.int32)[None, :]
        across = (matrix[2] + matrix[1] * y + matrix[0] * x) >> 16
        down = (matrix[5] + matrix[4] * y + matrix[3] * x) >> 16
        inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
        return jnp.where(
            inside, pick(pixels, jnp.where(inside, down * width + across, 0)), outside)

    return by_colours(move, image, matrix, fill)


def rotate(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Turns counter-clockwise about the centre; `matrix` from `matrices.rotation`."""
    return affine(image, matrix, fill)


def shear_x(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Slides every row by its own whole number of pixels; `matrix` from `matrices.shear_x`."""
    height, width, channels = image.shape
    shifts = (matrix[2] + matrix[1] * jnp.arange(height, dtype=jnp.int32)) >> 16
    starts = (jnp.clip(shifts, -width, width) + width) * channels
    slide = jax.vmap(lambda row, start: lax.dynamic_slice(row, (start,), (width * channels,)))
    return slide(_beside(image, fill, axis=1), starts).reshape(image.shape)


def shear_y(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Slides every column by its own whole number of pixels; `matrix` from `matrices.shear_y`."""
    height, width, _ = image.shape

    def move(matrix, pixels, outside):
        x = jnp.arange(width, dtype=jnp.int32)
        shifts = jnp.clip((matrix[5] + matrix[3] * x) >> 16, -height, height)
        down = shifts + jnp.arange(height, dtype=jnp.int32)[:, None]
        inside = (down >= 0) & (down < height)
        return jnp.where(inside, pick(pixels, jnp.where(inside, down * width + x, 0)), outside)

    return by_colours(move, image, matrix, fill)


def translate_x(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Moves the image sideways; `matrix` from `matrices.translate_x`."""
    height, width, channels = image.shape
    start = (jnp.clip(matrix[2] >> 16, -width, width) + width) * channels
    rows = lax.dynamic_slice(
        _beside(image, fill, axis=1), (0, start), (height, width * channels))
    return rows.reshape(image.shape)


def translate_y(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Moves the image up or down; `matrix` from `matrices.translate_y`."""
    height, width, channels = image.shape
    start = jnp.clip(matrix[5] >> 16, -height, height) + height
    rows = lax.dynamic_slice(
        _beside(image, fill, axis=0), (start, 0), (height, width * channels))
    return rows.reshape(image.shape)


def cutout(image: jax.Array, box: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Fills the pixels left <= x < right, top <= y < bottom of `box` [4] int32, in that order."""
    height, width, channels = image.shape
    y = jnp.arange(height, dtype=jnp.int32)[:, None, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, :, None]
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    return jnp.where(inside, colour(fill, channels), image)


def _beside(image, fill, axis):
    """The rows [H, W * C] between two blocks of their own size in the fill's colour.

    Rows of bytes are copied whole, rows of colours one by one.
    """
    height, width, channels = image.shape
    rows = image.reshape(height, width * channels)
    block = jnp.broadcast_to(jnp.tile(colour(fill, channels), width), rows.shape)
    return jnp.concatenate([block, rows, block], axis)


# --- the table of names --------------------------------------------------------------------------

OPS: dict[str, Branch] = {  # name: (image, row) -> image
    "identity": plain(identity),
    "autocontrast": plain(autocontrast),
    "equalize": plain(equalize),
    "invert": plain(invert),
    "posterize": whole(posterize),
    "solarize": whole(solarize),
    "solarize_add": whole(solarize_add),
    "add_solarize": whole(add_solarize),
    "color": real(color),
    "contrast": real(contrast),
    "brightness": real(brightness),
    "sharpness": real(sharpness),
    "rotate": filled(rotate),
    "shear_x": filled(shear_x),
    "shear_y": filled(shear_y),
    "translate_x": filled(translate_x),
    "translate_y": filled(translate_y),
    "cutout": filled(cutout),
    **pix.PIX,
}

BILINEAR: dict[str, Branch] = {  # what sampling between pixels changes
    "rotate": filled(bilinear.rotate),
    "shear_x": filled(bilinear.shear_x),
    "shear_y": filled(bilinear.shear_y),
    "translate_x": filled(bilinear.translate_x),
    "translate_y": filled(bilinear.translate_y),
    **pix.PIX_BILINEAR,
}

INTERPOLATIONS = ("nearest", "bilinear")


def branch(name: str, interpolation: str = "nearest") -> Branch:
    """The operation `name` as (image [H, W, C] uint8, row [ROW] int32) -> image. ConfigError."""
    check.one_of("operation", name, OPS)
    check.one_of("interpolation", interpolation, INTERPOLATIONS)
    return BILINEAR.get(name, OPS[name]) if interpolation == "bilinear" else OPS[name]
