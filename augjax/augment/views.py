"""Views: from a batch to the rows that the networks see."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from augjax import check
from augjax.augment.crops import Layer
from augjax.augment.policies import Policy, image_keys
from augjax.types import Batch, Rows, View

Views = Callable[[jax.Array, Batch, Mapping[str, Policy]], Rows]


def pipeline(*layers: Layer) -> Layer:
    """One layer after the other; each draws from the image's key folded with its own number."""

    def run(keys, images, policy=None):
        for number, layer in enumerate(layers):
            images = layer(jax.vmap(jax.random.fold_in, (0, None))(keys, number), images, policy)
        return images

    return run


def make(
    pipelines: Mapping[str, Layer],
    domains: Mapping[str, int] | None = None,
    rows: Mapping[str, int] | None = None,
) -> Views:
    """`views(key, batch, policies) -> Rows`, one named view per pipeline, in the order given.

    domains   the BatchNorm set of a view, 0 unless named
    rows      how many rows of a view every image gives, 1 unless named; each draws anew

    Row v of image b (its position in the global batch) draws from `key` folded with v and b, so
    nothing depends on the number of devices. A view takes its policy by name from `policies`, None
    where there is none. Raises ConfigError for names of no view.
    """
    check.require(len(pipelines) > 0, "views", "at least one", "none", "name a view and its pipeline")
    for name in (*(domains or {}), *(rows or {})):
        check.one_of("view", name, pipelines)
    kinds = tuple(
        View(name, rows=(rows or {}).get(name, 1), domain=(domains or {}).get(name, 0))
        for name in pipelines
    )

    def views(key, batch, policies):
        for name in policies:
            check.one_of("view of a policy", name, pipelines)
        shown = []
        for view in kinds:
            for _ in range(view.rows):
                keys = image_keys(jax.random.fold_in(key, len(shown)), batch.image.shape[0])
                shown.append(pipelines[view.name](keys, batch.image, policies.get(view.name)))
        return _rows(shown, batch, kinds)

    return views


def plain(batch: Batch) -> Rows:
    """The batch as it is, one view named "test": what evaluation looks at."""
    return _rows([batch.image], batch, (View("test"),))


def _rows(shown, batch, kinds):
    """Rows from V images [B, H, W, C] per image of the batch, example-major: row b V + v."""
    check.require(
        len({images.shape for images in shown}) == 1, "images of the views", "one shape",
        [list(images.shape) for images in shown], "let every pipeline end in the same size",
    )

    def together(parts):  # V of [B, ...] -> [B * V, ...]
        stacked = jnp.stack(parts, axis=1)
        return stacked.reshape(-1, *stacked.shape[2:])

    label = together([batch.label] * len(shown))
    return Rows(
        image=together(shown), label=label, mix_label=label, lam=jnp.ones(label.shape, jnp.float32),
        index=together([batch.index] * len(shown)), views=kinds,
    )
