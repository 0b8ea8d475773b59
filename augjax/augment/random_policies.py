"""Policies that draw operations uniformly: RandAugment and its relatives.

Two records: one magnitude for all, perhaps with noise; or a magnitude drawn from a range. All
numbers are traced, so a schedule, a grid or a population turns them without compiling anything.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.augment import calls, maps
from augjax.augment.engine import Program
from augjax.augment.rows import GREY
from augjax.types import record, static

Number = float | jax.Array | Callable[..., Any]
UNIFORM_NOISE = 100.0  # timm: a larger deviation means U(0, M)


@record
class RandAugment:
    """See `randaugment`, which checks what it is given."""

    magnitude: Any  # [] float32, or a schedule until the host has evaluated it
    probability: Any  # [] float32, of each operation drawn
    noise: Any  # [] float32, standard deviation of the magnitude, in levels
    num_layers: int = static()
    map: str = static()
    fill: calls.Fill = static()
    interpolation: str = static()

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> Program:
        """keys [B] -> a Program for images [B, H, W, C] of `image_shape` (H, W, C)."""
        maps.check_level(maps.map_named(self.map), self.magnitude)
        bits = calls.random_bits(keys, (6, self.num_layers))  # [6, B, L]
        magnitude, noise = jnp.float32(self.magnitude), jnp.float32(self.noise)
        deviation = jnp.where(noise > UNIFORM_NOISE, 0.0, noise)  # infinity times 0 is no number
        level = magnitude + deviation * calls.normal(bits[5])
        level = jnp.where(noise > UNIFORM_NOISE, magnitude * calls.uniform(bits[5]), level)
        return _program(self, bits, level, image_shape)


@record
class RangedRandAugment:
    """See `ranged_randaugment`, which checks what it is given."""

    lowest: Any  # [] float32
    highest: Any  # [] float32
    probability: Any  # [] float32
    num_layers: int = static()
    per: str = static()  # "image" | "operation"
    map: str = static()
    fill: calls.Fill = static()
    interpolation: str = static()

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> Program:
        """keys [B] -> a Program for images [B, H, W, C] of `image_shape` (H, W, C)."""
        chosen = maps.map_named(self.map)
        for level in (self.lowest, self.highest):
            maps.check_level(chosen, level)
        bits = calls.random_bits(keys, (6, self.num_layers))  # [6, B, L]
        ends = jnp.stack([jnp.float32(self.lowest), jnp.float32(self.highest)])
        ends = jnp.clip(ends, chosen.lowest, chosen.highest) * chosen.steps
        first, last = jnp.round(ends).astype(jnp.int32)
        count = jnp.maximum(last - first + 1, 1).astype(jnp.uint32)
        drawn = bits[5, :, :1] if self.per == "image" else bits[5]
        level = (first + (drawn % count).astype(jnp.int32)).astype(jnp.float32) / chosen.steps
        return _program(self, bits, jnp.broadcast_to(level, bits.shape[1:]), image_shape)


def _program(policy, bits, level, image_shape):
    """Operations uniform over the map's, each applied with the policy's probability."""
    names = maps.map_named(policy.map).ops
    applies = calls.uniform(bits[4]) < jnp.float32(policy.probability)
    draws = maps.Draws(sign=bits[1], x=bits[2], y=bits[3])
    op = calls.below(bits[0], len(names))
    return calls.program(policy, names, op, level, applies, draws, image_shape)


# --- builders ------------------------------------------------------------------------------------


def randaugment(
    magnitude: Number,
    num_layers: int = 2,
    map: str = "torchvision",
    fill: int | Sequence[int] = GREY,
    probability: Number = 1.0,
    noise: Number = 0.0,
    interpolation: str = "nearest",
) -> RandAugment:
    """RandAugment: `num_layers` operations per image, uniform with replacement, at one magnitude.

    magnitude      a level of the named map (`maps.MAPS`): a number, a traced scalar or a schedule;
                   a traced one outside the map's range counts as the nearest end
    fill           what geometry brings in, 0..255, one number or one per channel
    probability    of each operation drawn to be done at all (timm's `p`, 0.5 there)
    noise          standard deviation, in levels, of the magnitude of every operation call (timm's
                   `mstd`), clipped to the map's range; above 100, as in timm, the magnitude is
                   uniform between 0 and `magnitude` instead

    timm's "rand-m9-mstd0.5-inc1" is `randaugment(9, map="timm_inc", probability=0.5, noise=0.5)`,
    except that timm also fills with the mean (`fill=mean_fill(mean)`) and chooses bilinear or
    bicubic sampling by chance. Raises ConfigError. Source: Cubuk et al. 2020; spec B3.
    """
    maps.check_level(calls.check_manner(map, interpolation), magnitude)
    calls.check_layers(num_layers)
    calls.check_probability("probability of randaugment", probability)
    calls.check_inside("noise of randaugment", noise, 0, float("inf"), "give a deviation in levels")
    return RandAugment(
        *(calls.number(value) for value in (magnitude, probability, noise)),
        num_layers, map, calls.colour_of(fill), interpolation,
    )


def ranged_randaugment(
    lowest: Number,
    highest: Number,
    num_layers: int = 2,
    map: str = "torchvision",
    fill: int | Sequence[int] = GREY,
    probability: Number = 1.0,
    per: str = "image",
    interpolation: str = "nearest",
) -> RangedRandAugment:
    """RandAugment whose magnitude is uniform over the map's levels from `lowest` to `highest`.

    Both ends are included and may be numbers, traced scalars or schedules. The magnitude is drawn
    once `per` "image" or anew per "operation". The teacher filter's views are
    `ranged_randaugment(0, 30)`. Raises ConfigError. Source: augmentation_in_compression IV-D;
    spec B9.
    """
    chosen = calls.check_manner(map, interpolation)
    for level in (lowest, highest):
        maps.check_level(chosen, level)
    moving = any(callable(end) or isinstance(end, jax.core.Tracer) for end in (lowest, highest))
    check.require(
        moving or bool(np.all(np.asarray(lowest) <= np.asarray(highest))),
        "range of magnitudes", "lowest <= highest", f"{lowest} to {highest}", "swap the two",
    )
    calls.check_layers(num_layers)
    calls.check_probability("probability of ranged_randaugment", probability)
    check.one_of("per of ranged_randaugment", per, ("image", "operation"))
    return RangedRandAugment(
        *(calls.number(value) for value in (lowest, highest, probability)),
        num_layers, per, map, calls.colour_of(fill), interpolation,
    )


def trivial_augment(
    fill: int | Sequence[int] = GREY, interpolation: str = "nearest"
) -> RangedRandAugment:
    """TrivialAugment-Wide: one operation per image at one of 31 magnitudes, all drawn uniformly.

    Source: Mueller and Hutter 2021; spec B6.
    """
    return ranged_randaugment(
        0, 30, num_layers=1, map="trivial_wide", fill=fill, interpolation=interpolation)


def outliers(
    magnitude: Number,
    sample: str = "fixed",
    num_layers: int = 2,
    fill: int | Sequence[int] = GREY,
    interpolation: str = "nearest",
) -> RandAugment:
    """The outliers' own space: shears, translations and cutout, of which level 10 leaves nothing.

    `sample` "fixed" moves by the level's amount, "uniform" by up to it; the paper does not say
    which (spec B5 chooses fixed), and fills with the data set's mean. Raises ConfigError.
    Source: circumventing_outliers 4.1.
    """
    noise = {"fixed": 0.0, "uniform": float("inf")}
    check.one_of("sample of outliers", sample, noise)
    return randaugment(magnitude, num_layers, "outliers", fill, noise=noise[sample],
                       interpolation=interpolation)
