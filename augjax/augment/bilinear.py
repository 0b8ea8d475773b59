"""The geometric operations with bilinear sampling, in integers: bit-equal to Pillow's doubles.

Pillow interpolates in float64. Where matrix entries are multiples of 2^-10 and offsets of 2^-11,
every coordinate is a multiple of 2^-11 and float64 rounds nothing, so that int32 gives its bits.
`snap` makes such a matrix of a 16.16 one, on the device; `matrices.snapped` says in floats which
one, and given it Pillow agrees in every bit. Given the matrix before snapping it does not: an
entry moves by at most 2^-11, hence, the image's centre staying where it was, a sampling point by
at most (W + H) / 4096 pixels (0.016 at 32, 0.11 at 224). Of CIFAR's values that changes 6 %
(turns) and 3 % (shears) at 32 pixels, and 14 % and 7 % of those of mosaics enlarged to 224, nearly
all by 1: 0.03 % and 0.4 % change by more, mostly where a border pixel becomes fill. Nothing changes
where entries are such multiples already: identity, quarter turns, translations by whole pixels.
Source: engine.md 5; Pillow's Geometry.c.
"""

import jax
from jax import lax
import jax.numpy as jnp

from augjax.augment.packed import by_colours, channel, joined, pick
from augjax.augment.rows import colour, Fill, GREY
from augjax.augment.staging import staged

ONE = 2048  # a pixel, in the unit of snapped coordinates


def snap(matrix: jax.Array, height: int, width: int) -> jax.Array:
    """[..., >= 6] int32 in 16.16 -> [..., 6] int32 (a, b, c, d, e, f): entries in 2^-10.

    The centre of pixel (x, y) comes from (a (2x+1) + b (2y+1) + c, d (2x+1) + e (2y+1) + f), in
    2^-11 of a pixel. The centre of the image comes from where it came before, to 2^-12.
    """

    def line(across, down, offset):
        a, b = (across + 32) >> 6, (down + 32) >> 6
        lost = (across - (a << 6)) * (width - 1) + (down - (b << 6)) * (height - 1)
        return a, b, ((offset + (lost >> 1) + 16) >> 5) - a - b

    numbers = [matrix[..., k] for k in range(6)]
    return jnp.stack([*line(*numbers[:3]), *line(*numbers[3:])], -1)


def sources(snapped: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """[..., 6] int32 -> where every pixel's centre comes from: (x, y), each [..., H, W] int32."""
    y = 2 * jnp.arange(height, dtype=jnp.int32)[:, None] + 1
    x = 2 * jnp.arange(width, dtype=jnp.int32)[None, :] + 1
    a, b, c, d, e, f = (snapped[..., k, None, None] for k in range(6))
    return a * x + b * y + c, d * x + e * y + f


def split(source: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Coordinates of centres -> (inside, lower neighbour, upper neighbour, share of the upper)."""
    lower = (source - ONE // 2) >> 11
    share = (source - ONE // 2) & (ONE - 1)
    inside = (source >= 0) & (source < size * ONE)
    return inside, jnp.clip(lower, 0, size - 1), jnp.clip(lower + 1, 0, size - 1), share


def between(first: jax.Array, second: jax.Array, share: jax.Array) -> jax.Array:
    """2048 first + share (second - first), in int32."""
    return first * ONE + (second - first) * share


def blended(corners: list[jax.Array], across: jax.Array, down: jax.Array) -> jax.Array:
    """Top left, top right, bottom left, bottom right (int32, 0..255) -> uint8, truncated."""
    return _mixed(corners, across, down).astype(jnp.uint8)


def _mixed(corners, across, down):
    top_left, top_right, bottom_left, bottom_right = corners
    upper = between(top_left, top_right, across)
    lower = between(bottom_left, bottom_right, across)
    return between(upper, lower, down) >> 22


def affine(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """[H, W, C] uint8, [6] int32 in 16.16 (`matrices`) -> same shape, by four gathers of pixels."""
    height, width, channels = image.shape

    def move(matrix, pixels, outside):
        from_x, from_y = sources(snap(matrix, height, width), height, width)
        inside_x, left, right, across = split(from_x, width)
        inside_y, top, bottom, down = split(from_y, height)
        places = tuple(y * width + x for y in (top, bottom) for x in (left, right))
        corners = _gathered(pixels, places)
        mixed = joined([
            _mixed([channel(corner, k) for corner in corners], across, down)
            for k in range(channels)
        ])
        return jnp.where(inside_x & inside_y, mixed, outside)

    return by_colours(move, image, matrix, fill)


def _gathered(pixels, places):
    """Pixels at several places, gathered once and not once for every channel."""
    return staged(lambda places, pixels: [pick(pixels, place) for place in places], places, pixels)


def rotate(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Turns counter-clockwise about the centre; `matrix` from `matrices.rotation`."""
    return affine(image, matrix, fill)


def shear_x(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Slides every row by its own distance; `matrix` from `matrices.shear_x`."""
    height, width, channels = image.shape
    _, b, c, _, _, _ = snap(matrix, height, width)
    shift = jnp.clip(b * (2 * jnp.arange(height) + 1) + c, -width * ONE, width * ONE)  # [H]
    slide = jax.vmap(lambda row, start: lax.dynamic_slice(row, (start, 0), (width + 1, channels)))
    near = slide(_edged(image, axis=1), (shift >> 11) + width).astype(jnp.int32)
    mixed = between(near[:, :-1], near[:, 1:], (shift & (ONE - 1))[:, None, None]) >> 11
    centre = shift[:, None] + ONE * jnp.arange(width) + ONE // 2  # [H, W]
    inside = (centre >= 0) & (centre < width * ONE)
    return jnp.where(inside[..., None], mixed.astype(jnp.uint8), colour(fill, channels))


def shear_y(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Slides every column by its own distance; `matrix` from `matrices.shear_y`."""
    height, width, channels = image.shape
    x = jnp.arange(width, dtype=jnp.int32)
    y = jnp.arange(height, dtype=jnp.int32)[:, None]

    def move(matrix, pixels, outside):
        _, _, _, d, _, f = snap(matrix, height, width)
        centre = (d * (2 * x + 1) + f) + ONE * y + ONE // 2  # [H, W]
        inside, top, bottom, down = split(centre, height)
        upper, lower = _gathered(pixels, (top * width + x, bottom * width + x))
        mixed = joined([
            between(channel(upper, k), channel(lower, k), down) >> 11 for k in range(channels)
        ])
        return jnp.where(inside, mixed, outside)

    return by_colours(move, image, matrix, fill)


def translate_x(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Moves the image sideways; `matrix` from `matrices.translate_x`."""
    return _translate(image, snap(matrix, *image.shape[:2])[2], fill, axis=1)


def translate_y(image: jax.Array, matrix: jax.Array, fill: Fill = GREY) -> jax.Array:
    """Moves the image up or down; `matrix` from `matrices.translate_y`."""
    return _translate(image, snap(matrix, *image.shape[:2])[5], fill, axis=0)


def _translate(image, shift, fill, axis):
    size, channels = image.shape[axis], image.shape[-1]
    shift = jnp.clip(shift, -size * ONE, size * ONE)
    near = lax.dynamic_slice_in_dim(_edged(image, axis), (shift >> 11) + size, size + 1, axis)
    first = lax.slice_in_dim(near, 0, size, axis=axis).astype(jnp.int32)
    second = lax.slice_in_dim(near, 1, size + 1, axis=axis).astype(jnp.int32)
    mixed = (between(first, second, shift & (ONE - 1)) >> 11).astype(jnp.uint8)
    centre = shift + ONE * jnp.arange(size) + ONE // 2
    inside = jnp.expand_dims((centre >= 0) & (centre < size * ONE), (1 - axis, 2))
    return jnp.where(inside, mixed, colour(fill, channels))


def _edged(image, axis):
    """The image between its first line, as often as it is long, and its last, once more often."""
    size = image.shape[axis]
    first = lax.slice_in_dim(image, 0, 1, axis=axis)
    last = lax.slice_in_dim(image, size - 1, size, axis=axis)
    before, after = list(image.shape), list(image.shape)
    after[axis] = size + 1
    return jnp.concatenate(
        [jnp.broadcast_to(first, before), image, jnp.broadcast_to(last, after)], axis)
