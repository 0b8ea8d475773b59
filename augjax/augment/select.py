"""One layer for a whole batch in one pass: every family reads the layer's input, then one is kept.

An image has one operation per layer, so nothing needs chaining. Families share their work: all
blends are one blend, all geometry is one gather with a matrix per image, both histogram operations
one look-up. A family that no operation of the program belongs to is not compiled. The rules are
those of `exact`, hence the bits those of `ops`.

What a kind of backend wants otherwise is a value of `Forms`: `GATHERS` here, for GPUs, and
`tpu.PRODUCTS`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from augjax.augment import bilinear, exact
from augjax.augment.ops import branch
from augjax.augment.rows import unpack_fill

BLENDS = ("color", "contrast", "brightness", "sharpness")
GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TABLES = ("autocontrast", "equalize")
POINTS = ("invert", "posterize", "solarize", "solarize_add", "cutout")  # cheap: each by itself


class Forms(NamedTuple):
    """How a backend does what cannot be said value by value."""

    grey: Callable[[jax.Array], jax.Array]  # images -> [B, H, W] int32, `exact.grey`
    smooth: Callable[[jax.Array], jax.Array]  # images -> images, `exact.smooth`
    extremes: Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # `exact.darkest_and_brightest`
    pick: exact.Pick  # single numbers out of a table
    darker: Callable[[jax.Array], jax.Array]  # images -> [B, C, 256] int32: pixels below a value
    look_up: Callable[[jax.Array, jax.Array], jax.Array]  # images, tables [B, C, 256] -> images
    nearest: Callable[[jax.Array, jax.Array], jax.Array]  # images, rows [B, ROW] -> images
    bilinear: Callable[[jax.Array, jax.Array], jax.Array]


def select_layer(
    images: jax.Array,
    op: jax.Array,
    row: jax.Array,
    ops: tuple[str, ...],
    interpolation: str,
    forms: Forms,
) -> jax.Array:
    """[B, H, W, C] uint8, op [B] int32 into `ops`, row [B, ROW] int32 -> [B, H, W, C] uint8."""

    def chosen(*names):  # [B, 1, 1, 1] bool
        positions = jnp.asarray([ops.index(name) for name in names if name in ops], jnp.int32)
        return (op[:, None] == positions).any(-1)[:, None, None, None]

    result = images
    if present := [name for name in BLENDS if name in ops]:
        blended = _blended(images, row, present, chosen, forms)
        result = jnp.where(chosen(*present), blended, result)
    if present := [name for name in TABLES if name in ops]:
        tables = _tables(images, present, chosen, forms)
        result = jnp.where(chosen(*present), forms.look_up(images, tables), result)
    if present := [name for name in GEOMETRY if name in ops]:
        moved = (forms.bilinear if interpolation == "bilinear" else forms.nearest)(images, row)
        result = jnp.where(chosen(*present), moved, result)
    for name in ops:
        if name not in (*BLENDS, *TABLES, *GEOMETRY, "identity"):
            done = jax.vmap(branch(name, interpolation))(images, row)
            result = jnp.where(chosen(name), done, result)
    return result


def _blended(images, row, present, chosen, forms):
    """All blends: they differ in what they start from."""
    grey = forms.grey(images)
    starts = {
        "brightness": lambda: jnp.zeros_like(images),
        "color": lambda: grey[..., None].astype(jnp.uint8),
        "contrast": lambda: exact.rounded_mean(grey)[:, None, None, None].astype(jnp.uint8),
        "sharpness": lambda: forms.smooth(images),
    }
    start = jnp.zeros_like(images)
    for name in present:
        start = jnp.where(chosen(name), starts[name](), start)
    return exact.blend(images, start, row[:, 0, None, None, None])


def _tables(images, present, chosen, forms):
    """[B, C, 256] uint8: autocontrast's where the image asks for it, or equalize's."""
    table = jnp.arange(256, dtype=jnp.int32)
    if "autocontrast" in present:
        table = exact.autocontrast_table(*forms.extremes(images), forms.pick)
    if "equalize" in present:
        flat = exact.equalize_table(forms.darker(images), images.shape[1] * images.shape[2])
        table = jnp.where(chosen("equalize")[..., 0], flat, table)
    return table.astype(jnp.uint8)


# --- forms for GPUs ------------------------------------------------------------------------------


def darker_by_comparing(images: jax.Array) -> jax.Array:
    """[B, H, W, C] uint8 -> [B, C, 256] int32, compared and summed: no atomics, no conflicts."""
    below = images[..., None] < jnp.arange(256, dtype=jnp.uint8)
    return below.sum((1, 2), dtype=jnp.int32)


def gathered_look_up(images: jax.Array, tables: jax.Array) -> jax.Array:
    """out[b, ..., c] = tables[b, c, images[b, ..., c]], tables [B, C, 256] uint8."""
    batch, channels = images.shape[0], images.shape[-1]
    base = 256 * jnp.arange(batch * channels, dtype=jnp.int32).reshape(batch, 1, 1, channels)
    return tables.reshape(-1).at[images + base].get(mode="promise_in_bounds")


def gathered_nearest(images: jax.Array, row: jax.Array) -> jax.Array:
    """All geometry: one gather of pixels with a matrix per image."""
    _, height, width, channels = images.shape
    matrix = [row[:, k, None, None] for k in range(6)]  # each [B, 1, 1]
    y = jnp.arange(height, dtype=jnp.int32)[:, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, :]
    across = (matrix[2] + matrix[1] * y + matrix[0] * x) >> 16
    down = (matrix[5] + matrix[4] * y + matrix[3] * x) >> 16
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)  # [B, H, W]
    pixels = _pixels(images, jnp.where(inside, down, 0), jnp.where(inside, across, 0))
    return jnp.where(inside[..., None], pixels, unpack_fill(row, channels)[:, None, None, :])


def gathered_bilinear(images: jax.Array, row: jax.Array) -> jax.Array:
    """All geometry: four gathers of pixels with a matrix per image, the rules of `bilinear`."""
    _, height, width, channels = images.shape
    from_x, from_y = bilinear.sources(bilinear.snap(row, height, width), height, width)
    inside_x, left, right, across = bilinear.split(from_x, width)
    inside_y, top, bottom, down = bilinear.split(from_y, height)
    corners = [
        _pixels(images, y, x).astype(jnp.int32) for y in (top, bottom) for x in (left, right)
    ]
    mixed = bilinear.blended(corners, across[..., None], down[..., None])
    inside = (inside_x & inside_y)[..., None]
    return jnp.where(inside, mixed, unpack_fill(row, channels)[:, None, None, :])


def _pixels(images, y, x):
    """images[b, y[b], x[b]] for y, x [B, H, W] inside the image."""
    batch, height, width, channels = images.shape
    image = jnp.arange(batch, dtype=jnp.int32)[:, None, None] * (height * width)
    source = image + y * width + x
    return images.reshape(-1, channels).at[source].get(mode="promise_in_bounds")


GATHERS = Forms(
    exact.grey, exact.smooth, exact.darkest_and_brightest, exact.gathered, darker_by_comparing,
    gathered_look_up, gathered_nearest, gathered_bilinear,
)
