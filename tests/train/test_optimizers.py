"""Optimisers whose learning rate is an argument, against optax's and PyTorch's own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augjax import check, train
from augjax.train.state import count, follow, Meters


def walk(optimizer, rates, extra=True):
    """Parameters after a few steps on a quadratic bowl."""
    params = {"nets": {"kernel": jnp.array([1.0, -2.0, 0.5]), "bias": jnp.array([0.3])}}
    state = optimizer.init(params)
    for rate in rates:
        grads = jax.tree.map(lambda w: 2 * w + 0.1, params)
        arguments = {"learning_rate": rate} if extra else {}
        updates, state = optimizer.update(grads, state, params, **arguments)
        params = optax.apply_updates(params, updates)
    return params["nets"]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_optax_at_a_constant_rate(nesterov):
    theirs = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, 0.9, nesterov))
    ours = train.sgd(0.9, nesterov, weight_decay=0.01)
    jax.tree.map(np.testing.assert_allclose, walk(ours, [0.1] * 5), walk(theirs, [0.1] * 5, False))


def test_decay_only_where_its_patterns_say():
    decayed = walk(train.sgd(0.0, weight_decay=0.5, decay=("*/kernel",)), [0.1])
    plain = walk(train.sgd(0.0), [0.1])
    assert not np.array_equal(decayed["kernel"], plain["kernel"])
    np.testing.assert_array_equal(decayed["bias"], plain["bias"])


def test_a_negative_decay_is_refused():
    with pytest.raises(check.ConfigError, match="weight_decay"):
        train.sgd(weight_decay=-1.0)


@pytest.mark.parity
@pytest.mark.parametrize("name, options", [
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ("Adam", {"weight_decay": 0.01, "eps": 1e-5}),
])
def test_equals_pytorch_under_a_changing_rate(name, options):
    import torch

    rates = [0.1, 0.1, 0.03, 0.03, 0.01]
    weights = [torch.tensor([1.0, -2.0, 0.5], requires_grad=True),
               torch.tensor([0.3], requires_grad=True)]
    theirs = getattr(torch.optim, name)(weights, lr=0.1, **options)
    for rate in rates:
        theirs.param_groups[0]["lr"] = rate
        for weight in weights:
            weight.grad = (2 * weight + 0.1).detach()
        theirs.step()
    ours = walk(train.OPTIMIZERS[name.lower()](**options), rates)
    np.testing.assert_allclose(ours["kernel"], weights[0].detach(), atol=1e-5)  # float32 rounding
    np.testing.assert_allclose(ours["bias"], weights[1].detach(), atol=1e-5)


def test_the_average_follows_fast_at_first():
    """keep = min(decay, (1 + t) / (10 + t)), by hand."""
    ema = {"nets": {"w": jnp.float32(0)}, "stats": {"m": jnp.float32(0)}}
    for step in range(3):
        ema = follow(ema, {"nets": {"w": jnp.float32(1)}}, {"m": jnp.float32(1)},
                     jnp.int32(step), 0.9)
    assert float(ema["nets"]["w"]) == pytest.approx(1 - (1 / 10) * (2 / 11) * (3 / 12), rel=1e-6)
    zero = {"nets": {"w": jnp.float32(0)}}
    late = follow(ema, zero, {"m": jnp.float32(1)}, jnp.int32(10**6), 0.9)
    assert float(late["nets"]["w"]) == pytest.approx(0.9 * float(ema["nets"]["w"]), rel=1e-6)


def test_meters_start_anew_after_every_row_and_remember_the_first_bad_step():
    meters = Meters({"loss": jnp.float32(0)}, jnp.int32(0), jnp.int32(-1))
    seen = []
    for step, value in enumerate([1.0, 3.0, 5.0, float("nan"), 2.0, float("inf")]):
        meters = count(meters, {"loss": jnp.float32(value)}, jnp.int32(step), every=2)
        seen.append((float(meters.sums["loss"]), int(meters.steps), int(meters.bad_step)))
    assert seen[:3] == [(1, 1, -1), (4, 2, -1), (5, 1, -1)]
    assert seen[4] == (2, 1, 3) and seen[5][2] == 3
    assert replace(meters, bad_step=jnp.int32(0)) != meters
