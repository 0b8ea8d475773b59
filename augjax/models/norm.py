"""Batch normalisation with groups and domains: the one BatchNorm idea of the house.

Whose rows share statistics is a *group*; which scale, bias and running statistics a row uses is
its view's *domain*. Both are static, so everything is a reshape by global position and plain
means: the same numbers on any number of devices, with no axis name.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from augjax import check
from augjax.types import record, static, View


@record
class Mode:
    """How a network is called: to be trained on rows of `views`, or to predict in one domain."""

    domain: int | jax.Array = 0  # of a prediction; may be traced
    views: tuple[View, ...] | None = static(default=None)  # of the rows, in training

    @property
    def training(self) -> bool:
        return self.views is not None


class BatchNorm(nn.Module):
    """Normalises every channel; parameters and statistics are [domains, D], also for one domain.

    Training: statistics are taken over all rows, or over `images` consecutive
    groups of rows at a time (the per-card batches of the papers), and either over all views of
    one domain together or per view. Views of different domains never share statistics, whatever
    `per_view` says: a domain exists to have its own. The running statistics of a domain move
    towards the plain mean of its groups' statistics; domains without a view stay as they are.
    The variance is the biased one, in the forward pass and in the running statistics (as in
    Flax; PyTorch's running variance is the unbiased one).

    Prediction: the running statistics of one domain.

    Statistics, scale and bias are float32 whatever the compute type.

    Attributes:
      domains: number of (scale, bias, mean, var) sets.
      per_view: statistics per view; else per domain.
      images: groups of rows (images of the batch) that share statistics; None is all of them.
      momentum: share of the running statistics that stays at each update.
      epsilon: added to the variance.
      dtype: type of the output.
      zero_scale: the scale starts at 0 instead of 1, and with it a residual branch.

    Source: Ioffe & Szegedy 2015; domains: Xie et al. 2020 (AdvProp) and a2_aug section 3.
    """

    domains: int = 1
    per_view: bool = False
    images: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """x [R, ..., D] -> the same shape in `dtype`.

        Raises ConfigError where rows, views, groups or domains do not fit each other.
        """
        shape = (self.domains, x.shape[-1])
        start = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", start, shape)  # [domains, D] float32
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)

        if not mode.training:
            own = mode.domain
            if isinstance(own, int):
                _require_domain(own, self.domains, "BatchNorm prediction")
            gain = jax.lax.rsqrt(var.value[own] + self.epsilon) * scale[own]  # [D]
            return ((x - mean.value[own]) * gain + bias[own]).astype(self.dtype)

        groups = column_groups(mode.views, self.per_view)
        for _, own in groups:
            _require_domain(own, self.domains, "BatchNorm views")
        moments = _moments(x, sum(view.rows for view in mode.views), self.images)  # [S, T, D] twice
        statistics = [_statistics(moments, columns) for columns, _ in groups]  # [S, D] twice each
        if not self.is_initializing():
            for running, values in zip((mean, var), zip(*statistics)):
                running.value = _moved(running.value, values, groups, self.momentum)

        affine = [
            (m, jax.lax.rsqrt(v + self.epsilon) * scale[own], bias[own])
            for (m, v), (_, own) in zip(statistics, groups)
        ]
        center, gain, shift = (_per_row(part, groups, x) for part in zip(*affine))
        return ((x - center) * gain + shift).astype(self.dtype)


def column_groups(
    views: Sequence[View], per_view: bool
) -> tuple[tuple[tuple[int, ...], int], ...]:
    """((columns that share statistics, their domain), ...), a column being one row of every group.

    One entry per view, or per domain in the order in which the domains first appear.
    """
    shared: dict[Any, tuple[list[int], int]] = {}
    start = 0
    for place, view in enumerate(views):
        columns, _ = shared.setdefault(place if per_view else view.domain, ([], view.domain))
        columns.extend(range(start, start + view.rows))
        start += view.rows
    return tuple((tuple(columns), domain) for columns, domain in shared.values())


def _moments(x, columns, images):
    """Mean and mean square of every column in every set of `images` groups: [S, T, D] each.

    Each row is reduced before rows are put together, so that the large array is never reshaped:
    rows sharded over devices stay where they are, and only [R, D] numbers are regrouped.
    """
    rows = x.shape[0]
    check.require(
        rows % columns == 0, "BatchNorm rows", f"a multiple of {columns} (the rows of all views)",
        rows, "give every group one row for each row of its views",
    )
    groups = rows // columns
    images = groups if images is None else images
    check.require(
        images >= 1 and groups % images == 0, "bn_images",
        f"a divisor of the {groups} groups of rows in the batch", images,
        "change bn_images or the batch size",
    )
    x = x.astype(jnp.float32)
    spatial = tuple(range(1, x.ndim - 1))
    sets = (groups // images, images, columns, x.shape[-1])  # [S, n, T, D]
    return tuple(
        moment.mean(spatial).reshape(sets).mean(1) for moment in (x, jax.lax.square(x))
    )


def _statistics(moments, columns):
    """Mean and variance, [S, D] each, of columns that share a group."""
    mean, square = (
        sum(moment[:, column] for column in columns) / len(columns) for moment in moments
    )
    return mean, jnp.maximum(square - jax.lax.square(mean), 0.0)


def _moved(running, values, groups, momentum):
    """Running statistics [domains, D] after an update; `values` holds [S, D] for every group."""
    new = list(running)
    for own in {domain for _, domain in groups}:
        seen = [value.mean(0) for value, (_, domain) in zip(values, groups) if domain == own]
        new[own] = momentum * running[own] + (1 - momentum) * (sum(seen) / len(seen))
    return jax.lax.stop_gradient(jnp.stack(new))


def _per_row(part, groups, x):
    """Spreads each group's [S, D] or [D] to its rows, to broadcast against x [R, ..., D]."""
    ones = (1,) * (x.ndim - 2)
    if len(groups) == 1 and (part[0].ndim == 1 or part[0].shape[0] == 1):
        return part[0].reshape(1, *ones, -1)
    of_column = {column: value for value, (columns, _) in zip(part, groups) for column in columns}
    sets = max(value.shape[0] for value in part) if part[0].ndim == 2 else 1
    columns = jnp.stack(  # [S, T, D]
        [jnp.broadcast_to(of_column[c], (sets, x.shape[-1])) for c in range(len(of_column))], axis=1
    )
    images = x.shape[0] // (sets * len(of_column))
    rows = jnp.broadcast_to(columns[:, None], (sets, images, *columns.shape[1:]))
    return rows.reshape(-1, *ones, x.shape[-1])


def _require_domain(domain, domains, where):
    check.require(
        0 <= domain < domains, where, f"a domain in 0..{domains - 1}", domain,
        "build the network with more domains, or change the domain of the view",
    )
