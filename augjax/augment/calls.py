"""What all policies share: random numbers of every operation call, and the program made of them.

An operation call is one layer of one image. All of it is drawn from the image's own key, by
integers and comparisons, so that every backend draws the same.
"""

from collections.abc import Sequence
import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.augment import levels, maps
from augjax.augment.engine import Program
from augjax.augment.ops import INTERPOLATIONS, pack_fill

Fill = int | tuple[int, ...]

QUANTILES = 4096  # of the normal distribution, by which noise is drawn: up to 3.7 deviations


def random_bits(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """keys [B] -> [shape[0], B, *shape[1:]] uint32."""
    return jax.vmap(lambda key: jax.random.bits(key, shape), out_axes=1)(keys)


def uniform(bits: jax.Array) -> jax.Array:
    """uint32 -> float32 in [0, 1), multiples of 2^-24."""
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def below(bits: jax.Array, count: int) -> jax.Array:
    """uint32 -> int32 in 0..count - 1.

    A remainder of 32 bits favours one number over another by less than `count` in 2^32.
    """
    return (bits % np.uint32(count)).astype(jnp.int32)


def normal(bits: jax.Array) -> jax.Array:
    """uint32 -> float32, standard normal: one of QUANTILES equally likely values."""
    return jnp.asarray(_quantiles())[bits >> (32 - QUANTILES.bit_length() + 1)]


@functools.cache
def _quantiles() -> np.ndarray:
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return np.float32([statistics.NormalDist().inv_cdf(share) for share in shares])


def program(
    policy: Any, names: tuple[str, ...], op: jax.Array, level: jax.Array, applies: jax.Array,
    draws: levels.Draws, image_shape: tuple[int, int, int],
) -> Program:
    """The program of calls [B, L]: operation `op` (its place in `names`) at `level` if it applies.

    `policy` gives map, fill and interpolation. Where a call does not apply, the identity is done.
    """
    height, width, channels = image_shape
    chosen = maps.map_named(policy.map)
    fill = pack_fill(colour_of(policy.fill, channels), channels)
    position = np.array([chosen.ops.index(name) for name in names], np.int32)
    parameters = chosen.rows(height, width)(jnp.asarray(position)[op], level, draws)
    parameters = parameters.at[..., 6].set(fill)
    ops = names if "identity" in names else (*names, "identity")
    done = jnp.where(applies, op, ops.index("identity")).astype(jnp.int32)
    return Program(done, parameters, ops, policy.interpolation)


# --- refusals ------------------------------------------------------------------------------------


def number(value: Any) -> Any:
    """A leaf of a policy: float32 whatever was typed, so that nothing recompiles."""
    return value if callable(value) or isinstance(value, jax.Array) else np.float32(value)


def colour_of(fill: int | Sequence[int], channels: int = 3) -> Fill:
    """A fill as whole numbers, so that it can be part of a program's structure.

    Raises ConfigError unless it is a pixel value or one for each of the images' channels, 1 or 3.
    """
    values = np.ravel(fill)
    fits = channels in (1, 3) and values.size in (1, channels) and values.dtype.kind in "iuf"
    check.require(
        fits and all(value in range(256) for value in values), "fill",
        "a value 0..255" + " or 3 of them" * (channels == 3), fill,
        "give pixels, not normalised values",
    )
    return int(values[0]) if np.ndim(fill) == 0 else tuple(int(value) for value in values)


def check_manner(map: str, interpolation: str) -> maps.MagnitudeMap:
    """The map of that name. Raises ConfigError for unknown names."""
    check.one_of("interpolation", interpolation, INTERPOLATIONS)
    return maps.map_named(map)


def check_probability(what: str, probability: Any) -> None:
    """Raises ConfigError where a concrete probability is outside [0, 1]; tracers pass."""
    check_inside(what, probability, 0.0, 1.0, "give a share of the images, not per cent")


def check_inside(what: str, value: Any, lowest: float, highest: float, fix: str) -> None:
    """Raises ConfigError where a concrete number is outside; schedules and tracers pass."""
    if callable(value) or isinstance(value, jax.core.Tracer):
        return
    numbers = np.asarray(value, np.float64)
    outside = ~((numbers >= lowest) & (numbers <= highest))
    got = f"{numbers[outside].ravel()[0]:g}" if outside.any() else ""
    place = np.argwhere(outside)[0].tolist() if outside.any() and numbers.ndim else ""
    check.require(not outside.any(), f"{what}{place}", f"{lowest:g} to {highest:g}", got, fix)


def check_layers(num_layers: Any) -> None:
    """Raises ConfigError unless there is at least one layer."""
    check.require(
        isinstance(num_layers, int) and num_layers >= 1, "num_layers of a policy",
        "a whole number from 1 on", num_layers, "leave the policy out to augment nothing",
    )
