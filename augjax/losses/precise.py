"""Float32 whatever comes in, whole products, and no division by nothing."""

import jax
import jax.numpy as jnp


def in_float32(x: jax.Array) -> jax.Array:
    """At least float32: half precision is widened; float64, which only tests use, stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def product(equation: str, *arrays: jax.Array) -> jax.Array:
    """einsum in full precision, also where a device's own is bfloat16 or TF32."""
    return jnp.einsum(equation, *arrays, precision=jax.lax.Precision.HIGHEST)


def unit(x: jax.Array, axis: int | tuple[int, ...] = -1, eps: float = 1e-12) -> jax.Array:
    """x / ||x|| along `axis`; where the norm is below `eps`, zero and without gradient."""
    square = jnp.sum(x * x, axis, keepdims=True)
    there = square > eps * eps
    return jnp.where(there, x / jnp.sqrt(jnp.where(there, square, 1)), 0)
