"""Cross-entropy with the labels of the data, mixed and smoothed where asked."""

import jax
import jax.numpy as jnp
import optax

from augjax import check
from augjax.losses.signals import outputs_of
from augjax.types import Signals, Term, stateless


def cross_entropy(label_smoothing: float = 0.0, net: str = "student") -> Term:
    """Mean over rows of the cross-entropy of `net`'s logits, as a Term (nats).

    Args:
      label_smoothing: share in [0, 1) of the target that is spread evenly over all classes.
      net: the network whose logits are scored.

    Raises ConfigError for a smoothing outside [0, 1), and at trace time for an unknown net.
    """
    check.require(
        0 <= label_smoothing < 1, "label_smoothing", "a share in [0, 1)", label_smoothing,
        "use 0 for none, 0.1 is common",
    )

    def loss(signals: Signals) -> jax.Array:
        logits = outputs_of(signals, net, "cross_entropy").logits
        rows = signals.rows
        return cross_entropy_rows(
            logits, rows.label, rows.mix_label, rows.lam, label_smoothing
        ).mean()

    return stateless(loss)


def cross_entropy_rows(
    logits: jax.Array,
    label: jax.Array,
    mix_label: jax.Array,
    lam: jax.Array,
    label_smoothing: float | jax.Array = 0.0,
) -> jax.Array:
    """lam CE(label) + (1 - lam) CE(mix_label) of every row: [R] float32, in nats.

    Smoothing mixes every target with the uniform one: (1 - s) target + s / K.

    Args:
      logits: [R, K], any float type; computed in float32.
      label, mix_label: [R] int32.
      lam: [R] float32 in 0..1, the share of `label`.

    Source: mixup, Zhang et al. 2018; label smoothing, Szegedy et al. 2016 section 7.
    """
    classes = logits.shape[-1]
    lam = lam[:, None].astype(jnp.float32)
    target = lam * jax.nn.one_hot(label, classes)  # [R, K] float32
    target = target + (1 - lam) * jax.nn.one_hot(mix_label, classes)
    target = (1 - label_smoothing) * target + label_smoothing / classes
    return optax.losses.softmax_cross_entropy(logits.astype(jnp.float32), target)
