"""Making a thing once on a CPU."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp


def staged(function: Callable[..., Any], *arrays: Any) -> Any:
    """function(*arrays), computed before what reads it; the first leaf must be of integers.

    XLA's CPU compiler fuses a table, or an index, into the loop over pixels that reads it and
    makes it anew for every pixel; it deletes `optimization_barrier`, but a branch stands. The
    condition always holds, which no compiler finds out.
    """
    first = jax.tree.leaves(arrays)[0].reshape(-1)[0]
    shapes = jax.eval_shape(function, *arrays)

    def never(*_):
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    return lax.cond((first | 1) != 0, function, never, *arrays)
