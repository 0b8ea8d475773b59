"""From one gradient per term to the gradient the optimiser sees."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from augjax import check
from augjax.types import Knobs, PyTree

Pullback = Callable[[Mapping[str, jax.Array]], PyTree]  # {term: [] float32} -> gradient of params
Combine = Callable[[Pullback, Mapping[str, jax.Array], Knobs], PyTree]
LAMBDA_MODES = ("after_clip", "before_clip", "ignored")


def weighted_sum(pullback: Pullback, losses: Mapping[str, jax.Array], knobs: Knobs) -> PyTree:
    """The gradient of the weighted sum of the terms: the pullback of the weights.

    Args:
      pullback: {term: [] float32} -> the gradient of the terms so weighted, a tree like params.
      losses: {term: [] float32}; their names alone count.
      knobs: `weights` of the same names.
    """
    return pullback(_weights(losses, knobs))


def clipped(task: tuple[str, ...] = ("ce",), lambda_mode: str = "after_clip") -> Combine:
    """Every network parameter's distillation gradient, cut to the length of its task gradient.

    For each variable separately, with the epoch e = 0, 1, ...:

        g = g_task + lambda clip(g_kd, ||g_task|| s(e))          s(e) = 1 / (1 + exp(-e))

    clip(g, c) is g, or g c / ||g|| where that is shorter; c = 0 leaves nothing of it. Both come
    from one forward pass. Weight decay joins in the optimiser. Parameters of the terms themselves
    (projectors, embeddings, attention) take their own weighted gradient, uncut. With kd_svd and
    mhgd it may be thousands of times the networks': leave them none to train, project = "teacher".

    task         the terms of g_task, by their weights; all the others are g_kd
    lambda_mode  where their weights act. "after_clip": lambda is the largest of them and g_kd the
                 sum of the terms by weight / lambda, so that equal weights are lambda itself.
                 "before_clip": g_kd is the weighted sum, lambda 1; a clip that is nearly always
                 active leaves little of the weights. "ignored": g_kd is the plain sum, lambda 1
                 (the released code).

    Raises ConfigError for an unknown mode or no task, and at trace time for a task that is no term,
    for no other terms, and for knobs without a clock. Source: spec D6 (KD-SVD, role_wise_kd).
    """
    check.one_of("combine.lambda_mode", lambda_mode, LAMBDA_MODES)
    check.require(len(task) > 0, "combine.task", "at least one term", "none",
                  "name the term whose gradient is the measure, such as ce")

    def combine(pullback, losses, knobs):
        _check(task, losses, knobs)
        weights = _weights(losses, knobs)
        others = [name for name in losses if name not in task]
        zero = jnp.zeros((), jnp.float32)
        own, kd, lam = dict.fromkeys(losses, zero), dict.fromkeys(losses, zero), jnp.float32(1)
        own |= {name: weights[name] for name in task}
        if lambda_mode == "after_clip":
            lam = jnp.max(jnp.abs(jnp.stack([weights[name] for name in others])))
            kd |= {name: weights[name] / jnp.where(lam > 0, lam, 1) for name in others}
        else:
            one = lambda_mode == "ignored"
            kd |= {name: jnp.ones_like(zero) if one else weights[name] for name in others}
        cap = jax.nn.sigmoid(jnp.floor(jnp.asarray(knobs.clock.epoch, jnp.float32)))
        of_task, of_kd = pullback(own), pullback(kd)
        nets = jax.tree.map(
            lambda g, other: g + (lam * _cut(other, cap * _length(g))).astype(g.dtype),
            of_task["nets"], of_kd["nets"])
        back = {name: weights[name] if lambda_mode == "ignored" else lam for name in others}
        terms = {name: jax.tree.map(lambda g, other: g + back.get(name, zero) * other, *both)
                 for name, both in _beside(of_task["terms"], of_kd["terms"])}
        return {**of_task, "nets": nets, "terms": terms}

    return combine


def _weights(losses, knobs):
    return {name: jnp.asarray(knobs.weights[name], jnp.float32) for name in losses}


def _check(task, losses, knobs):
    for name in task:
        check.one_of("combine.task", name, losses)
    check.require(len(losses) > len(task), "combine.task", f"some of the terms {sorted(losses)}",
                  "all of them", "add a distillation term, or take weighted_sum")
    check.require(knobs.clock is not None, "knobs of a clipped combine", "a clock", "none",
                  "let the training loop make them")


def _beside(one, other):
    return ((name, (one[name], other[name])) for name in one)


def _length(g):
    return jnp.linalg.norm(g.astype(jnp.float32).ravel())


def _cut(g, longest):
    """g, or what is as long as `longest` and points its way."""
    length = _length(g)
    return g * jnp.minimum(1.0, longest / jnp.where(length > 0, length, 1))
