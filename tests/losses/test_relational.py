"""RKD in both published forms and SP: reference values, rows at one place, sizes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses
from losses.scene import drawn, jit, MAPS_S, MAPS_T, scene, signals_of, value, Z_S, Z_T

BY_LOGITS = {"tap": "logits", "teacher_tap": "logits"}


def test_reference_values_of_rkd():  # spec D15
    signals = signals_of(student=Z_S, teacher=Z_T)
    for options, expected in (
        ({}, 16.4168434), ({"distance_weight": 1.0, "angle_weight": 0.0}, 0.2169869),
        ({"distance_weight": 0.0, "angle_weight": 1.0}, 0.2198434),
        ({"distance_weight": 50.0, "angle_weight": 100.0, "form": "role_kd"}, 39.5878404),
    ):
        found = value(losses.rkd(**BY_LOGITS, **options), signals)
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_rows_of_unit_length_are_an_option_of_the_first_form():
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (Z_S, Z_T)]
    found = value(losses.rkd(**BY_LOGITS, normalise=True), signals_of(student=Z_S, teacher=Z_T))
    expected = value(losses.rkd(**BY_LOGITS), signals_of(student=unit[0], teacher=unit[1]))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_embeddings_may_differ_in_width():
    assert np.isfinite(value(losses.rkd(teacher="wide"), scene()))


@pytest.mark.parametrize("form", ["repdistiller", "role_kd"])
def test_rows_all_at_one_place_have_no_distances(form):
    flat, apart = jnp.ones((4, 6)), jnp.asarray(Z_S)
    both = jit(jax.value_and_grad(lambda e_s, e_t: losses.distance_loss(e_s, e_t, form)))
    for e_s, e_t in ((flat, apart), (apart, flat), (flat, flat)):
        worth, pull = both(e_s, e_t)
        assert float(worth) == 0 and not pull.any()


def test_a_pair_at_one_place_counts_with_the_least_length():
    """Three rows, two of them at one place: lengths 1e-6, 5, 5 and mean 10 / 3 (spec D3)."""
    e = jnp.asarray([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    other = jnp.asarray([[0.0], [1.0], [2.0]])  # lengths 1, 1, 2 and mean 4 / 3
    psi, phi = np.array([0, 1.5, 1.5]), np.array([0.75, 0.75, 1.5])  # of 01, 12, 02
    expected = 2 * np.sum((psi - phi) ** 2 / 2) / 9
    worth, pull = jit(jax.value_and_grad(
        lambda e: losses.distance_loss(e, other, "repdistiller")))(e)
    assert float(worth) == pytest.approx(expected, rel=1e-5)
    assert jnp.isfinite(pull).all() and pull.any()


def test_far_from_the_origin_distances_are_the_same():
    """Squares of large numbers would cancel."""
    e_s, e_t = (jnp.asarray(np.round(z * 64) / 64) for z in (Z_S, Z_T))
    loss = jit(lambda shift: losses.distance_loss(e_s + shift, e_t, "repdistiller"))
    near, far = (loss(shift) for shift in (0.0, 4096.0))
    assert float(far) == pytest.approx(float(near), rel=1e-6)


def test_too_many_rows_for_all_angles_are_refused():
    signals = signals_of(student=drawn(1, 9), teacher=drawn(2, 9))
    with pytest.raises(check.ConfigError, match="rows of rkd: .* max_rows = 8, got 9"):
        value(losses.rkd(max_rows=8), signals)
    with pytest.raises(check.ConfigError, match="'repdistiller', 'role_kd', got 'rolekd'"):
        losses.rkd(form="rolekd")
    with pytest.raises(check.ConfigError, match="tap of 'student' in rkd: expected one of .*"
                       "'pooled', got 'poled'"):
        value(losses.rkd(tap="poled"), signals)


def test_reference_value_of_similarity():  # spec D15
    assert float(losses.similarity_loss(MAPS_S[1], MAPS_T[1])) == pytest.approx(0.0908794, rel=1e-5)


def test_similarity_compares_maps_of_any_size():
    term = losses.similarity("f2", "f1", teacher="wide")
    found, said = value(term, scene()), scene().outputs
    f_s, f_t = (np.asarray(said[net].features[tap], float).reshape(6, -1)
                for net, tap in (("student", "f2"), ("wide", "f1")))
    g_s, g_t = (f @ f.T / np.linalg.norm(f @ f.T, axis=1, keepdims=True) for f in (f_s, f_t))
    assert float(found) == pytest.approx(np.sum((g_s - g_t) ** 2) / 36, rel=1e-5)


def test_a_single_row_is_similar_to_nothing():
    assert float(losses.similarity_loss(jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3)))) == 0
