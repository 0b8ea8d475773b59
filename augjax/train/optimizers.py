"""Optimisers told their learning rate at each update, so that a schedule compiles nothing.

Three are the house's own, after the code of the papers; every other one is optax's, by its name.
"""

from collections.abc import Callable, Mapping
import inspect
from typing import Any

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
        decay: tuple[str, ...] = ("*",), clip_norm: float = 0.0) -> Optimizer:
    """SGD as PyTorch and TF have it: the momentum gathers gradients, the rate comes last.

    `weight_decay`, `decay` and `clip_norm` as in `regularised`.
    """
    return optax.chain(
        regularised(weight_decay, decay, clip_norm), optax.trace(momentum, nesterov),
        scale_by_learning_rate(),
    )


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
         decay: tuple[str, ...] = ("*",), clip_norm: float = 0.0) -> Optimizer:
    """Adam; L2 joins the gradient, as in PyTorch's Adam (`from_optax("adamw")` decouples it).

    `weight_decay`, `decay` and `clip_norm` as in `regularised`.
    """
    return optax.chain(
        regularised(weight_decay, decay, clip_norm), optax.scale_by_adam(b1, b2, eps),
        scale_by_learning_rate(),
    )


def rmsprop_tf(rho: float = 0.9, momentum: float = 0.9, eps: float = 1e-3,
               weight_decay: float = 0.0, decay: tuple[str, ...] = ("*",), clip_norm: float = 0.0
               ) -> Optimizer:
    """RMSProp in TensorFlow's form, EfficientNet's optimiser: w <- w - mom, with

        ms  <- rho ms + (1 - rho) g^2                       ms begins at 1
        mom <- momentum mom + learning_rate g / sqrt(ms + eps)

    The rate stands inside the momentum: a change of it is felt gradually.
    `weight_decay`, `decay` and `clip_norm` as in `regularised`. Source: spec M3 (tensorflow/tpu,
    efficientnet/utils.py).
    """
    return optax.chain(
        regularised(weight_decay, decay, clip_norm),
        optax.scale_by_rms(rho, eps, initial_scale=1.0, eps_in_sqrt=True),
        scale_by_learning_rate(), optax.trace(momentum),
    )


def regularised(weight_decay: float, decay: tuple[str, ...], clip_norm: float
                ) -> optax.GradientTransformation:
    """The gradient of the loss with L2, then no longer than `clip_norm` over all parameters.

    weight_decay  times the parameter joins its gradient (the loss has weight_decay / 2 ||w||^2)
    decay         globs: L2 on the parameters whose path ("nets/student/head/kernel") fits one
    clip_norm     largest norm of the gradient of all parameters together; 0 clips nothing

    The clip sees the L2 part because the cost of the AutoAugment and PBA code holds it
    (arcelien/pba, pba/model.py: `decay_weights`, then `clip_by_global_norm`); so what lies under
    a mask counts in that norm by its L2. PyTorch's habit, L2 after the clip, is
    `optax.chain(optax.clip_by_global_norm(5.0), sgd(weight_decay=5e-4))`.

    Raises ConfigError for a negative number, and at `init` for a glob that names no parameter.
    """
    check.require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay, "use 0 for none")
    l2 = optax.add_decayed_weights(weight_decay, _mask(decay)) if weight_decay else optax.identity()
    return optax.chain(l2, _clipped(clip_norm))


def _clipped(norm: float) -> optax.GradientTransformation:
    check.require(norm >= 0, "clip_norm", "at least 0", norm, "use 0 for no clip")
    return optax.clip_by_global_norm(norm) if norm else optax.identity()


def _mask(patterns: tuple[str, ...]) -> Callable[[Any], Any]:
    """From parameters to bools: which of them decay."""

    def mask(params):
        # What rests in this phase is a MaskedNode here; a glob may name it.
        paths = jax.tree_util.tree_leaves_with_path(params, is_leaf=_masked)
        names = [tree.path_of(keys) for keys, _ in paths]
        for glob in patterns:
            check.require(
                any(tree.matches(name, (glob,)) for name in names), "optimizer.decay",
                "globs that each name a parameter, such as " + ", ".join(sorted(names)[:3]),
                repr(glob), "correct it or leave it out")
        return tree.map_with_path(lambda path, leaf: tree.matches(path, patterns), params)

    return mask


def _masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def of_moving(optimizer: Optimizer, trains: tuple[str, ...]) -> Optimizer:
    """The same optimiser for the parameters that `trains` names; the others it never sees.

    What rests has no momentum, and neither its L2 nor its size counts in a norm over all.
    """
    if "*" in trains:
        return optimizer
    return optax.masked(optimizer, lambda params: tree.map_with_path(
        lambda path, leaf: tree.matches(path, trains), params))


# --- optax's own, by name ------------------------------------------------------------------------

# These cannot follow a rate that they are told: they ask for the loss as well (lbfgs, momo, sophia,
# schedule_free), draw noise from a key of their own (noisy_sgd, dpsgd), or take no schedule.
_UNFIT = ("lbfgs", "momo", "momo_adam", "sophia", "schedule_free", "schedule_free_adamw",
          "schedule_free_sgd", "noisy_sgd", "dpsgd", "rprop", "sm3", "optimistic_adam")


def _of_optax() -> dict[str, Callable[..., optax.GradientTransformation]]:
    named = {**vars(optax.contrib), **vars(optax)}
    return {
        name: made for name, made in sorted(named.items())
        if inspect.isfunction(made) and not name.startswith(("_", "scale_by_"))
        and name not in _UNFIT and "learning_rate" in inspect.signature(made).parameters
    }


OPTAX = _of_optax()  # {name: function of a learning rate and options}, contributed ones too


def from_optax(kind: str, options: Mapping[str, Any] | None = None, weight_decay: float = 0.0,
               decay: tuple[str, ...] = ("*",), clip_norm: float = 0.0) -> Optimizer:
    """optax's optimiser `kind` (adamw, lamb, lion, ...), with the rate that each update is told.

    The rate goes to optax's own builder inside the update, so it acts wherever that optimiser has
    it: after LAMB's trust ratio, inside the momentum of LARS.

    options       of optax's builder, over its defaults: b1, b2, eps, momentum, ...
    weight_decay  the optimiser's own where it has one (decoupled in adamw, lamb, lion; muon's on
                  its matrices and on the rest); L2 in the gradient, as in `regularised`, elsewhere
    decay         globs of the parameters that decay
    clip_norm     as in `regularised`, before all that the optimiser does

    Raises ConfigError for an unknown kind or option, for values that optax refuses, and for globs
    where the optimiser decays all parameters alike.
    """
    builder, options = OPTAX[check.one_of("optimizer.kind", kind, OPTAX)], dict(options or {})
    known = inspect.signature(builder).parameters
    own = [name for name in known if name.endswith(("weight_decay", "weight_decay_rate"))]
    masks = [name for name in ("mask", "weight_decay_mask") if name in known]
    for name in options:
        check.one_of(f"option of {kind}", name, {*known} - {"learning_rate", *own, *masks})
    _try(kind, builder, options)
    check.require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay, "use 0 for none")
    check.require(
        not weight_decay or len(masks) >= len(own) or tuple(decay) == ("*",), "optimizer.decay",
        f"('*',), as {kind} decays every parameter", decay, "choose another kind")
    before = _clipped(clip_norm) if own else regularised(weight_decay, decay, clip_norm)
    options |= dict.fromkeys(own, weight_decay)
    options |= dict.fromkeys(masks, _mask(decay)) if weight_decay else {}

    def init(params):
        return builder(learning_rate=0.0, **options).init(params)

    def update(updates, state, params=None, *, learning_rate, **unused):
        del unused
        rate = jnp.asarray(learning_rate, jnp.float32)
        return builder(learning_rate=rate, **options).update(updates, state, params)

    return optax.chain(before, optax.GradientTransformationExtraArgs(init, update))


def _try(kind: str, builder: Callable[..., Any], options: dict[str, Any]) -> None:
    """Traces an update of one small matrix, so that what optax refuses is told at once."""

    def update(params):
        made = builder(learning_rate=0.1, **options)
        return made.update(params, made.init(params), params)

    try:
        jax.eval_shape(update, {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)})
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise check.ConfigError(check.sentence(
            f"options of {kind}", "values that optax takes", f"{options}: "
            + str(error).splitlines()[0].rstrip("."), "correct them")) from error


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": sgd, "adam": adam, "rmsprop_tf": rmsprop_tf}
