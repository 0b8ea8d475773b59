"""The ground floor: schedules, trees, error sentences, views."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augjax import check, schedule, tree, types
from augjax.train import start
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
        (schedule.exponential(0.5, 0.97, 2.4),
         optax.exponential_decay(0.5, 24, 0.97, staircase=True)),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours(clock()), jax.vmap(theirs)(steps), rtol=1e-5, atol=1e-8)


def test_a_table_interpolates_and_a_warmup_rises_from_nothing():
    values = schedule.table({0: 14, 4: 8, 8: 4})(clock())
    assert [values[0], values[20], values[40], values[99]] == [14, 11, 8, 4]
    rising = schedule.cosine(1.0, 1.0, warmup_epochs=2)(clock())
    np.testing.assert_allclose(rising[[0, 10, 20, 50]], [0, 0.5, 1, 1])


def test_the_staircase_of_efficientnet():
    """tensorflow/tpu, efficientnet/utils.py: during the warm-up no stair is seen, but counted."""
    moves = schedule.exponential(0.256, 0.97, 2.4, warmup_epochs=5)(clock())
    for step, value in enumerate(moves):
        warm = 0.256 * step / 50
        assert value == pytest.approx(warm if step < 50 else 0.256 * 0.97 ** (step // 24))
    assert moves[49] > moves[50] == pytest.approx(0.256 * 0.97**2)
    for wrong in ({"factor": 0.0}, {"every_epochs": 0.0}):
        with pytest.raises(check.ConfigError, match=f"exponential.* {next(iter(wrong))} above 0"):
            schedule.exponential(0.1, **wrong)


def test_decays_are_active_from_the_next_epoch_as_in_repdistiller():
    """Recipe RD: its epochs count from 1 and a decay after 150 acts where epoch > 150."""
    decays = (150, 180, 210)
    moves = schedule.piecewise(0.05, dict.fromkeys(decays, 0.1))(clock(2400))
    for epoch in range(1, 241):
        expected = 0.05 * 0.1 ** sum(epoch > decay for decay in decays)
        assert moves[10 * (epoch - 1) : 10 * epoch] == pytest.approx(expected)


@pytest.mark.parametrize("per_epoch", [7, 10, 781])
@pytest.mark.parametrize("first", [0, 396])
def test_no_decay_is_a_step_late_for_want_of_digits(per_epoch, first):
    """3 * 0.1 is more than 0.3 and 3 * 0.8 more than 2.4; 398.4 in float32 is less than 398.4."""
    knobs = types.Knobs({}, {"a": schedule.piecewise(1.0, {first + 3 * 0.1: 0.5}),
                             "b": schedule.exponential(1.0, 0.97, 3 * 0.8)}, 0.1)
    tabulated = [start.tabulate(knobs, epoch * per_epoch, per_epoch, 500 * per_epoch).weights
                 for epoch in range(first, first + 12)]
    table = {name: np.concatenate([part[name] for part in tabulated]) for name in "ab"}
    for place in range(12 * per_epoch):
        step = first * per_epoch + place
        assert table["a"][place] == (0.5 if 10 * place >= 3 * per_epoch else 1.0)
        assert table["b"][place] == np.float32(0.97 ** (10 * step // (24 * per_epoch)))


def test_the_clock_of_the_update_is_float32():
    knobs = types.Knobs({}, {"user": lambda clock: 2 * clock.epoch}, 0.1)
    tabulated = start.tabulate(knobs, 0, 4, 8)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(tabulated)} == {"float32", "int32"}


def test_every_schedule_gives_float32_of_the_clocks_shape():
    for moves in (schedule.constant(1), schedule.linear(0, 1), schedule.cosine(1),
                  schedule.exponential(1, 0.9, 1, 1), schedule.piecewise(1, {}),
                  schedule.table({0: 1})):
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
