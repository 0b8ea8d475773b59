"""Leading eigenvectors: beside numpy's, derivatives, equal eigenvalues, every kind of device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import losses
from augjax.losses.eigen import _tournament, by_eigh, by_iteration, jacobi, leading_eigenvectors
from losses.scene import jit


def gram(size, places=60, count=3, seed=0):
    """Of maps after ReLU with some structure: [count, size, size] float32."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, places, 5)) @ draw.normal(size=(count, 5, size))
    x = np.maximum(x + draw.normal(size=x.shape), 0)
    return (np.swapaxes(x, 1, 2) @ x / places).astype(np.float32)


def of_spectrum(values, seed=1):
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))
    return basis, jnp.asarray((basis * values) @ basis.T, jnp.float32)


@pytest.mark.parametrize("size", [1, 2, 5, 16, 40])
def test_the_leading_vectors_are_numpys(size):
    a, count = gram(size), min(size, 4)
    values, vectors = jit(lambda a: leading_eigenvectors(a, count))(a)
    true, basis = (x[..., ::-1][..., :count] for x in np.linalg.eigh(a.astype(float)))
    np.testing.assert_allclose(values, true, rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(vectors * basis, 1)), 1, atol=1e-5)
    np.testing.assert_allclose(np.swapaxes(vectors, 1, 2) @ vectors,
                               np.broadcast_to(np.eye(count), (3, count, count)), atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 7, 12])
def test_jacobi_finds_all_of_them(size):
    a = gram(size)
    values, vectors = jit(jacobi)(a)
    rounding = 2 * size * np.finfo(np.float32).eps * np.linalg.norm(a, 2, (1, 2)).max()
    np.testing.assert_allclose(np.einsum("bnk,bk,bmk->bnm", vectors, values, vectors), a,
                               rtol=0, atol=rounding)
    np.testing.assert_allclose(np.swapaxes(vectors, 1, 2) @ vectors,
                               np.broadcast_to(np.eye(size), a.shape), atol=1e-5)
    assert (np.diff(values) <= 0).all()


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_in_a_tournament_all_meet_once(size):
    rounds = _tournament(size)
    assert (rounds == np.swapaxes(rounds, 1, 2)).all() and (rounds.sum(1) == 1).all()
    met = rounds.sum(0)
    np.testing.assert_array_equal(met[~np.eye(size, dtype=bool)], 1)


def test_the_devices_own_library_says_the_same():
    a = gram(20, count=1)[0]
    for one, other in zip(by_eigh(a, 3), jit(lambda a: by_iteration(a, 11))(a)):
        other = other[..., :3] * np.sign(np.sum(one * other[..., :3], 0))
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("size", [5, 24])
def test_the_derivative_is_that_of_finite_differences(size):
    """float64; above 16 most of it comes from conjugate gradients."""
    with jax.enable_x64(True):
        draw = np.random.default_rng(3)
        a, way, w = (jnp.asarray(x) for x in (gram(size).astype(float), draw.normal(
            size=(3, size, size)), draw.normal(size=(3, size, 3))))

        def along(length):
            b = a + length * (way + jnp.swapaxes(way, 1, 2))
            vectors = leading_eigenvectors(b, 3)[1]
            signs = jax.lax.stop_gradient(jnp.sign(vectors[:, :1]))
            return jnp.sum(vectors * signs * w)

        step = 1e-5
        worth, slope = jit(jax.vmap(jax.value_and_grad(along)))(np.array([-step, 0, step]))
        assert float(slope[1]) == pytest.approx(float((worth[2] - worth[0]) / (2 * step)), rel=1e-5)


def test_equal_eigenvalues_have_a_finite_derivative():
    """Of equal and of nearly equal ones; along a turn among equals it is zero."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32))
    pull = jit(lambda a: jax.grad(lambda a: jnp.sum(leading_eigenvectors(a, 2)[1] * w))(a))
    for values in ([3, 3, 3, 3], [0, 0, 0, 0], [3, 3, 1, 0], [3, 3 - 1e-6, 1, 1], [3, 2.99, 1, 0]):
        basis, a = of_spectrum(values)
        found = pull(a)
        assert jnp.isfinite(found).all()
        if len(set(values)) == 1:
            assert not found.any()
        if values == [3, 3, 1, 0]:
            turn = basis[:, :2].T @ np.asarray(found) @ basis[:, :2]
            np.testing.assert_allclose(turn, 0, atol=1e-5)


@pytest.mark.parametrize("spectrum", ["flat", "zero", "one", "flat beyond"])
def test_large_matrices_without_order_are_finite(spectrum):
    """All equal, nothing, a single vector, and equal ones that are not among those kept."""
    values = np.ones(24) * {"flat": 1, "zero": 0, "one": 0, "flat beyond": 1}[spectrum]
    values[0] += {"one": 2, "flat beyond": 2}.get(spectrum, 0)
    basis, a = of_spectrum(values)
    w = jnp.asarray(np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32))

    def worth(a):
        found = leading_eigenvectors(a, 3)
        return jnp.sum(found[1] * w), found

    (_, (found, vectors)), pull = jit(jax.value_and_grad(worth, has_aux=True))(a)
    assert jnp.isfinite(vectors).all() and jnp.isfinite(pull).all()
    np.testing.assert_allclose(found, values[:3], atol=1e-5)
    if values[0] > values[1]:
        assert abs(float(vectors[:, 0] @ basis[:, 0])) == pytest.approx(1, abs=1e-5)


def test_a_cpu_is_not_asked_for_lapack_and_other_devices_for_their_own():
    """Two batched calls at once hang jax 0.10.2 where they fill the thread pool."""
    like = jax.ShapeDtypeStruct((64, 8, 8, 32), jnp.float32)
    traced = jax.jit(jax.grad(lambda f: losses.kd_svd_rows(
        {"a": (f, f), "b": (f[..., ::-1], f)}).sum())).trace(like)
    for platform, library in (("cpu", None), ("tpu", "Eigh"), ("cuda", "cusolver_syevd_ffi")):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        calls = {word.split("(")[0] for word in text.split("custom_call @")[1:]}
        assert calls == ({library} if library else set())
