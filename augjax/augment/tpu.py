"""The forms of `select` for TPUs, where fetching a pixel by its index costs more than arithmetic.

Everything is a product with a one-hot matrix, made on the fly by comparing indices: 0..255 is exact
in bfloat16, every sum has one term, so the bits are those of a gather.

* Look-up and histogram: the one-hot matrix over 256 values, compared and reduced in one pass.
* Geometry, which covers shears and translations as well as turns: two passes of products, as in
  Catmull and Smith's two-pass transforms, but exact for nearest sampling. Pixel (x, y) of the
  result comes from row r(x, y) and column t(x, y) of the image, both linear in x and y before they
  are rounded down. Pass 1 moves along rows: J_k(r, x) = image(r, t(x, y)), where y is the one row
  of parity k with r(x, y) = r. Rows of a result that share r are at most two and neighbours where
  |dr/dy| > 1/2, so that parity tells them apart. Pass 2 moves along columns: result(x, y) =
  J_k(r(x, y), x) with k the parity of y. Where |dr/dy| < |dr/dx| (turns by 45 to 135 degrees), x
  and y change places. So a matrix needs max(|dr/dx|, |dr/dy|) > 1/2: every turn, shear and
  translation has it, a zoom by more than 2 does not.

Bilinear sampling fetches four neighbours the same way and mixes them in integers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from augjax.augment import bilinear
from augjax.augment.rows import unpack_fill
from augjax.augment.select import compared_histogram, Forms


def one_hot(index: jax.Array, size: int) -> jax.Array:
    """[...] int32 -> [..., size] bfloat16; all zeros where the index lies outside."""
    return (index[..., None] == jnp.arange(size, dtype=index.dtype)).astype(jnp.bfloat16)


# --- values: compared with all 256, which fuses into one pass; one-hot products do not ------------


def smooth(images: jax.Array) -> jax.Array:
    """`exact.smooth` of [B, H, W, C], by shifts of whole planes: TPUs keep channels apart."""
    _, height, width, _ = images.shape
    wide = jnp.pad(images.astype(jnp.int32), ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = 4 * images.astype(jnp.int32)
    for down in range(3):
        for across in range(3):
            total = total + wide[:, down : down + height, across : across + width]
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    border = (y == 0) | (y == height - 1) | (x == 0) | (x == width - 1)
    return jnp.where(border, images, (((2 * total + 13) * 20165) >> 19).astype(jnp.uint8))


def extremes(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`exact.darkest_and_brightest` of [B, H, W, C]."""
    return images.min((1, 2)).astype(jnp.int32), images.max((1, 2)).astype(jnp.int32)


def look_up(images: jax.Array, tables: jax.Array) -> jax.Array:
    """out[b, ..., c] = tables[b, c, images[b, ..., c]], tables [B, C, 256] uint8."""
    hit = images[..., None] == jnp.arange(256, dtype=jnp.uint8)
    return jnp.where(hit, tables[:, None, None], jnp.uint8(0)).max(-1)


# --- geometry ------------------------------------------------------------------------------------


class Lines(NamedTuple):
    """Where pixel (x, y) comes from, in 1 << bits of a pixel, all [B, 1, 1] int32.

    Column t = (tx x + ty y + t0) >> bits, row r = (rx x + ry y + r0) >> bits.
    """

    tx: jax.Array
    ty: jax.Array
    t0: jax.Array
    rx: jax.Array
    ry: jax.Array
    r0: jax.Array
    bits: int

    def column(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """[B, ...] int32, before it is rounded down."""
        return self.tx * x + self.ty * y + self.t0

    def row(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """[B, ...] int32, before it is rounded down."""
        return self.rx * x + self.ry * y + self.r0

    def upright(self) -> tuple["Lines", jax.Array]:
        """(lines with |ry| >= |rx|, which images [B, 1, 1] have x and y exchanged for it)."""
        swap = jnp.abs(self.ry) < jnp.abs(self.rx)
        tx, ty = jnp.where(swap, self.ty, self.tx), jnp.where(swap, self.tx, self.ty)
        rx, ry = jnp.where(swap, self.ry, self.rx), jnp.where(swap, self.rx, self.ry)
        ry = jnp.where(ry == 0, 1, ry)  # the row of an operation that is no geometry
        return Lines(tx, ty, self.t0, rx, ry, self.r0, self.bits), swap

    def y_of(self, row: jax.Array, x: jax.Array, parity: int) -> jax.Array:
        """The y of a parity nearest to where (x, y) comes from the middle of `row`, int32.

        If any y of that parity comes from the row, it is this one: the range of such y is at most
        sqrt(2) long about it, float32 is off by less than 2^-6, and the next is 2 away.
        """
        middle = (row << self.bits) + (1 << (self.bits - 1)) - self.r0 - self.rx * x
        y = middle.astype(jnp.float32) / self.ry.astype(jnp.float32)
        return 2 * jnp.round((y - parity) / 2).astype(jnp.int32) + parity


def fetch(source: jax.Array, lines: Lines, first_row: int, columns: list, size: int) -> jax.Array:
    """Two passes: [B, N, W, C] uint8 -> [B, size, size, M * C], M entries of `columns`.

    `columns` says which column of the source each copy takes, given t; row r of the source stands
    at r - first_row. What lies outside is 0.
    """
    rows, width = source.shape[1:3]
    x = jnp.arange(size, dtype=jnp.int32)[None, None, :]
    row = jnp.arange(first_row, first_row + rows, dtype=jnp.int32)[None, :, None]
    pixels = source.astype(jnp.bfloat16).transpose(0, 3, 1, 2)
    ys = [lines.y_of(row, x, parity) for parity in (0, 1)]  # each [B, N, size]
    column = jnp.concatenate([lines.column(x, y) >> lines.bits for y in ys], -1)
    along = jnp.concatenate([
        jnp.einsum("bnxw,bcnw->bcnx", one_hot(pick(column), width), pixels,
                   preferred_element_type=jnp.bfloat16)
        for pick in columns
    ], 1)  # [B, M * C, N, 2 * size]
    halves = []
    for parity in (0, 1):
        y = jnp.arange(parity, size + size % 2, 2, dtype=jnp.int32)[None, :, None]
        came = (lines.row(x, y) >> lines.bits) - first_row  # [B, size / 2, size]
        halves.append(jnp.einsum(
            "byxn,bcnx->bcyx", one_hot(came, rows),
            along[..., parity * size : (parity + 1) * size],
            preferred_element_type=jnp.bfloat16,
        ))
    both = jnp.stack(halves, 3)
    return both.reshape(*both.shape[:2], -1, size)[:, :, :size].transpose(0, 2, 3, 1)


def _turned_back(moved, swap, height, width):
    """[B, S, S, N], x and y exchanged where `swap` [B, 1, 1] -> [B, H, W, N]."""
    moved = jnp.where(swap[..., None], moved.transpose(0, 2, 1, 3), moved)
    return moved[:, :height, :width]


def _lines(numbers, bits):
    return Lines(*(numbers[..., k, None, None] for k in range(6)), bits)


def nearest(images: jax.Array, row: jax.Array) -> jax.Array:
    """All geometry of [B, H, W, C] uint8 with rows [B, ROW], the nearest pixel each."""
    _, height, width, channels = images.shape
    straight = _lines(row, 16)
    upright, swap = straight.upright()
    moved = fetch(images, upright, 0, [lambda t: t], max(height, width))
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    across, down = straight.column(x, y) >> 16, straight.row(x, y) >> 16
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    pixels = _turned_back(moved, swap, height, width).astype(jnp.uint8)
    return jnp.where(inside[..., None], pixels, unpack_fill(row, channels)[:, None, None, :])


def four_neighbours(images: jax.Array, row: jax.Array) -> jax.Array:
    """All geometry of [B, H, W, C] uint8 with rows [B, ROW], bilinear: the rules of `bilinear`."""
    _, height, width, channels = images.shape
    a, b, c, d, e, f = (bilinear.snap(row, height, width)[..., k] for k in range(6))
    half = bilinear.ONE // 2
    lines = _lines(jnp.stack([2 * a, 2 * b, a + b + c - half, 2 * d, 2 * e, d + e + f - half], -1), 11)
    upright, swap = lines.upright()
    edged = jnp.concatenate([images[:, :1], images, images[:, -1:]], 1)
    pairs = jnp.concatenate([edged[:, :-1], edged[:, 1:]], -1)  # row r and the next, r from -1 on
    neighbours = [
        lambda t: jnp.clip(t, 0, width - 1), lambda t: jnp.clip(t + 1, 0, width - 1)]
    moved = fetch(pairs, upright, -1, neighbours, max(height, width))
    moved = _turned_back(moved, swap, height, width).astype(jnp.int32)
    top_left, bottom_left, top_right, bottom_right = jnp.split(moved, 4, -1)
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    across, down = lines.column(x, y), lines.row(x, y)
    shares = (across & (bilinear.ONE - 1))[..., None], (down & (bilinear.ONE - 1))[..., None]
    mixed = bilinear.blended([top_left, top_right, bottom_left, bottom_right], *shares)
    across, down = across + half, down + half
    inside = (across >= 0) & (across < width * bilinear.ONE)
    inside = inside & (down >= 0) & (down < height * bilinear.ONE)
    return jnp.where(inside[..., None], mixed, unpack_fill(row, channels)[:, None, None, :])


PRODUCTS = Forms(smooth, extremes, compared_histogram, look_up, nearest, four_neighbours)
