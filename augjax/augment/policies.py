"""Policies: which operations an image gets, and how strongly. A policy is data, a tree of arrays.

Every policy has one method, `draw(keys [B], image_shape) -> Program`, and the one engine does the
rest. What a search or a schedule may vary is a leaf and traced; what changes structure is static.
A new policy is one record with a `draw`; `augjax.augment.calls` holds what they share.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from augjax import check
from augjax.augment import engine
from augjax.augment.engine import Program


class Policy(Protocol):
    """What the engine can draw from."""

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> Program: ...


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

    The same bits on any number of devices and, but for dm-pix's float operations (map "pix"), on
    every backend: image b draws from `key` folded with b.
    """
    engine.check_images(images)
    return apply_policy(image_keys(key, images.shape[0]), images, policy)
