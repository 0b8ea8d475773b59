"""Deep mutual learning: networks that train together and learn from each other's answers."""

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.kd import kd
from augjax.losses.precise import in_float32
from augjax.losses.signals import names_of, outputs_of, same_classes
from augjax.types import Signals, Term, stateless

FORMS = ("one_way", "both_ways")


def mutual(
    net: str = "student",
    peers: str | tuple[str, ...] = "peer",
    form: str = "one_way",
    tau: float = 1.0,
) -> Term:
    """What `net` learns from its peers, who learn nothing from this: mean over rows (nats).

    "one_way": KL(p_peer || p_net), mean over the peers (Zhang et al. 2018, Eqs. 4 and 9).
    "both_ways": [KL(p_peer || p_net) + KL(p_net || p_peer)] / 2 (role_wise_kd's released code).

    Every network of the group is a learner and has such a term, and a cross-entropy, of its own,
    so each has its own weight; all move on the same batch at once. (The release moves the teacher
    first, with weight 1, then the student.)

    Raises ConfigError for an unknown form or a tau that is not positive, and at trace time for an
    unknown net, a net that is its own peer, or other classes. Source: spec D8.
    """
    check.one_of("form of mutual", form, FORMS)
    check.require(tau > 0, "tau", "a positive temperature", tau, "1 is no softening")
    names = names_of(peers, "mutual")
    check.require(net not in names, "peers of mutual", f"networks other than {net!r}", names,
                  "name the others")

    def loss(signals: Signals) -> jax.Array:
        z = outputs_of(signals, net, "mutual").logits
        others = [outputs_of(signals, name, "mutual").logits for name in names]
        return sum(_divergence(z, other, tau, form).mean() for other in others) / len(others)

    return stateless(loss, per_example=True)


def _divergence(z, other, tau, form):
    """Of every row: [R] float32; the peer's logits carry no gradient."""
    same_classes(z, other, "mutual")
    towards = kd(z, other, tau, tau_square=False, form="kl")
    if form == "one_way":
        return towards
    log_p, log_q = (jax.nn.log_softmax(in_float32(x) / tau)
                    for x in (z, jax.lax.stop_gradient(other)))
    return (towards + jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)) / 2
