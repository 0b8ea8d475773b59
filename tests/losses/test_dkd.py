"""Decoupled distillation: it is KL taken apart, its two halves, mixed rows, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses
from losses.scene import jit, rows_of, signals_of, value, Z_S, Z_T

LABEL = np.array([0, 3, 5, 1], np.int32)


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_kl_is_the_target_part_and_the_teachers_doubt_times_the_rest(tau):
    """Zhao et al. 2022, Eq. 6."""
    doubt = 1 - jax.nn.softmax(Z_T / tau)[np.arange(4), LABEL]
    np.testing.assert_allclose(losses.dkd_rows(Z_S, Z_T, LABEL, 1.0, doubt, tau),
                               losses.kd(Z_S, Z_T, tau, True, "kl"), rtol=1e-5)


def test_its_halves_by_hand():
    """float64: two classes, then all others by themselves."""
    p_s, p_t = (np.exp(z.astype(float) / 4) for z in (Z_S, Z_T))
    rows = np.arange(4)
    rest = [[c for c in range(6) if c != y] for y in LABEL]
    halves = np.zeros((2, 4))
    for row in rows:
        s, t = (p[row, LABEL[row]] / p[row].sum() for p in (p_s, p_t))
        halves[0, row] = t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))
        s, t = (p[row, rest[row]] / p[row, rest[row]].sum() for p in (p_s, p_t))
        halves[1, row] = np.sum(t * np.log(t / s))
    for weights in ((1.0, 0.0), (0.0, 1.0), (1.0, 8.0)):
        np.testing.assert_allclose(losses.dkd_rows(Z_S, Z_T, LABEL, *weights, 4.0),
                                   16 * (weights @ halves), rtol=1e-4)


def test_a_mixed_row_counts_for_both_labels():
    rows = rows_of(4, 6)
    own, other = (losses.dkd_rows(Z_S, Z_T, y, 1.0, 8.0, 4.0) for y in (rows.label, rows.mix_label))
    expected = jnp.mean(rows.lam * own + (1 - rows.lam) * other)
    assert rows.lam.min() < 1
    found = value(losses.dkd(), signals_of(rows, student=Z_S, teacher=Z_T))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_extreme_logits_stay_finite():
    z_s = jnp.asarray([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [1e30, -1e30, 0.0]])
    z_t = jnp.asarray([[-1e4, 1e4, 0.0], [1e30, -1e30, 0.0], [1e30, -1e30, 0.0]])
    both = jit(jax.value_and_grad(
        lambda z, label: losses.dkd_rows(z, z_t, label, 1.0, 8.0, 1.0).sum()))
    for label in range(3):
        worth, pull = both(z_s, jnp.full(3, label))
        assert jnp.isfinite(worth) and jnp.isfinite(pull).all()


def test_what_is_wrong_is_refused():
    with pytest.raises(check.ConfigError, match="positive temperature"):
        losses.dkd(tau=0.0)
    with pytest.raises(check.ConfigError, match="classes of dkd: expected at least 2"):
        losses.dkd_rows(Z_S[:, :1], Z_T[:, :1], LABEL, 1.0, 8.0, 4.0)
