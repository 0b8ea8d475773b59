"""The gradient of an update: of its batch at once, or of micro-batches one after the other."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from augjax import check
from augjax.method import Aux, Combine, keep_all, noted, Objective, weighted_sum
from augjax.types import Batch, Knobs, PyTree, Rows

MICRO_BATCHES = 2  # purpose of a key, beside 0 and 1 into which `Objective` splits it

# (state, batch, key, knobs) -> (gradient of params, {term: [] float32}, Aux)
Gradients = Callable[
    [Any, Batch, jax.Array, Knobs], tuple[PyTree, Mapping[str, jax.Array], Aux]]


def of_batch(objective: Objective, combine: Combine) -> Gradients:
    """One forward pass, and what `combine` pulls back through it; zero for what rests."""

    def gradients(state, batch, key, knobs):
        losses, pullback, aux = jax.vjp(
            lambda params: objective(params, state, batch, key, knobs), state.params, has_aux=True
        )
        grads = objective.moving(combine(lambda weights: pullback(weights)[0], losses, knobs))
        return grads, losses, aux

    return gradients


def of_micro_batches(objective: Objective, combine: Combine, count: int) -> Gradients:
    """The mean over `count` micro-batches, in the memory of one (on a CPU: of all).

    The views are made of the whole batch first, so that every pixel, every draw and every mixed
    pair is that of the large batch. For the networks a micro-batch is a batch of its own: a group
    of BatchNorm's statistics, from which the running ones (and a term's state) move on to the next.
    With statistics at rest the result is the large batch's, to rounding.

    optax.microbatch is no help here: it carries nothing from one micro-batch to the next. Nor can a
    CPU have a loop: convolutions in it are 20 times slower (ecosystem.md 10), so they are unrolled.
    """
    seen = replace(objective, views=lambda key, rows, policies: rows)
    of_rows = of_batch(seen, combine)

    def gradients(state, batch, key, knobs):
        rows = objective.show(batch, key, knobs.policies)

        def add(before, number):
            total, aux = before
            here = replace(state, stats=aux.stats, terms=aux.terms)
            own_key = jax.random.fold_in(jax.random.fold_in(key, MICRO_BATCHES), number)
            *found, aux = of_rows(here, micro_batch(rows, number, count), own_key, knobs)
            total = jax.tree.map(jnp.add, total, (*found, aux.notes))
            return (total, replace(aux, notes={})), None

        zero = jnp.zeros((), jnp.float32)
        nothing = (jax.tree.map(jnp.zeros_like, state.params), dict.fromkeys(objective.terms, zero),
                   dict.fromkeys(map(noted, objective.onlookers), zero))
        total, aux = _in_turn(add, (nothing, Aux(state.stats, state.terms)), count)
        grads, losses, notes = jax.tree.map(lambda leaf: leaf / count, total)
        return grads, losses, replace(aux, notes=notes)

    return gradients


def _in_turn(add, begun, count):
    """What `add` makes of `begun` and 0, 1, ... `count` - 1, one after the other."""
    def scanned(unroll):
        return lambda begun: lax.scan(add, begun, jnp.arange(count), unroll=unroll)[0]

    return lax.platform_dependent(begun, cpu=scanned(True), default=scanned(False))


def micro_batch(rows: Rows, number: int | jax.Array, count: int) -> Rows:
    """The rows of every `count`-th image from image `number` on: [R, ...] -> [R / count, ...].

    So a batch that is cut over devices gives each of them its share of every micro-batch, and which
    images those are does not depend on the devices.
    """
    width = sum(view.rows for view in rows.views)

    def take(leaf):
        apart = leaf.reshape(-1, count, width, *leaf.shape[1:])  # [B / count, count, V, ...]
        chosen = lax.dynamic_index_in_dim(apart, number, axis=1, keepdims=False)
        return chosen.reshape(-1, *leaf.shape[1:])

    return jax.tree.map(take, rows)


def check_accumulation(phase: str, objective: Objective, combine: Combine, count: int) -> None:
    """Raises ConfigError for what would not mean the same of micro-batches as of the batch."""
    check.require(isinstance(count, int) and count >= 1, f"{phase}.accumulate",
                  "a whole number of micro-batches from 1 on", count, "1 accumulates nothing")
    if count == 1:
        return
    together = f"accumulate = {count}"
    check.require(objective.pick in (None, keep_all()), f"{phase}.pick",
                  f"none with {together}", "a pick, which compares the rows of a whole batch",
                  "take keep_all or accumulate = 1")
    check.require(combine is weighted_sum, f"{phase}.combine", f"weighted_sum with {together}",
                  "another one, which need not be linear in the gradients",
                  "take weighted_sum or accumulate = 1")
    joint = [name for name, term in objective.terms.items() if not term.per_example]
    check.require(not joint, f"{phase}.terms", f"per-example terms with {together}",
                  f"{joint}, which may compare rows or sum over them",
                  "take accumulate = 1, or promise Term.per_example where it holds")
