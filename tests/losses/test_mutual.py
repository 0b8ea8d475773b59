"""Deep mutual learning: each learns from the others, who feel nothing of it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses
from losses.scene import drawn, signals_of, value, Z_S, Z_T
from method.small import linear, moved, objective, ready


def kl(p, q):
    p, q = (jax.nn.softmax(z) for z in (p, q))
    return float(jnp.sum(p * jnp.log(p / q), -1).mean())


def test_both_forms():
    signals = signals_of(student=Z_S, peer=Z_T)
    assert float(value(losses.mutual(), signals)) == pytest.approx(kl(Z_T, Z_S), rel=1e-5)
    assert kl(Z_T, Z_S) == pytest.approx(0.7833496, rel=1e-5)  # spec D15
    both = (kl(Z_T, Z_S) + kl(Z_S, Z_T)) / 2
    assert float(value(losses.mutual(form="both_ways"), signals)) == pytest.approx(both, rel=1e-5)
    other = losses.mutual("peer", "student", form="both_ways")
    assert float(value(other, signals)) == pytest.approx(both, rel=1e-5)


def test_the_mean_over_several_peers():
    logits = {name: drawn(seed).logits for seed, name in enumerate(("student", "one", "two"))}
    found = value(losses.mutual(peers=("one", "two")), signals_of(**logits))
    expected = (kl(logits["one"], logits["student"]) + kl(logits["two"], logits["student"])) / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_both_networks_train_each_by_its_own_terms():
    built = objective(
        nets={"student": linear(), "peer": linear(0.5)}, learners=("student", "peer"),
        terms={"ce": losses.cross_entropy(), "ce_peer": losses.cross_entropy(net="peer"),
               "kd": losses.mutual(), "kd_peer": losses.mutual("peer", "student", "both_ways")})
    state, update, batch, knobs = ready(built)
    assert all(moved(state, update(state, batch, knobs)[0]).values())
    for term, learner, other in (("kd", "student", "peer"), ("kd_peer", "peer", "student")):
        weights = {**dict.fromkeys(built.terms, jnp.float32(0)), term: jnp.float32(1)}
        changed = moved(state, update(state, batch, replace(knobs, weights=weights))[0])
        assert changed[f"nets/{learner}/head/kernel"] and not changed[f"nets/{other}/head/kernel"]


def test_what_is_wrong_is_refused():
    with pytest.raises(check.ConfigError, match="networks other than 'a'"):
        losses.mutual("a", ("b", "a"))
    with pytest.raises(check.ConfigError, match="one network or more, got none"):
        losses.mutual(peers=())
    with pytest.raises(check.ConfigError, match="'both_ways', 'one_way', got"):
        losses.mutual(form="symmetric")
    with pytest.raises(check.ConfigError, match="scored by mutual: .*'student', got 'peer'"):
        value(losses.mutual(), signals_of(student=np.zeros((2, 3))))
