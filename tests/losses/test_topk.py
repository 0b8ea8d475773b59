"""The teacher's likeliest classes alone: reference values, the literal minimum, ties, devices."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from augjax import check, losses, train
from losses.scene import jit, signals_of, value, Z_S, Z_T

ROW_VALUES = [0.2392054, 0.9947984, 1.8083382, 0.5789109]


@pytest.mark.parametrize("renormalise, expected", [(False, 0.9053132), (True, 0.2952084)])
def test_reference_values(renormalise, expected):  # spec D15
    rows = losses.topk_kl_rows(Z_S, Z_T, 3, renormalise)
    assert rows.shape == (4,) and float(rows.mean()) == pytest.approx(expected, rel=1e-5)
    term = losses.topk_kl(3, renormalise)
    assert float(value(term, signals_of(student=Z_S, teacher=Z_T))) == pytest.approx(
        expected, rel=1e-5)
    if not renormalise:
        np.testing.assert_allclose(rows, ROW_VALUES, rtol=1e-5)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("k", [6, 50])
def test_all_classes_are_plain_kl(renormalise, k):
    np.testing.assert_allclose(losses.topk_kl_rows(Z_S, Z_T, k, renormalise),
                               losses.kd(Z_S, Z_T, 1.0, False, "kl"), rtol=1e-5, atol=1e-6)


def test_the_literal_form_is_least_where_the_teachers_top_is_all_there_is():
    """Spec D2: least m log m, below 0, at p_s = p_t / m; its gradient p_s m - p_t 1[C_K]."""
    p = np.array([[0.5, 0.3, 0.1, 0.06, 0.04]], np.float32)
    m = p[0, :2].sum()
    best = np.log(np.where(p >= 0.3, p / m, 1e-30), dtype=np.float32)
    worth, pull = jax.value_and_grad(lambda z: losses.topk_kl_rows(z, jnp.log(p), 2, False)[0])(
        jnp.asarray(best))
    assert float(worth) == pytest.approx(m * np.log(m), rel=1e-5) and worth < 0
    np.testing.assert_allclose(pull, 0, atol=1e-6)
    pull = jax.grad(lambda z: losses.topk_kl_rows(z, jnp.log(p), 2, False)[0])(jnp.zeros((1, 5)))
    np.testing.assert_allclose(pull, m / 5 - p * (p >= 0.3), atol=1e-6)


def test_renormalised_leaves_the_other_classes_free():
    pull = jax.grad(lambda z: losses.topk_kl_rows(z, Z_T, 2, True).sum())(jnp.asarray(Z_S))
    outside = Z_T < np.sort(Z_T)[:, -2:-1]
    assert not pull[outside].any() and pull[~outside].all()


def test_ties_go_to_the_lower_class():
    tied = jnp.asarray([[1.0, 2.0, 2.0, 2.0, 0.0]])
    pull = jax.grad(lambda z: losses.topk_kl_rows(z, tied, 2, True)[0])(
        jnp.asarray([[0.0, 1.0, -1.0, 3.0, 0.0]]))
    assert np.flatnonzero(pull).tolist() == [1, 2]


def test_the_rows_of_a_device_stay_there():
    """lax.top_k would bring all rows to every device (XLA's custom call)."""
    cut = NamedSharding(train.sharding.make_mesh(), PartitionSpec("data"))
    like = jax.ShapeDtypeStruct((16, 10), jnp.float32, sharding=cut)
    compiled = jit(jax.grad(lambda z, t: losses.topk_kl_rows(z, t, 3, False).mean())).lower(
        like, like).compile()
    assert "all-gather" not in compiled.as_text()


@pytest.mark.parametrize("k", [0, 2.5])
def test_no_classes_are_refused(k):
    with pytest.raises(check.ConfigError, match="whole number of classes"):
        losses.topk_kl(k)


def test_other_classes_are_refused():
    with pytest.raises(check.ConfigError, match=r"in topk_kl: expected one shape, \(4, 5\)"):
        losses.topk_kl_rows(Z_S, Z_T[:, :5], 3, False)
