"""The clipped combine: norms, epochs, where weights act, what it leaves alone, configs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import moved, objective, ready
from test_fits_later import projector_with_memory

from augjax import builders, check, defaults, losses, method, recipe
from augjax.train.gradients import check_accumulation
from augjax.types import Clock, Knobs, stateless

PARAMS = {"nets": {"student": {"a": jnp.ones((3, 2)), "b": jnp.ones(2), "c": jnp.ones(1)}},
          "terms": {"ce": {}, "one": {"own": jnp.ones(2)}, "two": {}}}
NAMES = ("ce", "one", "two")


def slopes(name, leaf):
    """A drawn gradient for every term and network parameter; none of c from what is not ce."""
    if leaf == "c" and name != "ce":
        return np.zeros(1, np.float32)
    draw = np.random.default_rng([NAMES.index(name), ord(leaf)])
    size = 0.1 if name == "two" and leaf == "b" else 5.0
    return (size * draw.normal(size=PARAMS["nets"]["student"][leaf].shape)).astype(np.float32)


def linear(params):
    """Terms whose gradients are `slopes`, and 7 for the parameter of the second."""
    nets = params["nets"]["student"]
    worth = {name: sum(jnp.sum(slopes(name, leaf) * nets[leaf]) for leaf in nets) for name in NAMES}
    return {**worth, "one": worth["one"] + 7 * params["terms"]["one"]["own"].sum()}


def combined(combine, epoch=2.5, **weights):
    knobs = Knobs({}, {"ce": 1.0, "one": 0.4, "two": 0.4, **weights}, 0.1,
                  Clock(jnp.int32(5), jnp.float32(epoch), jnp.float32(0.5)))
    worth, pullback = jax.vjp(linear, PARAMS)
    return combine(lambda w: pullback(w)[0], worth, knobs)


def cut(g, longest):
    return g * min(1.0, longest / max(np.linalg.norm(g), 1e-30))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("mode, epoch", [
    ("after_clip", 0.0), ("after_clip", 2.5), ("before_clip", 2.5), ("ignored", 0.9)])
def test_every_parameter_is_cut_by_itself(mode, epoch):
    """Spec D6: g = g_task + lambda clip(g_kd, ||g_task|| sigmoid(e)), e the whole epochs done."""
    weights = {"ce": 0.5, "one": 0.4, "two": 0.2}
    found = combined(method.clipped(lambda_mode=mode), epoch, **weights)
    outside = {"after_clip": 0.4}.get(mode, 1.0)
    inside = {"after_clip": (1.0, 0.5), "before_clip": (0.4, 0.2), "ignored": (1.0, 1.0)}[mode]
    active = []
    for leaf, g in found["nets"]["student"].items():
        task = 0.5 * slopes("ce", leaf)
        kd = inside[0] * slopes("one", leaf) + inside[1] * slopes("two", leaf)
        longest = np.linalg.norm(task) * sigmoid(np.floor(epoch))
        active.append(np.linalg.norm(kd) > longest)
        np.testing.assert_allclose(g, task + outside * cut(kd, longest), rtol=1e-5)
    assert active[0] and not active[2]


def test_short_gradients_are_not_cut():
    both = (method.clipped(("one", "two"), "before_clip"), method.weighted_sum)
    small, plain = (combined(one, ce=0.001)["nets"]["student"]["a"] for one in both)
    np.testing.assert_allclose(small, plain, rtol=1e-5)
    assert not np.allclose(plain, 0.4 * (slopes("one", "a") + slopes("two", "a")), rtol=1e-5)


def test_equal_weights_are_lambda_and_a_single_one_too():
    """lambda clip(sum of the terms): twice the weights, twice the distillation, however large."""
    for weights in ({"one": 0.4, "two": 0.4}, {"one": 0.4, "two": 0.0}):
        task = combined(method.clipped(), one=0.0, two=0.0)
        once, twice = (combined(method.clipped(), **{n: k * w for n, w in weights.items()})
                       for k in (1, 2))
        for leaf in "ab":
            own, one, two = (g["nets"]["student"][leaf] for g in (task, once, twice))
            np.testing.assert_allclose(two - own, 2 * (one - own), rtol=1e-4, atol=1e-5)
            assert np.abs(one - own).max() > 0.1


@pytest.mark.parametrize("mode", ["after_clip", "before_clip", "ignored"])
def test_a_terms_own_parameters_take_their_weighted_gradient(mode):
    for weight in (0.4, 3.0):
        found = combined(method.clipped(lambda_mode=mode), one=weight)
        np.testing.assert_allclose(found["terms"]["one"]["own"], 7 * weight, rtol=1e-6)


def test_no_gradient_on_either_side_is_no_nan():
    """Where the task has none, distillation counts nothing; where that has none, the task stays."""
    for mode in ("after_clip", "before_clip", "ignored"):
        silent = combined(method.clipped(lambda_mode=mode), ce=0.0)
        assert all(not g.any() for g in silent["nets"]["student"].values())
        alone = combined(method.clipped(lambda_mode=mode), one=0.0, two=0.0)
        assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(alone))
        np.testing.assert_allclose(alone["nets"]["student"]["c"], slopes("ce", "c"), rtol=1e-6)


def test_both_gradients_come_from_one_forward_pass():
    calls = []

    def watched(signals):
        calls.append(1)
        return losses.kd(signals.outputs["student"].logits, signals.outputs["student"].logits + 1,
                         1.0, False, "ce").mean()

    built = objective(terms={"ce": losses.cross_entropy(), "kd": stateless(watched)})
    state, update, batch, knobs = ready(built, combine=method.clipped())
    calls.clear()
    update(state, batch, knobs)
    assert len(calls) == 1


def test_in_an_update():
    """A distillation of any size moves the network no further than the task; its own goes free."""
    terms = {"ce": losses.cross_entropy(), "own": projector_with_memory()}
    steps = []
    for weight in (1e3, 2e3):
        state, update, batch, knobs = ready(
            objective(terms=terms), combine=method.clipped(lambda_mode="before_clip"),
            weights={"ce": 1.0, "own": weight})
        after, _ = update(state, batch, knobs)
        changed = moved(state, after)
        assert changed["nets/student/head/kernel"] and changed["terms/own/kernel"]
        steps.append(jax.tree.map(lambda a, b: a - b, after.params, state.params))
    one, two = steps
    np.testing.assert_allclose(two["nets"]["student"]["trunk"]["gain"],
                               one["nets"]["student"]["trunk"]["gain"], rtol=1e-3)
    np.testing.assert_allclose(two["terms"]["own"]["kernel"], 2 * one["terms"]["own"]["kernel"],
                               rtol=1e-3)


# --- what it refuses, and what configs say -------------------------------------------------------


def test_what_is_wrong_is_refused():
    with pytest.raises(check.ConfigError, match="'after_clip', 'before_clip', 'ignored', got"):
        method.clipped(lambda_mode="after")
    with pytest.raises(check.ConfigError, match="combine.task: expected at least one term"):
        method.clipped(())
    with pytest.raises(check.ConfigError, match="combine.task: .*'ce', 'one', 'two', got 'cee'"):
        combined(method.clipped(("cee",)))
    with pytest.raises(check.ConfigError, match="combine.task: .*got all of them"):
        combined(method.clipped(NAMES))
    knobs = Knobs({}, dict.fromkeys(NAMES, 1.0), 0.1)
    with pytest.raises(check.ConfigError, match="a clock, got none"):
        method.clipped()(lambda w: PARAMS, linear(PARAMS), knobs)


def built(**changes):
    terms = {"ce": defaults.term("cross_entropy"),
             "kd": defaults.term("hinton", 0.4, teacher="student")}
    config = defaults.config({"only": defaults.phase(terms=terms, **changes)}, {})
    blocks = recipe.expanded(config)
    return recipe.build_phases(blocks, builders.Pictures("digits", 10, (16, 16, 3)))[0]


def test_configs_name_the_combine_and_see_its_fields():
    for plain in ({}, {"combine": "weighted_sum"}, {"combine": defaults.combine()}):
        assert built(**plain).combine is method.weighted_sum
    block = defaults.combine("clipped", lambda_mode="ignored")
    assert block.to_dict() == {"kind": "clipped", "task": ("ce",), "lambda_mode": "ignored"}
    phases = [built(combine=defaults.combine("clipped", lambda_mode=mode))
              for mode in ("ignored", "after_clip")]
    assert phases[0].structure != phases[1].structure
    for wrong, words in (
        ({"kind": "cliped"}, "combine.kind: .*Did you mean 'clipped'"),
        ({"kind": "clipped", "task": ("cee",)}, "combine.task: .*Did you mean 'ce'"),
        ({"kind": "clipped", "mode": "ignored"}, "field of only.combine: .*'lambda_mode'"),
    ):
        with pytest.raises(check.ConfigError, match=words):
            built(combine=wrong)


def test_a_clipped_phase_does_not_accumulate():
    phase = built(combine=defaults.combine("clipped"))
    with pytest.raises(check.ConfigError, match="weighted_sum with accumulate = 2"):
        check_accumulation("only", phase.objective, phase.combine, 2)
