"""What rows are to each other: distances and angles (RKD), and similarities (SP)."""

import jax
import jax.numpy as jnp
import optax

from augjax import check
from augjax.losses.precise import in_float32, product, unit
from augjax.losses.signals import tap_of
from augjax.types import Signals, Term, stateless

FORMS = ("repdistiller", "role_kd")
LEAST = 1e-6  # the length that rows at one place are given


def rkd(
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    tap: str = "pooled",
    teacher_tap: str = "pooled",
    form: str = "repdistiller",
    normalise: bool = False,
    max_rows: int = 256,
    student: str = "student",
    teacher: str = "teacher",
) -> Term:
    """distance_weight L_D + angle_weight L_A of two sets of embeddings, as a Term.

    "repdistiller": the mean distance is over pairs; weights 25, 50 on the pooled features (1, 2 in
    metric learning; KD_methods_with_TF adds `normalise`). "role_kd" (role_wise_kd): rows of unit
    length, the mean is over pairs and rows with themselves; weights 50, 100 on tap "logits".
    Details in `distance_loss` and `angle_loss`. A single row has no relations: 0.

    `normalise` divides every row by its length first. The angles are R^3 numbers, so that more
    than `max_rows` rows are refused.

    Raises ConfigError for an unknown form, and at trace time for an unknown net or tap or too many
    rows. Source: spec D3 (Park et al. 2019).
    """
    check.one_of("form of rkd", form, FORMS)

    def loss(signals: Signals) -> jax.Array:
        e_s, e_t = (
            _flat(in_float32(tap_of(signals, net, name, "rkd")))
            for net, name in ((student, tap), (teacher, teacher_tap)))
        check.require(len(e_s) <= max_rows, "rows of rkd", f"at most max_rows = {max_rows}",
                      len(e_s), "let the term see one view, or raise max_rows where R^3 fit")
        if normalise or form == "role_kd":
            e_s, e_t = unit(e_s), unit(e_t)
        return (distance_weight * distance_loss(e_s, e_t, form)
                + angle_weight * angle_loss(e_s, e_t))

    return stateless(loss)


def distance_loss(e_s: jax.Array, e_t: jax.Array, form: str) -> jax.Array:
    """L_D = mean over all R^2 pairs of huber(d_s / mu_s - d_t / mu_t): [] float32.

    d_ij = ||e_i - e_j||, at least 1e-6 off the diagonal; mu is the mean of what is above 0. The
    diagonal is 0 in form "repdistiller" and 1e-6, so that mu counts it, in "role_kd", which also
    adds 1e-8 to mu. Where one side has all rows at one place: 0.

    Args:
      e_s, e_t: [R, d], [R, d'], any float type; computed in float32. No gradient reaches e_t,
        mu_t included; mu_s is differentiated.
      form: "repdistiller" or "role_kd".
    """
    psi_s, some_s = _relative_distances(in_float32(e_s), form)
    psi_t, some_t = _relative_distances(in_float32(jax.lax.stop_gradient(e_t)), form)
    return jnp.where(some_s & some_t, optax.losses.huber_loss(psi_s, psi_t).mean(), 0)


def _relative_distances(e, form):
    """d / mu, [R, R], and whether any two rows lie apart."""
    gaps = e[None, :] - e[:, None]  # [R, R, d]; differences, as squares would cancel
    square = jnp.sum(gaps * gaps, -1)
    apart = square > LEAST**2
    length = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), LEAST)
    diagonal, shift = (0.0, 0.0) if form == "repdistiller" else (LEAST, 1e-8)
    length = jnp.where(jnp.eye(len(e), dtype=bool), diagonal, length)
    mean = length.sum() / max((length.size - len(e)) if diagonal == 0 else length.size, 1)
    some = apart.any()
    return length / jnp.where(some, mean + shift, 1), some


def angle_loss(e_s: jax.Array, e_t: jax.Array) -> jax.Array:
    """L_A = mean over all R^3 triples of huber(A_s - A_t): [] float32.

    A_ijk = v_ij . v_ik with v_ij = (e_j - e_i) / ||e_j - e_i||, zero for rows at one place.

    Args:
      e_s, e_t: [R, d], [R, d'], any float type; computed in float32. No gradient reaches e_t.
    """
    a_s, a_t = (_angles(in_float32(e)) for e in (e_s, jax.lax.stop_gradient(e_t)))
    return optax.losses.huber_loss(a_s, a_t).mean()


def _angles(e):
    v = unit(e[None, :] - e[:, None])  # [R, R, d]
    return product("ijd,ikd->ijk", v, v)


def similarity(
    tap: str = "f3", teacher_tap: str = "f3", student: str = "student", teacher: str = "teacher"
) -> Term:
    """`similarity_loss` of two maps, as a Term; its usual weight is 3000.

    RepDistiller takes the last map of each network; sizes and channels may differ. A single row
    has nothing to be similar to: 0.

    Raises ConfigError at trace time for an unknown net or tap.
    Source: spec D10 (Tung and Mori 2019).
    """

    def loss(signals: Signals) -> jax.Array:
        return similarity_loss(*(
            tap_of(signals, net, name, "similarity")
            for net, name in ((student, tap), (teacher, teacher_tap))))

    return stateless(loss)


def similarity_loss(f_s: jax.Array, f_t: jax.Array) -> jax.Array:
    """||G_t - G_s||^2 / R^2 with G = F F^T of the flattened rows, each row of G of unit length.

    Args:
      f_s, f_t: [R, ...], any float type; computed in float32. No gradient reaches f_t. A row of
        zeros has similarity 0 to all.

    Returns [] float32; 0 for a single row.
    """
    if f_s.shape[0] == 1:
        return jnp.zeros((), jnp.float32)
    g_s, g_t = (
        unit(product("id,jd->ij", f, f))
        for f in (_flat(in_float32(f)) for f in (f_s, jax.lax.stop_gradient(f_t))))
    return jnp.mean((g_t - g_s) ** 2)


def _flat(x):
    return x.reshape(x.shape[0], -1)
