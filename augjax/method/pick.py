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
RULES = ("global", "per_device")
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
    return _as_they_are


def _as_they_are(learners, weights, stats, signals, key):
    return signals, stats


def top(criterion: Criterion, views: tuple[str, ...], share: float, name: str = "picked",
        scoring: str = "train_discard", rule: str = "global") -> Pick:
    """Keeps the `share` of the rows of `views` that score highest over the whole batch.

    The kept rows become one view, `name`, at the end of every group; other views pass through
    unscored. `scoring` says how the learners look at the pool: with batch statistics that are then
    forgotten ("train_discard"), with batch statistics that are kept ("train_keep"), or with running
    statistics ("eval"). Ties go to the lower row. (kd_thrives_on_da section 4.3, spec B8.)

    `rule` "global" chooses among the whole batch, the same on any number of devices; "per_device"
    chooses the same share of every device's rows, so that no row travels.

    The signals' note `pick_ratio` is the mean score of what is kept over that of the pool: Eq. 3's
    r where the criterion is KL.

    Where fewer rows are kept than there are groups, a group becomes several images. The views of
    the pool must share one domain, and the rows kept make a whole number per group or the groups
    one per row.

    Raises ConfigError for an unknown scoring or rule and a share outside (0, 1]; at trace time for
    an unknown view, views of several domains, and a share that keeps no such number of rows.
    """
    check.one_of("pick.scoring", scoring, SCORING)
    check.one_of("pick.rule", rule, RULES)
    check.require(0 < share <= 1, "pick.share", "a share in (0, 1]", share, "keep some of the pool")

    def pick(learners, weights, stats, signals, key):
        _check_pool(signals, views)
        pool = signals.only(views)
        scored, scored_stats = score(learners, weights, stats, pool, key, scoring)
        scores = jax.lax.stop_gradient(criterion(scored))
        parts = 1 if rule == "global" else sharded_over()
        return splice(signals, pool, scores, share, views, name, parts), scored_stats

    return pick


def best(criterion: Criterion, view: str, scoring: str = "eval") -> Pick:
    """Keeps, of the rows that every image has in `view`, the one that scores highest.

    The view keeps its name and has one row; other views pass through unscored. Ties go to the
    first candidate. `scoring` as in `top`. It is a choice within each image, so devices do not
    matter. (augmentation_in_compression Eq. 6, spec B9.)

    Raises ConfigError for an unknown scoring, and at trace time for an unknown view.
    """
    check.one_of("pick.scoring", scoring, SCORING)

    def pick(learners, weights, stats, signals, key):
        _check_pool(signals, (view,))
        pool = signals.only((view,))
        scored, scored_stats = score(learners, weights, stats, pool, key, scoring)
        scores = jax.lax.stop_gradient(criterion(scored)).reshape(signals.rows.groups, -1)
        chosen = jnp.argmax(scores, axis=1)

        def take(leaf):  # [groups * n, ...] -> [groups, ...]
            grouped = leaf.reshape(*scores.shape, *leaf.shape[1:])
            index = chosen.reshape(-1, *[1] * leaf.ndim)
            return jnp.take_along_axis(grouped, index, axis=1)[:, 0]

        taken = jax.tree.map(take, (pool.rows, pool.outputs))
        return _beside(signals, taken, signals.rows.groups, (view,), view), scored_stats

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
           views: tuple[str, ...], name: str, parts: int = 1) -> Signals:
    """The unscored views and, after them in every group, the best-scored rows of the pool.

    The best of each of `parts` equal parts of the pool, by position.
    """
    size, groups = scores.shape[0], signals.rows.groups
    count = round(share * size)
    shared = math.gcd(count, groups)  # groups of the result
    check.require(
        count > 0 and shared in (count, groups) and size % parts == count % parts == 0,
        "pick.share",
        f"a whole number of rows for each of {groups} groups, or of groups for each row"
        + (f", the same on each of {parts} devices" if parts > 1 else ""),
        f"{count} of {size} rows",
        "choose a share that keeps a multiple or a fraction of the batch",
    )
    grouped = scores.reshape(parts, -1)  # part by part, where the rows of a device stay together
    ranked = jnp.argsort(grouped, axis=1, stable=True, descending=True)  # top_k would gather
    chosen = jnp.sort(ranked[:, : count // parts], axis=1)

    def take(leaf):
        own = leaf.reshape(*grouped.shape, *leaf.shape[1:])
        index = chosen.reshape(*chosen.shape, *[1] * (leaf.ndim - 1))
        return jnp.take_along_axis(own, index, axis=1).reshape(count, *leaf.shape[1:])

    kept = jax.tree.map(take, (pool.rows, pool.outputs))
    mean = scores.mean()
    ratio = jnp.where(mean > 0, take(scores).mean() / jnp.where(mean > 0, mean, 1.0), 1.0)
    spliced = _beside(signals, kept, shared, views, name)
    return replace(spliced, notes={**signals.notes, "pick_ratio": ratio})


def sharded_over() -> int:
    """Devices that the batch lies on: the mesh axis "data", where `jax.set_mesh` has set one."""
    return dict(jax.sharding.get_abstract_mesh().shape).get("data", 1)


def _beside(signals: Signals, kept: tuple, shared: int, views: tuple[str, ...], name: str
            ) -> Signals:
    """The views that were not scored and, at the end of each of `shared` groups, the kept rows."""
    old, groups = signals.rows.views, signals.rows.groups
    rest = tuple(view for view in old if view.name not in views)
    domain = next(view.domain for view in old if view.name in views)
    parts = [take_views((signals.rows, signals.outputs), old, (view.name,)) for view in rest]

    def beside(*leaves):  # {[groups * a, ...], [shared * b, ...]} -> [shared * (a' + b), ...]
        grouped = [leaf.reshape(shared, -1, *leaf.shape[1:]) for leaf in leaves]
        return jnp.concatenate(grouped, axis=1).reshape(-1, *leaves[0].shape[1:])

    unnamed = [(replace(rows, views=()), outputs) for rows, outputs in (*parts, kept)]
    count = kept[0].label.shape[0]
    rows, outputs = jax.tree.map(beside, *unnamed)
    wider = tuple(replace(view, rows=view.rows * groups // shared) for view in rest)
    return replace(signals, rows=replace(rows, views=(*wider, View(name, count // shared, domain))),
                   outputs=outputs)


def _check_pool(signals: Signals, views: tuple[str, ...]) -> None:
    there = {view.name: view.domain for view in signals.rows.views}
    for name in views:
        check.one_of("pick.views", name, there)
    domains = {there[name] for name in views}
    check.require(len(domains) == 1, "pick.views", "views of one domain", sorted(domains),
                  "pick from each domain's views on their own")
