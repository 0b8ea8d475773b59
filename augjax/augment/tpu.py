"""The forms of `select` for TPUs, where fetching a pixel by its index costs more than arithmetic.

Everything is a one-hot matrix, made on the fly by comparing indices, that is reduced or multiplied
at once: 0..255 is exact in bfloat16 and every sum has one term, so the bits are those of a gather.

* Look-up: the 256 values, compared with a pixel and reduced in one pass.
* Geometry, turns as well as shears and translations: two passes of products, as in Catmull and
  Smith's two-pass transforms, but exact for nearest sampling. Pixel (x, y) of the result comes from
  row r(x, y) and column t(x, y) of the image, both linear before they are rounded down. Pass 1
  moves along rows: J(r, k, x) = image(r, t(x, y)), y being the one row of parity k that comes from
  r at x. Where |dr/dy| > 1/2, at most two y share an r and they are neighbours, so that parity
  tells them apart. Pass 2 moves along columns: result(x, y) = J(r(x, y), y mod 2, x). Where
  |dr/dy| < |dt/dy| (turns by 45 to 135 degrees) the image is transposed first and r and t change
  places. So a matrix needs max(|dr/dy|, |dt/dy|) > 1/2, as every turn, shear and translation has
  and a zoom by 2 has not.

Bilinear sampling fetches four neighbours the same way and mixes them in integers. How much these
forms move: `python -m launch.benchmark tpu`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from augjax.augment import bilinear, exact
from augjax.augment.rows import unpack_fill
from augjax.augment.select import darker_by_comparing, Forms


PIXELS = 2**19  # whose four neighbours are held at a time


# --- values: comparing with all 256 is one pass, while one-hot products are written out ----------


def grey(images: jax.Array) -> jax.Array:
    """`exact.grey` of [B, H, W, C], channels sliced before they are widened."""
    return exact.luma([images[..., c].astype(jnp.int32) for c in range(images.shape[-1])])


def smooth(images: jax.Array) -> jax.Array:
    """`exact.smooth` of [B, H, W, C], by shifts of whole planes: TPUs keep channels apart."""
    _, height, width, _ = images.shape
    wide = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = 4 * images.astype(jnp.int32)
    for down in range(3):
        for across in range(3):
            total += wide[:, down : down + height, across : across + width].astype(jnp.int32)
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    border = (y == 0) | (y == height - 1) | (x == 0) | (x == width - 1)
    return jnp.where(border, images, (((2 * total + 13) * 20165) >> 19).astype(jnp.uint8))


def extremes(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`exact.darkest_and_brightest` of [B, H, W, C]."""
    return images.min((1, 2)).astype(jnp.int32), images.max((1, 2)).astype(jnp.int32)


def pick_by_comparing(table: jax.Array, index: jax.Array) -> jax.Array:
    """table[index], [N] and [...]: a gather of single numbers is charged the whole table each."""
    hit = index[..., None] == jnp.arange(table.shape[0], dtype=jnp.int32)
    return jnp.where(hit, table, jnp.zeros_like(table[:1])).max(-1)


def look_up(images: jax.Array, tables: jax.Array) -> jax.Array:
    """out[b, ..., c] = tables[b, c, images[b, ..., c]], tables [B, C, 256] uint8."""
    planes = images.transpose(0, 3, 1, 2)[:, :, None]
    hit = planes == jnp.arange(256, dtype=jnp.uint8)[:, None, None]
    return jnp.where(hit, tables[..., None, None], jnp.uint8(0)).max(2).transpose(0, 2, 3, 1)


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

    @classmethod
    def of(cls, numbers: jax.Array, bits: int) -> "Lines":
        """The first six of [B, >= 6] int32."""
        return cls(*(numbers[:, k, None, None] for k in range(6)), bits)

    def at(self, height: int, width: int) -> tuple[jax.Array, jax.Array]:
        """(t, r) of every pixel, [B, H, W] int32, before they are rounded down."""
        y = jnp.arange(height, dtype=jnp.int32)[:, None]
        x = jnp.arange(width, dtype=jnp.int32)
        return self.tx * x + self.ty * y + self.t0, self.rx * x + self.ry * y + self.r0

    def upright(self) -> tuple["Lines", jax.Array]:
        """(lines with |ry| >= |ty|, which images [B, 1, 1] must be transposed for it)."""
        swap = jnp.abs(self.ry) < jnp.abs(self.ty)
        first, second = self[:3], self[3:6]
        t = (jnp.where(swap, r, t) for t, r in zip(first, second, strict=True))
        r = (jnp.where(swap, t, r) for t, r in zip(first, second, strict=True))
        return Lines(*t, *r, self.bits), swap

    def column_of(self, rows: jax.Array, width: int) -> jax.Array:
        """Which column x takes from a row, by the parity of y: [N] -> [B, N, 2, W] int32.

        The y nearest to where the middle of the row goes, of either parity: if any y of that
        parity comes from the row it is this one, since all that do lie within 1 of the middle
        (sqrt(1/2) for a turn), float32 is off by less than 2^-6, and the next is 2 away.
        """
        tx, ty, t0, rx, ry, r0 = (number[..., None] for number in self[:6])  # [B, 1, 1, 1]
        x = jnp.arange(width, dtype=jnp.int32)
        parity = jnp.arange(2, dtype=jnp.int32)[:, None]
        ry = jnp.where(ry == 0, 1, ry)  # the row of an operation that is no geometry
        middle = (rows[:, None, None] << self.bits) + (1 << (self.bits - 1)) - r0 - rx * x
        half = (middle - parity * ry).astype(jnp.float32) * (0.5 / ry.astype(jnp.float32))
        y = 2 * jnp.round(half).astype(jnp.int32) + parity
        return (tx * x + ty * y + t0) >> self.bits


def one_hot(index: jax.Array, size: int) -> jax.Array:
    """[...] int32 -> [..., size] bfloat16; all zeros where the index lies outside."""
    index = jnp.clip(index, -1, size).astype(jnp.int16)  # half the bytes
    return (index[..., None] == jnp.arange(size, dtype=jnp.int16)).astype(jnp.bfloat16)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.bfloat16)


def fetch(
    planes: jax.Array, lines: Lines, shape: tuple[int, int], first_row: int,
    neighbours: tuple[int, ...],
) -> jax.Array:
    """The two passes: [B, N, S, S] uint8 -> [B, len(neighbours) * N, H, W] uint8.

    `planes` [B, N, rows, columns] begin with row `first_row`; a neighbour of 1 is the column after
    the one that `lines` say, the last column standing for those beyond. 0 from outside else.
    """
    batch, _, rows, columns = planes.shape
    height, width = shape
    pixels = planes.astype(jnp.bfloat16)
    column = lines.column_of(jnp.arange(first_row, first_row + rows, dtype=jnp.int32), width)
    if len(neighbours) > 1:
        picked = [jnp.clip(column + neighbour, 0, columns - 1) for neighbour in neighbours]
    else:
        picked = [column]
    along = jnp.concatenate([  # uint8, since it is transposed in memory
        _product("bnkxw,bcnw->bcnkx", one_hot(pick, columns), pixels).astype(jnp.uint8)
        for pick in picked
    ], 1)
    along = along.reshape(batch, -1, 2 * rows, width).astype(jnp.bfloat16)
    came = (lines.at(height, width)[1] >> lines.bits) - first_row  # [B, H, W]
    parity = (jnp.arange(height, dtype=jnp.int32) & 1)[:, None]
    came = jnp.where((came >= 0) & (came < rows), 2 * came + parity, -1)
    return _product("byxm,bcmx->bcyx", one_hot(came, 2 * rows), along).astype(jnp.uint8)


def _planes(images, swap):
    """[B, C, S, S] uint8, S the longer side, the last line filling up; transposed where `swap`."""
    _, height, width, _ = images.shape
    longer = max(height, width)
    planes = images.transpose(0, 3, 1, 2)
    planes = jnp.pad(
        planes, ((0, 0), (0, 0), (0, longer - height), (0, longer - width)), mode="edge")
    return jnp.where(swap[..., None], planes.transpose(0, 1, 3, 2), planes)


def nearest(images: jax.Array, row: jax.Array) -> jax.Array:
    """All geometry of [B, H, W, C] uint8 with rows [B, ROW], the nearest pixel each."""
    _, height, width, channels = images.shape
    lines = Lines.of(row, 16)
    upright, swap = lines.upright()
    moved = fetch(_planes(images, swap), upright, (height, width), 0, (0,))
    column, line = (number >> 16 for number in lines.at(height, width))
    inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
    fill = unpack_fill(row, channels)[:, None, None, :]
    return jnp.where(inside[..., None], moved.transpose(0, 2, 3, 1), fill)


def four_neighbours(images: jax.Array, row: jax.Array) -> jax.Array:
    """All geometry of [B, H, W, C] uint8 with rows [B, ROW], bilinear: the rules of `bilinear`.

    Done group after group, since four neighbours, and what they are made of, are large.
    """
    group = images_at_a_time(*images.shape[:3])
    if group == images.shape[0]:
        return _four_neighbours(images, row)
    groups = jax.tree.map(lambda a: a.reshape(-1, group, *a.shape[1:]), (images, row))
    return jax.lax.map(lambda parts: _four_neighbours(*parts), groups).reshape(images.shape)


def images_at_a_time(batch: int, height: int, width: int) -> int:
    """How many images of a batch `four_neighbours` does at once: the most that divide it."""
    most = max(1, PIXELS // (height * width))
    return max(count for count in range(1, min(most, batch) + 1) if batch % count == 0)


def _four_neighbours(images, row):
    _, height, width, channels = images.shape
    one, half = bilinear.ONE, bilinear.ONE // 2
    a, b, c, d, e, f = jnp.moveaxis(bilinear.snap(row, height, width), -1, 0)
    lines = Lines.of(
        jnp.stack([2 * a, 2 * b, a + b + c - half, 2 * d, 2 * e, d + e + f - half], -1), 11)
    upright, swap = lines.upright()
    planes = _planes(images, swap)
    edged = jnp.concatenate([planes[:, :, :1], planes, planes[:, :, -1:]], 2)
    pairs = jnp.concatenate([edged[:, :, :-1], edged[:, :, 1:]], 1)  # row r and r + 1, from -1 on
    near = fetch(pairs, upright, (height, width), -1, (0, 1)).astype(jnp.int32)
    here, below, beside, across_below = jnp.split(near.transpose(0, 2, 3, 1), 4, -1)
    swap = swap[..., None]  # of a transposed image, below is beside
    corners = [here, jnp.where(swap, below, beside), jnp.where(swap, beside, below), across_below]
    column, line = lines.at(height, width)
    shares = (column & (one - 1))[..., None], (line & (one - 1))[..., None]
    inside = (column >= -half) & (column < width * one - half)
    inside = inside & (line >= -half) & (line < height * one - half)
    fill = unpack_fill(row, channels)[:, None, None, :]
    return jnp.where(inside[..., None], bilinear.blended(corners, *shares), fill)


PRODUCTS = Forms(
    grey, smooth, extremes, pick_by_comparing, darker_by_comparing, look_up, nearest,
    four_neighbours,
)
