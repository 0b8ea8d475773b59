"""Views: from a batch to the rows that the networks see."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from augjax import check
from augjax.augment.crops import Layer
from augjax.augment.mixing import Mix, mix_batch, of_partners, Pairs, whole_batch
from augjax.augment.policies import image_keys
from augjax.types import Batch, Rows, View

Views = Callable[[jax.Array, Batch, Mapping[str, Any]], Rows]


@dataclass(frozen=True)
class Mixed:
    """A view made from the rows of another: `Mixed("weak", cutmix)`. Its policy is a `Mixing`.

    Its row r mixes row r of the other view, whose rows are taken in turn.
    """

    of: str
    mix: Mix
    pairs: Pairs = whole_batch


def pipeline(*layers: Layer) -> Layer:
    """One layer after the other; each draws from the image's key folded with its own number."""

    def run(keys, images, policy=None):
        for number, layer in enumerate(layers):
            images = layer(jax.vmap(jax.random.fold_in, (0, None))(keys, number), images, policy)
        return images

    return run


def make(
    sources: Mapping[str, Layer | Mixed],
    domains: Mapping[str, int] | None = None,
    rows: Mapping[str, int] | None = None,
) -> Views:
    """`views(key, batch, policies) -> Rows`, one named view per source, in the order given.

    sources   a view is a pipeline's, or mixed from the rows of one that is
    domains   the BatchNorm set of a view, 0 unless named
    rows      how many rows of a view every image gives, 1 unless named; each draws anew. A view
              of 0 rows is made once, seen by the views mixed from it and shown to no network

    The number v of a row counts all rows made. Row v of image b (its position in the global batch)
    draws from `key` folded with v and b, a mixed row v from `key` folded with v: nothing depends on
    the number of devices. A view takes its policy by name from `policies`, None where there is
    none. Raises ConfigError for names of no view.
    """
    domains, rows = dict(domains or {}), dict(rows or {})
    _check_sources(sources, domains, rows)
    kinds = tuple(View(name, rows.get(name, 1), domains.get(name, 0)) for name in sources)

    def views(key, batch, policies):
        for name in policies:
            check.one_of("view of a policy", name, sources)
        keys, number = {}, 0
        for view in kinds:
            made = max(view.rows, 1)
            keys[view.name] = [jax.random.fold_in(key, number + row) for row in range(made)]
            number += made
        shown = {}
        for name in sorted(sources, key=lambda name: isinstance(sources[name], Mixed)):
            source, policy = sources[name], policies.get(name)
            if isinstance(source, Mixed):
                shown[name] = _mixed(source, keys[name], policy, shown[source.of], batch.label)
            else:
                shown[name] = [_augmented(source, each, policy, batch) for each in keys[name]]
        kept = tuple(view for view in kinds if view.rows)
        return _rows([row for view in kept for row in shown[view.name]], batch, kept)

    return views


def plain(batch: Batch) -> Rows:
    """The batch as it is, one view named "test": what evaluation looks at."""
    return _rows([_unmixed(batch.image, batch)], batch, (View("test"),))


class _Shown(NamedTuple):
    """One row of every image."""

    image: jax.Array  # [B, H, W, C]
    mix_label: jax.Array  # [B] int32
    lam: jax.Array  # [B] float32


def _unmixed(images, batch):
    return _Shown(images, batch.label, jnp.ones(batch.label.shape, jnp.float32))


def _augmented(layer, key, policy, batch):
    return _unmixed(layer(image_keys(key, batch.image.shape[0]), batch.image, policy), batch)


def _mixed(source, keys, numbers, others, label):
    """A mixed view's rows from those of the view it is made of."""
    rows = []
    for row, key in enumerate(keys):
        images = others[row % len(others)].image
        mixture = mix_batch(key, numbers, source.mix, images, source.pairs)
        lam = jnp.broadcast_to(mixture.lam, label.shape)
        mix_label = of_partners(label, mixture.partner, source.pairs)
        rows.append(_Shown(mixture.image, mix_label, lam))
    return rows


def _check_sources(sources, domains, rows):
    check.require(len(sources) > 0, "views", "at least one", "none", "name a view and a pipeline")
    for name in (*domains, *rows):
        check.one_of("view", name, sources)
    pipelines = [name for name, source in sources.items() if not isinstance(source, Mixed)]
    for name, source in sources.items():
        if isinstance(source, Mixed):
            check.one_of(f"view that {name!r} is mixed from", source.of, pipelines)
    check.require(
        all(isinstance(count, int) and count >= 0 for count in rows.values())
        and any(rows.get(name, 1) for name in sources),
        "rows of the views", "whole numbers from 0 on, not all 0", rows, "show at least one row",
    )


def _rows(shown, batch, kinds):
    """Rows from V images [B, H, W, C] per image of the batch, example-major: row b V + v."""
    check.require(
        len({row.image.shape for row in shown}) == 1, "images of the views", "one shape",
        [list(row.image.shape) for row in shown], "let every pipeline end in the same size",
    )
    dtype = jnp.result_type(*(row.image for row in shown))  # float32 if any view is

    def together(parts):  # V of [B, ...] -> [B * V, ...]
        stacked = jnp.stack(parts, axis=1)
        return stacked.reshape(-1, *stacked.shape[2:])

    return Rows(
        image=together([row.image.astype(dtype) for row in shown]),
        label=together([batch.label] * len(shown)),
        mix_label=together([row.mix_label for row in shown]),
        lam=together([row.lam for row in shown]),
        index=together([batch.index] * len(shown)), views=kinds,
    )
