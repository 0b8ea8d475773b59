"""Attention transfer: reference values, maps of other sizes and channels."""

import jax.numpy as jnp
import numpy as np
import pytest

from augjax import losses
from losses.scene import MAPS_S, MAPS_T, scene, value


def test_reference_values():  # spec D15
    for f_s, f_t, expected in zip(MAPS_S, MAPS_T, (0.0678008, 0.1645864)):
        rows = losses.attention_rows(f_s, f_t)
        assert rows.shape == (4,) and float(rows.mean()) == pytest.approx(expected, rel=1e-5)


def test_taps_are_summed_and_channels_may_differ():
    signals = scene()
    said = signals.outputs
    expected = sum(losses.attention_rows(said["student"].features[tap], said["wide"].features[tap])
                   .mean() for tap in ("f1", "f2", "f3"))
    assert float(value(losses.attention(teacher="wide"), signals)) == pytest.approx(
        float(expected), rel=1e-6)


def test_only_where_a_map_is_large_matters():
    f = MAPS_S[0]
    np.testing.assert_allclose(losses.attention_rows(3 * f, jnp.concatenate([f, f], -1)), 0,
                               atol=1e-12)


@pytest.mark.parametrize("height, width", [(2, 2), (4, 2)])
def test_the_larger_map_is_averaged_down(height, width):
    """By blocks, whoever it belongs to."""
    def blocks(f):
        return f.reshape(4, height, 4 // height, width, 4 // width, 3).mean((2, 4))

    f_s, f_t = MAPS_S[0], MAPS_T[0]
    expected = losses.attention_rows(blocks(f_s), blocks(f_t))
    for pair in ((f_s, blocks(f_t)), (blocks(f_s), f_t)):
        np.testing.assert_allclose(losses.attention_rows(*pair), expected, rtol=1e-4)
