"""Projectors: where channels differ, trained or fixed, and never a part of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses
from augjax.losses.signals import maps_of
from losses.scene import at_work, jit, KEY, scene

TAPS = ("f1", "f2", "f3")


def pairs(teacher):
    return maps_of(scene(), "student", teacher, TAPS, TAPS, "test")


@pytest.mark.parametrize("project", ["none", "student", "teacher"])
def test_equal_channels_need_no_projector(project):
    made = losses.projector(project, "test")
    assert made.init(KEY, pairs("teacher")) == ({}, {})
    for tap, both in made.apply({}, {}, pairs("teacher")).items():
        jax.tree.map(np.testing.assert_array_equal, both, pairs("teacher")[tap])


def test_the_student_is_projected_by_parameters():
    made = losses.projector("student", "test")
    params, state = jit(made.init)(KEY, pairs("wide"))
    assert {tap: part["kernel"].shape for tap, part in params.items()} == {
        "f1": (3, 4), "f2": (5, 6), "f3": (4, 2)} and state == {}
    for tap, (f_s, f_t) in made.apply(params, state, pairs("wide")).items():
        was_s, was_t = pairs("wide")[tap]
        np.testing.assert_allclose(f_s, was_s @ params[tap]["kernel"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(f_t, was_t)


def test_the_teacher_is_projected_by_a_fixed_orthogonal_matrix():
    made = losses.projector("teacher", "test")
    params, state = jit(made.init)(KEY, pairs("wide"))
    assert params == {}
    for tap, (f_s, f_t) in made.apply(params, state, pairs("wide")).items():
        assert f_s.shape == f_t.shape
        kernel = state[tap]["kernel"]  # teacher's -> student's channels
        gram = kernel @ kernel.T if kernel.shape[0] < kernel.shape[1] else kernel.T @ kernel
        np.testing.assert_allclose(gram, np.eye(min(kernel.shape)), atol=1e-5)
    f_s, f_t = pairs("wide")["f1"]
    pull = jax.grad(lambda f_t: sum(f.sum() for f in made.apply(
        params, state, {"f1": (f_s, f_t)})["f1"]))(f_t)
    assert not pull.any()


def test_only_those_that_differ_are_projected():
    one = {"f1": pairs("wide")["f1"], "f2": pairs("teacher")["f2"]}
    assert list(losses.projector("student", "test").init(KEY, one)[0]) == ["f1"]


@pytest.mark.parametrize("build", [losses.kd_svd, losses.mhgd])
def test_a_projector_trains_with_its_term_and_is_no_part_of_the_network(build):
    """Its kernels lie among the term's parameters, and each of them feels a gradient."""
    term = build(taps=TAPS[:2], teacher_taps=TAPS[:2], teacher="wide", project="student")
    params, state = at_work(term, scene())
    pull = jit(jax.grad(lambda params: term.apply(params, state, scene(), KEY)[0]))(params)
    leaves = jax.tree.leaves(pull)
    assert len(leaves) == 2 and all(jnp.abs(leaf).max() > 1e-6 for leaf in leaves)


def test_an_unknown_kind_is_refused():
    with pytest.raises(check.ConfigError, match="project of kd_svd: .*'student', 'teacher', got"):
        losses.kd_svd(project="both")
