"""Cross-entropy, softmax and binary: reference values, mixing, smoothing, permutation, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augjax import builders, check, defaults, recipe
from augjax.losses import (
    binary_cross_entropy, binary_cross_entropy_rows, cross_entropy, cross_entropy_rows,
)
from augjax.types import Batch, Outputs, Rows, Signals, View
from launch.torchvision_beside_torch import load

LOGITS = np.sin(1 + np.arange(24)).reshape(4, 6).astype(np.float32)  # spec D15: z_s
LABEL = np.arange(4, dtype=np.int32)
OTHER = np.array([5, 0, 2, 1], np.int32)
LAM = np.array([1.0, 0.25, 0.6, 0.0], np.float32)


def signals(logits=LOGITS, label=LABEL, mix_label=OTHER, lam=LAM, name="student"):
    rows = Rows(jnp.zeros((len(label), 1, 1, 3), jnp.uint8), label, mix_label, lam, label,
                (View("all"),))
    return Signals(rows, {name: Outputs(jnp.asarray(logits))})


def value(term, given):
    params, state = term.init(jax.random.key(0), given)
    loss, after = term.apply(params, state, given, jax.random.key(1))
    assert params == state == after == {} and loss.shape == ()
    return loss


def test_the_reference_value():
    ones = np.ones(4, np.float32)
    assert value(cross_entropy(), signals(lam=ones)) == pytest.approx(1.4213364, abs=1e-5)  # D15


def test_mixed_rows_are_two_cross_entropies():
    first, second = (
        optax.losses.softmax_cross_entropy_with_integer_labels(LOGITS, y) for y in (LABEL, OTHER)
    )
    mixed = cross_entropy_rows(LOGITS, LABEL, OTHER, LAM)
    assert mixed.shape == (4,)
    np.testing.assert_allclose(mixed, LAM * first + (1 - LAM) * second, rtol=1e-6)
    swapped = cross_entropy_rows(LOGITS, OTHER, LABEL, 1 - LAM)
    np.testing.assert_allclose(mixed, swapped, rtol=1e-6)


def test_smoothing_mixes_in_the_uniform_target():
    uniform = -jax.nn.log_softmax(LOGITS).mean(-1)
    expected = 0.9 * cross_entropy_rows(LOGITS, LABEL, OTHER, LAM) + 0.1 * uniform
    np.testing.assert_allclose(
        cross_entropy_rows(LOGITS, LABEL, OTHER, LAM, 0.1), expected, rtol=1e-6
    )
    assert value(cross_entropy(0.1), signals()) == pytest.approx(float(expected.mean()), rel=1e-6)


def test_a_yes_or_no_for_every_class_by_hand():
    """-mean_k [t log s(z) + (1 - t) log(1 - s(z))], float64, with mixed and smoothed targets."""
    one_hot = np.eye(6)
    target = LAM[:, None] * one_hot[LABEL] + (1 - LAM[:, None]) * one_hot[OTHER]
    yes = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    for smoothing in (0.0, 0.1):
        smooth = (1 - smoothing) * target + smoothing / 6
        expected = -(smooth * np.log(yes) + (1 - smooth) * np.log(1 - yes)).mean(-1)
        found = binary_cross_entropy_rows(LOGITS, LABEL, OTHER, LAM, smoothing)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        term = binary_cross_entropy(smoothing)
        assert value(term, signals()) == pytest.approx(expected.mean(), rel=1e-6)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_control_mixed_images_and_nothing_but_their_mixed_labels(kind):
    """A phase with a mixed view, cross-entropy on that view alone, and no teacher."""
    block = defaults.phase(
        views={"train": defaults.view("none"), "mixed": defaults.mixed("train", kind)},
        terms={"ce": defaults.term("cross_entropy", views=("mixed",))})
    config = defaults.config({"control": block}, {"name": "digits"})
    phase, = recipe.build_phases(recipe.expanded(config), builders.Pictures("digits", 6, (8, 8, 3)))
    draw = np.random.default_rng(0)
    batch = Batch(draw.integers(0, 256, (4, 8, 8, 3), np.uint8), LABEL, LABEL)
    rows = jax.jit(phase.objective.show)(batch, jax.random.key(1), phase.knobs.policies)
    given = Signals(rows, {"student": Outputs(jnp.asarray(np.repeat(LOGITS, 2, axis=0)))})
    plain, mixed = (given.only((name,)).rows for name in ("train", "mixed"))
    assert (plain.lam == 1).all() and (mixed.lam < 1).all() and (mixed.lam > 0).all()
    assert sorted(mixed.mix_label.tolist()) == LABEL.tolist() == mixed.label.tolist()
    log_p, at = np.asarray(jax.nn.log_softmax(LOGITS)), np.arange(4)
    expected = -np.mean(mixed.lam * log_p[at, mixed.label]
                        + (1 - mixed.lam) * log_p[at, mixed.mix_label])
    found = value(phase.objective.terms["ce"], given)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


BOTH = pytest.mark.parametrize("term, of_rows", [
    (cross_entropy, cross_entropy_rows), (binary_cross_entropy, binary_cross_entropy_rows)])


@BOTH
def test_another_net_and_an_unknown_one(term, of_rows):
    value(term(net="peer"), signals(name="peer"))
    with pytest.raises(check.ConfigError, match=f"scored by {term.__name__}: .*'student'"):
        value(term(net="studen"), signals())
    with pytest.raises(check.ConfigError, match=r"\[0, 1\)"):
        term(label_smoothing=1.0)


@BOTH
def test_the_order_of_rows_does_not_matter(term, of_rows):
    order = np.array([2, 0, 3, 1])
    permuted = signals(LOGITS[order], LABEL[order], OTHER[order], LAM[order])
    assert value(term(0.1), signals()) == pytest.approx(
        float(value(term(0.1), permuted)), rel=1e-6
    )


@BOTH
def test_bfloat16_is_computed_in_float32(term, of_rows):
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    got = of_rows(half, LABEL, OTHER, LAM, 0.1)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(
        got, of_rows(half.astype(jnp.float32), LABEL, OTHER, LAM, 0.1)
    )


@BOTH
def test_extreme_logits_stay_finite(term, of_rows):
    logits = jnp.asarray([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30]])
    label = jnp.array([1, 0])
    loss, gradient = jax.value_and_grad(
        lambda z: of_rows(z, label, label, jnp.ones(2), 0.1).sum()
    )(logits)
    assert jnp.isfinite(loss) and jnp.isfinite(gradient).all()


@pytest.mark.parity
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pytorch_agrees(smoothing):
    import torch

    z = torch.tensor(LOGITS, requires_grad=True)
    parts = [
        torch.nn.functional.cross_entropy(
            z, torch.tensor(y).long(), reduction="none", label_smoothing=smoothing
        )
        for y in (LABEL, OTHER)
    ]
    theirs = (torch.tensor(LAM) * parts[0] + (1 - torch.tensor(LAM)) * parts[1]).mean()
    theirs.backward()
    ours, gradient = jax.value_and_grad(
        lambda z: value(cross_entropy(smoothing), signals(z))
    )(jnp.asarray(LOGITS))
    assert float(ours) == pytest.approx(theirs.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, z.grad.numpy(), atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pytorch_and_timm_agree_on_the_binary_one(smoothing):
    """timm smooths what it makes of labels itself; mixed targets go to PyTorch's function."""
    import torch

    load("torchvision")  # which timm imports
    from timm.loss import BinaryCrossEntropy

    z = torch.tensor(LOGITS, requires_grad=True)
    theirs = BinaryCrossEntropy(smoothing)(z, torch.tensor(LABEL))
    theirs.backward()
    unmixed = np.ones(4, np.float32)
    ours, gradient = jax.value_and_grad(
        lambda z: value(binary_cross_entropy(smoothing), signals(z, lam=unmixed))
    )(jnp.asarray(LOGITS))
    assert float(ours) == pytest.approx(theirs.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, z.grad.numpy(), atol=1e-6)

    one_hot, lam = np.eye(6, dtype=np.float32), LAM[:, None]
    target = (lam * one_hot[LABEL] + (1 - lam) * one_hot[OTHER]) * (1 - smoothing) + smoothing / 6
    mixed = torch.nn.functional.binary_cross_entropy_with_logits(z, torch.tensor(target))
    assert float(value(binary_cross_entropy(smoothing), signals())) == pytest.approx(
        mixed.item(), rel=1e-6)
