"""Everything the next step reads."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from augjax.types import Params, PyTree, record, Stats


@record
class Meters:
    """Sums of the step metrics since the last row of the log, and how many steps they hold."""

    sums: Mapping[str, jax.Array]  # {name: [] float32}
    steps: jax.Array  # [] int32
    bad_step: jax.Array  # [] int32, first step that was not finite; -1: none


@record
class TrainState:
    """The state of one phase; `frozen` is stored once per phase, the rest in every checkpoint."""

    params: Mapping[str, Any]  # {"nets": {learner: tree}, "terms": {term: tree}}
    stats: Mapping[str, Stats]  # {learner: BatchNorm statistics}
    transform: PyTree  # masks, ...
    terms: Mapping[str, PyTree]  # {term: state}: memories, ...
    opt_state: PyTree
    ema: Mapping[str, Any]  # {} or {"nets": ..., "stats": ...}
    key: jax.Array  # [] typed key of (run, phase)
    step: jax.Array  # [] int32, updates done in this phase
    meters: Meters
    frozen: Mapping[str, tuple[Params, Stats]]  # {onlooker: (effective weights, statistics)}

    def advance(self, params: PyTree, opt_state: PyTree, aux: Any, ema: PyTree) -> "TrainState":
        """The state after one update."""
        return replace(
            self, params=params, opt_state=opt_state, stats=aux.stats, terms=aux.terms, ema=ema,
            step=self.step + 1,
        )


def count(meters: Meters, metrics: Mapping[str, jax.Array], stats: PyTree, step: jax.Array,
          every: int) -> Meters:
    """Adds one step's metrics; sums start anew after every `every` steps.

    A step is finite where its metrics and the statistics it leaves are: a variance may overflow
    while the loss, of maps divided by it, is a number.
    """
    fresh = step % every == 0
    sums = {name: jnp.where(fresh, 0, meters.sums[name]) + metrics[name] for name in metrics}
    steps = jnp.where(fresh, 0, meters.steps) + 1
    finite = jnp.isfinite(sum(metrics.values()))
    for leaf in jax.tree.leaves(stats):
        finite &= jnp.isfinite(leaf).all()
    bad_step = jnp.where((meters.bad_step < 0) & ~finite, step, meters.bad_step)
    return Meters(sums, steps, bad_step)


def follow(ema: PyTree, params: PyTree, stats: PyTree, step: jax.Array, decay: float) -> PyTree:
    """Moves the average of weights and statistics, faster in the first steps: (1+t)/(10+t)."""
    time = step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1 + time) / (10 + time))
    return optax.incremental_update({"nets": params["nets"], "stats": stats}, ema, 1 - keep)
