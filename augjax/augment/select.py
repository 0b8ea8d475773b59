"""One layer for a whole batch in one pass: every family reads the layer's input, then one is kept.

An image has one operation per layer, so nothing needs chaining. Families share their work: all
blends are one blend, all geometry is one gather with a matrix per image, both histogram operations
one look-up. A family that no operation of the program belongs to is not compiled. The rules are
those of `exact`, hence the bits those of `ops`.
"""

import jax
import jax.numpy as jnp

from augjax.augment import exact
from augjax.augment.ops import OPS, unpack_fill

BLENDS = ("color", "contrast", "brightness", "sharpness")
GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TABLES = ("autocontrast", "equalize")
POINTS = ("invert", "posterize", "solarize", "solarize_add", "cutout")  # cheap: each by itself


def select_layer(
    images: jax.Array, op: jax.Array, row: jax.Array, ops: tuple[str, ...]
) -> jax.Array:
    """[B, H, W, C] uint8, op [B] int32 into `ops`, row [B, ROW] int32 -> [B, H, W, C] uint8."""

    def chosen(*names):  # [B, 1, 1, 1] bool
        positions = jnp.asarray([ops.index(name) for name in names if name in ops], jnp.int32)
        return (op[:, None] == positions).any(-1)[:, None, None, None]

    result = images
    for family, function in ((BLENDS, _blended), (TABLES, _looked_up), (GEOMETRY, _moved)):
        present = [name for name in family if name in ops]
        if present:
            result = jnp.where(chosen(*present), function(images, row, present, chosen), result)
    for name in ops:
        if name not in (*BLENDS, *TABLES, *GEOMETRY, "identity"):
            result = jnp.where(chosen(name), jax.vmap(OPS[name])(images, row), result)
    return result


def _blended(images, row, present, chosen):
    """All blends: they differ in what they start from."""
    starts = {
        "brightness": lambda: jnp.zeros_like(images),
        "color": lambda: exact.grey(images)[..., None].astype(jnp.uint8),
        "contrast": lambda: exact.mean_grey(images)[:, None, None, None].astype(jnp.uint8),
        "sharpness": lambda: exact.smooth(images),
    }
    start = jnp.zeros_like(images)
    for name in present:
        start = jnp.where(chosen(name), starts[name](), start)
    return exact.blend(images, start, row[:, 0, None, None, None])


def _looked_up(images, row, present, chosen):
    """Autocontrast and equalize: a table [B, C, 256] each, one look-up."""
    table = jnp.arange(256, dtype=jnp.int32)
    if "autocontrast" in present:
        table = exact.autocontrast_table(*exact.darkest_and_brightest(images))
    if "equalize" in present:
        flat = exact.equalize_table(_histograms(images))
        table = jnp.where(chosen("equalize")[..., 0], flat, table)
    table = table.astype(jnp.uint8)  # [B, C, 256]
    batch, channels = images.shape[0], images.shape[-1]
    base = 256 * jnp.arange(batch * channels, dtype=jnp.int32).reshape(batch, 1, 1, channels)
    return table.reshape(-1).at[images + base].get(mode="promise_in_bounds")


def _histograms(images):
    """[B, H, W, C] uint8 -> [B, C, 256] int32, as compared and summed: no atomics, no conflicts."""
    values = images.transpose(0, 3, 1, 2).reshape(images.shape[0], images.shape[-1], -1, 1)
    return (values == jnp.arange(256, dtype=jnp.uint8)).sum(2, dtype=jnp.int32)


def _moved(images, row, present, chosen):
    """All geometry: a gather of pixels with a matrix per image."""
    batch, height, width, channels = images.shape
    matrix = [row[:, k, None, None] for k in range(6)]  # each [B, 1, 1]
    y = jnp.arange(height, dtype=jnp.int32)[:, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, :]
    across = (matrix[2] + matrix[1] * y + matrix[0] * x) >> 16
    down = (matrix[5] + matrix[4] * y + matrix[3] * x) >> 16
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)  # [B, H, W]
    image = jnp.arange(batch, dtype=jnp.int32)[:, None, None] * (height * width)
    source = jnp.where(inside, image + down * width + across, 0)
    pixels = images.reshape(-1, channels).at[source].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], pixels, unpack_fill(row, channels)[:, None, None, :])
