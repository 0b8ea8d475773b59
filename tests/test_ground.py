"""The ground floor: schedules, trees, error sentences, views."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augjax import check, schedule, tree, types
from augjax.types import Clock, Outputs, Rows, Signals, View


def clock(steps=100, per_epoch=10):
    step = np.arange(steps)
    return Clock(step, step / per_epoch, step / steps)


def test_schedules_equal_optax():
    """Ours are functions of a clock, optax's of a step; over whole phases they agree."""
    steps = np.arange(100)
    pairs = [
        (schedule.constant(3.0), optax.constant_schedule(3.0)),
        (schedule.linear(2.0, 0.5), optax.linear_schedule(2.0, 0.5, 100)),
        (schedule.cosine(0.1), optax.cosine_decay_schedule(0.1, 100)),
        (schedule.piecewise(1.0, {3: 0.1, 6: 0.5}),
         optax.piecewise_constant_schedule(1.0, {30: 0.1, 60: 0.5})),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours(clock()), jax.vmap(theirs)(steps), rtol=1e-5, atol=1e-8)


def test_a_table_interpolates_and_a_warmup_rises_from_nothing():
    values = schedule.table({0: 14, 4: 8, 8: 4})(clock())
    assert [values[0], values[20], values[40], values[99]] == [14, 11, 8, 4]
    rising = schedule.cosine(1.0, 1.0, warmup_epochs=2)(clock())
    np.testing.assert_allclose(rising[[0, 10, 20, 50]], [0, 0.5, 1, 1])


def test_every_schedule_gives_float32_of_the_clocks_shape():
    for moves in (schedule.constant(1), schedule.linear(0, 1), schedule.cosine(1),
                  schedule.piecewise(1, {}), schedule.table({0: 1})):
        assert moves(clock()).dtype == np.float32 and moves(clock()).shape == (100,)


def test_a_digest_follows_every_bit_and_no_order():
    weights = {"b": np.arange(3.0), "a": {"c": np.zeros(2, np.int32)}}
    same = {"a": {"c": jnp.zeros(2, jnp.int32)}, "b": np.arange(3.0)}
    assert tree.digest(weights) == tree.digest(same)
    for other in ({**weights, "b": np.float32([0, 1, 2])}, {**weights, "b": -np.arange(3.0)},
                  {"a": weights["a"], "d": weights["b"]}, {**weights, "b": np.arange(3.0)[None]}):
        assert tree.digest(other) != tree.digest(weights)


def test_patterns_cross_slashes():
    assert tree.matches("nets/student/head/kernel", ("nets/*/kernel",))
    assert not tree.matches("stats/student/mean", ("nets/*", "terms/*"))


def test_an_error_says_what_was_expected_what_came_and_what_to_do():
    with pytest.raises(check.ConfigError) as caught:
        check.require(False, "tau", "a positive temperature", -1, "use 4")
    assert str(caught.value) == "tau: expected a positive temperature, got -1. Use 4."
    with pytest.raises(check.ConfigError, match="Did you mean 'kd'"):
        check.one_of("term", "kld", ["ce", "kd"])


def test_exit_codes_are_those_of_the_design():
    codes = {check.ConfigError: 2, check.DataError: 3, check.CheckpointError: 4,
             check.NumericsError: 5, check.Preempted: 75}
    assert {error: error.exit_code for error in codes} == codes


def rows(kinds, groups=3):
    width = sum(kind.rows for kind in kinds)
    number = jnp.arange(groups * width)
    return Rows(number[:, None, None, None], number, number, number * 1.0, number, kinds)


def test_a_view_is_a_slice_of_every_group():
    signals = Signals(rows((View("weak"), View("pool", rows=2))),
                      {"student": Outputs(jnp.arange(9.0)[:, None])})
    assert signals.rows.groups == 3
    assert signals.only(("weak",)).rows.label.tolist() == [0, 3, 6]
    assert signals.only(("pool",)).outputs["student"].logits[:, 0].tolist() == [1, 2, 4, 5, 7, 8]
    assert signals.only(("pool", "weak")).rows.label.tolist() == list(range(9))


def test_a_chain_applies_in_the_order_given():
    double = types.Transform(lambda p: {}, lambda p, s: jax.tree.map(lambda x: 2 * x, p))
    more = types.Transform(
        lambda p: {"by": 1.0}, lambda p, s: jax.tree.map(lambda x: x + s["by"], p))
    for parts, expected in (({"a": double, "b": more}, 7.0), ({"b": more, "a": double}, 8.0)):
        both = types.chain(**parts)
        assert both.apply({"w": 3.0}, both.init({"w": 3.0}))["w"] == expected
