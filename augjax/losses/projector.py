"""Maps of other widths brought together: projectors that train with their term and stay behind."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.precise import in_float32, product
from augjax.types import Params, PyTree

PROJECTS = ("none", "student", "teacher")
Pairs = Mapping[str, tuple[jax.Array, jax.Array]]  # {tap: (student's map, teacher's map)}


class Projector(NamedTuple):
    """Two pure functions around the maps of a term.

    init(key, pairs) -> (params, state)
    apply(params, state, pairs) -> pairs, float32, of equal channels, the teacher's without gradient
    """

    init: object
    apply: object


def projector(project: str, loss: str) -> Projector:
    """Brings the channels of every pair of maps together.

    "none": they must be equal. "student": where they differ, a trained 1x1 convolution without
    bias, student -> teacher. "teacher": there, a fixed random projection, teacher -> student, with
    orthonormal rows or columns; it is state, not a parameter.

    Under the combine `clipped` take "teacher": it cuts no gradient of a term's parameters, and
    those of KD-SVD and MHGD, sums with 1 / (gap of singular values) in them, have thrown trained
    convolutions away in one step (figures in configs/cifar/role_wise_pairs.py).

    Raises ConfigError, naming `loss`, for an unknown kind, and when initialised or traced for
    channels that differ under "none". Source: spec D13.
    """
    check.one_of(f"project of {loss}", project, PROJECTS)

    def init(key: jax.Array, pairs: Pairs) -> tuple[Params, PyTree]:
        kernels = {}
        for number, (tap, (f_s, f_t)) in enumerate(pairs.items()):
            shape = (f_s.shape[-1], f_t.shape[-1])
            _fits(project, loss, tap, shape)
            if shape[0] == shape[1]:
                continue
            own_key = jax.random.fold_in(key, number)
            if project == "student":
                made = jax.nn.initializers.he_normal()(own_key, shape, jnp.float32)
            else:
                made = jax.nn.initializers.orthogonal()(own_key, shape[::-1], jnp.float32)
            kernels[tap] = {"kernel": made}
        return (kernels, {}) if project == "student" else ({}, kernels)

    def apply(params: Params, state: PyTree, pairs: Pairs) -> Pairs:
        together = {}
        for tap, (f_s, f_t) in pairs.items():
            _fits(project, loss, tap, (f_s.shape[-1], f_t.shape[-1]))
            f_s, f_t = in_float32(f_s), jax.lax.stop_gradient(in_float32(f_t))
            if tap in params:
                f_s = product("rhwc,cd->rhwd", f_s, params[tap]["kernel"])
            elif tap in state:
                f_t = product("rhwc,cd->rhwd", f_t, state[tap]["kernel"])
            together[tap] = (f_s, f_t)
        return together

    return Projector(init, apply)


def _fits(project, loss, tap, channels):
    check.require(
        project != "none" or channels[0] == channels[1], f"channels of tap {tap!r} in {loss}",
        f"the teacher's {channels[1]}", channels[0],
        "choose other taps, or project = student or teacher")
