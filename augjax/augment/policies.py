"""Policies: which operations an image gets, and how strongly. A policy is data, a tree of arrays.

Every policy has one method, `draw(keys [B], image_shape) -> Program`, and the one engine does the
rest. What a search or a schedule may vary is a leaf and traced; what changes structure is static.
A new policy is one record with a `draw`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.augment import engine, maps
from augjax.augment.engine import Program
from augjax.augment.ops import GREY, pack_fill
from augjax.types import record, static


class Policy(Protocol):
    """What the engine can draw from."""

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> Program: ...


@record
class RandAugment:
    """See `randaugment`, which checks what it is given."""

    magnitude: Any  # [] float32, or a schedule until the host has evaluated it
    num_layers: int = static()
    map: str = static()
    fill: int | tuple[int, ...] = static()

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> Program:
        """keys [B] -> a Program for images [B, H, W, C] of `image_shape` (H, W, C)."""
        height, width, channels = image_shape
        chosen = maps.map_named(self.map)
        maps.check_level(chosen, self.magnitude)
        check_fill(self.fill, channels)
        bits = jax.vmap(lambda key: jax.random.bits(key, (4, self.num_layers)))(keys)  # [B, 4, L]
        # A remainder of 32 bits favours an operation over another by less than 1 in 10^8.
        op = (bits[:, 0] % len(chosen.ops)).astype(jnp.int32)
        level = jnp.broadcast_to(jnp.asarray(self.magnitude, jnp.float32), op.shape)
        draws = maps.Draws(sign=bits[:, 1], x=bits[:, 2], y=bits[:, 3])
        parameters = chosen.rows(height, width)(op, level, draws)
        return Program(op, parameters.at[..., 6].set(pack_fill(self.fill, channels)), chosen.ops)


def randaugment(
    magnitude: float | jax.Array | Callable[..., Any],
    num_layers: int = 2,
    map: str = "torchvision",
    fill: int | Sequence[int] = GREY,
) -> RandAugment:
    """RandAugment: `num_layers` operations per image, uniform with replacement, at one magnitude.

    `magnitude` is a level of the named map (`torchvision`: 0..30, rounded half to even), a number,
    a traced scalar or a schedule; a traced one outside the range counts as the nearest end. `fill`
    is what geometry brings in, 0..255, one number or one per channel. Raises ConfigError.
    Source: Cubuk et al. 2020; spec B3.
    """
    maps.check_level(maps.map_named(map), magnitude)
    check.require(
        isinstance(num_layers, int) and num_layers >= 1, "num_layers of randaugment",
        "a whole number from 1 on", num_layers, "leave the policy out to augment nothing",
    )
    fill = int(fill) if np.ndim(fill) == 0 else tuple(int(value) for value in fill)
    check_fill(fill, np.size(fill))
    if not callable(magnitude) and not isinstance(magnitude, jax.Array):
        magnitude = np.float32(magnitude)  # one type whatever was typed: nothing recompiles
    return RandAugment(magnitude, num_layers, map, fill)


def check_fill(fill: int | tuple[int, ...], channels: int) -> None:
    """Raises ConfigError unless `fill` is a pixel value or one per channel."""
    fits = np.size(fill) in (1, channels) and channels in (1, 3)
    check.require(
        fits and all(0 <= value <= 255 for value in np.ravel(fill)), "fill",
        f"a value 0..255 or {channels} of them", fill, "give pixels, not normalised values",
    )


def draw(keys: jax.Array, policy: Policy, image_shape: tuple[int, int, int]) -> Program:
    """One program per key [B]; `image_shape` is (H, W, C). Raises ConfigError."""
    check.require(
        hasattr(policy, "draw"), "policy", "an augmentation policy", type(policy).__name__,
        "build one with augment.randaugment",
    )
    check.require(
        jnp.ndim(keys) == 1 and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key), "keys",
        "a vector of jax.random.key, one per image", f"{keys.dtype}{list(keys.shape)}",
        "use augment.image_keys(key, B)",
    )
    return policy.draw(keys, image_shape)


def image_keys(key: jax.Array, batch: int) -> jax.Array:
    """[batch] keys: `key` folded with every image's position in the global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))


def apply_policy(keys: jax.Array, images: jax.Array, policy: Policy) -> jax.Array:
    """The layer that does what the view's policy draws: keys [B], uint8 [B, H, W, C] -> same."""
    engine.check_images(images)
    return engine.apply(images, draw(keys, policy, images.shape[1:]))


def augment(key: jax.Array, policy: Policy, images: jax.Array) -> jax.Array:
    """Augments uint8 [B, H, W, C] by itself, inside anybody's jitted step. Raises ConfigError.

    The same bits on any number of devices and on every backend: image b draws from `key` folded
    with b.
    """
    engine.check_images(images)
    return apply_policy(image_keys(key, images.shape[0]), images, policy)
