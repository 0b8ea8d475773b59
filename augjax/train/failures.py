"""What is said, and left behind, where training cannot go on."""

from collections.abc import Callable, Iterator
import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check, data, tree
from augjax.train import start
from augjax.train.phases import Phase, Recipe

BAD_STEP = "bad_step.json"  # of a run folder: what repeats the step that was not finite


def facts_of_step(recipe: Recipe, phase: Phase, step: int) -> dict[str, Any]:
    """What repeats one update by itself: its images, its key and how its knobs stood.

    `step` counts the updates of the phase before it. "images" are places in the training images;
    "knobs" have every policy's numbers, the terms' weights and the learning rate, by path.
    """
    images = data.batch_indices(recipe.data.train, recipe.seed, phase.batch_size, step)
    plan = start.plan(phase, recipe, step // recipe.steps_per_epoch(phase))
    here = tree.flatten(jax.tree.map(lambda rows: rows[step - int(plan.first)], plan.knobs))
    key = jax.random.fold_in(start.phase_key(recipe, phase), step)
    return {
        "phase": phase.name, "step": step + 1, "data": recipe.data.train.name,
        "images": images.tolist(), "labels": recipe.data.train.labels[images].tolist(),
        "key": jax.random.key_data(key).tolist(),
        "knobs": {path: np.asarray(value).tolist() for path, value in here.items()},
    }


def repeating(update: Callable, phase: Phase) -> Callable:
    """A phase's compiled update, whose first call is made twice.

    Raises NumericsError where the two end in states that differ in a bit. The first call takes a
    second copy of the state.
    """
    made = False

    def once_twice(state, *given):
        nonlocal made
        if made:
            return update(state, *given)
        twin, _ = update(jax.tree.map(jnp.copy, state), *given)
        state, report = update(state, *given)
        apart = {path: int(count) for path, count in differing(twin, state).items() if count}
        worst = ", ".join(f"{path} ({count})" for path, count in list(apart.items())[:3])
        check.require(not apart, f"deterministic=True, phase {phase.name!r}: one step, made twice",
                      "the same bits", f"other values in {len(apart)} arrays: {worst}",
                      "look for --xla flags of yours in XLA_FLAGS, or try without "
                      "--config.deterministic", check.NumericsError)
        made = True
        return state, report

    return once_twice


@jax.jit
def differing(one: Any, other: Any) -> dict[str, jax.Array]:
    """{path: how many values differ in their bits} of two trees of one shape; [] int32 each."""
    def bits(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key_data(leaf)
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.view(f"uint{8 * leaf.dtype.itemsize}") if floating else leaf

    return {path: jnp.sum(bits(left) != bits(right))
            for (path, left), right in zip(tree.flatten(one).items(), tree.flatten(other).values())}


@contextlib.contextmanager
def within_memory(phase: Phase) -> Iterator[None]:
    """Says what would help where a device, or the host, has no room for a phase; ConfigError."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told = (str(error).strip() or "no room on the host").splitlines()[0][:300].rstrip(".")
        name = phase.name
        raise check.ConfigError(check.sentence(
            f"phase {name!r}, {phase.batch_size} images an update in {phase.accumulate} parts",
            "to fit into the memory", told,
            f"try --config.{name}.accumulate={2 * phase.accumulate}, a smaller "
            f"--config.{name}.batch_size or --config.{name}.eval.batch_size, "
            "--config.data.resident=False for large data, or --config.mesh.fsdp=True on several "
            "devices; --dry_run counts the bytes")) from error
