"""DoReFa (Zhou et al. 2016): weights and activations of k bits, with straight-through gradients.

The weights stay as they are; `dorefa` shows the network quantised ones. What its layers read is
quantised by the network itself, with `quantise_activations` for its hook.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check, tree
from augjax.compress.mask import mask, prunable
from augjax.types import Params, Transform

Bits = dict[str, jax.Array]  # {"bits": [] int32}

FULL = 32  # bits at which nothing is quantised
STEPS = (2.0 ** np.arange(FULL + 1) - 1).astype(np.float32)  # [k]: 2^k - 1, between 2^k levels
SMALLEST = 1e-12  # of max|tanh w|; a kernel below it counts as all zero


def dorefa(full_precision: Sequence[str], nets: Sequence[str] = ("student",)) -> Transform:
    """Shows the convolution and linear weights of the networks named in k bits.

    Of the weights w of one layer, max and mean over the whole layer:

        k >= 2   2 Q(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1, Q(r) = round((2^k - 1) r) / (2^k - 1)
        k = 1    sign(w) mean|w|, sign(0) = +1
        k = 32   w

    Gradients: `round` passes its own on, tanh and the maximum are differentiated; of 1 bit it is
    the identity. There is no level at 0, so pruned weights need `within_mask`. A layer whose
    weights are all 0 stays as it is.

    State: {"bits": [] int32}, 32 right after `init` (the identity), set by `set_bits`. It is
    data: networks of any number of bits share one compiled program.

    Args:
      full_precision: globs of a network's parameter paths that are never quantised,
        `models.FULL_PRECISION` for the networks of the zoo.
      nets: names of the networks; others pass through untouched.

    Raises ConfigError if a network is missing, has no weights to quantise, or if a glob fits none
    of its weights. Source: role_wise_kd Eqs. 7-9, spec C6.
    """
    full_precision = tuple(full_precision)

    def init(params: Mapping[str, Params]) -> Bits:
        _quantised_paths(params, nets, full_precision)
        return {"bits": jnp.int32(FULL)}

    def apply(params: Mapping[str, Params], state: Bits) -> Mapping[str, Params]:
        return _shown(params, state["bits"], _quantised_paths(params, nets, full_precision), {})

    return Transform(init, apply)


def set_bits(state: Bits, bits: int) -> Bits:
    """The state of `dorefa` at `bits` bits, 1 to 32. Raises ConfigError for others."""
    return {"bits": jnp.full_like(state["bits"], _checked(bits))}


def within_mask(full_precision: Sequence[str], nets: Sequence[str] = ("student",)) -> Transform:
    """`dorefa` between two applications of one mask, as if the kept weights were all of a layer.

    The first hides pruned weights from the maximum, and the mean of 1 bit is over those kept; the
    second keeps the pruned ones at 0, where DoReFa has no level. Neither they nor what lies under
    them gets a gradient. Arguments and errors as of `dorefa`.

    State: {"mask": that of `mask(nets)`, "dorefa": that of `dorefa`}, as of a chain of them.
    Source: DESIGN section 2 (mask after fake-quant), spec C2 and C6.
    """
    hidden, quantiser = mask(nets), dorefa(full_precision, nets)

    def init(params):
        return {"mask": hidden.init(params), "dorefa": quantiser.init(params)}

    def apply(params, state):
        paths = _quantised_paths(params, nets, full_precision)
        kept = hidden.apply(params, state["mask"])
        seen = _shown(kept, state["dorefa"]["bits"], paths, state["mask"])
        return hidden.apply(seen, state["mask"])

    return Transform(init, apply)


def quantise_activations(bits: int) -> Callable[[jax.Array], jax.Array]:
    """What a layer reads in k bits: Q(clip(a, 0, 1)), for the hook of a network.

    The function keeps shape and type of its array and computes in float32; bfloat16 holds the
    levels of up to 8 bits apart. Its gradient is 1 in [0, 1] and 0 outside. 32 bits: the identity,
    without the clip.

    Args:
      bits: 1 to 32. Part of the program, unlike the bits of `dorefa`: a network is built with it.

    Raises ConfigError. Source: role_wise_kd Eq. 7, spec C6 and C7.
    """
    steps = STEPS[_checked(bits)]
    if bits == FULL:
        return lambda x: x

    def quantised(x: jax.Array) -> jax.Array:
        a = x.astype(jnp.float32)
        level = jnp.round(steps * jnp.clip(a, 0, 1)) * (1 / steps)
        latent = jnp.where((a >= 0) & (a <= 1), a, 0)  # jnp.clip has a gradient of 1/2 at 0 and 1
        return _straight_through(level, latent).astype(x.dtype)

    return quantised


def _shown(params, bits, paths, masks):
    """`params` with the weights at `paths` in `bits` bits; `masks` {path: bool} say which count."""

    def shown(path, leaf):
        if path not in paths:
            return leaf
        return _quantised(leaf, bits, masks[path].sum() if path in masks else leaf.size)

    return tree.map_with_path(shown, params)


def _quantised(weight, bits, count):
    """A layer's weights in `bits` [] int32 bits; `count` of them are there, the others 0."""
    w = weight.astype(jnp.float32)
    seen = jnp.where(bits == 1, _by_sign(w, count), _by_tanh(w, jnp.asarray(STEPS)[bits]))
    return jnp.where(bits == FULL, weight, seen.astype(weight.dtype))


def _by_tanh(w, steps):
    t = jnp.tanh(w)
    largest = jnp.abs(t).max()
    some = largest > SMALLEST
    v = t * (1 / jnp.where(some, largest, 1))  # in [-1, 1]
    # 2 Q(v / 2 + 1/2) - 1; its levels lie symmetrically, and are equal however it is compiled
    level = (2 * jnp.round(steps * (v / 2 + 0.5)) - steps) * (1 / steps)
    return jnp.where(some, _straight_through(level, v), w)


def _by_sign(w, count):
    size = jnp.abs(w).sum() / jnp.maximum(count, 1)
    return _straight_through(jnp.where(w >= 0, size, -size), w)


@jax.custom_jvp
def _straight_through(seen, latent):
    """`seen`, with the gradient of `latent`."""
    return seen


@_straight_through.defjvp
def _(primals, tangents):
    return primals[0], tangents[1]


def _quantised_paths(params, nets, full_precision):
    """{net/path} of the weights that are quantised."""
    paths = set()
    for net in nets:
        own = [path.removeprefix(f"{net}/") for path in prunable(params, (net,))]
        for glob in full_precision:
            check.require(
                any(tree.matches(path, (glob,)) for path in own), f"full_precision of {net!r}",
                f"globs that fit a weight, such as {own[0]!r}", repr(glob), "name its layers")
        kept = [path for path in own if not tree.matches(path, full_precision)]
        check.require(bool(kept), f"weights of {net!r} to quantise", "at least one layer's", "none",
                      f"choose a deeper network or fewer globs than {full_precision}")
        paths |= {f"{net}/{path}" for path in kept}
    return paths


def _checked(bits):
    check.require(bits in range(1, FULL + 1), "bits", f"a whole number from 1 to {FULL}", bits,
                  "2 and 4 are common; 32 is no quantiser")
    return int(bits)
