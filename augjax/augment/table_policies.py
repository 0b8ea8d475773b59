"""AutoAugment: one of several sub-policies per image, two operations each, each with its chance.

The tables are the published ones, `operation probability level`, a dash where the operation has no
level. Source: spec B4 and the code named there.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.augment import calls, maps
from augjax.augment.engine import Program
from augjax.augment.policy_tables import TABLES
from augjax.augment.rows import GREY
from augjax.types import record, static

Entry = tuple[str, float, float]  # operation, probability, level

OWN = "own"
OWN_MAPS = {  # the map that a table's authors searched or train with
    "cifar10": "autoaugment", "svhn": "autoaugment", "imagenet": "timm_original",
    "v0": "tf_autoaugment",
}


@record
class SubPolicies:
    """See `sub_policies`, which checks what it is given."""

    probabilities: Any  # [S, L] float32
    levels: Any  # [S, L] float32
    ops: tuple[tuple[str, ...], ...] = static()  # [S][L] names
    map: str = static()
    fill: calls.Fill = static()
    interpolation: str = static()

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> Program:
        """keys [B] -> a Program for images [B, H, W, C] of `image_shape` (H, W, C)."""
        maps.check_level(maps.map_named(self.map), self.levels)
        names = tuple(dict.fromkeys(name for pair in self.ops for name in pair))
        table = np.array([[names.index(name) for name in pair] for pair in self.ops], np.int32)
        bits = calls.random_bits(keys, (5, table.shape[1]))  # [5, B, L]
        which = calls.below(bits[4, :, 0], len(table))  # [B]
        applies = calls.uniform(bits[0]) < jnp.asarray(self.probabilities)[which]
        draws = maps.Draws(sign=bits[1], x=bits[2], y=bits[3])
        return calls.program(
            self, names, jnp.asarray(table)[which], jnp.asarray(self.levels)[which], applies,
            draws, image_shape,
        )


def sub_policies(
    entries: Sequence[Sequence[Entry]],
    map: str,
    fill: int | Sequence[int] = GREY,
    interpolation: str = "nearest",
) -> SubPolicies:
    """A policy of sub-policies, all of one length: per image one is drawn, uniformly.

    An entry is (operation, probability, level); where an operation has no level, give 0. Operations
    are structure, probabilities and levels are traced. Raises ConfigError.
    """
    chosen = calls.check_manner(map, interpolation)
    lengths = {len(pair) for pair in entries}
    check.require(
        len(lengths) == 1 and 0 not in lengths, "sub-policies", "at least one, all of one length",
        f"lengths {sorted(lengths)}", "fill up with ('invert', 0.0, 0)",
    )
    for number, pair in enumerate(entries, 1):
        for operation, probability, level in pair:
            check.one_of(f"operation of map {map!r} in sub-policy {number}", operation, chosen.ops)
            calls.check_probability(f"probability in sub-policy {number}", probability)
            maps.check_level(chosen, level)
    ops, probabilities, levels = (
        tuple(tuple(entry[part] for entry in pair) for pair in entries) for part in range(3)
    )
    return SubPolicies(
        np.float32(probabilities), np.float32(levels), ops, map, calls.colour_of(fill),
        interpolation,
    )


def autoaugment(
    name: str = "cifar10",
    map: str = OWN,
    fill: int | Sequence[int] = GREY,
    interpolation: str = "nearest",
) -> SubPolicies:
    """AutoAugment's 25 sub-policies "cifar10", "imagenet", "svhn", or EfficientNet's "v0".

    `map` "own" takes what the table's authors meant by a level: `autoaugment` (cifar10, svhn),
    `timm_original` (imagenet), `tf_autoaugment` (v0); `torchvision_aa` is torchvision's reading,
    which has no "v0". The CIFAR authors fill with the data set's mean, (125, 123, 114) there.
    Raises ConfigError. Source: Cubuk et al. 2019; spec B4.
    """
    table = TABLES[check.one_of("AutoAugment policy", name, TABLES)]
    return sub_policies(table, OWN_MAPS[name] if map == OWN else map, fill, interpolation)
