"""Picks: which rows are worth learning from, decided without gradient, a static number of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
import math
from typing import Protocol

import jax
import jax.numpy as jnp

from augjax import check
from augjax.types import Net, Params, Signals, Stats, take_views, View

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

    Where fewer rows are kept than there are groups, a group becomes several images. The views of
    the pool must share one domain, and the rows kept make a whole number per group or the groups
    one per row: ConfigError otherwise, at trace time.
    """
    check.one_of("pick.scoring", scoring, SCORING)
    check.require(0 < share <= 1, "pick.share", "a share in (0, 1]", share, "keep some of the pool")

    def pick(learners, weights, stats, signals, key):
        _check_pool(signals, views)
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
            outputs[learner] = net.predict(variables, pool.rows, pool.rows.views[0].domain)
        else:
            own_key = jax.random.fold_in(key, number)
            outputs[learner], fresh = net.train(variables, pool.rows, own_key)
            if scoring == "train_keep":
                kept[learner] = fresh
    return replace(pool, outputs=outputs), kept


def splice(signals: Signals, pool: Signals, scores: jax.Array, share: float,
           views: tuple[str, ...], name: str) -> Signals:
    """The unscored views and, after them in every group, the best-scored rows of the pool."""
    size, groups = scores.shape[0], signals.rows.groups
    count = round(share * size)
    shared = math.gcd(count, groups)  # groups of the result
    check.require(
        count > 0 and shared in (count, groups), "pick.share",
        f"a whole number of rows for each of {groups} groups, or of groups for each row",
        f"{count} of {size} rows",
        "choose a share that keeps a multiple or a fraction of the batch",
    )
    chosen = jnp.sort(jax.lax.top_k(scores, count)[1])
    best = jax.tree.map(lambda leaf: leaf[chosen], (pool.rows, pool.outputs))
    old = signals.rows.views
    rest = tuple(view for view in old if view.name not in views)
    parts = [take_views((signals.rows, signals.outputs), old, (view.name,)) for view in rest]

    def beside(*leaves):  # {[groups * a, ...], [shared * b, ...]} -> [shared * (a' + b), ...]
        grouped = [leaf.reshape(shared, -1, *leaf.shape[1:]) for leaf in leaves]
        return jnp.concatenate(grouped, axis=1).reshape(-1, *leaves[0].shape[1:])

    unnamed = [(replace(rows, views=()), outputs) for rows, outputs in (*parts, best)]
    rows, outputs = jax.tree.map(beside, *unnamed)
    kept = View(name, count // shared, pool.rows.views[0].domain)
    wider = tuple(replace(view, rows=view.rows * groups // shared) for view in rest)
    return Signals(replace(rows, views=(*wider, kept)), outputs)


def _check_pool(signals: Signals, views: tuple[str, ...]) -> None:
    there = {view.name: view.domain for view in signals.rows.views}
    for name in views:
        check.one_of("pick.views", name, there)
    domains = {there[name] for name in views}
    check.require(len(domains) == 1, "pick.views", "views of one domain", sorted(domains),
                  "pick from each domain's views on their own")
