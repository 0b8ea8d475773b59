"""What the papers will need of the heart, each as a small stand-in: no part asks for a new step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import BATCH, CLASSES, linear, moved, objective, ready, views

from augjax import losses, method, models
from augjax.types import Term, on_views, stateless


def projector_with_memory(size=3):
    """As CRD and MHGD need: parameters that train, and a state that follows without gradient."""
    def init(key, signals):
        width = signals.outputs["student"].pooled.shape[-1]
        return {"kernel": jax.random.normal(key, (width, size))}, {"memory": jnp.zeros((size,))}

    def apply(params, state, signals, key):
        seen = signals.outputs["student"].pooled @ params["kernel"]
        value = jnp.mean((seen - state["memory"] - 1.0) ** 2)
        return value, {"memory": 0.5 * state["memory"] + 0.5 * seen.mean(0)}

    return Term(init, apply)


def test_a_term_may_have_parameters_and_state():
    built = objective(terms={"ce": losses.cross_entropy(), "own": projector_with_memory()})
    state, update, batch, knobs = ready(built)
    after, metrics = update(state, batch, knobs)
    changed = moved(state, after)
    assert changed["terms/own/kernel"] and changed["nets/student/head/kernel"]
    assert not np.array_equal(after.terms["own"]["memory"], state.terms["own"]["memory"])
    again, _ = update(after, batch, knobs)
    assert not np.array_equal(again.terms["own"]["memory"], after.terms["own"]["memory"])
    assert np.isfinite(float(metrics["own"]))


def test_two_learners_at_once():
    """Deep mutual learning: both networks move, each by its own terms alone."""
    def towards(learner, other):
        return stateless(lambda signals: losses.kd(
            signals.outputs[learner].logits, signals.outputs[other].logits, 1.0, False, "kl",
        ).mean())

    built = objective(
        nets={"student": linear(), "peer": linear(0.5)}, learners=("student", "peer"),
        terms={"ce": losses.cross_entropy(), "ce_peer": losses.cross_entropy(net="peer"),
               "kd": towards("student", "peer"), "kd_peer": towards("peer", "student")})
    state, update, batch, knobs = ready(built)
    assert all(moved(state, update(state, batch, knobs)[0]).values())
    none = dict.fromkeys(built.terms, jnp.float32(0))
    only = replace(knobs, weights={**none, "kd": jnp.float32(1)})
    changed = moved(state, update(state, batch, only)[0])
    assert changed["nets/student/head/kernel"] and not changed["nets/peer/head/kernel"]


def test_several_teachers():
    """KD against the mean of two: both look on, neither can be reached by a gradient."""
    def mean_of_two(signals):
        said = signals.outputs
        mean = (said["first"].logits + said["second"].logits) / 2
        return losses.kd(said["student"].logits, mean, 4.0, True, "kl").mean()

    built = objective(nets={"student": linear(), "first": linear(), "second": linear()},
                      terms={"kd": stateless(mean_of_two)})
    state, update, batch, knobs = ready(built)
    after, _ = update(state, batch, knobs)
    assert moved(state, after)["nets/student/head/kernel"]
    grown = replace(state, frozen=jax.tree.map(lambda x: 2 * x, state.frozen))
    heads = [s.params["nets"]["student"]["head"] for s in (after, update(grown, batch, knobs)[0])]
    assert not np.array_equal(heads[0]["kernel"], heads[1]["kernel"])


def clip_to(reference):
    """role_wise_kd's rule in small: no gradient longer than the reference's, per variable."""
    def combine(pullback, losses_, knobs):
        zero = dict.fromkeys(losses_, jnp.float32(0))
        base = pullback({**zero, reference: jnp.asarray(knobs.weights[reference])})
        rest = pullback({**dict(knobs.weights), reference: jnp.float32(0)})

        def clipped(g, other):
            cap, length = jnp.linalg.norm(g), jnp.linalg.norm(other)
            return g + other * jnp.minimum(1.0, cap / jnp.maximum(length, 1e-12))

        nets = jax.tree.map(clipped, base["nets"], rest["nets"])
        return {"nets": nets, "terms": rest["terms"]}

    return combine


def test_a_combine_may_clip_between_terms():
    """Both gradients from one forward pass; a term's own parameters take theirs unclipped."""
    terms = {"ce": losses.cross_entropy(), "own": projector_with_memory()}
    states = {}
    for combine in (clip_to("ce"), method.weighted_sum):
        for weight in (1e3, 1e4):
            state, update, batch, knobs = ready(
                objective(terms=terms), combine=combine, weights={"ce": 1.0, "own": weight})
            states[combine is method.weighted_sum, weight] = (state, update(state, batch, knobs)[0])

    def step(key, path):
        before, after = states[key]
        part, name, leaf = path
        return np.asarray(after.params[part][name][leaf] if part == "terms"
                          else after.params[part]["student"][name][leaf]) - np.asarray(
            before.params[part][name][leaf] if part == "terms"
            else before.params[part]["student"][name][leaf])

    gain, kernel = ("nets", "trunk", "gain"), ("terms", "own", "kernel")
    np.testing.assert_allclose(step((False, 1e3), gain), step((False, 1e4), gain), rtol=1e-4)
    assert np.abs(step((True, 1e4), gain)).max() > 5 * np.abs(step((True, 1e3), gain)).max()
    np.testing.assert_allclose(step((False, 1e4), kernel), step((True, 1e4), kernel), rtol=1e-5)


def test_views_with_their_own_batchnorm_set():
    """One stacked pass: the statistics of a domain follow its view, those without a view rest."""
    net = models.build("resnet8_tiny", CLASSES, (8, 8, 3), mean=[0.5] * 3, std=[0.25] * 3,
                       domains=3)
    built = objective(nets={"student": net}, views=views("weak", "strong", domains={"strong": 2}))
    state, update, batch, knobs = ready(built)
    after, _ = update(state, batch, knobs)
    old = state.stats["student"]["stem_norm"]["mean"]
    new = after.stats["student"]["stem_norm"]["mean"]
    assert [not np.array_equal(old[d], new[d]) for d in range(3)] == [True, False, True]
    assert not np.array_equal(new[0], new[2])


def test_a_term_may_look_at_some_views_only():
    """Cross-entropy on the weak view alone equals cross-entropy of a run that has no other view."""
    both = objective(views=views("weak", "strong"),
                     terms={"ce": on_views(losses.cross_entropy(), ("weak",))}, trains=("nets/*",))
    alone = objective(views=views("weak"), trains=("nets/*",))
    results = [float(update(state, batch, knobs)[1]["ce"])
               for state, update, batch, knobs in (ready(both), ready(alone))]
    assert results[0] == pytest.approx(results[1], rel=1e-6)


# --- picks ---------------------------------------------------------------------------------------


def by_index(signals):
    return signals.rows.index.astype(jnp.float32)


@pytest.mark.parametrize("scoring, updates", [("eval", 1), ("train_discard", 1), ("train_keep", 2)])
def test_scoring_leaves_the_statistics_it_says(scoring, updates):
    """Each training pass moves the running mean a tenth of the way to the rows it saw."""
    built = objective(pick=method.top(by_index, ("train",), share=1.0, scoring=scoring))
    state, update, batch, knobs = ready(built)
    after, _ = update(state, batch, knobs)
    mean = np.asarray(batch.image).reshape(BATCH, -1).mean(0) / 255
    np.testing.assert_allclose(
        after.stats["student"]["trunk"]["mean"], (1 - 0.9**updates) * mean, rtol=1e-4)


def test_top_keeps_the_best_rows_and_what_onlookers_said_of_them():
    seen = {}

    def look(signals):
        seen["signals"] = signals
        return signals.outputs["student"].logits.mean() + signals.outputs["teacher"].logits.mean()

    built = objective(
        nets={"student": linear(), "teacher": linear()}, views=views("weak", "a", "b"),
        terms={"look": stateless(look)},
        pick=method.top(by_index, ("a", "b"), share=0.5))
    state, _, batch, knobs = ready(built)
    losses_, _ = built(state.params, state, batch, jax.random.key(0), knobs)
    signals = seen["signals"]
    assert [view.name for view in signals.rows.views] == ["weak", "picked"]
    weak, picked = (signals.only((name,)).rows for name in ("weak", "picked"))
    assert weak.index.tolist() == list(range(BATCH))
    assert sorted(picked.index.tolist()) == sorted([4, 5, 6, 7] * 2)
    again = built.nets["teacher"].predict(state.frozen["teacher"], signals.rows)
    np.testing.assert_allclose(signals.outputs["teacher"].logits, again.logits, rtol=1e-5)


def test_a_pick_that_keeps_all_equals_no_pick():
    results = []
    for pick in (None, method.keep_all(), method.top(by_index, ("train",), 1.0, name="train")):
        state, update, batch, knobs = ready(objective(pick=pick))
        results.append(update(state, batch, knobs)[0].params)
    none, kept, chosen = results
    jax.tree.map(np.testing.assert_array_equal, none, kept)
    # the same rows from another program, which may round otherwise
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), none, chosen)


def test_a_share_that_leaves_half_rows_is_refused():
    from augjax import check

    with pytest.raises(check.ConfigError, match="whole number of rows"):
        ready(objective(pick=method.top(by_index, ("train",), 0.6)))


# --- phases in which parts rest ------------------------------------------------------------------


@pytest.mark.parametrize("trains, moves", [
    (("nets/student/head/*",), {"nets/student/head/kernel"}),
    (("stats/*",), {"stats/student/trunk/mean"}),
    (("terms/*",), {"terms/own/kernel"}),
    (("*",), {"nets/student/head/kernel", "nets/student/trunk/gain", "stats/student/trunk/mean",
              "terms/own/kernel"}),
])
def test_only_what_trains_names_moves(trains, moves):
    """Head re-training, BatchNorm recalibration, a term's own training; weight decay included."""
    built = objective(
        terms={"ce": losses.cross_entropy(), "own": projector_with_memory()}, trains=trains)
    state, update, batch, knobs = ready(built, train_with_decay())
    after, _ = update(*[update(state, batch, knobs)[0], batch, knobs])
    assert {path for path, changed in moved(state, after).items() if changed} == moves


def train_with_decay():
    from augjax import train

    return train.sgd(momentum=0.9, weight_decay=1e-2)


def test_a_learner_whose_statistics_rest_runs_on_its_running_ones():
    """Head re-training must see the features that evaluation will see."""
    resting = objective(trains=("nets/student/head/*",))
    state, update, batch, knobs = ready(resting)
    _, metrics = update(state, batch, knobs)
    said = resting.nets["student"].predict(
        (state.params["nets"]["student"], state.stats["student"]),
        resting.views(jax.random.key(0), batch, {}))
    expected = optax.softmax_cross_entropy_with_integer_labels(said.logits, batch.label).mean()
    assert float(metrics["ce"]) == pytest.approx(float(expected), rel=1e-5)
