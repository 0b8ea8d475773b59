"""Convolutions of every channel by its own kernel, in two forms that agree but for rounding.

XLA:CPU compiles a grouped convolution to loops of scalars, and its gradient in the kernel to an
ordinary convolution over all pairs of channels. `SHIFTED` says the same in sums of shifted images,
which become vector loops: 9 to 60 times as fast forward, 16 to 70 with both gradients, and the
train steps of EfficientNet-B0, MobileNetV2 and ShuffleNetV2 8, 4 and 3 times. Figures and losing
forms are in launch/benchmarks/models.py. On GPUs and TPUs the forms were not measured, so XLA's
own stays there; `launch.benchmark models` compares them where it runs.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
import jax.numpy as jnp

Pads = tuple[tuple[int, int], tuple[int, int]]  # zeros above and below, left and right


class Form(NamedTuple):
    """One way to convolve x [B, H, W, D] with kernel [k, k, 1, D], and back; all else is static."""

    forward: Callable[..., jax.Array]  # (x, kernel, *, stride, pads) -> y [B, H', W', D]
    backward: Callable[..., tuple[jax.Array, jax.Array]]  # (x, kernel, dy, ...): dx, dkernel


# --- the form of XLA -----------------------------------------------------------------------------


def _grouped(x, kernel, stride, pads):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1])


def _grouped_back(x, kernel, dy, stride, pads):
    return jax.vjp(lambda *both: _grouped(*both, stride, pads), x, kernel)[1](dy)


# --- sums of shifted images ----------------------------------------------------------------------


def _windows(x: jax.Array, size: int, stride: int, pads: Pads) -> Iterator[jax.Array]:
    """What each of the k * k numbers of a kernel is multiplied with: [B, H', W', D] float32."""
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), *pads, (0, 0)))
    down, across = ((side - size) // stride * stride + 1 for side in x.shape[1:3])
    for i in range(size):
        for j in range(size):
            yield x[:, i : i + down : stride, j : j + across : stride]


def _shifted(x, kernel, stride, pads):
    weights = kernel.astype(jnp.float32).reshape(-1, x.shape[-1])  # [k * k, D]
    windows = _windows(x, kernel.shape[0], stride, pads)
    return sum(w * window for w, window in zip(weights, windows)).astype(x.dtype)


def _shifted_back(x, kernel, dy, stride, pads):
    wide = dy.astype(jnp.float32)
    return (_image_gradient(x, kernel, wide, stride, pads).astype(x.dtype),
            _kernel_gradient(x, kernel, wide, stride, pads).astype(kernel.dtype))


def _kernel_gradient(x, kernel, dy, stride, pads):
    """All k * k sums in one pass, where as many reductions would read everything as often.

    Rows are summed last: images stay in the cache, and on the device that holds them.
    """
    products = [dy * window for window in _windows(x, kernel.shape[0], stride, pads)]
    sums = lax.reduce(products, [jnp.float32(0)] * len(products),
                      lambda a, b: [p + q for p, q in zip(a, b)], (1, 2))  # each [B, D]
    return jnp.stack(sums).sum(1).reshape(kernel.shape)


def _image_gradient(x, kernel, dy, stride, pads):
    """dx[s m + r] = sum of kernel[i] dy[m + (r + before - i) / s] over the i that s divides.

    One plane of every s-th row and column after the other, so that nothing is multiplied by the
    zeros that lie between the dy of a strided convolution.
    """
    weights, size = kernel.astype(jnp.float32), kernel.shape[0]
    counts = [-(-side // stride) for side in x.shape[1:3]]  # rows and columns of a plane
    room = [(size - 1, max(0, count + (stride - 1 + before) // stride - have))
            for count, (before, _), have in zip(counts, pads, dy.shape[1:3])]
    padded = jnp.pad(dy, ((0, 0), *room, (0, 0)))

    def read(axis, rest):  # (place in the kernel, start in `padded`) for every term
        before = pads[axis][0]
        return [(i, (rest + before - i) // stride + size - 1) for i in range(size)
                if (rest + before - i) % stride == 0]

    def plane(down, across):  # [B, H / s, W / s, D]
        return sum((weights[i, j, 0] * padded[:, y : y + counts[0], z : z + counts[1]]
                    for i, y in read(0, down) for j, z in read(1, across)),
                   jnp.zeros((x.shape[0], *counts, x.shape[-1])))

    rows = [_in_turn([plane(r, c) for c in range(stride)], 2) for r in range(stride)]
    return _in_turn(rows, 1)[:, : x.shape[1], : x.shape[2]]


def _in_turn(parts, axis):
    """The first slice of every part along `axis`, then the second of every part, and so on."""
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return jnp.stack(parts, axis + 1).reshape(shape)


# --- the choice ----------------------------------------------------------------------------------


def _apart(function):
    """A call that XLA does not inline: fused with its readers, it would be computed in each."""
    whole = jax.jit(function, static_argnames=("stride", "pads"))

    def call(*arrays, stride, pads):
        with set_xla_metadata(inlineable="false"):
            return whole(*arrays, stride=stride, pads=pads)

    return call


GROUPED, SHIFTED = Form(_grouped, _grouped_back), Form(_apart(_shifted), _apart(_shifted_back))
CHOICE = {"cpu": SHIFTED, "default": GROUPED}  # by platform; not measured but on CPUs


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads,
              forms: tuple[tuple[str, Form], ...] = tuple(CHOICE.items())) -> jax.Array:
    """x [B, H, W, D] with kernel [k, k, 1, D] -> [B, H', W', D] in x's type.

    Which of `forms` is compiled depends on the platform that the program is lowered for, not on the
    one that traces it. Differentiable in x and kernel, in reverse mode.
    """
    return _by_platform(forms, lambda form: form.forward, stride=stride, pads=pads)(x, kernel)


def _by_platform(forms, part, **static):
    choices = {platform: lambda *arrays, form=form: part(form)(*arrays, **static)
               for platform, form in forms}
    return lambda *arrays: lax.platform_dependent(*arrays, **choices)


def _forward(x, kernel, stride, pads, forms):
    return depthwise(x, kernel, stride, pads, forms), (x, kernel)


def _backward(stride, pads, forms, kept, dy):
    return _by_platform(forms, lambda form: form.backward, stride=stride, pads=pads)(*kept, dy)


depthwise.defvjp(_forward, _backward)


class Depthwise(nn.Module):
    """The layer, with the parameter `kernel` [k, k, 1, D]: [R, H, W, D] -> [R, H', W', D]."""

    features: int
    kernel: int
    stride: int
    padding: Any  # "SAME" as in TensorFlow, or pixels on every side
    dtype: Any
    kernel_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window, strides = (self.kernel, self.kernel), (self.stride, self.stride)
        kernel = self.param("kernel", self.kernel_init, (*window, 1, self.features))
        if isinstance(self.padding, str):
            pads = lax.padtype_to_pads(x.shape[1:3], window, strides, self.padding)
        else:
            pads = [(self.padding, self.padding)] * 2
        return depthwise(x.astype(self.dtype), kernel.astype(self.dtype), self.stride,
                         tuple(map(tuple, pads)))
