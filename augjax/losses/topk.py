"""Distillation of the teacher's K likeliest classes alone (circumventing_outliers, Eq. 4)."""

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.precise import in_float32
from augjax.losses.signals import same_classes, student_and_teacher
from augjax.types import Signals, Term, stateless


def topk_kl(
    k: int = 5,
    renormalise: bool = False,
    student: str = "student",
    teacher: str | tuple[str, ...] = "teacher",
) -> Term:
    """Mean over rows of `topk_kl_rows`, as a Term (nats).

    circumventing_outliers: literal (not renormalised); k 3 on CIFAR-10, 5 on CIFAR-100 and
    EfficientNet-B0, 50 on larger ones; weights 1, 0.5 and 2. Of several teachers, the mean logits.

    Raises ConfigError for a k below 1, and at trace time for an unknown net or other classes.
    """
    _check(k)

    def loss(signals: Signals) -> jax.Array:
        z_s, z_t = student_and_teacher(signals, student, teacher, "topk_kl")
        return topk_kl_rows(z_s, z_t, k, renormalise).mean()

    return stateless(loss, per_example=True)


def topk_kl_rows(z_s: jax.Array, z_t: jax.Array, k: int, renormalise: bool) -> jax.Array:
    """sum over c in C_K of p_t (log p_t - log p_s), for every row: [R] float32, in nats.

    C_K holds the teacher's k largest logits, ties to the lower class. Literally, p is the softmax
    over all classes: with m = sum over C_K of p_t, least (m log m, below 0) at p_s = p_t / m, so
    equal logits still pull, and the classes outside C_K are pressed down. Renormalised, p is the
    softmax over C_K alone: never negative, and the classes outside it are free. k >= K is plain KL.

    Args:
      z_s: [R, K] the student's logits, any float type; computed in float32.
      z_t: [R, K] the teacher's logits; neither they nor the choice of C_K carry a gradient.
      k: how many classes.
      renormalise: over C_K.

    Raises ConfigError for a k below 1 or logits of different shape. Source: spec D2.
    """
    _check(k)
    same_classes(z_s, z_t, "topk_kl")
    z_s, z_t = in_float32(z_s), jax.lax.stop_gradient(in_float32(z_t))
    ranked = jnp.argsort(z_t, axis=-1, stable=True, descending=True)  # top_k would gather the rows
    chosen = ranked[:, :k]  # [R, k]
    log_p_s, log_p_t = (_log_softmax_at(z, chosen, renormalise) for z in (z_s, z_t))
    return jnp.sum(jnp.exp(log_p_t) * (log_p_t - log_p_s), axis=-1)


def _log_softmax_at(z, chosen, renormalise):
    """log p of the chosen classes: [R, k]."""
    if renormalise:
        return jax.nn.log_softmax(jnp.take_along_axis(z, chosen, axis=-1))
    return jnp.take_along_axis(jax.nn.log_softmax(z), chosen, axis=-1)


def _check(k):
    check.require(isinstance(k, int) and k >= 1, "k of topk_kl", "a whole number of classes, >= 1",
                  k, "5 is common for 100 classes, 50 for 1000")
