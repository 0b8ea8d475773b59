"""Knowledge distillation from softened logits (Hinton et al. 2015)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from augjax import check
from augjax.losses.precise import in_float32
from augjax.losses.signals import mean_logits, same_classes, student_and_teacher
from augjax.types import Signals, Term, stateless

FORMS = ("kl", "ce")
MEANS = ("logits", "probabilities")


def hinton(
    tau: float = 4.0,
    tau_square: bool = True,
    form: str = "kl",
    student: str = "student",
    teacher: str | tuple[str, ...] = "teacher",
    mean: str = "logits",
) -> Term:
    """Mean over rows of `kd`, as a Term (nats).

    kd_thrives_on_da: tau 4, tau_square, "kl". role_wise_kd: tau 1, no tau_square, "ce" (its
    released code: tau 3, no tau_square, "kl"). augmentation_in_compression: "ce", tau not given.

    Of several teachers, `mean` says what is averaged: their "logits" (the geometric mean of what
    they say) or their softened "probabilities" (Hinton et al. 2015 section 1 allows both).

    Raises ConfigError for a tau that is not positive, an unknown form or mean, and at trace time
    for an unknown net. Source: spec D1.
    """
    check.require(tau > 0, "tau", "a positive temperature", tau, "4 is common, 1 is no softening")
    check.one_of("form of kd", form, FORMS)
    average = mean_logits
    if check.one_of("mean of hinton", mean, MEANS) == "probabilities":
        average = mean_probabilities(tau)

    def loss(signals: Signals) -> jax.Array:
        z_s, z_t = student_and_teacher(signals, student, teacher, "hinton", average)
        return kd(z_s, z_t, tau, tau_square, form).mean()

    return stateless(loss, per_example=True)


def mean_probabilities(tau: float | jax.Array) -> Callable[[Sequence[jax.Array]], jax.Array]:
    """From several networks' logits to those of their mean softmax(z / tau), up to a constant."""

    def mean(said):
        log_p = jnp.stack([jax.nn.log_softmax(in_float32(z) / tau) for z in said])
        return tau * jax.nn.logsumexp(log_p, axis=0)

    return mean


def kd(
    z_s: jax.Array, z_t: jax.Array, tau: float | jax.Array, tau_square: bool, form: str
) -> jax.Array:
    """Divergence of the softened student from the softened teacher: [R] float32, in nats.

    "kl": KL_tau = sum_c p_t (log p_t - log p_s); "ce": H_tau = -sum_c p_t log p_s, with
    p = softmax(z / tau). The gradients are equal, the values differ by the teacher's entropy.

    Args:
      z_s: [R, K] the student's logits, any float type; computed in float32.
      z_t: [R, K] the teacher's logits; no gradient reaches them.
      tau: temperature, may be traced.
      tau_square: multiply by tau^2, so that the gradient's size does not depend on tau.
      form: "kl" or "ce".

    Raises ConfigError for an unknown form or logits of different shape. Source: spec D1.
    """
    check.one_of("form of kd", form, FORMS)
    same_classes(z_s, z_t, "kd")
    z_t = jax.lax.stop_gradient(z_t)
    log_p_s, log_p_t = (jax.nn.log_softmax(in_float32(z) / tau) for z in (z_s, z_t))
    if form == "kl":
        value = optax.losses.kl_divergence_with_log_targets(log_p_s, log_p_t)
    else:
        value = -jnp.sum(jnp.exp(log_p_t) * log_p_s, axis=-1)
    return tau**2 * value if tau_square else value
