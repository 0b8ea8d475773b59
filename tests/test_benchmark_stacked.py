"""The forms that the rows of members' convolutions time compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.benchmarks import stacked


@pytest.mark.parametrize("form", stacked.FORMS)
def test_a_form_is_the_members_own_convolutions(form):
    normal = np.random.default_rng(0).standard_normal
    x, kernels, pull = (jnp.asarray(normal(shape), jnp.float32) for shape in (
        (3, 2, 5, 5, 4), (3, 3, 3, 4, 6), (3, 2, 5, 5, 6)))
    found = []
    for each in (stacked.one_by_one, stacked.FORMS[form]):
        y, transposed = jax.vjp(each, x, kernels)
        found.append((y, *transposed(pull)))
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_row_is_a_speed(monkeypatch):
    monkeypatch.setattr(stacked, "MEMBERS", 2)
    monkeypatch.setattr(stacked.models, "often_enough", lambda seconds: 3)
    row = stacked.over_one_by_one("vmapped", 4, 2)("row")
    assert row["n"] == 3 and row["median"] > 0 and row["unit"] == "times the speed"
