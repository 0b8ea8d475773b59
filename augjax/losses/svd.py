"""Singular vectors of feature maps, and how they change from one map to the next (KD-SVD)."""

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.eigen import GAP, leading_eigenvectors
from augjax.losses.precise import in_float32, product, unit
from augjax.losses.projector import Pairs, projector
from augjax.losses.signals import maps_of
from augjax.types import Term

REDUCTIONS = ("sum", "mean")
LEAST = 1e-6  # a map whose largest singular value is not above this counts as empty


def kd_svd(
    taps: tuple[str, ...] = ("f1", "f2", "f3"),
    teacher_taps: tuple[str, ...] = ("f1", "f2", "f3"),
    vectors: int = 1,
    reduction: str = "sum",
    project: str = "none",
    student: str = "student",
    teacher: str = "teacher",
) -> Term:
    """`kd_svd_rows` over the rows: their "sum" (role_wise_kd) or "mean" (RepDistiller).

    `vectors` of the teacher stand against three more of the student. Channels must agree tap by
    tap, or be brought together (`project`: none | student | teacher, see `projector`).

    Raises ConfigError for fewer than two taps or vectors below 1, and when initialised or traced
    for unknown nets or taps, taps that are no maps, another number of them, or other channels.
    Source: spec D4, D13 (Lee, Kim and Song 2018, in the released code of role_wise_kd).
    """
    check.one_of("reduction of kd_svd", reduction, REDUCTIONS)
    check.require(vectors >= 1, "vectors of kd_svd", "at least 1", vectors, "role_wise_kd has 1")
    fitted = projector(project, "kd_svd")

    def pairs(signals):
        return maps_of(signals, student, teacher, taps, teacher_taps, "kd_svd", least=2)

    def apply(params, state, signals, key):
        rows = kd_svd_rows(fitted.apply(params, state, pairs(signals)), vectors)
        return rows.sum() if reduction == "sum" else rows.mean(), state

    return Term(lambda key, signals: fitted.init(key, pairs(signals)), apply,
                per_example=reduction == "mean")


def kd_svd_rows(pairs: Pairs, vectors: int = 1) -> jax.Array:
    """sum over consecutive taps of ||R_s - R_t||^2 of every row: [R] float32.

    R = exp(-(v_i - v_{i-1})^2 / 8) for every channel of one tap and of the one before, with the
    leading right singular vectors v, scaled by the teacher's singular values. A pair of taps to
    which a row brings an empty map counts 0 for that row.

    The value depends on the vectors' signs, which the published codes leave to their libraries
    (spec D15's 0.0232955 has the two taps signed oppositely); here `singular_vectors` decides.

    Args:
      pairs: {tap: (student's map, teacher's map)}, [R, H, W, D], equal channels; no gradient
        reaches the teacher's.
      vectors: of the teacher.
    """
    kept = min(vectors, *(min(t.shape[1] * t.shape[2], t.shape[3]) for _, t in pairs.values()))
    total, before = 0.0, None
    for f_s, f_t in pairs.values():
        v_s, v_t, size, there = compressed(f_s, f_t, kept)
        size = unit(size)[:, None, :]  # [R, 1, k]
        here = ((v_s * size, v_t * size), there)
        if before is not None:
            gap = relation_rows(here[0], before[0])
            total += jnp.where(there & before[1], gap, 0)
        before = here
    return total


def relation_rows(now: tuple[jax.Array, jax.Array], then: tuple[jax.Array, jax.Array]
                  ) -> jax.Array:
    """||R_s - R_t||^2 of two taps' vectors: [R]; `now` and `then` hold (student's, teacher's)."""
    r_s, r_t = (jnp.exp(-((v[:, :, None] - u[:, None]) ** 2) / 8) for v, u in zip(now, then))
    return jnp.sum((r_s - r_t) ** 2, axis=(1, 2, 3))  # over [R, D_i, D_{i-1}, k]


def compressed(f_s: jax.Array, f_t: jax.Array, vectors: int
               ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The teacher's leading right singular vectors and those of the student that fit them best.

    Of the student's `vectors` + 3, each teacher vector takes the one of largest |cosine|, with the
    cosine's sign; the choice carries no gradient.

    Args:
      f_s, f_t: [R, H, W, D] of equal D.

    Returns (v_s [R, D, k], v_t [R, D, k], the teacher's singular values [R, k], whether neither
    map is empty [R]); nothing but v_s has a gradient.
    """
    v_t, size, there_t = jax.lax.stop_gradient(singular_vectors(f_t, vectors))
    v_s, _, there_s = singular_vectors(f_s, vectors + 3)
    cosine = jax.lax.stop_gradient(product("rdi,rdj->rij", v_s, v_t))  # [R, <= k + 3, k]
    best = jax.nn.one_hot(jnp.argmax(jnp.abs(cosine), axis=1), v_s.shape[-1], axis=1)
    chosen = best * jnp.where(cosine < 0, -1, 1)
    return product("rdi,rij->rdj", v_s, chosen), v_t, size, there_s & there_t


def singular_vectors(f: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Leading right singular vectors of every row's map as a matrix [places, channels].

    They are signed so that their entries sum to at least 0: the leading vector of a map after ReLU
    is one-signed. Vectors of singular values that are zero (to sqrt(1e-6) of the largest) are 0.

    The gradient is that of the vectors alone, through `leading_eigenvectors`, so it is finite
    whatever the singular values.

    Args:
      f: [R, H, W, D], any float type; computed in float32.
      count: as many as there are, min(HW, D), if there are fewer.

    Returns ([R, D, count], singular values [R, count] without gradient, [R] bool: not empty).
    """
    x = in_float32(f).reshape(f.shape[0], -1, f.shape[-1])  # [R, HW, D]
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=(1, 2), keepdims=True))
    x = x / jnp.where(largest > 0, largest, 1)  # changes no vector; squares stay in range
    wide = x.shape[2] > x.shape[1]
    gram = product("rpc,rqc->rpq", x, x) if wide else product("rpc,rpd->rcd", x, x)
    values, vectors = leading_eigenvectors(gram, min(count, gram.shape[-1]))
    if wide:
        vectors = unit(product("rpc,rpk->rck", x, vectors), axis=1)
    values = jax.lax.stop_gradient(values)
    kept = values > GAP * values[:, :1]  # smaller ones are rounding
    sign = jnp.where(jax.lax.stop_gradient(vectors).sum(1) < 0, -1, 1) * kept
    size = jnp.sqrt(jnp.where(kept, values, 0)) * largest[:, 0]
    return vectors * sign[:, None], size, size[:, 0] > LEAST
