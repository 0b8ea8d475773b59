"""What makes a row worth learning from: criteria of picks, [rows] float32, highest is best."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.cross_entropy import cross_entropy_rows
from augjax.losses.kd import kd
from augjax.losses.precise import in_float32
from augjax.losses.signals import outputs_of, student_and_teacher
from augjax.types import Signals, stateless, Term

Criterion = Callable[[Signals], jax.Array]


def kl_criterion(tau: float = 4.0, student: str = "student",
                 teacher: str | tuple[str, ...] = "teacher") -> Criterion:
    """KL of the softened teacher from the softened student: what the student has not learnt yet.

    Of several teachers, the mean logits. A config asks its `teacher` alone.

    Raises ConfigError for a tau that is not positive, and at trace time for an unknown network.
    Source: kd_thrives_on_da Eq. 2, spec B8.
    """
    check.require(tau > 0, "pick.tau", "a positive temperature", tau, "the paper has 4")

    def score(signals: Signals) -> jax.Array:
        z_s, z_t = student_and_teacher(signals, student, teacher, "the pick")
        return kd(z_s, z_t, tau, tau_square=False, form="kl")

    return score


def entropy_criterion(net: str = "teacher") -> Criterion:
    """Entropy of what `net` says at temperature 1, in nats (kd_thrives_on_da Table 2, spec B8)."""

    def score(signals: Signals) -> jax.Array:
        log_p = jax.nn.log_softmax(outputs_of(signals, net, "the pick").logits.astype(jnp.float32))
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    return score


def teacher_filter(ce_weight: float = 1.0, kl_weight: float = 1.0, tau: float = 4.0,
                   student: str = "student", teacher: str | tuple[str, ...] = "teacher"
                   ) -> Criterion:
    """-(ce_weight CE(teacher, label) - kl_weight KL(teacher, student)).

    Highest for a view that the teacher knows well and the student does not; a weight of 0 leaves
    its half out (the paper's ablations). KL, not cross-entropy with the teacher: that would favour
    views on which the teacher is unsure. Of several teachers, the mean logits, as in KL.

    Raises ConfigError for weights below 0 or a tau that is not positive, and at trace time for an
    unknown network.
    Source: augmentation_in_compression Eq. 6, spec B9 (whose weights are not given: 1 and 1).
    """
    for name, weight in (("ce_weight", ce_weight), ("kl_weight", kl_weight)):
        check.require(weight >= 0, f"pick.{name}", "at least 0", weight, "0 leaves that part out")
    divergence = kl_criterion(tau, student, teacher)

    def score(signals: Signals) -> jax.Array:
        rows, (_, z_t) = signals.rows, student_and_teacher(signals, student, teacher, "the pick")
        known = cross_entropy_rows(z_t, rows.label, rows.mix_label, rows.lam)
        return kl_weight * divergence(signals) - ce_weight * known

    return score


def teacher_disagreement(teacher: str = "teacher") -> Term:
    """Share of rows whose larger label is not the teacher's first choice.

    To be watched, at weight 0: it has no gradient. kd_thrives_on_da section 3.2 reports 52.1 % of
    CutMix labels on ImageNet.
    """

    def share(signals: Signals) -> jax.Array:
        rows, said = signals.rows, outputs_of(signals, teacher, "teacher_disagreement")
        label = jnp.where(rows.lam >= 0.5, rows.label, rows.mix_label)
        return jnp.mean((jnp.argmax(in_float32(said.logits), -1) != label).astype(jnp.float32))

    return stateless(share, per_example=True)
