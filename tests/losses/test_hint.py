"""Hints: the reference value, regressors between sizes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses
from augjax.losses.hint import regressed
from augjax.types import Outputs
from losses.scene import jit, KEY, MAPS_S, MAPS_T, scene, signals_of, value, Z_S, Z_T


def test_the_reference_value_without_regressor():  # spec D15
    signals = signals_of(student=Outputs(jnp.asarray(Z_S), {"f": jnp.asarray(MAPS_S[0])}),
                         teacher=Outputs(jnp.asarray(Z_T), {"f": jnp.asarray(MAPS_T[0])}))
    term = losses.hint("f", "f", regressor=False)
    assert float(value(term, signals)) == pytest.approx(0.4836352, rel=1e-5)


@pytest.mark.parametrize("tap, teacher_tap, kernel", [
    ("f2", "f3", (1, 1, 5, 4)), ("f1", "f2", (3, 3, 3, 5)), ("f2", "f1", (4, 4, 5, 3))])
def test_a_regressor_brings_the_sizes_together(tap, teacher_tap, kernel):
    signals = scene()
    term = losses.hint(tap, teacher_tap)
    params, state = term.init(KEY, jax.eval_shape(lambda: signals))
    assert params["kernel"].shape == kernel and state == {}
    f_t = signals.outputs["teacher"].features[teacher_tap]
    f_s = signals.outputs["student"].features[tap]
    regress = jit(lambda params: regressed(params, f_s, f_t.shape))
    made = regress(params)
    assert made.shape == f_t.shape and made.min() == 0
    worth, _ = jit(term.apply)(params, state, signals, KEY)
    assert float(worth) == pytest.approx(float(jnp.mean((made - f_t) ** 2)), rel=1e-6)
    before = regress({**params, "bias": params["bias"] + 50}) - 50  # ReLU does nothing there
    np.testing.assert_allclose(before.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(before.std((0, 1, 2)), 1, atol=1e-2)


def test_a_student_a_little_larger_is_not_padded():
    said = {net: Outputs(jnp.zeros((2, 3)), {"f": jnp.ones((2, *size, 4))})
            for net, size in (("student", (7, 6)), ("teacher", (5, 5)))}
    params, _ = losses.hint("f", "f").init(KEY, jax.eval_shape(lambda: signals_of(**said)))
    assert params["kernel"].shape == (3, 2, 4, 4)


def test_what_does_not_fit_is_refused():
    signals = signals_of(student=Outputs(jnp.zeros((2, 3)), {"f": jnp.ones((2, 3, 3, 4))}),
                         teacher=Outputs(jnp.zeros((2, 3)), {"f": jnp.ones((2, 5, 5, 4))}))
    with pytest.raises(check.ConfigError, match=r"student's map in hint: .*\(5, 5\).*got \(3, 3\)"):
        value(losses.hint("f", "f"), signals)
    with pytest.raises(check.ConfigError, match="maps of hint: expected one shape"):
        value(losses.hint("f", "f", regressor=False), signals)
    with pytest.raises(check.ConfigError, match="tap 'pooled' in hint: expected a map"):
        value(losses.hint("pooled", "pooled"), scene())
