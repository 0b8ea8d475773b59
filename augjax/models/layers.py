"""What every family of networks is made of: one record of choices, and a few layers.

A family's module takes a `Build` beside its own shape, and calls blocks as `block(x, mode)`. Its
first layer is called `stem` and its last `head`, in every family: these stay in full precision
under a quantiser.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from augjax.models.depthwise import Depthwise
from augjax.models.norm import BatchNorm
from augjax.types import Outputs

FULL_PRECISION = ("stem/*", "head/*")  # globs of parameter paths that are never quantised

Hook = Callable[[jax.Array], jax.Array]

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclass(frozen=True)
class Build:
    """How a network is built, whatever its family."""

    classes: int
    domains: int = 1  # BatchNorm sets, see `BatchNorm`
    bn_per_view: bool = False
    bn_images: int | None = None
    dtype: Any = jnp.float32  # of convolutions; parameters, statistics, head and loss are float32
    remat: bool = False  # blocks are computed again in the backward pass instead of kept
    activation: Hook | None = None  # a quantiser of activations: see `hooked`
    momentum: float = 0.9  # of BatchNorm, as in Flax
    epsilon: float = 1e-5

    def norm(self, name: str, **options: Any) -> BatchNorm:
        """A BatchNorm of this network, called as `norm(x, mode)`."""
        own = {"momentum": self.momentum, "epsilon": self.epsilon, "dtype": self.dtype} | options
        return BatchNorm(self.domains, self.bn_per_view, self.bn_images, name=name, **own)

    def conv(self, features: int, kernel: int, name: str, stride: int = 1, groups: int = 1,
             use_bias: bool = False, padding: Any = None, kernel_init: Any = kaiming_fan_out
             ) -> nn.Module:
        """A square convolution that pads as PyTorch does: kernel // 2 on every side, or as told."""
        return nn.Conv(features, (kernel, kernel), stride, feature_group_count=groups,
                       padding=kernel // 2 if padding is None else padding, use_bias=use_bias,
                       dtype=self.dtype, kernel_init=kernel_init, name=name)

    def depthwise(self, features: int, kernel: int, name: str, stride: int = 1,
                  padding: Any = None, kernel_init: Any = kaiming_fan_out) -> nn.Module:
        """A convolution of every channel by its own kernel, [k, k, 1, D], padded as `conv`."""
        padding = kernel // 2 if padding is None else padding
        return Depthwise(features, kernel, stride, padding, self.dtype, kernel_init, name=name)

    def block(self, kind: type[nn.Module]) -> type[nn.Module]:
        """The block's class, rematerialised if this network is; parameter paths stay the same."""
        return nn.remat(kind) if self.remat else kind

    def hooked(self, x: jax.Array) -> jax.Array:
        """What a quantised layer reads: after every ReLU that feeds one, except into the head.

        The identity where there is no quantiser (spec C6, C7).
        """
        return self.activation(x) if self.activation else x

    def outputs(self, features: dict[str, jax.Array], pooled: jax.Array, init: Any = None,
                read: jax.Array | None = None) -> Outputs:
        """Outputs from the taps and the pooled vector [R, D], through the linear layer `head`.

        `init` sets kernel and bias; by default both start as in PyTorch. `read` [R, D] is what the
        head reads where that is not `pooled` itself: what dropout leaves of it.
        """
        pooled = pooled.astype(jnp.float32)
        both = init or {name: torch_uniform(pooled.shape[-1]) for name in
                        ("kernel_init", "bias_init")}
        head = nn.Dense(self.classes, name="head", **both)
        return Outputs(head(pooled if read is None else read), features, pooled)


def torch_uniform(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for a linear layer: weight and bias U(-b, b), b = 1 / sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        bound = 1 / np.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def normal(deviation: float) -> Callable[..., jax.Array]:
    """N(0, deviation), untruncated."""
    return nn.initializers.normal(deviation)


def global_mean(x: jax.Array) -> jax.Array:
    """Global average pooling in float32: [R, H, W, D] -> [R, D]."""
    return x.astype(jnp.float32).mean((1, 2))


def shaken(x: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    """`x * forward`, through which gradients flow as through `x * backward`.

    x [R, H, W, D]; the factors [R, 1, 1, 1] are constants. Source: spec M2 (Shake-Shake and
    ShakeDrop: the backward pass draws its own numbers).
    """
    forward, backward = forward.astype(x.dtype), backward.astype(x.dtype)
    return x * backward + jax.lax.stop_gradient(x * forward - x * backward)
