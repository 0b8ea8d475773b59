"""What a state follows by itself: the averages of weights and statistics, and the meters."""

from dataclasses import replace

import jax.numpy as jnp
import pytest

from augjax.train.state import count, follow, Meters


def test_the_average_follows_by_hand():
    """keep = min(decay, (1 + t) / (10 + t)) of the old average; of statistics too."""
    ema = {"nets": {"w": jnp.float32(4)}, "stats": {"mean": jnp.float32(-1)}}
    seen = []
    for step, (weight, mean) in enumerate([(2.0, 0.0), (1.0, 3.0), (0.0, 3.0)]):
        ema = follow(ema, {"nets": {"w": jnp.float32(weight)}, "terms": {"mu": jnp.float32(9)}},
                     {"mean": jnp.float32(mean)}, jnp.int32(step), 0.2)
        seen.append((float(ema["nets"]["w"]), float(ema["stats"]["mean"])))
    # keep: 1/10, then 2/11, then 0.2 instead of 3/12
    first = 0.1 * 4 + 0.9 * 2, 0.1 * -1 + 0.9 * 0
    second = 2 / 11 * first[0] + 9 / 11 * 1, 2 / 11 * first[1] + 9 / 11 * 3
    third = 0.2 * second[0] + 0.8 * 0, 0.2 * second[1] + 0.8 * 3
    for got, expected in zip(seen, (first, second, third)):
        assert got == pytest.approx(expected, rel=1e-6)
    assert set(ema) == {"nets", "stats"}


def test_the_average_is_slow_in_the_end():
    ema = {"nets": {"w": jnp.float32(1)}, "stats": {"mean": jnp.float32(1)}}
    zero = {"nets": {"w": jnp.float32(0)}}
    late = follow(ema, zero, {"mean": jnp.float32(0)}, jnp.int32(10**6), 0.9999)
    assert float(late["nets"]["w"]) == pytest.approx(0.9999, rel=1e-6)
    assert float(late["stats"]["mean"]) == pytest.approx(0.9999, rel=1e-6)


def test_meters_start_anew_after_every_row_and_remember_the_first_bad_step():
    meters = Meters({"loss": jnp.float32(0)}, jnp.int32(0), jnp.int32(-1))
    stats, seen = {"mean": jnp.zeros(3)}, []
    for step, value in enumerate([1.0, 3.0, 5.0, float("nan"), 2.0, float("inf")]):
        meters = count(meters, {"loss": jnp.float32(value)}, stats, jnp.int32(step), every=2)
        seen.append((float(meters.sums["loss"]), int(meters.steps), int(meters.bad_step)))
    assert seen[:3] == [(1, 1, -1), (4, 2, -1), (5, 1, -1)]
    assert seen[4] == (2, 1, 3) and seen[5][2] == 3
    assert replace(meters, bad_step=jnp.int32(0)) != meters
