"""What a step draws: a function of run, phase, step and place in the batch, and of nothing else."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from augjax import train
from augjax.data import order, resident
from augjax.train import sharding, start
from augjax.train.update import make_update, Resident, take
from augjax.types import Signals
from train.helpers import BATCH, fingerprint, knobs, noisy, objective, phase, pictures, recipe

TERMS = {"pixels": fingerprint(), "order": fingerprint("order")}


def drawn(seed=0, number=0, step=0):
    """(pixels, order) of the update of one step of one phase of one run, on the same images."""
    turned = knobs(tuple(TERMS), magnitude=40.0)
    phases = [phase(name, objective(TERMS, views=noisy), knobs=turned) for name in ("a", "b")]
    made, part = recipe(*phases, seed=seed), phases[number]
    mesh = sharding.make_mesh(jax.devices()[:1])
    like = start.shapes(part, made, mesh)
    state = start.assembly(part, like.signals)(
        start.start(part, made, Path(), mesh), start.phase_key(made, part))
    batch = take(Resident(*resident(pictures().train)), jnp.arange(BATCH))
    update = make_update(part.objective, part.optimizer)
    state = replace(state, step=jnp.int32(step), frozen={})
    metrics = update(state, batch, start.example(part, made)[1])[1]
    return float(metrics["pixels"]), float(metrics["order"])


def test_run_phase_and_step_each_change_the_pixels_and_not_the_order():
    first = drawn()
    assert drawn() == first
    for other in (drawn(seed=1), drawn(number=1), drawn(step=1)):
        assert other[0] != first[0] and other[1] == first[1]


def test_the_average_follows_weights_and_statistics_and_not_the_terms():
    """ema += (1 - min(decay, (1 + t) / (10 + t))) (new - ema), from the start on."""
    part = phase(ema=0.2, optimizer=train.sgd(0.9))
    made = recipe(part)
    like = start.shapes(part, made, sharding.make_mesh(jax.devices()[:1]))
    state = start.assembly(part, like.signals)(
        start.start(part, made, Path(), None), start.phase_key(made, part))
    batch = take(Resident(*resident(pictures().train)), jnp.arange(BATCH))
    update = jax.jit(make_update(part.objective, part.optimizer, ema=part.ema))
    average = {"nets": state.params["nets"], "stats": state.stats}
    for step in range(4):
        state, _ = update(state, batch, start.example(part, made)[1])
        share = 1 - min(0.2, (1 + step) / (10 + step))
        new = {"nets": state.params["nets"], "stats": state.stats}
        average = jax.tree.map(lambda old, now: old + share * (now - old), average, new)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
                     state.ema, average)
    assert set(state.ema) == {"nets", "stats"}


def test_an_images_view_depends_on_its_place_and_not_on_its_neighbours():
    source = Resident(*resident(pictures().train))
    policies = {"train": {"magnitude": 40.0}}
    places = np.arange(BATCH)
    changed = np.where(places == 3, 50, places)
    one, other = (noisy(jax.random.key(2), take(source, jnp.asarray(index)), policies).image
                  for index in (places, changed))
    same = [bool((a == b).all()) for a, b in zip(one, other)]
    assert same == [place != 3 for place in places]


def test_the_fingerprints_see_every_pixel_and_their_places():
    """Else the laws that compare them would prove little."""
    rows = noisy(jax.random.key(2), take(Resident(*resident(pictures().train)), jnp.arange(BATCH)),
                 {"train": {"magnitude": 40.0}})

    def value(name, rows):
        return float(TERMS[name].apply({}, {}, Signals(rows), None)[0])

    flat = np.asarray(rows.image).reshape(-1)
    seen = {value("pixels", rows)}
    for place in range(0, flat.size, 97):
        touched = flat.copy()
        touched[place] ^= 1
        image = jnp.asarray(touched.reshape(rows.image.shape))
        seen.add(value("pixels", replace(rows, image=image)))
    assert len(seen) == 1 + len(range(0, flat.size, 97))
    swapped = rows.index.at[jnp.array([0, 1])].set(rows.index[jnp.array([1, 0])])
    assert value("order", rows) != value("order", replace(rows, index=swapped))


def test_the_order_of_an_epoch_is_that_of_the_data_room():
    made = recipe(phase(epochs=3), seed=4)
    for epoch in range(3):
        plan = start.plan(made.phases[0], made, epoch)
        assert np.array_equal(plan.order.ravel(), order(4, epoch, 96)) and plan.first == 6 * epoch
        assert np.array_equal(plan.knobs.clock.step, 6 * epoch + np.arange(6))
        np.testing.assert_allclose(plan.knobs.clock.epoch, epoch + np.arange(6) / 6, rtol=1e-6)


def test_the_last_partial_batch_is_dropped():
    made = recipe(phase(batch_size=40))
    plan = start.plan(made.phases[0], made, 0)
    assert made.steps_per_epoch(made.phases[0]) == 2
    assert np.array_equal(plan.order.ravel(), order(0, 0, 96)[:80])
