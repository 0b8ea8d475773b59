"""Small parts for tests of the heart: a linear network with a running mean, and its update."""

from dataclasses import replace
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from augjax import augment, data, losses, method, train
from augjax.train import start
from augjax.types import Knobs, Net, Outputs, View

SHAPE, CLASSES, BATCH = (4, 4, 3), 4, 8


def linear(scale=1.0):
    """Centres its pixels by the batch in training, by a running mean in prediction; one layer."""
    size = int(np.prod(SHAPE))

    def pixels(rows):
        return rows.image.reshape(rows.image.shape[0], -1).astype(jnp.float32) / 255

    def init(key):
        kernel = scale * jax.random.normal(key, (size, CLASSES))
        params = {"trunk": {"gain": jnp.ones((size,))}, "head": {"kernel": kernel}}
        return params, {"trunk": {"mean": jnp.zeros((size,))}}

    def said(params, x):
        pooled = x * params["trunk"]["gain"]
        return Outputs(pooled @ params["head"]["kernel"], {"f0": pooled}, pooled)

    def train_(variables, rows, key):
        params, stats = variables
        mean = pixels(rows).mean(0)
        moved = {"trunk": {"mean": 0.9 * stats["trunk"]["mean"] + 0.1 * mean}}
        return said(params, pixels(rows) - mean), moved

    def predict(variables, rows, domain=0):
        params, stats = variables
        return said(params, pixels(rows) - stats["trunk"]["mean"])

    return Net(init, train_, predict)


def dataset(images=32):
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (images, *SHAPE), np.uint8)
    split = data.from_arrays("small", pixels, np.arange(images) % CLASSES, list("abcd"))
    return data.Dataset("small", split.class_names, SHAPE, split, split)


def views(*names, domains=None):
    """Every view darkens the image a little more, so that rows tell their view."""
    kinds = tuple(View(name, domain=(domains or {}).get(name, 0)) for name in names)

    def make(key, batch, policies):
        shown = jnp.stack([batch.image - batch.image // 8 * v for v in range(len(kinds))], 1)
        rows = augment.plain(batch)
        rows = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(kinds), 0), rows)
        return replace(rows, image=shown.reshape(-1, *shown.shape[2:]), views=kinds)

    return make


def objective(**changes):
    plain = {
        "nets": {"student": linear()}, "learners": ("student",), "views": views("train"),
        "terms": {"ce": losses.cross_entropy()},
    }
    return method.Objective(**(plain | changes))


def ready(built, optimizer=None, combine=method.weighted_sum, weights=None, ema=None):
    """(state, update, batch, knobs) of an objective, on one device."""
    weights = weights or dict.fromkeys(built.terms, 1.0)
    phase = train.Phase(
        "only", built, Knobs({}, weights, 0.1), epochs=1, batch_size=BATCH, combine=combine,
        optimizer=optimizer or train.sgd(momentum=0.0), ema=ema,
        frozen={name: train.Source("only") for name in built.onlookers})
    recipe = train.Recipe([phase], dataset())
    mesh = train.sharding.make_mesh(jax.devices()[:1])
    like = start.shapes(phase, recipe, mesh)
    begun = start.start(phase, recipe, pathlib.Path(), mesh)
    state = start.assembly(phase, like.signals)(begun, start.phase_key(recipe, phase))
    frozen = {name: net.init(jax.random.key(7 + i))
              for i, (name, net) in enumerate(built.onlookers.items())}
    update = jax.jit(train.make_update(built, phase.optimizer, combine, ema))
    _, knobs = start.example(phase, recipe)
    pixels, labels = data.resident(recipe.data.train)
    batch = train.update.take(train.update.Resident(pixels, labels), jnp.arange(BATCH))
    return replace(state, frozen=frozen), update, batch, knobs


def moved(before, after):
    """{path: whether it changed} over params and statistics."""
    from augjax import tree

    old = tree.flatten({**before.params, "stats": before.stats})
    new = tree.flatten({**after.params, "stats": after.stats})
    return {path: not np.array_equal(old[path], new[path]) for path in old}
