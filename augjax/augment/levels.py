"""From levels to rows: host tables, so that every backend does what a peer hands to Pillow.

A map says in float64 what a level means for an operation, in the unit that Pillow takes. The rows
of a program are tabulated from that on the host and indexed by the traced level: another level
compiles nothing, and no device's own cosine or rounding can change a bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.augment import matrices
from augjax.augment.rows import ROW

FINE = 32  # steps per level of a continuous map: below a grey value, and a pixel at 224 pixels


class Draws(NamedTuple):
    """Uniform random 32-bit numbers [..., uint32], independent of each other."""

    sign: jax.Array
    x: jax.Array
    y: jax.Array


Value = Callable[[str, float, float, int, int], Any]
Rows = Callable[[jax.Array, jax.Array, Draws], jax.Array]
Place = Callable[[jax.Array, Draws, int, int], jax.Array]


@dataclass(frozen=True)
class MagnitudeMap:
    """A named meaning of levels.

    `value(operation, level, sign, height, width)` is what Pillow would be handed: degrees, slope,
    pixels, bits, threshold, addend or factor; None where there is nothing to say; for a cutout
    what the map's `place` makes a box of. `sign` is 1.0 or -1.0.

    `rows(height, width)` returns a function (operation [...] int32 into `ops`, level [...] float32,
    draws [...]) -> [..., ROW] int32, the fill left out.
    """

    name: str
    lowest: float
    highest: float
    steps: int  # 1: levels are whole numbers; else fractions of this; in between round half to even
    ops: tuple[str, ...]
    keeps_at_zero: tuple[str, ...]  # the operations that are the identity at level 0
    size_rule: str  # what its pixels refer to, in words
    value: Value
    rows: Callable[[int, int], Rows]

    @property
    def whole(self) -> bool:
        """Whether its levels are whole numbers."""
        return self.steps == 1


# --- where a cutout goes: (box [..., 4] of the table, draws, H, W) -> [..., 4] int32 -------------


def about_a_centre(box: jax.Array, draws: Draws, height: int, width: int) -> jax.Array:
    """(left, top, right, bottom) about a pixel drawn uniformly; the border clips it."""
    x, y = (draws.x % width).astype(jnp.int32), (draws.y % height).astype(jnp.int32)
    return box + jnp.stack([x, y, x, y], -1)


def inside(box: jax.Array, draws: Draws, height: int, width: int) -> jax.Array:
    """(0, 0, box's width, its height) at a place drawn uniformly among those wholly inside."""
    x = (draws.x % (width - box[..., 2] + 1).astype(jnp.uint32)).astype(jnp.int32)
    y = (draws.y % (height - box[..., 3] + 1).astype(jnp.uint32)).astype(jnp.int32)
    return box + jnp.stack([x, y, x, y], -1)


def from_a_corner(box: jax.Array, draws: Draws, height: int, width: int) -> jax.Array:
    """(half a side twice, in 16.16, then the whole pixels it covers twice), as ildoonet places it.

    The corner is max(0, int(u - side / 2)), u uniform over the image; only the far border clips.
    """
    spread = jnp.asarray([width << 16, height << 16], jnp.uint32)
    centre = (jnp.stack([draws.x, draws.y], -1) % spread).astype(jnp.int32)
    corner = jnp.maximum(centre - box[..., :2], 0) >> 16
    return jnp.concatenate([corner, corner + box[..., 2:]], -1)


# --- tables --------------------------------------------------------------------------------------


def magnitude_map(
    name: str, value: Value, ops: tuple[str, ...], highest: int, keeps_at_zero: tuple[str, ...],
    size_rule: str, steps: int = 1, place: Place = about_a_centre,
) -> MagnitudeMap:
    """A map of levels 0..`highest` in `steps` per level, its rows tabulated from `value`."""

    def row_of(operation, level, negative, height, width):
        sign = -1.0 if negative else 1.0
        given = value(operation, level, sign, height, width)
        return row(operation, given, height, width)

    return MagnitudeMap(
        name, 0.0, float(highest), steps, ops, keeps_at_zero, size_rule, value,
        tabulated(row_of, ops, highest, steps, place),
    )


RowOf = Callable[[str, float, bool, int, int], "np.ndarray | list[int]"]


def tabulated(
    row_of: RowOf, ops: tuple[str, ...], highest: int, steps: int = 1,
    place: Place = about_a_centre,
) -> Callable[[int, int], Rows]:
    """Rows from a host table of `row_of(operation, level, negative, height, width)`.

    A row of the function may be shorter than ROW. Of a cutout's row `place` makes the box.
    """

    @functools.cache
    def table(height: int, width: int) -> np.ndarray:  # [operations, levels, signs, ROW] int32
        numbers = np.zeros((len(ops), highest * steps + 1, 2, ROW), np.int32)
        for operation, step, negative in np.ndindex(numbers.shape[:3]):
            level = step if steps == 1 else step / steps
            row = row_of(ops[operation], level, bool(negative), height, width)
            numbers[operation, step, negative, : len(row)] = row
        return numbers

    def rows(height: int, width: int) -> Rows:
        def lookup(operation, level, draws):
            step = jnp.clip(jnp.round(level * steps), 0, highest * steps).astype(jnp.int32)
            negative = (draws.sign >> 31).astype(jnp.int32)
            found = jnp.asarray(table(height, width))[operation, step, negative]
            if "cutout" not in ops:
                return found
            is_cutout = (operation == ops.index("cutout"))[..., None]
            # A row of another operation is no box: it must not reach what `place` divides by.
            box = place(jnp.where(is_cutout, found[..., :4], 0), draws, height, width)
            box = jnp.concatenate([box, jnp.zeros_like(found[..., 4:])], -1)
            return jnp.where(is_cutout, box, found)

        return lookup

    return rows


def row(operation: str, value: Any, height: int, width: int) -> "np.ndarray | list[int]":
    """The row of an operation, from the value that Pillow would be handed."""
    match operation:
        case _ if value is None:
            return []
        case "posterize" | "solarize_add" | "add_solarize":
            return [int(value)]
        case "solarize":
            return [int(np.ceil(value))]  # v < t for whole v
        case "color" | "contrast" | "brightness" | "sharpness":
            return [float_pattern(value)]
        case "rotate":
            return matrices.rotation(value, height, width)
        case "shear_x" if math.isinf(value):  # every pixel slides out
            return matrices.translate_x(math.copysign(width, value))
        case "shear_y" if math.isinf(value):
            return matrices.translate_y(math.copysign(height, value))
        case "shear_x" | "shear_y" | "translate_x" | "translate_y":
            return getattr(matrices, operation)(value)
        case "cutout":
            return list(value)
        case "pix_affine":
            return [float_pattern(number) for number in value]
        case _ if operation.startswith("pix_"):
            return [float_pattern(value)]
    raise check.ConfigError(check.sentence(
        f"operation {operation!r}", "a case in augment.levels.row", "none",
        "write there what its value becomes for the engine"))


def float_pattern(factor: float) -> int:
    """The bits of a factor as Pillow's C takes it, a float32, in an int32."""
    return int(np.float32(factor).view(np.int32))
