"""II-KD: RKD, MHGD and KD-SVD in one term."""

import jax
import pytest

from augjax import check, losses
from augjax.types import Term
from losses.scene import at_work, jit, KEY, scene, value

TAPS = {"taps": ("f2", "f3"), "teacher_taps": ("f2", "f3")}


def test_it_is_the_sum_of_its_three_parts():
    signals = scene()
    parts = {"rkd": losses.rkd(50.0, 100.0, "logits", "logits", "role_kd"),
             "mhgd": losses.mhgd(**TAPS), "kd_svd": losses.kd_svd(**TAPS)}
    whole = losses.ii_kd(**TAPS)
    params, state = at_work(whole, signals)

    @jit
    def worth(signals):
        each = [part.apply(params[name], state[name], signals, KEY)[0]
                for name, part in parts.items()]
        return whole.apply(params, state, signals, KEY)[0], each

    found, each = worth(signals)
    assert float(found) == pytest.approx(sum(map(float, each)), rel=1e-6)
    assert all(float(part) > 0 for part in each) and not whole.per_example


def test_its_parts_refuse_for_it():
    with pytest.raises(check.ConfigError, match="tap of 'student' in .*got 'f9'"):
        value(losses.ii_kd(("f1", "f9"), ("f1", "f2")), scene())
    with pytest.raises(check.ConfigError, match="rows of rkd: .* max_rows = 2, got 6"):
        value(losses.ii_kd(**TAPS, max_rows=2), scene())


def test_each_part_keeps_a_state_and_draws_numbers_of_its_own():
    def draws(first):
        def apply(params, state, signals, key):
            return state + jax.random.uniform(key), state + 1

        return Term(lambda key, signals: ({}, first), apply)

    parts = {"a": draws(0.0), "b": draws(10.0)}
    params, state = losses.total(parts).init(KEY, None)
    worth, after = losses.total(parts).apply(params, state, None, KEY)
    assert state == {"a": 0.0, "b": 10.0} and after == {"a": 1.0, "b": 11.0}
    keys = [jax.random.fold_in(KEY, number) for number in (0, 1)]
    assert float(worth) == pytest.approx(10 + sum(float(jax.random.uniform(k)) for k in keys))


@pytest.mark.parametrize("images, least", [((None, 9, 7), 7), ((None, None), None)])
def test_it_has_places_for_as_many_images_as_its_parts(images, least):
    parts = {str(n): Term(None, None, images=count) for n, count in enumerate(images)}
    assert losses.total(parts).images == least
