"""Attention transfer: where in the image the maps are large."""

import jax
import jax.numpy as jnp
import numpy as np

from augjax.losses.precise import in_float32, product, unit
from augjax.losses.signals import maps_of
from augjax.types import Signals, Term, stateless


def attention(
    taps: tuple[str, ...] = ("f1", "f2", "f3"),
    teacher_taps: tuple[str, ...] = ("f1", "f2", "f3"),
    student: str = "student",
    teacher: str = "teacher",
) -> Term:
    """Sum over taps of the mean over rows of `attention_rows`; its usual weight is 1000.

    RepDistiller takes every map between the stem's and the pooled features. Channels may differ.

    Raises ConfigError at trace time for unknown nets or taps, taps that are no maps, or another
    number of them. Source: spec D11 (Zagoruyko and Komodakis 2017).
    """

    def loss(signals: Signals) -> jax.Array:
        pairs = maps_of(signals, student, teacher, taps, teacher_taps, "attention")
        return sum(attention_rows(f_s, f_t).mean() for f_s, f_t in pairs.values())

    return stateless(loss, per_example=True)


def attention_rows(f_s: jax.Array, f_t: jax.Array) -> jax.Array:
    """mean over places of (a_s - a_t)^2 of every row: [R] float32.

    a = the flattened mean of F^2 over channels, divided by its length; the larger map is first
    averaged down to the smaller one's height and width. A map of zeros has a = 0.

    Args:
      f_s, f_t: [R, H, W, D], [R, H', W', D'], any float type; computed in float32. No gradient
        reaches f_t.
    """
    size = tuple(map(min, f_s.shape[1:3], f_t.shape[1:3]))
    a_s, a_t = (_attended(in_float32(f), size) for f in (f_s, jax.lax.stop_gradient(f_t)))
    return jnp.mean((a_s - a_t) ** 2, axis=-1)


def _attended(f, size):
    """[R, H, W, D] -> [R, places], each row of unit length."""
    for axis in (1, 2):
        if f.shape[axis] != size[axis - 1]:
            bins = _bins(f.shape[axis], size[axis - 1])
            f = jnp.moveaxis(product("ij,...j->...i", bins, jnp.moveaxis(f, axis, -1)), -1, axis)
    return unit(jnp.mean(f * f, axis=-1).reshape(f.shape[0], -1))


def _bins(size, fewer):
    """Averages over `fewer` bins that cover `size` places, as adaptive pooling: [fewer, size]."""
    place = np.arange(fewer)[:, None]
    begin, end = place * size // fewer, -(-(place + 1) * size // fewer)
    inside = (np.arange(size) >= begin) & (np.arange(size) < end)
    return jnp.asarray(inside / inside.sum(1, keepdims=True), jnp.float32)
