"""A run folder such as training leaves behind, with numbers that are drawn: nothing is compiled."""

from dataclasses import replace
import json

import jax
import jax.numpy as jnp
import numpy as np

from augjax import data, defaults, recipe, tree
from augjax.train import checkpoint, folder
from augjax.types import Start


def trained_run(workdir, model, transform, images):
    """(workdir, its recipe with `images` test digits): "net" is finished, "later" was not begun.

    Raw weights and averaged ones are drawn apart; masks are those of the raw ones.
    """
    workdir.mkdir()
    phase = defaults.phase(model=model, batch_size=16, eval={"batch_size": 7}, ema=0.5,
                           transform=transform)
    config = defaults.config({"net": phase, "later": phase}, data={"name": "digits", "limit": 32})
    folder.write_json(workdir / "config.json", json.loads(config.to_json()))
    folder.provenance(workdir, "")
    folder.write_json(workdir / "summary.json", {"hardware": "none", "phases": {"net": {
        "final_accuracy": 0.125, "top5_accuracy": 0.5}}})
    built = recipe.build(config)
    first = built.phases[0]
    raw, average = (_numbers(first.objective.nets["student"], seed) for seed in (3, 4))
    nets = {"student": raw[0]}
    start = Start(nets, {"student": raw[1]}, first.objective.transform.init(nets))
    for edit in first.edits:
        start = edit(start)
    writer = checkpoint.Writer(workdir, keep=1)
    writer.save("net", 2, jax.tree.map(jnp.asarray, {
        "params": {"nets": nets}, "stats": start.stats,
        "transform": jax.tree.map(np.asarray, start.transform),
        "ema": {"nets": {"student": average[0]}, "stats": {"student": average[1]}}}))
    writer.wait()
    writer.join()
    few = data.limited(built.data.test, images)
    return workdir, replace(built, data=replace(built.data, test=few))


def _numbers(net, seed):
    """(params, stats), every number drawn."""
    draw = np.random.default_rng(seed)

    def value(path, leaf):
        low = 0.5 if path.rpartition("/")[2] in ("scale", "var") else -0.3
        return draw.uniform(low, low + 0.6, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(net.init, jax.random.key(0))
    return tuple(tree.map_with_path(value, part) for part in shapes)
