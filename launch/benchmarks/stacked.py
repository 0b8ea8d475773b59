"""Convolutions of a population's members: one by one, stacked by vmap, or as one block-diagonal.

`vmap` over images and kernels gives a grouped convolution, whose gradients XLA handles badly on
GPUs. A dense convolution with the members' kernels on its diagonal does P times the arithmetic in
one call that the hardware likes. Rows of the suites `compress` and `gpu`: forward and both
gradients of one 3x3 layer of 12 members.

Expected before measuring: on a CPU both lose, vmap some 3 times, the diagonal P times; on a GPU the
diagonal gains while P times the width is below some 256 channels, and then loses. What came on a
CPU at 16 channels: vmap 60 times slower than one by one, the diagonal 4 times.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from launch.benchmarks import measure, models

MEMBERS, KERNEL = 12, 3
LAYERS = {"16 channels at 32 pixels": (32, 16), "64 channels at 8 pixels": (8, 64)}  # ResNet-20's
NUMBERS = ("NHWC", "HWIO", "NHWC")


def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, C], [k, k, C, D] -> [B, H, W, D]."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)


def one_by_one(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """[P, B, H, W, C], [P, k, k, C, D] -> [P, B, H, W, D], as have the others."""
    return jnp.stack([convolved(own, kernel) for own, kernel in zip(x, kernels)])


def vmapped(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """One convolution with a group for each member."""
    return jax.vmap(convolved)(x, kernels)


def block_diagonal(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """One dense convolution over the channels of all members, zero between two of them."""
    members, size, _, channels, features = kernels.shape
    whole = jnp.einsum("pijcd,pq->ijpcqd", kernels, jnp.eye(members, dtype=kernels.dtype))
    beside = jnp.moveaxis(x, 0, 3).reshape(*x.shape[1:4], members * channels)
    y = convolved(beside, whole.reshape(size, size, members * channels, members * features))
    return jnp.moveaxis(y.reshape(*y.shape[:3], members, features), 3, 0)


FORMS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "vmapped": vmapped, "block-diagonal": block_diagonal}


def call(form: Callable, pixels: int, width: int) -> Callable[[], Any]:
    """Forward and both gradients, as often as a GPU wants to be asked before it is waited for."""
    images = 16 if models.on_cpu() else 128
    kind = jnp.float32 if models.on_cpu() else jnp.bfloat16
    normal = np.random.default_rng(0).standard_normal
    x = jnp.asarray(normal((MEMBERS, images, pixels, pixels, width)), kind)
    kernels = jnp.asarray(normal((MEMBERS, KERNEL, KERNEL, width, width)), kind)

    @jax.jit
    def both_ways(x, kernels):
        y, transposed = jax.vjp(form, x, kernels)
        return y, transposed(y)

    times = 1 if models.on_cpu() else 10
    return lambda: jax.block_until_ready([both_ways(x, kernels) for _ in range(times)])


def over_one_by_one(form: str, pixels: int, width: int) -> measure.Work:
    """A row: the time of the members' own convolutions over that of a form."""
    def work(name: str) -> dict[str, Any]:
        ours, theirs = (call(each, pixels, width) for each in (FORMS[form], one_by_one))
        ours(), theirs()
        pairs = models.often_enough(measure.seconds(ours) + measure.seconds(theirs))
        note = "16 images, float32" if models.on_cpu() else "128 images, bfloat16"
        return measure.row(name, measure.paired_ratio(ours, theirs, pairs), "times the speed",
                           note="; ".join(filter(None, (note, models.load()))))
    return work


def rows() -> Iterator[tuple[str, measure.Work]]:
    """Rows of other suites."""
    for layer, shape in LAYERS.items():
        for form in FORMS:
            yield (f"{MEMBERS} convolutions of {layer}, {form}, over one by one",
                   over_one_by_one(form, *shape))
