"""The heart: views -> onlookers -> pick -> learners -> one scalar per term.

The five papers are one program with different parts. This file is that program; the parts arrive
as arguments and may come from anywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check, tree
from augjax.method.pick import Pick
from augjax.types import (
    Batch, identity, Knobs, Net, Outputs, Params, PyTree, record, Rows, Signals, Stats, Term,
    Transform,
)

Views = Callable[[jax.Array, Batch, Mapping[str, PyTree]], Rows]


@record
class Aux:
    """What a forward pass leaves behind for the next state."""

    stats: Mapping[str, Stats]
    terms: Mapping[str, PyTree]
    notes: Mapping[str, jax.Array] = field(default_factory=dict)  # {metric: []}, left on the way


@dataclass(frozen=True)
class Objective:
    """What is minimised, as a choice of parts.

    Raises ConfigError when a learner is not among the nets or `trains` names nothing that moves.
    """

    nets: Mapping[str, Net]  # "student", "teacher", ...: any number of either kind
    learners: tuple[str, ...]  # these have parameters in `params`; the rest only look on
    views: Views  # (key, batch, policies) -> Rows
    terms: Mapping[str, Term]
    pick: Pick | None = None  # scores rows without gradient, keeps a static number of them
    transform: Transform = field(default_factory=identity)  # mask, fake-quant, or a chain of them
    trains: tuple[str, ...] = ("*",)  # globs over "nets/...", "stats/...", "terms/...": what moves

    def __post_init__(self):
        for name in self.learners:
            check.one_of("learner", name, self.nets)
        check.require(len(self.terms) > 0, "terms", "at least one", "none", "add a loss term")

    @property
    def onlookers(self) -> dict[str, Net]:
        return {name: net for name, net in self.nets.items() if name not in self.learners}

    @property
    def learning(self) -> dict[str, Net]:
        return {name: self.nets[name] for name in self.learners}

    def __call__(
        self, params: PyTree, state: Any, batch: Batch, key: jax.Array, knobs: Knobs
    ) -> tuple[dict[str, jax.Array], Aux]:
        """Returns ({term: [] float32}, Aux). Pure; differentiate in `params` only."""
        see_key, term_key = jax.random.split(key)
        weights = self.transform.apply(params["nets"], state.transform)
        signals, stats = self.see(weights, state, batch, see_key, knobs)
        losses, term_state = evaluate(self.terms, params["terms"], state.terms, signals, term_key)
        return losses, Aux(stats, term_state, signals.notes)

    def see(
        self, weights: Mapping[str, Params], state: Any, batch: Batch, key: jax.Array, knobs: Knobs
    ) -> tuple[Signals, Mapping[str, Stats]]:
        """What the terms may look at, and the learners' next statistics."""
        view_key, pick_key, net_key = jax.random.split(key, 3)
        rows = self.views(view_key, batch, knobs.policies)
        signals = look(self.onlookers, state.frozen, rows)  # not in params: no gradient
        stats = state.stats
        if self.pick:  # what the onlookers said is gathered, never recomputed
            signals, stats = self.pick(self.learning, weights, stats, signals, pick_key)
        return learn(self.learning, weights, stats, signals, net_key, self.trains)

    def show(self, batch: Batch, key: jax.Array, policies: Mapping[str, PyTree]) -> Rows:
        """The rows that a call with the same `key` sees, before any pick."""
        see_key, _ = jax.random.split(key)
        view_key, _, _ = jax.random.split(see_key, 3)
        return self.views(view_key, batch, policies)

    def moving(self, gradients: PyTree) -> PyTree:
        """Zero wherever a parameter rests; the compiler then drops what led there."""
        return tree.map_with_path(
            lambda path, leaf: leaf if tree.matches(path, self.trains) else jnp.zeros_like(leaf),
            gradients,
        )


def look(onlookers: Mapping[str, Net], frozen: Mapping[str, Any], rows: Rows) -> Signals:
    """What the frozen networks say of every row, with running statistics and no gradient; noted
    is how often each is right, of mixed rows by the labels' shares."""
    outputs = {name: net.predict(frozen[name], rows) for name, net in onlookers.items()}
    outputs = jax.lax.stop_gradient(outputs)
    return Signals(rows, outputs, {
        noted(name): accuracy(said.logits, rows) for name, said in outputs.items()})


def noted(onlooker: str) -> str:
    """The metric that says how often a frozen network is right."""
    return f"{onlooker}_accuracy"


def accuracy(logits: jax.Array, rows: Rows) -> jax.Array:
    """The share of rows whose largest logit is their label's: [] float32 in 0..1."""
    best = jnp.argmax(logits, axis=-1)
    return jnp.mean(rows.lam * (best == rows.label) + (1 - rows.lam) * (best == rows.mix_label))


def learn(
    learners: Mapping[str, Net],
    weights: Mapping[str, Params],
    stats: Mapping[str, Stats],
    signals: Signals,
    key: jax.Array,
    trains: tuple[str, ...] = ("*",),
) -> tuple[Signals, dict[str, Stats]]:
    """Runs every learner on the rows and adds its outputs to the signals.

    A learner whose statistics all rest runs as it will be evaluated, on its running statistics;
    one that is partly at rest normalises by the batch and keeps the statistics that rest.
    """
    outputs, new_stats = dict(signals.outputs), dict(stats)
    for number, (name, net) in enumerate(learners.items()):
        variables = (weights[name], stats[name])
        moves = moving_statistics(name, stats[name], trains)
        if any(jax.tree.leaves(moves)) or not jax.tree.leaves(stats[name]):
            own_key = jax.random.fold_in(key, number)
            outputs[name], fresh = net.train(variables, signals.rows, own_key)
            new_stats[name] = jax.tree.map(
                lambda moves, new, old: new if moves else old, moves, fresh, stats[name]
            )
        else:
            outputs[name] = predict_each_domain(net, variables, signals.rows)
    return replace(signals, outputs=outputs), new_stats


def predict_each_domain(net: Net, variables: tuple[Params, Stats], rows: Rows) -> Outputs:
    """What a network says of every row with the running statistics of its view's domain."""
    columns = np.repeat([view.domain for view in rows.views], [view.rows for view in rows.views])
    of_row = np.tile(columns, rows.groups)  # [R]

    def own(said, other):
        mine = (of_row == domain).reshape(-1, *[1] * (said.ndim - 1))
        return jnp.where(mine, other, said)

    first, *others = dict.fromkeys(columns.tolist())
    outputs = net.predict(variables, rows, first)
    for domain in others:
        outputs = jax.tree.map(own, outputs, net.predict(variables, rows, domain))
    return outputs


def moving_statistics(name: str, stats: Stats, trains: tuple[str, ...]) -> PyTree:
    """A tree of bools: which of a learner's statistics follow the batches."""
    return tree.map_with_path(
        lambda path, leaf: tree.matches(f"stats/{name}/{path}", trains), stats)


def evaluate(
    terms: Mapping[str, Term],
    params: Mapping[str, PyTree],
    states: Mapping[str, PyTree],
    signals: Signals,
    key: jax.Array,
) -> tuple[dict[str, jax.Array], dict[str, PyTree]]:
    """Every term's value, [] float32, and its next state."""
    values, new_states = {}, {}
    for number, (name, term) in enumerate(terms.items()):
        value, new_states[name] = term.apply(
            params[name], states[name], signals, jax.random.fold_in(key, number)
        )
        values[name] = jnp.asarray(value, jnp.float32)
    return values, jax.lax.stop_gradient(new_states)
