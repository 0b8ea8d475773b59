"""Picks: which rows are worth learning from, decided without gradient, a static number of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import jax
import jax.numpy as jnp

from augjax import check
from augjax.types import Net, Params, Signals, Stats, View

Criterion = Callable[[Signals], jax.Array]  # signals of the scored rows -> [rows] float32
SCORING = ("train_discard", "train_keep", "eval")


class Pick(Protocol):
    """(learners, weights, stats, signals, key) -> (signals with fewer rows, stats)."""

    def __call__(
        self,
        learners: Mapping[str, Net],
        weights: Mapping[str, Params],
        stats: Mapping[str, Stats],
        signals: Signals,
        key: jax.Array,
    ) -> tuple[Signals, Mapping[str, Stats]]: ...


def keep_all() -> Pick:
    """Keeps every row and scores none."""
    return lambda learners, weights, stats, signals, key: (signals, stats)


def top(criterion: Criterion, views: tuple[str, ...], share: float, name: str = "picked",
        scoring: str = "train_discard") -> Pick:
    """Keeps the `share` of the rows of `views` that score highest over the whole batch.

    The kept rows become one view, `name`, at the end of every group; other views pass through
    unscored. `scoring` says how the learners look at the pool: with batch statistics that are then
    forgotten ("train_discard"), with batch statistics that are kept ("train_keep"), or with running
    statistics ("eval"). Ties go to the lower row. (kd_thrives_on_da section 4.3, spec B8.)

    The rows kept must make a whole number per group: ConfigError otherwise, at trace time.
    """
    check.one_of("pick.scoring", scoring, SCORING)
    check.require(0 < share <= 1, "pick.share", "a share in (0, 1]", share, "keep some of the pool")

    def pick(learners, weights, stats, signals, key):
        pool = signals.only(views)
        scored, scored_stats = score(learners, weights, stats, pool, key, scoring)
        scores = jax.lax.stop_gradient(criterion(scored))
        return splice(signals, pool, scores, share, views, name), scored_stats

    return pick


def score(learners, weights, stats, pool: Signals, key: jax.Array, scoring: str):
    """What the learners say of the pool, without gradient, and the statistics they leave."""
    outputs, kept = dict(pool.outputs), dict(stats)
    weights = jax.lax.stop_gradient(weights)
    for number, (learner, net) in enumerate(learners.items()):
        variables = (weights[learner], stats[learner])
        if scoring == "eval":
            outputs[learner] = net.predict(variables, pool.rows)
        else:
            outputs[learner], fresh = net.train(variables, pool.rows, jax.random.fold_in(key, number))
            if scoring == "train_keep":
                kept[learner] = fresh
    return replace(pool, outputs=outputs), kept


def splice(signals: Signals, pool: Signals, scores: jax.Array, share: float,
           views: tuple[str, ...], name: str) -> Signals:
    """The unscored views and, after them in every group, the best-scored rows of the pool."""
    size = scores.shape[0]
    count, groups = round(share * size), signals.rows.groups
    check.require(
        count > 0 and count % groups == 0, "pick.share",
        f"a whole number of rows for each of {groups} groups", f"{count} of {size} rows",
        "choose a share that keeps a multiple of the batch",
    )
    chosen = jnp.sort(jax.lax.top_k(scores, count)[1])
    best = jax.tree.map(lambda leaf: leaf[chosen], (pool.rows, pool.outputs))
    rest = tuple(view for view in signals.rows.views if view.name not in views)
    domain = next(view.domain for view in signals.rows.views if view.name in views)
    kept_views = (*rest, View(name, count // groups, domain))
    if rest:
        others = signals.only(tuple(view.name for view in rest))
        aligned = (replace(others.rows, views=best[0].views), others.outputs)
        best = jax.tree.map(lambda old, new: _beside(old, new, groups), aligned, best)
    rows, outputs = best
    return Signals(replace(rows, views=kept_views), outputs)


def _beside(left: jax.Array, right: jax.Array, groups: int) -> jax.Array:
    """[groups * a, ...] and [groups * b, ...] -> [groups * (a + b), ...], group by group."""
    parts = [x.reshape(groups, -1, *x.shape[1:]) for x in (left, right)]
    return jnp.concatenate(parts, axis=1).reshape(-1, *left.shape[1:])
