"""FitNets' hint: the teacher's map itself, through a regressor that is left behind afterwards."""

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.precise import in_float32
from augjax.losses.signals import maps_of
from augjax.types import Signals, Term, stateless

EPS = 1e-5  # of BatchNorm


def hint(
    tap: str = "f2",
    teacher_tap: str = "f2",
    regressor: bool = True,
    student: str = "student",
    teacher: str = "teacher",
) -> Term:
    """Mean squared difference of the teacher's map and the regressed student's; weight 100.

    The regressor is a convolution to the teacher's channels, BatchNorm over the batch, and ReLU:
    1x1 for maps of one size, 3x3 with stride 2 from twice the size, 4x4 transposed with stride 2
    from half of it, and without padding from any other larger size. It trains with the term and is
    no part of the student. Without one the maps must have one shape.

    Raises ConfigError when initialised or traced: an unknown net or tap, no map, or sizes that the
    regressor does not bring together. Source: spec D12 (Romero et al. 2015; RepDistiller).
    """

    def pair(signals):
        pairs = maps_of(signals, student, teacher, (tap,), (teacher_tap,), "hint")
        return pairs[tap]

    def plain(signals: Signals) -> jax.Array:
        f_s, f_t = pair(signals)
        check.require(f_s.shape == f_t.shape, "maps of hint", f"one shape, {f_t.shape}", f_s.shape,
                      "take another tap, or a regressor")
        return _squares(f_s, f_t).mean()

    if not regressor:
        return stateless(plain, per_example=True)

    def init(key, signals):
        f_s, f_t = pair(signals)
        kernel, _ = _geometry(f_s.shape, f_t.shape)
        shape = (*kernel, f_s.shape[-1], f_t.shape[-1])
        width = jnp.ones((f_t.shape[-1],), jnp.float32)
        made = jax.nn.initializers.he_normal()(key, shape, jnp.float32)
        return {"kernel": made, "scale": width, "bias": 0 * width}, {}

    def apply(params, state, signals, key):
        f_s, f_t = pair(signals)
        return _squares(regressed(params, f_s, f_t.shape), f_t).mean(), state

    return Term(init, apply)


def regressed(params: dict[str, jax.Array], f_s: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The student's map as the teacher's: [R, H, W, D] -> `shape`, float32, ReLU at the end."""
    _, convolve = _geometry(f_s.shape, shape)
    x = in_float32(f_s)
    x = convolve(x, params["kernel"].astype(x.dtype))
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    x = (x - mean) / jnp.sqrt(var + EPS)
    return jax.nn.relu(x * params["scale"] + params["bias"])


def _squares(f_s, f_t):
    return (in_float32(f_s) - jax.lax.stop_gradient(in_float32(f_t))) ** 2


def _geometry(small, wanted):
    """((height, width) of the kernel, the convolution) between two shapes [R, H, W, D]."""
    (h, w), (th, tw) = small[1:3], wanted[1:3]
    numbers = ("NHWC", "HWIO", "NHWC")
    if (h, w) == (2 * th, 2 * tw):
        size, stride, padding = (3, 3), (2, 2), [(1, 1), (1, 1)]
    elif (2 * h, 2 * w) == (th, tw):
        return (4, 4), lambda x, kernel: jax.lax.conv_transpose(
            x, kernel, (2, 2), [(2, 2), (2, 2)], dimension_numbers=numbers)
    else:
        check.require(h >= th and w >= tw, "size of the student's map in hint",
                      f"{(th, tw)}, half of it, or more", (h, w), "take another tap")
        size, stride, padding = (1 + h - th, 1 + w - tw), (1, 1), "VALID"
    return size, lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, stride, padding, dimension_numbers=numbers)
