"""One compiled update for every method: the objective's pullback, combined, then the optimiser."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from augjax import check
from augjax.method.combine import Combine, weighted_sum
from augjax.method.objective import Objective
from augjax.train import sharding
from augjax.train.gradients import check_accumulation, of_batch, of_micro_batches
from augjax.train.optimizers import of_moving
from augjax.train.state import count, follow, TrainState
from augjax.types import Batch, Knobs, PyTree, record, Signals, Term

Update = Callable[[TrainState, Batch, Knobs], tuple[TrainState, dict[str, jax.Array]]]


def make_update(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    combine: Combine = weighted_sum,
    ema: float | None = None,
    accumulate: int = 1,
) -> Update:
    """Returns the pure update(state, batch, knobs) -> (state, {metric: [] float32}).

    With `accumulate` above 1 the batch passes through the networks in that many micro-batches
    (`train.gradients`). Raises ConfigError for parts that do not allow it.
    """
    check_accumulation("update", objective, combine, accumulate)
    optimizer = of_moving(optimizer, objective.trains)
    gradients = of_batch(objective, combine)
    if accumulate > 1:
        gradients = of_micro_batches(objective, combine, accumulate)

    def update(state, batch, knobs):
        key = jax.random.fold_in(state.key, state.step)
        grads, losses, aux = gradients(state, batch, key, knobs)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, learning_rate=knobs.learning_rate
        )
        params = optax.apply_updates(state.params, objective.moving(updates))
        average = follow(state.ema, params, aux.stats, state.step, ema) if ema else {}
        loss = sum(knobs.weights[name] * value for name, value in losses.items())
        metrics = {
            **losses,
            **aux.notes,
            **notes(objective.terms, state.params["terms"], aux.terms),
            "loss": loss,
            "gradient_norm": optax.tree.norm(grads),
            "learning_rate": knobs.learning_rate,
        }
        return state.advance(params, opt_state, aux, average), metrics

    return update


def notes(terms: Mapping[str, Term], params: Mapping[str, PyTree], states: Mapping[str, PyTree]
          ) -> dict[str, jax.Array]:
    """What the terms tell the log, all together."""
    return {name: value for term in terms
            for name, value in terms[term].notes(params[term], states[term]).items()}


def metric_names(objective: Objective, signals: Signals, params: Mapping[str, PyTree],
                 states: Mapping[str, PyTree]) -> tuple[str, ...]:
    """What an update reports: every term, unweighted, notes of the pick and of the terms (whose
    `params` and `states` these are), and three of its own. Raises ConfigError for a name twice."""
    told = [name for term, part in objective.terms.items()
            for name in jax.eval_shape(part.notes, params[term], states[term])]
    names = (*objective.terms, *signals.notes, *told, "loss", "gradient_norm", "learning_rate")
    twice = sorted({name for name in names if names.count(name) > 1})
    check.require(not twice, "metrics of an update", "different names", f"{twice} twice",
                  "rename a term, or keep one of two terms of a kind that tells of itself")
    return names


@record
class Plan:
    """What the host decides for one epoch: who comes when, and how the knobs stand."""

    first: Any  # [] int32, the phase's step at which the epoch begins
    order: Any  # [steps, B] int32, or None when the host feeds the batches
    knobs: Knobs  # every leaf [steps, ...]


@record
class Resident:
    """A data set that lies on the device, whole on each."""

    image: jax.Array  # [N, H, W, C] uint8
    label: jax.Array  # [N] int32


def make_step(update: Update, mesh: Mesh, log_every: int) -> Callable:
    """Returns step(state, frozen, source, plan) -> (state, report), to be compiled once per phase.

    `source` is a Resident set, indexed here, or the Batch itself. The report holds the means of
    the metrics since the last row of the log; it never aliases the state, so it can be read late.
    """

    def step(state, frozen, source, plan):
        index = state.step - plan.first
        knobs = jax.tree.map(lambda table: table[index], plan.knobs)
        batch = source if isinstance(source, Batch) else take(source, plan.order[index])
        batch = jax.lax.with_sharding_constraint(batch, sharding.over_data(mesh))
        params, stats, transform, frozen = sharding.gathered(
            (state.params, state.stats, state.transform, frozen), mesh)
        before = replace(state, params=params, stats=stats, transform=transform, frozen=frozen)
        after, metrics = update(before, batch, knobs)
        meters = count(state.meters, metrics, after.stats, state.step, log_every)
        report = {
            "metrics": jax.tree.map(lambda total: total / meters.steps, meters.sums),
            "bad_step": meters.bad_step,
        }
        return replace(after, frozen={}, meters=meters), report

    return step


def take(source: Resident, index: jax.Array) -> Batch:
    """The images of a resident set at the given positions."""
    return Batch(source.image[index], source.label[index], jnp.asarray(index, jnp.int32))


def lower_step(step: Callable, mesh: Mesh, arguments: tuple[PyTree, ...]) -> jax.stages.Lowered:
    """Traces the step for the shapes and shardings of its arguments; the state is donated."""
    state = arguments[0]
    out = (jax.tree.map(lambda leaf: leaf.sharding, state), sharding.replicated(mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=out).lower(*arguments)
