"""KD-SVD: reference values, signs, equal singular values, empty maps, devices."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from augjax import check, losses, train
from augjax.losses.svd import compressed, relation_rows, singular_vectors
from losses.scene import drawn, jit, MAPS_S, MAPS_T, scene, value

PAIRS = {"a": (MAPS_S[0], MAPS_T[0]), "b": (MAPS_S[1], MAPS_T[1])}


def by_numpy(pairs, signs=(1, 1), vectors=1):
    """kd_svd_rows in float64 from numpy's SVD; `signs` of the leading vectors' sums, tap by tap."""
    taps = []
    for (f_s, f_t), sign in zip(pairs.values(), signs):
        (_, _, rows_s), (_, size, rows_t) = (
            np.linalg.svd(np.asarray(f, float).reshape(len(f), -1, f.shape[-1]), False)
            for f in (f_s, f_t))
        v_s, v_t = (np.swapaxes(rows, 1, 2) for rows in (rows_s[:, : vectors + 3],
                                                         rows_t[:, :vectors]))
        v_t = v_t * np.where(v_t.sum(1, keepdims=True) * sign < 0, -1, 1)
        cosine = np.swapaxes(v_s, 1, 2) @ v_t
        most = np.abs(cosine) == np.abs(cosine).max(1, keepdims=True)
        size = size[:, :vectors] / np.linalg.norm(size[:, :vectors], axis=1, keepdims=True)
        taps.append([v * size[:, None] for v in (v_s @ (most * np.sign(cosine)), v_t)])
    relations = [np.exp(-((now[:, :, None] - then[:, None]) ** 2) / 8)
                 for then, now in zip(*taps)]
    return np.sum((relations[0] - relations[1]) ** 2, (1, 2, 3))


@pytest.mark.parametrize("vectors", [1, 2])
def test_the_value_is_that_of_numpys_svd(vectors):
    rows = jit(lambda pairs: losses.kd_svd_rows(pairs, vectors))(PAIRS)
    np.testing.assert_allclose(rows, by_numpy(PAIRS, vectors=vectors), rtol=1e-3, atol=1e-6)


def test_the_reference_value_has_the_taps_signed_oppositely():
    """Spec D15's 0.0232955: LAPACK signed one tap's leading vectors -, the other's +."""
    assert by_numpy(PAIRS, (1, -1)).mean() == pytest.approx(0.0232955, abs=1e-6)
    taps = jit(lambda pairs: [compressed(*pair, 1)[:2] for pair in pairs.values()])(PAIRS)
    turned = [-v for v in taps[1]]
    assert float(relation_rows(turned, taps[0]).mean()) == pytest.approx(0.0232955, rel=1e-4)
    assert float(relation_rows(taps[1], taps[0]).mean()) == pytest.approx(0.0044397, rel=1e-4)
    assert float(jit(losses.kd_svd_rows)(PAIRS).mean()) == pytest.approx(0.0044397, rel=1e-4)


def test_a_mean_and_a_sum_over_rows():
    found = [float(value(losses.kd_svd(reduction=kind), scene())) for kind in ("mean", "sum")]
    assert found[1] == pytest.approx(6 * found[0], rel=1e-6)


@pytest.mark.parametrize("tap", ["f1", "f2", "f3"])
def test_singular_vectors_of_tall_wide_and_square_maps(tap):
    f = drawn().features[tap]
    v, size, there = jit(lambda f: singular_vectors(f, 9))(f)  # as many as there are
    x = np.asarray(f, float).reshape(len(f), -1, f.shape[-1])
    rank = min(x.shape[1:])
    assert v.shape == (6, x.shape[2], rank) and size.shape == (6, rank) and there.all()
    np.testing.assert_allclose(size, np.linalg.svd(x, compute_uv=False), rtol=1e-3)
    np.testing.assert_allclose(jnp.swapaxes(v, 1, 2) @ v, np.tile(np.eye(rank), (6, 1, 1)),
                               atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(x @ v, axis=1), size, rtol=1e-3)
    assert (v.sum(1) >= 0).all()


def test_an_empty_map_and_a_map_of_rank_one():
    f = np.array(drawn().features["f1"])
    f[0] = 0
    f[1] = np.arange(16).reshape(4, 4, 1) * [1.0, 2.0, 2.0]
    v, size, there = jit(lambda f: singular_vectors(f, 3))(f)
    assert there.tolist() == [False] + 5 * [True]
    assert not v[0].any() and not size[0].any()
    np.testing.assert_allclose(v[1], np.array([[1, 0, 0], [2, 0, 0], [2, 0, 0]]) / 3, atol=1e-5)
    rows = jit(losses.kd_svd_rows)(
        {"a": (f, f[::-1]), "b": (MAPS_S[1][[0, 1, 2, 3, 0, 1]],) * 2})
    assert rows[0] == rows[5] == 0 and rows[2:4].all()  # one side is enough


def test_the_size_of_a_map_does_not_matter():
    f = drawn().features["f1"]
    of = jit(lambda f: singular_vectors(f, 3)[0])
    vectors = [of(scale * f) for scale in (1.0, 1e-25, 1e25)]
    for other in vectors[1:]:
        np.testing.assert_allclose(other, vectors[0], atol=1e-4)


def test_a_map_with_equal_singular_values_has_a_finite_gradient():
    flat = jnp.tile(jnp.eye(4).reshape(1, 2, 2, 4), (6, 1, 1, 1))
    signals = scene()

    @jit
    def pull(f):
        maps = {tap: (f, signals.outputs["teacher"].features["f3"]) for tap in "ab"}
        return jax.value_and_grad(lambda f: losses.kd_svd_rows(
            {**maps, "b": (f, maps["b"][1])}).sum())(f)

    worth, found = pull(flat)
    assert jnp.isfinite(worth) and jnp.isfinite(found).all()


def test_every_device_decomposes_its_own_rows():
    cut = NamedSharding(train.sharding.make_mesh(), PartitionSpec("data"))
    like = [jax.ShapeDtypeStruct((16, *size), jnp.float32, sharding=cut)
            for size in ((4, 4, 3), (2, 2, 5))]

    def worth(*maps):
        return losses.kd_svd_rows({"a": (maps[0], maps[0]), "b": (maps[1], maps[1])}).mean()

    assert "all-gather" not in jit(jax.grad(worth)).lower(*like).compile().as_text()


def test_what_is_wrong_is_refused():
    with pytest.raises(check.ConfigError, match="'mean', 'sum', got 'max'"):
        losses.kd_svd(reduction="max")
    with pytest.raises(check.ConfigError, match="vectors of kd_svd"):
        losses.kd_svd(vectors=0)
