"""Knowledge distillation from softened logits (Hinton et al. 2015)."""

import jax
import jax.numpy as jnp
import optax

from augjax import check
from augjax.losses.signals import outputs_of
from augjax.types import Signals, Term, stateless

FORMS = ("kl", "ce")


def hinton(
    tau: float = 4.0,
    tau_square: bool = True,
    form: str = "kl",
    student: str = "student",
    teacher: str = "teacher",
) -> Term:
    """Mean over rows of `kd`, as a Term (nats).

    kd_thrives_on_da: tau 4, tau_square, "kl". role_wise_kd: tau 1, no tau_square, "ce" (its
    released code: tau 3, no tau_square, "kl"). augmentation_in_compression: "ce", tau not given.

    Raises ConfigError for a tau that is not positive or an unknown form, and at trace time for an
    unknown net. Source: spec D1.
    """
    check.require(tau > 0, "tau", "a positive temperature", tau, "4 is common, 1 is no softening")
    check.one_of("form of kd", form, FORMS)

    def loss(signals: Signals) -> jax.Array:
        z_s = outputs_of(signals, student, "hinton").logits
        z_t = outputs_of(signals, teacher, "hinton").logits
        return kd(z_s, z_t, tau, tau_square, form).mean()

    return stateless(loss)


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
    check.require(
        z_s.shape == z_t.shape, "logits of student and teacher", f"one shape, {z_t.shape}",
        z_s.shape, "give both networks the same rows and classes",
    )
    z_t = jax.lax.stop_gradient(z_t)
    log_p_s, log_p_t = (
        jax.nn.log_softmax(z.astype(jnp.float32) / tau) for z in (z_s, z_t)
    )
    if form == "kl":
        value = optax.losses.kl_divergence_with_log_targets(log_p_s, log_p_t)
    else:
        value = -jnp.sum(jnp.exp(log_p_t) * log_p_s, axis=-1)
    return tau**2 * value if tau_square else value
