"""Hinton's distillation: reference values, zero at equality, gradients, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check
from augjax.losses import hinton, kd
from augjax.types import Outputs, Rows, Signals, View

# Inputs of spec D15.
Z_S = np.sin(1 + np.arange(24)).reshape(4, 6).astype(np.float32)
Z_T = 2 * np.cos(0.7 * np.arange(24)).reshape(4, 6).astype(np.float32)


def signals(z_s=Z_S, z_t=Z_T):
    label = jnp.zeros(len(z_s), jnp.int32)
    rows = Rows(jnp.zeros((len(z_s), 1, 1, 3), jnp.uint8), label, label, jnp.ones(len(z_s)), label,
                (View("all"),))
    said = {"student": z_s, "teacher": z_t}
    return Signals(rows, {net: Outputs(jnp.asarray(logits)) for net, logits in said.items()})


def value(term, given):
    loss, _ = term.apply(*term.init(jax.random.key(0), given), given, jax.random.key(1))
    return loss


@pytest.mark.parametrize(
    "tau, tau_square, form, expected",
    [(4.0, True, "kl", 1.0191498), (1.0, True, "kl", 0.7833496), (4.0, True, "ce", 28.7687194)],
)
def test_reference_values(tau, tau_square, form, expected):  # spec D15
    term = hinton(tau, tau_square, form)
    assert float(value(term, signals())) == pytest.approx(expected, rel=1e-5)
    rows = kd(Z_S, Z_T, tau, tau_square, form)
    assert rows.shape == (4,) and float(rows.mean()) == pytest.approx(expected, rel=1e-5)
    plain = kd(Z_S, Z_T, tau, False, form)
    np.testing.assert_allclose(rows, tau**2 * plain, rtol=1e-6)


def test_equal_logits_cost_nothing_and_pull_nowhere():
    for tau in (1.0, 4.0):
        loss, gradient = jax.value_and_grad(lambda z: kd(z, Z_T, tau, True, "kl").sum())(
            jnp.asarray(Z_T)
        )
        assert float(loss) == 0.0
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_both_forms_have_the_gradient_of_the_softened_difference():
    gradients = [
        jax.grad(lambda z: kd(z, Z_T, 4.0, True, form).sum())(jnp.asarray(Z_S))
        for form in ("kl", "ce")
    ]
    expected = 4 * (jax.nn.softmax(Z_S / 4) - jax.nn.softmax(Z_T / 4))
    for gradient in gradients:
        np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_no_gradient_reaches_the_teacher():
    gradient = jax.grad(lambda z: kd(Z_S, z, 4.0, True, "ce").sum())(jnp.asarray(Z_T))
    np.testing.assert_array_equal(gradient, 0)


def test_the_order_of_rows_does_not_matter_and_neither_does_a_shift():
    order = np.array([2, 0, 3, 1])
    expected = float(value(hinton(), signals()))
    permuted, shifted = signals(Z_S[order], Z_T[order]), signals(Z_S + 3, Z_T - 2)
    assert float(value(hinton(), permuted)) == pytest.approx(expected, rel=1e-6)
    assert float(value(hinton(), shifted)) == pytest.approx(expected, rel=1e-5)


def test_bfloat16_is_computed_in_float32():
    halves = [jnp.asarray(z, jnp.bfloat16) for z in (Z_S, Z_T)]
    got = kd(*halves, 4.0, True, "kl")
    assert got.dtype == jnp.float32
    exact = [z.astype(jnp.float32) for z in halves]
    np.testing.assert_array_equal(got, kd(*exact, 4.0, True, "kl"))


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
def test_several_teachers(mean):
    """Of their logits, or of what they say at that temperature; one of them is itself."""
    other = np.roll(Z_T, 1, axis=1)
    given = signals()
    given = Signals(given.rows, {**given.outputs, "other": Outputs(jnp.asarray(other))})
    found = value(hinton(2.0, teacher=("teacher", "other"), mean=mean), given)
    if mean == "logits":
        target = (Z_T + other) / 2
    else:
        target = 2 * np.log((jax.nn.softmax(Z_T / 2) + jax.nn.softmax(other / 2)) / 2)
    assert float(found) == pytest.approx(float(kd(Z_S, target, 2.0, True, "kl").mean()), rel=1e-5)
    alone = value(hinton(2.0, teacher=("other",), mean=mean), given)
    assert float(alone) == pytest.approx(float(kd(Z_S, other, 2.0, True, "kl").mean()), rel=1e-5)


@pytest.mark.parametrize("form", ["kl", "ce"])
def test_extreme_logits_stay_finite(form):
    z_s = jnp.asarray([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [1e30, -1e30, 0.0]])
    z_t = jnp.asarray([[-1e4, 1e4, 0.0], [1e30, -1e30, 0.0], [1e30, -1e30, 0.0]])
    loss, gradient = jax.value_and_grad(lambda z: kd(z, z_t, 1.0, True, form).sum())(z_s)
    assert jnp.isfinite(loss) and jnp.isfinite(gradient).all()


def test_tau_may_be_traced():
    traced = jax.jit(lambda tau: kd(Z_S, Z_T, tau, True, "kl").mean())
    assert float(traced(4.0)) == pytest.approx(1.0191498, rel=1e-5)


def test_what_is_wrong_is_refused():
    with pytest.raises(check.ConfigError, match="positive temperature"):
        hinton(tau=0)
    with pytest.raises(check.ConfigError, match="teacher of hinton: .*, got none"):
        value(hinton(teacher=()), signals())
    with pytest.raises(check.ConfigError, match="'logits', 'probabilities', got 'logit'"):
        hinton(mean="logit")
    with pytest.raises(check.ConfigError, match="'ce', 'kl', got 'kld'"):
        hinton(form="kld")
    with pytest.raises(check.ConfigError, match="'student', 'teacher', got 'taecher'"):
        value(hinton(teacher="taecher"), signals())
    with pytest.raises(check.ConfigError, match="same rows and classes"):
        kd(Z_S, Z_T[:, :5], 4.0, True, "kl")


@pytest.mark.parity
@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_pytorch_agrees(tau):
    import torch
    from torch.nn import functional as F

    z_s, z_t = torch.tensor(Z_S, requires_grad=True), torch.tensor(Z_T)
    theirs = tau**2 * F.kl_div(
        F.log_softmax(z_s / tau, -1), F.softmax(z_t / tau, -1), reduction="batchmean"
    )
    theirs.backward()
    ours, gradient = jax.value_and_grad(
        lambda z: value(hinton(tau), signals(z))
    )(jnp.asarray(Z_S))
    assert float(ours) == pytest.approx(theirs.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, z_s.grad.numpy(), atol=1e-6)
    soft = F.cross_entropy(z_s / tau, F.softmax(z_t / tau, -1), reduction="none")
    np.testing.assert_allclose(kd(Z_S, Z_T, tau, False, "ce"), soft.detach().numpy(), rtol=1e-5)
