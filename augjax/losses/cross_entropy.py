"""Cross-entropy with the labels of the data, mixed and smoothed where asked: softmax or binary."""

import jax
import jax.numpy as jnp
import optax

from augjax import check
from augjax.losses.precise import in_float32
from augjax.losses.signals import outputs_of
from augjax.types import Signals, Term, stateless


def cross_entropy(label_smoothing: float = 0.0, net: str = "student") -> Term:
    """Mean over rows of the cross-entropy of `net`'s logits, as a Term (nats).

    Args:
      label_smoothing: share in [0, 1) of the target that is spread evenly over all classes.
      net: the network whose logits are scored.

    Raises ConfigError for a smoothing outside [0, 1), and at trace time for an unknown net.
    """
    return _mean(cross_entropy_rows, label_smoothing, net, "cross_entropy")


def binary_cross_entropy(label_smoothing: float = 0.0, net: str = "student") -> Term:
    """Mean over rows of the binary cross-entropy of `net`'s logits, as a Term (nats).

    Args and errors as in `cross_entropy`. It is a mean over classes too, as timm's `bce_loss` and
    PyTorch's; the sum over classes (timm's `bce_sum`) is a weight of K.
    """
    return _mean(binary_cross_entropy_rows, label_smoothing, net, "binary_cross_entropy")


def _mean(of_rows, label_smoothing, net, name):
    check.require(
        0 <= label_smoothing < 1, "label_smoothing", "a share in [0, 1)", label_smoothing,
        "use 0 for none, 0.1 is common",
    )

    def loss(signals: Signals) -> jax.Array:
        logits, rows = outputs_of(signals, net, name).logits, signals.rows
        return of_rows(logits, rows.label, rows.mix_label, rows.lam, label_smoothing).mean()

    return stateless(loss, per_example=True)


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
    target = _targets(logits.shape[-1], label, mix_label, lam, label_smoothing)
    return optax.losses.softmax_cross_entropy(in_float32(logits), target)


def binary_cross_entropy_rows(
    logits: jax.Array,
    label: jax.Array,
    mix_label: jax.Array,
    lam: jax.Array,
    label_smoothing: float | jax.Array = 0.0,
) -> jax.Array:
    """A yes or no for every class, mean over the K classes, of every row: [R] float32, in nats.

    -mean_k [t_k log sigmoid(z_k) + (1 - t_k) log sigmoid(-z_k)] with the targets t, arguments and
    smoothing of `cross_entropy_rows`.

    Source: Beyer et al. 2020 (ImageNet's labels), Wightman et al. 2021 (timm); their targets.
    """
    target = _targets(logits.shape[-1], label, mix_label, lam, label_smoothing)
    each = optax.losses.sigmoid_binary_cross_entropy(in_float32(logits), target)
    return each.mean(-1)


def _targets(classes, label, mix_label, lam, label_smoothing):
    """The mixed and smoothed distribution over the classes: [R, K] float32."""
    lam = lam[:, None].astype(jnp.float32)
    target = lam * jax.nn.one_hot(label, classes) + (1 - lam) * jax.nn.one_hot(mix_label, classes)
    return optax.losses.smooth_labels(target, label_smoothing)
