"""Optimisers told their learning rate at each update, so that a schedule compiles nothing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from augjax import check, tree

Optimizer = optax.GradientTransformationExtraArgs


def scale_by_learning_rate() -> Optimizer:
    """Multiplies by minus the `learning_rate` that the update is given."""

    def update(updates, state, params=None, *, learning_rate, **unused):
        del params, unused
        rate = jnp.asarray(learning_rate, jnp.float32)
        return jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def sgd(momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0,
        decay: tuple[str, ...] = ("*",)) -> Optimizer:
    """SGD as PyTorch has it: L2 joins the gradient before the momentum, the rate comes last."""
    return optax.chain(
        _decayed(weight_decay, decay), optax.trace(momentum, nesterov), scale_by_learning_rate()
    )


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
         decay: tuple[str, ...] = ("*",)) -> Optimizer:
    """Adam; L2 joins the gradient, as in PyTorch's Adam (not AdamW)."""
    return optax.chain(
        _decayed(weight_decay, decay), optax.scale_by_adam(b1, b2, eps), scale_by_learning_rate()
    )


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": sgd, "adam": adam}


def _decayed(weight_decay: float, patterns: tuple[str, ...]) -> optax.GradientTransformation:
    """L2 on the parameters whose path ("nets/student/head/kernel") fits a pattern."""
    check.require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay, "use 0 for none")
    if weight_decay == 0:
        return optax.identity()

    def mask(params):
        return tree.map_with_path(lambda path, leaf: tree.matches(path, patterns), params)

    return optax.add_decayed_weights(weight_decay, mask)
