"""From one gradient per term to the gradient the optimiser sees."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from augjax.types import Knobs, PyTree

Pullback = Callable[[Mapping[str, jax.Array]], PyTree]  # {term: [] float32} -> gradient of params
Combine = Callable[[Pullback, Mapping[str, jax.Array], Knobs], PyTree]


def weighted_sum(pullback: Pullback, losses: Mapping[str, jax.Array], knobs: Knobs) -> PyTree:
    """The gradient of the weighted sum of the terms: the pullback of the weights."""
    return pullback({name: jnp.asarray(knobs.weights[name], jnp.float32) for name in losses})
