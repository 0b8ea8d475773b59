"""A2-Aug: branches that learn from their own ensemble, whose weights are learnt as well."""

import math

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.cross_entropy import cross_entropy_rows
from augjax.losses.kd import kd
from augjax.losses.precise import in_float32, product
from augjax.losses.signals import names_of, outputs_of, same_classes
from augjax.types import Params, Signals, Term, View

SCALES = ("mean_norm", "literal", "none")  # or a number
EPS = 1e-12  # below the square root of a norm


def adaptive_ensemble(
    net: str | tuple[str, ...] = "student",
    kl_weight: float = 1.0,
    logit_scale: str | float = "mean_norm",
    average: bool = False,
) -> Term:
    """CE(Q_ens, y) + kl_weight sum_i KL(softmax n(Q_ens) || softmax n(Q_i)), as a Term (nats).

    Every view of the rows is a branch i = 0, ..., N - 1 with logits Q_i; Q_ens = sum_i a_i Q_i with
    a = softmax(mu), mu the term's own parameter, all 1 at first. Both parts are means over images.
    The cross-entropy moves mu alone, the divergences the branches alone. The branches' own
    cross-entropies are another term, `cross_entropy` of weight N: N means over images are N times
    the mean over all rows. It notes a_i as `ensemble_weight_i`, and both parts by themselves.

    Args:
      net: the network, whose BatchNorm set i is branch i's, or all branches' one; or a network for
        each branch ("independent"), of which i is heard on view i alone.
      kl_weight: of the divergences; 0 leaves them out.
      logit_scale: s in n(Q) = s Q / ||Q||. "mean_norm": the mean over images of ||Q_ens||, without
        gradient; "literal": 1, as Eq. 8 has it, where the divergence all but vanishes; a positive
        number, or the text of one, as a flag gives it; "none": n(Q) = Q.
      average: mu stays as it is, so a_i = 1 / N.

    Raises ConfigError for a negative kl_weight or another logit_scale; at trace time for an unknown
    net, views of several rows, less than two images, as many networks or BatchNorm sets as are
    neither one nor the branches. Source: a2_aug Eqs. 4 to 8; spec A1, A2.
    """
    check.require(kl_weight >= 0, "kl_weight", "at least 0", kl_weight, "use 0 for no divergence")
    logit_scale = _scale_of(logit_scale)
    nets = names_of(net, "adaptive_ensemble")

    def init(key: jax.Array, signals: Signals) -> tuple[Params, Params]:
        _check_branches(signals, nets)
        parts = {name: jnp.zeros((), jnp.float32) for name in ("ce", "kl")}
        return {"mu": jnp.ones((len(signals.rows.views),), jnp.float32)}, parts

    def apply(params, state, signals, key):
        del key, state
        logits = _branch_logits(signals, nets)  # [B, N, K]
        mu = jax.lax.stop_gradient(params["mu"]) if average else params["mu"]
        ensemble = ensemble_logits(logits, mu)  # [B, K]
        rows = signals.rows  # of all branches: where views are mixed, each has targets of its own
        ce = cross_entropy_rows(jnp.repeat(ensemble, logits.shape[1], axis=0), rows.label,
                                rows.mix_label, rows.lam).mean()
        kl = ensemble_kl(logits, ensemble, logit_scale).mean() if kl_weight else jnp.zeros_like(ce)
        parts = {"ce": ce.astype(jnp.float32), "kl": kl.astype(jnp.float32)}
        return ce + kl_weight * kl, parts

    def notes(params, state):
        a = ensemble_weights(params)
        return {f"ensemble_weight_{i}": a[i] for i in range(a.shape[0])} | {
            f"ensemble_{part}": value for part, value in state.items()}

    return Term(init, apply, per_example=logit_scale != "mean_norm", notes=notes)


def ensemble_weights(params: Params) -> jax.Array:
    """a = softmax(mu) of the term's parameters: [N] float32."""
    return jax.nn.softmax(params["mu"])


def ensemble_logits(logits: jax.Array, mu: jax.Array) -> jax.Array:
    """Q_ens = sum_i softmax(mu)_i Q_i: [B, K] float32; its gradient reaches mu alone.

    Args:
      logits: [B, N, K] of the branches, any float type.
      mu: [N].

    Source: a2_aug Eq. 7.
    """
    return product("n,bnk->bk", jax.nn.softmax(mu), in_float32(jax.lax.stop_gradient(logits)))


def ensemble_kl(logits: jax.Array, ensemble: jax.Array, logit_scale: str | float) -> jax.Array:
    """sum_i KL(softmax n(Q_ens) || softmax n(Q_i)) of every image: [B] float32, in nats.

    Args:
      logits: [B, N, K] of the branches, any float type.
      ensemble: [B, K]; no gradient reaches it.
      logit_scale: as in `adaptive_ensemble`.

    Raises ConfigError for another logit_scale. Source: a2_aug Eq. 8; spec A2.
    """
    logit_scale = _scale_of(logit_scale)
    logits, ensemble = in_float32(logits), jax.lax.stop_gradient(in_float32(ensemble))
    if logit_scale != "none":
        named = {"literal": 1.0, "mean_norm": _norm(ensemble).mean()}
        scale = named.get(logit_scale, logit_scale)
        logits, ensemble = (scale * z / _norm(z) for z in (logits, ensemble))
    teacher = jnp.broadcast_to(ensemble[:, None], logits.shape)
    return kd(logits, teacher, 1.0, tau_square=False, form="kl").sum(-1)


def _scale_of(logit_scale: str | float) -> str | float:
    """One of SCALES, or a number, whatever it was written as."""
    if logit_scale in SCALES:
        return logit_scale
    try:
        number = float(str(logit_scale))
    except ValueError:
        number = math.nan
    check.require(0 < number < math.inf, "logit_scale", f"{', '.join(SCALES)} or a positive number",
                  repr(logit_scale), "mean_norm is the default")
    return number


def _norm(z):
    return jnp.sqrt(jnp.sum(z * z, -1, keepdims=True) + EPS)


def _branch_logits(signals, nets):
    """[B, N, K]: what the network says of its views, or network i of view i."""
    _check_branches(signals, nets)
    count = len(signals.rows.views)
    said = [outputs_of(signals, name, "adaptive_ensemble").logits for name in nets]
    for logits in said:
        same_classes(said[0], logits, "adaptive_ensemble")
    apart = [logits.reshape(-1, count, logits.shape[-1]) for logits in said]
    return apart[0] if len(nets) == 1 else jnp.stack(
        [logits[:, branch] for branch, logits in enumerate(apart)], axis=1)


def _check_branches(signals: Signals, nets: tuple[str, ...]) -> None:
    views: tuple[View, ...] = signals.rows.views
    check.require(
        all(view.rows == 1 for view in views), "views of adaptive_ensemble", "one row of each",
        {view.name: view.rows for view in views}, "make every branch a view of its own")
    check.require(signals.rows.groups >= 2, "images of adaptive_ensemble", "2 or more",
                  signals.rows.groups, "BatchNorm set by branch needs a batch: enlarge it")
    check.require(
        len(nets) in (1, len(views)), "networks of adaptive_ensemble",
        f"one, or one for each of {len(views)} branches", nets, "name as many as there are views")
    domains = tuple(view.domain for view in views)
    check.require(
        len(nets) > 1 or domains == tuple(range(len(views))) or len(set(domains)) == 1,
        "BatchNorm sets of adaptive_ensemble's views",
        f"0 to {len(views) - 1} in turn, or one for all", domains,
        "set the view's domain to the branch's number")
