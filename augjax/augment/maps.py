"""Magnitude maps: what a level means for every operation, by name. The name goes with the results.

A map gives the rows of a program (see `ops`) for operations, levels and random numbers. Where
levels are whole numbers, its rows come from a table made on the host in float64 and indexed by
the traced level, so that they are bit for bit what a peer hands to Pillow, and another level
compiles nothing. A map with continuous levels computes its rows on the device instead.

A new map is one function from (operation, level, negative, size) to a row, and one line of `MAPS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.augment import matrices
from augjax.augment.ops import ROW


class Draws(NamedTuple):
    """Uniform random 32-bit numbers [..., uint32], independent of each other."""

    sign: jax.Array
    x: jax.Array
    y: jax.Array


Rows = Callable[[jax.Array, jax.Array, Draws], jax.Array]


@dataclass(frozen=True)
class MagnitudeMap:
    """A named meaning of levels.

    `rows(height, width)` returns a function (operation [...] int32 into `ops`, level [...] float32,
    draws [...]) -> [..., ROW] int32, the fill left out.
    """

    name: str
    lowest: float
    highest: float
    whole: bool  # levels are whole numbers; a scheduled one rounds half to even
    ops: tuple[str, ...]
    keeps_at_zero: tuple[str, ...]  # the operations that are the identity at level 0
    size_rule: str  # what its pixels refer to, in words
    rows: Callable[[int, int], Rows]


def check_level(magnitude_map: MagnitudeMap, level: object) -> None:
    """Raises ConfigError where a concrete level lies outside the map's range; tracers pass."""
    if callable(level) or isinstance(level, jax.core.Tracer):
        return
    inside = (np.asarray(level) >= magnitude_map.lowest) & (np.asarray(level) <= magnitude_map.highest)
    check.require(
        bool(np.all(inside)), f"magnitude in map {magnitude_map.name!r}",
        f"{magnitude_map.lowest:g} to {magnitude_map.highest:g}", level,
        "stay inside the map's range or choose another map",
    )


# --- maps of whole levels --------------------------------------------------------------------------

RowOf = Callable[[str, int, bool, int, int], "np.ndarray | list[int]"]


def tabulated(row_of: RowOf, ops: tuple[str, ...], highest: int) -> Callable[[int, int], Rows]:
    """Rows from a host table of `row_of(operation, level, negative, height, width)`, at most ROW long.

    A cutout's row is (left, top, right, bottom) about a centre, which is drawn over the image.
    """

    @functools.cache
    def table(height: int, width: int) -> np.ndarray:  # [operations, levels, signs, ROW] int32
        numbers = np.zeros((len(ops), highest + 1, 2, ROW), np.int32)
        for operation, level, negative in np.ndindex(numbers.shape[:3]):
            row = row_of(ops[operation], level, bool(negative), height, width)
            numbers[operation, level, negative, : len(row)] = row
        return numbers

    def rows(height: int, width: int) -> Rows:
        def lookup(operation, level, draws):
            level = jnp.clip(jnp.round(level), 0, highest).astype(jnp.int32)
            negative = (draws.sign >> 31).astype(jnp.int32)
            found = jnp.asarray(table(height, width))[operation, level, negative]
            if "cutout" not in ops:
                return found
            return jnp.where(
                (operation == ops.index("cutout"))[..., None],
                found + _centre(draws, height, width), found,
            )

        return lookup

    return rows


def _centre(draws, height, width):
    """[..., ROW] int32: a pixel drawn uniformly, added to a box's four edges."""
    x = (draws.x % width).astype(jnp.int32)
    y = (draws.y % height).astype(jnp.int32)
    nothing = jnp.zeros_like(x)
    return jnp.stack([x, y, x, y] + [nothing] * (ROW - 4), -1)


def float_pattern(factor: float) -> int:
    """The bits of a factor as Pillow's C takes it, a float32, in an int32."""
    return int(np.float32(factor).view(np.int32))


# --- torchvision's RandAugment ---------------------------------------------------------------------

BINS = 31


def linspace(start: float, stop: float, count: int) -> np.ndarray:
    """[count] float32 as torch.linspace makes it: float32 steps, from both ends to the middle."""
    start, stop = np.float32(start), np.float32(stop)
    step = (stop - start) / np.float32(count - 1)
    index = np.arange(count, dtype=np.float32)
    return np.where(index < count // 2, start + step * index, stop - step * (count - 1 - index))


def torchvision_row(
    operation: str, level: int, negative: bool, height: int, width: int
) -> np.ndarray | list[int]:
    """One row of torchvision's RandAugment: 31 bins, +/- by `negative`. Source: spec B3 (iii)."""

    def bin_of(stop, start=0.0):  # torchvision keeps float32 bins and computes on in float64
        return float(linspace(start, stop, BINS)[level])

    sign = -1.0 if negative else 1.0
    match operation:
        case "identity" | "autocontrast" | "equalize":
            return []
        case "posterize":
            return [8 - round(level / ((BINS - 1) / 4))]
        case "solarize":
            return [int(np.ceil(bin_of(0.0, start=255.0)))]  # v < t for whole v
        case "color" | "contrast" | "brightness" | "sharpness":
            return [float_pattern(1.0 + sign * bin_of(0.9))]
        case "rotate":
            return matrices.rotation(sign * bin_of(30.0), height, width)
        case "shear_x":
            return matrices.shear_x(sign * bin_of(0.3))
        case "shear_y":
            return matrices.shear_y(sign * bin_of(0.3))
        case "translate_x":
            return matrices.translate_x(int(sign * bin_of(150.0 / 331.0 * width)))
        case "translate_y":
            return matrices.translate_y(int(sign * bin_of(150.0 / 331.0 * height)))
    raise check.ConfigError(check.sentence(
        "operation in map 'torchvision'", ", ".join(TORCHVISION_OPS), operation, "choose one of them"))


TORCHVISION_OPS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color",
    "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)

TORCHVISION = MagnitudeMap(
    name="torchvision", lowest=0.0, highest=30.0, whole=True, ops=TORCHVISION_OPS,
    # Solarize at level 0 has threshold 255: it turns pure white black, as torchvision does.
    keeps_at_zero=tuple(
        op for op in TORCHVISION_OPS if op not in ("solarize", "autocontrast", "equalize")
    ),
    size_rule="translations are shares of the image's own width and height",
    rows=tabulated(torchvision_row, TORCHVISION_OPS, BINS - 1),
)

MAPS: dict[str, MagnitudeMap] = {"torchvision": TORCHVISION}


def map_named(name: str) -> MagnitudeMap:
    """A magnitude map. Raises ConfigError with the nearest names."""
    return MAPS[check.one_of("magnitude map", name, MAPS)]
