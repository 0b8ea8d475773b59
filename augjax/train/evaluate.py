"""Accuracy over every image of a split, exactly: whole numbers, a padded and masked last batch."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import optax

from augjax import check
from augjax.augment import plain
from augjax.data import in_order, Source
from augjax.train import sharding
from augjax.types import Batch, Net, Params, PyTree, record, Transform


@record
class Counts:
    """Sums over images; `images` counts the real ones."""

    correct: jax.Array  # [] int32
    top5: jax.Array  # [] int32
    images: jax.Array  # [] int32
    loss: jax.Array  # [] float32, cross-entropy


@dataclass(frozen=True)
class Branches:
    """The ways in which what a phase has trained can be asked; one of them will be deployed.

    asked    for each branch its network and that network's BatchNorm set
    weights  of the terms' parameters -> [N]: what each branch counts in their ensemble; None: they
             have none
    """

    asked: tuple[tuple[str, int], ...]
    weights: Callable[[Mapping[str, Params]], jax.Array] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        ensemble = ("ensemble",) if self.weights else ()
        return (*(f"branch{number}" for number in range(len(self.asked))), *ensemble)


def batches(source: Source, batch_size: int, mesh: Mesh) -> Iterator[Batch]:
    """Every image once, in order, on the mesh; padding, and what cannot be read, has index -1."""
    where, part = sharding.over_data(mesh), (jax.process_index(), jax.process_count())
    for local in in_order(source, batch_size, part):
        yield jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, x), local)


def make_evaluate(nets: Mapping[str, Net], transform: Transform, branches: Branches) -> Callable:
    """Returns the pure evaluate(counts, params, stats, transform_state, batch) -> counts.

    `counts` are {name of a branch or the ensemble: Counts}, `params` those of a whole phase
    ("nets" and "terms"), `stats` those of all learners.
    """

    def evaluate(counts, params, stats, state, batch):
        weights, rows = transform.apply(params["nets"], state), plain(batch)
        said = [nets[learner].predict((weights[learner], stats[learner]), rows, domain).logits
                for learner, domain in branches.asked]
        if branches.weights:
            shares = branches.weights(params["terms"])
            said.append(sum(share * logits for share, logits in zip(shares, said)))
        return {name: _counted(counts[name], logits, batch)
                for name, logits in zip(branches.names, said)}

    return evaluate


def _counted(counts: Counts, logits: jax.Array, batch: Batch) -> Counts:
    logits, real = logits.astype(jnp.float32), batch.index >= 0
    ranked = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
    hits = (ranked == batch.label[:, None]) & real[:, None]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    return Counts(
        counts.correct + hits[:, 0].sum(dtype=jnp.int32),
        counts.top5 + hits.sum(dtype=jnp.int32),
        counts.images + real.sum(dtype=jnp.int32),
        counts.loss + jnp.where(real, loss, 0).sum(),
    )


def accuracies(
    compiled: Callable, branches: Branches, variables: tuple[PyTree, PyTree, PyTree], data: Any,
    mesh: Mesh, between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """{accuracy, top5_accuracy, loss, images} of the first branch over `data`, an iterable of
    batches.

    Shares in 0..1 of the `images` that could be read; where there are several branches with
    {branch0_accuracy, ..., ensemble_accuracy}. `variables` are what `compiled` (of make_evaluate)
    takes before the batch. Raises DataError where no image could be read.
    """
    whole = sharding.replicated(mesh)
    counts = jax.tree.map(lambda x: sharding.place(x, whole), zeros(branches))
    for batch in data:
        between()
        counts = compiled(counts, *variables, batch)
    found = {name: _shares(counted) for name, counted in jax.device_get(counts).items()}
    several = found if len(found) > 1 else {}
    return found[branches.names[0]] | {
        f"{name}_accuracy": shares["accuracy"] for name, shares in several.items()}


def _shares(counts: Counts) -> dict[str, float]:
    images = int(counts.images)
    check.require(images > 0, "evaluation", "at least one image that can be read", "none",
                  "prepare the data again", check.DataError)
    return {
        "accuracy": int(counts.correct) / images,
        "top5_accuracy": int(counts.top5) / images,
        "loss": float(counts.loss) / images,
        "images": images,
    }


def zeros(branches: Branches) -> dict[str, Counts]:
    """What counting begins with."""
    none = np.zeros((), np.int32)
    return {name: Counts(none, none, none, np.zeros((), np.float32)) for name in branches.names}
