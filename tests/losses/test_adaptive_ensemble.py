"""A2-Aug's term: what it is worth, whom its gradients reach, and whom it refuses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses
from augjax.types import on_views, Outputs, Rows, Signals, View
from losses.scene import jit, KEY, traced

BRANCHES, IMAGES, CLASSES = 3, 4, 6
MU = jnp.array([1.0, 2.0, 0.5])


def logits_of(*branches):
    """[B * N, K], example-major, of N arrays [B, K]."""
    return jnp.stack(branches, axis=1).reshape(-1, branches[0].shape[-1])


def spec_logits():
    """Q_j = sin(j + i) for j = 1, 2, 3 and i = 6 b + c (spec D15)."""
    flat = np.arange(IMAGES * CLASSES).reshape(IMAGES, CLASSES)
    return [jnp.asarray(np.sin(j + flat), jnp.float32) for j in (1, 2, 3)]


def signals_of(logits, views=None, labels=None, **others):
    """Signals of a student with logits [B * N, K], labelled 0, 1, ... image by image."""
    views = views or tuple(View(f"branch{i}", domain=i) for i in range(BRANCHES))
    images = logits.shape[0] // len(views)
    label = jnp.repeat(jnp.arange(images) if labels is None else labels, len(views))
    rows = Rows(jnp.zeros((label.size, 1, 1, 3), jnp.uint8), label, label,
                jnp.ones(label.shape), label, views)
    return Signals(rows, {name: Outputs(jnp.asarray(said))
                          for name, said in {"student": logits, **others}.items()})


@jit
def told_of_spec(logits, mu):
    """{form: (value, notes)} of every form, compiled at once."""
    forms = {
        "mean_norm": {}, "literal": {"logit_scale": "literal"}, "none": {"logit_scale": "none"},
        "number": {"logit_scale": 1.4385820}, "no_kl": {"kl_weight": 0.0},
        "half": {"kl_weight": 0.5}, "average": {"average": True},
    }
    seen, found = signals_of(logits), {}
    for form, options in forms.items():
        term = losses.adaptive_ensemble(**options)
        state = term.init(KEY, seen)[1]
        value, state = term.apply({"mu": mu}, state, seen, KEY)
        found[form] = value, term.notes({"mu": mu}, state)
    plain = losses.cross_entropy().apply({}, {}, seen, KEY)[0]
    return found, BRANCHES * plain


def test_the_values_of_the_spec():
    """Spec D15: a2_aug Eqs. 5 and 8 of three branches, in float64 by RepDistiller's modules."""
    found, branches = told_of_spec(logits_of(*spec_logits()), MU)
    kl = {"literal": 0.1519319, "mean_norm": 0.3029627, "number": 0.3029627}
    assert float(branches) == pytest.approx(5.9128684, abs=1e-5)
    for form, expected in kl.items():
        value, notes = found[form]
        assert float(notes["ensemble_ce"]) == pytest.approx(1.8380279, abs=1e-5), form
        assert float(notes["ensemble_kl"]) == pytest.approx(expected, abs=1e-5), form
        assert float(value) == pytest.approx(1.8380279 + expected, abs=1e-5), form
    assert float(found["half"][0]) == pytest.approx(1.8380279 + 0.3029627 / 2, abs=1e-5)
    assert float(found["no_kl"][0]) == pytest.approx(1.8380279, abs=1e-5)
    assert float(found["no_kl"][1]["ensemble_kl"]) == 0
    for i, a in enumerate(np.exp(MU) / np.exp(MU).sum()):
        assert float(found["literal"][1][f"ensemble_weight_{i}"]) == pytest.approx(a, rel=1e-6)


def test_no_normalisation_and_the_plain_average():
    z = np.stack(spec_logits(), 1).astype(np.float64)  # [B, N, K]
    found, _ = told_of_spec(logits_of(*spec_logits()), MU)

    def log_p(z):
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    teacher = log_p(np.einsum("n,bnk->bk", np.exp(MU) / np.exp(MU).sum(), z))[:, None]
    expected = (np.exp(teacher) * (teacher - log_p(z))).sum((1, 2)).mean()
    assert float(found["none"][1]["ensemble_kl"]) == pytest.approx(expected, rel=1e-5)
    # "average" has not moved its mu; here it was given one, and still no gradient reaches it
    uniform, _ = told_of_spec(logits_of(*spec_logits()), jnp.ones(BRANCHES))
    mean = log_p(z.mean(1))[np.arange(IMAGES), np.arange(IMAGES)]
    assert float(uniform["average"][1]["ensemble_ce"]) == pytest.approx(-mean.mean(), rel=1e-5)


# --- who is moved --------------------------------------------------------------------------------


@jit
def pulls(logits, mu):
    """{part: its gradients in (logits, mu)} of the default form, of "average", and of CE alone."""
    def value(logits, mu, **options):
        term = losses.adaptive_ensemble(**options)
        seen = signals_of(logits)
        return term.apply({"mu": mu}, term.init(KEY, seen)[1], seen, KEY)[0]

    options = {"whole": {}, "ce": {"kl_weight": 0.0}, "average": {"average": True}}
    found = {name: jax.grad(lambda z, mu: value(z, mu, **chosen), (0, 1))(logits, mu)
             for name, chosen in options.items()}
    seen, branches = signals_of(logits), logits.reshape(IMAGES, BRANCHES, CLASSES)

    def written_out(z):  # spec A1: teacher fixed, the student's own norm not
        def unit(z):
            return z / jnp.linalg.norm(z, axis=-1, keepdims=True)

        ens = jnp.einsum("n,bnk->bk", jax.nn.softmax(mu), branches)
        scale = jnp.linalg.norm(ens, axis=-1).mean()
        p = jax.nn.log_softmax(scale * unit(ens))[:, None]
        q = jax.nn.log_softmax(scale * unit(z.reshape(branches.shape)))
        return (jnp.exp(p) * (p - q)).sum((1, 2)).mean()

    def of_mu(mu):
        ens = jnp.einsum("n,bnk->bk", jax.nn.softmax(mu), branches)
        return -jnp.take_along_axis(
            jax.nn.log_softmax(ens), seen.rows.label.reshape(IMAGES, -1)[:, :1], 1).mean()

    found["expected"] = jax.grad(written_out)(logits), jax.grad(of_mu)(mu)
    return found


def test_the_detach_table():
    """CE of the ensemble moves mu alone, the divergence the branches alone (spec A1)."""
    found = pulls(logits_of(*spec_logits()), MU)
    of_logits, of_mu = found["expected"]
    assert np.abs(of_logits).max() > 1e-3 and np.abs(of_mu).max() > 1e-3
    np.testing.assert_allclose(found["whole"][0], of_logits, atol=1e-6)
    for name in ("whole", "ce"):  # the divergence adds nothing to mu's
        np.testing.assert_allclose(found[name][1], of_mu, atol=1e-6)
    assert not found["ce"][0].any()
    assert not found["average"][1].any()


# --- laws ----------------------------------------------------------------------------------------


@jit
def of_random(logits, labels, mu):
    """(value, notes) for any number of images in three branches."""
    term, seen = losses.adaptive_ensemble(), signals_of(logits, labels=labels)
    value, state = term.apply({"mu": mu}, {}, seen, KEY)
    return value, term.notes({"mu": mu}, state)


def drawn(seed=0):
    draw = np.random.default_rng(seed)
    return [jnp.asarray(draw.normal(size=(IMAGES, CLASSES)), jnp.float32) for _ in range(BRANCHES)]


def test_branches_that_agree_cost_no_divergence_and_are_their_ensemble():
    one, labels = drawn()[0], jnp.arange(IMAGES)
    value, notes = of_random(logits_of(one, one, one), labels, MU)
    own = losses.cross_entropy_rows(one, labels, labels, jnp.ones(IMAGES)).mean()
    assert float(notes["ensemble_kl"]) == pytest.approx(0, abs=1e-6)
    assert float(value) == pytest.approx(float(own), rel=1e-5)


def test_neither_the_order_of_images_nor_that_of_branches_matters():
    branches, labels, order = drawn(), jnp.arange(IMAGES), np.array([2, 0, 3, 1])
    value, _ = of_random(logits_of(*branches), labels, MU)
    moved, _ = of_random(logits_of(*(z[order] for z in branches)), labels[order], MU)
    turned, notes = of_random(logits_of(*branches[1:], branches[0]), labels, jnp.roll(MU, -1))
    assert float(moved) == pytest.approx(float(value), rel=1e-6)
    assert float(turned) == pytest.approx(float(value), rel=1e-6)
    assert float(notes["ensemble_weight_0"]) == pytest.approx(float(jax.nn.softmax(MU)[1]))


def test_one_branch_is_its_own_ensemble():
    z, labels = drawn()[0], jnp.arange(IMAGES)

    @jit
    def worth(z):
        seen, term = signals_of(z, (View("only"),)), losses.adaptive_ensemble()
        params, state = term.init(KEY, seen)
        value, state = term.apply(params, state, seen, KEY)
        own = losses.cross_entropy_rows(z, labels, labels, jnp.ones(IMAGES)).mean()
        return value, own, term.notes(params, state)

    value, own, notes = worth(z)
    assert float(value) == pytest.approx(float(own), rel=1e-6)
    assert float(notes["ensemble_weight_0"]) == 1 and "ensemble_weight_1" not in notes


def test_zero_logits_are_no_nan():
    pull = jit(jax.grad(lambda z: losses.ensemble_kl(z, z.mean(1), "mean_norm").sum()))
    assert jnp.isfinite(pull(jnp.zeros((2, 3, 4)))).all()


def test_of_independent_networks_each_is_heard_on_its_own_view():
    """Branch i of network i; what the others say of that view could be anything."""
    branches = spec_logits()
    noise = 7 * jnp.ones_like(branches[0])
    said = {f"net{i}": logits_of(*(z if own == i else noise for own, z in enumerate(branches)))
            for i in range(BRANCHES)}
    views = tuple(View(f"branch{i}") for i in range(BRANCHES))
    seen = signals_of(said["net0"], views, **said)
    term = losses.adaptive_ensemble(tuple(said))
    value, _ = jit(term.apply)({"mu": MU}, {}, seen, KEY)
    assert float(value) == pytest.approx(1.8380279 + 0.3029627, abs=1e-5)


def test_views_choose_the_branches():
    z = drawn()
    views = tuple(View(name) for name in ("a", "weak", "b"))
    seen = signals_of(logits_of(*z), views)
    two = signals_of(logits_of(z[0], z[2]), (views[0], views[2]))
    term = losses.adaptive_ensemble()
    of_two = on_views(term, ("a", "b"))
    params, state = of_two.init(KEY, seen)
    found, expected = jit(lambda: [part.apply(params, state, given, KEY)[0]
                                   for part, given in ((of_two, seen), (term, two))])()
    assert params["mu"].shape == (2,) and float(found) == float(expected)
    assert set(of_two.notes(params, state)) == {
        "ensemble_weight_0", "ensemble_weight_1", "ensemble_ce", "ensemble_kl"}


def test_a_mean_over_examples_is_promised_where_it_is_one():
    """"mean_norm" looks at the whole batch: an update in micro-batches would differ."""
    assert not losses.adaptive_ensemble().per_example
    term = losses.adaptive_ensemble(logit_scale=3.0)
    assert term.per_example
    seen = signals_of(logits_of(*drawn()))
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), seen)
    values, whole = jit(lambda: (
        jax.vmap(lambda half: term.apply({"mu": MU}, {}, half, KEY)[0])(halves),
        term.apply({"mu": MU}, {}, seen, KEY)[0]))()
    assert float(values.mean()) == pytest.approx(float(whole), rel=1e-6)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("options, words", [
    ({"logit_scale": "mean"}, "logit_scale: expected mean_norm, literal, none or a positive"),
    ({"logit_scale": 0.0}, "or a positive number, got 0.0"),
    ({"logit_scale": True}, "or a positive number, got True"),
    ({"kl_weight": -1.0}, "kl_weight: expected at least 0"),
    ({"net": ()}, "one network or more"),
])
def test_wrong_options_are_refused(options, words):
    with pytest.raises(check.ConfigError, match=words):
        losses.adaptive_ensemble(**options)


def refusal(term, views, images=IMAGES, **others):
    rows = images * sum(view.rows for view in views)
    seen = signals_of(jnp.zeros((rows // len(views) * len(views), CLASSES)), views, **others)
    with pytest.raises(check.ConfigError) as caught:
        traced(term, seen)
    return str(caught.value)


def test_branches_that_cannot_be_are_refused():
    term, (a, b, c) = losses.adaptive_ensemble(), (View("a"), View("b", domain=1), View("c"))
    assert "0 to 2 in turn, or one for all, got (0, 1, 0)" in refusal(term, (a, b, c))
    assert "0 to 1 in turn" in refusal(term, (replace(a, domain=1), replace(b, domain=0)))
    assert "one row of each, got {'a': 2}" in refusal(term, (replace(a, rows=2),))
    assert "2 or more, got 1" in refusal(term, (a, b), images=1)
    pair = losses.adaptive_ensemble(("student", "peer"))
    assert "one for each of 3 branches" in refusal(pair, (a, a, c))
    assert "got 'peer'" in refusal(pair, (a, b))
    with pytest.raises(check.ConfigError, match="view of a term: .*'branch2', got 'branch3'"):
        traced(on_views(term, ("branch0", "branch3")), signals_of(logits_of(*drawn())))
