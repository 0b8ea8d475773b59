"""The heart on its own: what learners and onlookers see, where gradients go, what moves."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses, method
from augjax.method.objective import learn, look
from augjax.types import Batch, Knobs, Net, Outputs, Rows, Signals, stateless, Term, View
from train.helpers import BATCH, CLASSES, noisy, plain, SHAPE, small

KEY = jax.random.key(5)
INDEX = jnp.arange(BATCH, dtype=jnp.int32)
IMAGES = jax.random.randint(KEY, (BATCH, *SHAPE), 0, 256).astype(jnp.uint8)
IMAGES_SEEN = Batch(IMAGES, INDEX % CLASSES, INDEX)
KNOBS = Knobs({"train": {"magnitude": jnp.float32(30)}}, {}, 0.1)


def built(**changes):
    parts = {"nets": {"student": small()}, "learners": ("student",), "views": plain,
             "terms": {"ce": losses.cross_entropy()}}
    return method.Objective(**{**parts, **changes})


def variables(made, seed=0):
    """(params, state) of an objective, as the training loop would hold them."""
    drawn = {name: net.init(jax.random.fold_in(jax.random.key(seed), place))
             for place, (name, net) in enumerate(made.nets.items())}
    params = {"nets": {name: drawn[name][0] for name in made.learners},
              "terms": {name: {} for name in made.terms}}
    state = SimpleNamespace(
        stats={name: drawn[name][1] for name in made.learners}, transform={},
        frozen={name: drawn[name] for name in made.onlookers},
        terms={name: {} for name in made.terms})
    return params, state


def assert_trees(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


# --- randomness ----------------------------------------------------------------------------------


def losses_of(made, key):
    params, state = variables(made)
    return {name: float(value) for name, value in
            made(params, state, IMAGES_SEEN, key, KNOBS)[0].items()}


def draws_a_number() -> Term:
    return Term(lambda key, signals: ({}, {}),
                lambda params, state, signals, key: (jax.random.uniform(key), state))


def test_the_key_alone_decides():
    made = built(views=noisy, terms={"ce": losses.cross_entropy(), "drawn": draws_a_number()})
    assert losses_of(made, KEY) == losses_of(made, KEY)
    other = losses_of(made, jax.random.fold_in(KEY, 1))
    assert all(other[name] != value for name, value in losses_of(made, KEY).items())


def test_terms_draw_numbers_of_their_own():
    drawn = losses_of(built(terms={name: draws_a_number() for name in "abc"}), KEY)
    assert len(set(drawn.values())) == 3


def test_a_term_more_changes_nothing_for_the_others():
    """What a term at the end draws is its own; views, networks and other terms do not notice."""
    first = {"ce": losses.cross_entropy(), "drawn": draws_a_number()}
    few = losses_of(built(views=noisy, terms=first), KEY)
    many = losses_of(built(views=noisy, terms={**first, "more": draws_a_number()}), KEY)
    assert few == {name: many[name] for name in few}


# --- gradients -----------------------------------------------------------------------------------


def test_no_gradient_reaches_an_onlooker_or_a_memory():
    def through_everything(params, state, signals, key):
        value = signals.outputs["teacher"].logits.sum() + state["memory"].sum()
        return value, {"memory": state["memory"] + signals.outputs["student"].logits.sum()}

    term = Term(None, through_everything)
    made = built(nets={"student": small(), "teacher": small()}, terms={"all": term})
    params, state = variables(made)

    def value(params, frozen, memory):
        changed = {"frozen": frozen, "terms": {"all": {"memory": memory}}}
        seen = SimpleNamespace(**{**vars(state), **changed})
        losses_, aux = made(params, seen, IMAGES_SEEN, KEY, KNOBS)
        return losses_["all"] + aux.terms["all"]["memory"].sum()

    memory = jnp.ones((3,))
    gradient = jax.grad(value, argnums=(0, 1))(params, state.frozen, memory)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))


def test_the_pullback_of_a_weight_is_the_gradient_of_its_term():
    made = built(nets={"student": small(), "teacher": small()},
                 terms={"ce": losses.cross_entropy(), "kd": losses.hinton()})
    params, state = variables(made)

    def terms(params):
        return made(params, state, IMAGES_SEEN, KEY, KNOBS)[0]

    _, pullback = jax.vjp(terms, params)
    for weights in ({"ce": 1.0, "kd": 0.0}, {"ce": 0.3, "kd": 2.0}):
        knobs = Knobs({}, weights, 0.1)
        combined = method.weighted_sum(lambda w: pullback(w)[0], terms(params), knobs)
        expected = jax.grad(lambda p: sum(weights[n] * v for n, v in terms(p).items()))(params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
                     combined, expected)


def test_how_often_a_frozen_network_is_right_is_noted():
    """Of mixed rows by the labels' shares: 1, 0.7, 0.3 and 0 of four rows."""
    said = jnp.eye(4)[jnp.array([2, 1, 3, 0])]
    rows = replace(plain(KEY, IMAGES_SEEN, {}), label=jnp.array([2, 1, 0, 1]),
                   mix_label=jnp.array([2, 0, 3, 2]), lam=jnp.full(4, 0.7))
    teacher = Net(None, None, lambda variables, rows: Outputs(said))
    signals = look({"teacher": teacher}, {"teacher": ()}, rows)
    assert float(signals.notes["teacher_accuracy"]) == pytest.approx((1 + 0.7 + 0.3 + 0) / 4)


# --- resting -------------------------------------------------------------------------------------


def two_domains(key, batch, policies):
    rows = jax.tree.map(lambda leaf: jnp.repeat(leaf, 3, axis=0), plain(key, batch, policies))
    return Rows(rows.image, rows.label, rows.mix_label, rows.lam, rows.index,
                (View("weak"), View("strong", 2, domain=1)))


@pytest.mark.parametrize("views", [plain, two_domains])
def test_a_learner_at_rest_says_what_it_will_say_when_evaluated(views):
    """On running statistics, those of each row's own domain."""
    net = small(domains=2)
    params, stats = net.init(KEY)
    stats = jax.tree.map(lambda leaf: leaf + jnp.array([[0.5], [2.0]]), stats)
    rows = views(KEY, IMAGES_SEEN, {})
    signals, after = learn({"student": net}, {"student": params}, {"student": stats},
                           Signals(rows), KEY, ("nets/student/head/*",))
    assert_trees(after["student"], stats)
    for view in rows.views:
        mine = signals.only((view.name,))
        expected = net.predict((params, stats), mine.rows, view.domain)
        np.testing.assert_allclose(mine.outputs["student"].logits, expected.logits, rtol=1e-5)
    if len(rows.views) == 2:
        weak, strong = (signals.only((name,)).outputs["student"] for name in ("weak", "strong"))
        assert not np.allclose(weak.logits, strong.logits[::2])


def test_moving_keeps_what_is_named_and_stills_the_rest():
    made = built(trains=("nets/*/head/*",))
    params, _ = variables(made)
    moving = made.moving(jax.tree.map(jnp.ones_like, params))
    assert all(leaf.all() for leaf in jax.tree.leaves(moving["nets"]["student"]["head"]))
    assert not any(leaf.any() for leaf in jax.tree.leaves(moving["nets"]["student"]["conv"]))


# --- what an objective refuses -------------------------------------------------------------------


def test_an_unknown_learner_is_refused_with_the_nearest():
    with pytest.raises(check.ConfigError, match="learner: .*got 'studnet'. Did you mean 'student'"):
        built(learners=("studnet",))


def test_no_terms_are_refused():
    with pytest.raises(check.ConfigError, match="terms: expected at least one"):
        built(terms={})


def test_a_term_that_asks_for_a_silent_network_names_those_that_speak():
    made = built(terms={"kd": losses.hinton()})
    params, state = variables(made)
    with pytest.raises(check.ConfigError, match="'student', got 'teacher'"):
        made(params, state, IMAGES_SEEN, KEY, KNOBS)


def test_a_function_of_the_signals_is_a_term():
    made = built(terms={"own": stateless(lambda signals: signals.outputs["student"].pooled.mean())})
    assert np.isfinite(losses_of(made, KEY)["own"])
