"""Accumulated gradients: the large batch's where rows are on their own, else those of groups."""

from dataclasses import replace
from pathlib import Path
import re

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import augment, check, compress, losses, method, train
from augjax.data import resident
from augjax.train import gradients, sharding, start, stop
from augjax.train.state import TrainState
from augjax.train.update import lower_step, make_step, make_update, Resident, take
from augjax.types import Batch, Knobs, on_views, Rows, stateless, Term, View
from method.small import linear, SHAPE
from train.helpers import (
    assert_same_run, noisy, objective, phase, pictures, plain, recipe, rows, saved, small,
)


def pixels():
    """A per-example Term that learns nothing: an exact number that any pixel and label changes."""
    def value(signals):
        seen = signals.rows
        flat = (8 * seen.image.reshape(seen.image.shape[0], -1)).astype(jnp.uint32)
        odd = 2 * jnp.arange(flat.shape[1], dtype=jnp.uint32) + 1
        total = (flat * odd * jnp.uint32(2654435761)).sum(1)
        total *= (2 * seen.index + 4 * seen.mix_label + 1).astype(jnp.uint32)
        return (total >> 20).astype(jnp.float32).mean()  # < 2**12: sums of 64 are exact

    return stateless(value, per_example=True)


def shown(key, batch, policies):
    """Noisy images, and three mixtures of each with a partner drawn from the whole batch."""
    weak = noisy(jax.random.fold_in(key, 0), batch, {"train": {"magnitude": 20.0}})
    shift = jax.random.randint(key, (), 1, batch.label.shape[0])
    pixels, other = (image.astype(jnp.float32) for image in (
        weak.image, jnp.roll(weak.image, shift, axis=0)))
    weak = replace(weak, image=pixels)
    mixed = [replace(weak, image=lam * pixels + (1 - lam) * other,
                     mix_label=jnp.roll(weak.label, shift), lam=weak.lam * lam)
             for lam in (0.25, 0.5, 0.75)]
    several = jax.tree.map(
        lambda *leaves: jnp.stack(leaves, 1).reshape(-1, *leaves[0].shape[1:]), weak, *mixed)
    return replace(several, views=(View("weak"), View("mixed", 3)))


def ready(made, optimizer, ema):
    """(phase, first state, batch of 16, knobs)."""
    part = phase(made=made, optimizer=optimizer, ema=ema,
                 knobs=Knobs({}, dict.fromkeys(made.terms, 0.7), 0.1),
                 frozen={name: train.Source("only") for name in made.onlookers})
    whole = recipe(part)
    like = start.shapes(part, whole, sharding.make_mesh(jax.devices()[:1]))
    state = start.assembly(part, like.signals)(
        start.start(part, whole, Path(), None), start.phase_key(whole, part))
    frozen = {name: net.init(jax.random.key(7)) for name, net in made.onlookers.items()}
    batch = take(Resident(*resident(pictures().train)), jnp.arange(16))
    return part, replace(state, frozen=frozen), batch, start.example(part, whole)[1]


def walked(made, accumulate, steps=2):
    """(state, metrics) after a few updates of a recipe with all its parts."""
    part, state, batch, knobs = ready(made, train.rmsprop_tf(clip_norm=0.5), 0.9)
    update = jax.jit(make_update(made, part.optimizer, ema=part.ema, accumulate=accumulate))
    for _ in range(steps):
        state, metrics = update(state, batch, knobs)
    return state, metrics


def close(one, other, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


# --- the law -------------------------------------------------------------------------------------


def all_parts():
    terms = {
        "ce": on_views(losses.cross_entropy(0.1), ("weak",)), "kd": losses.hinton(),
        "bce": losses.binary_cross_entropy(), "pixels": pixels()}
    return objective(terms, {"student": small(4), "teacher": small()}, views=shown,
                     trains=("nets/*",), transform=compress.mask())


def test_accumulation_equals_the_large_batch_where_statistics_rest():
    """Gradients, terms, averages, clip: to rounding. Pixels, pairs and draws: exactly."""
    expected_state, expected = walked(all_parts(), 1)
    state, metrics = walked(all_parts(), 4)
    assert float(metrics["pixels"]) == float(expected["pixels"])
    close(metrics, expected)
    for part in ("params", "stats", "opt_state", "ema"):
        close(getattr(state, part), getattr(expected_state, part))


# --- what a micro-batch is -----------------------------------------------------------------------


def test_a_micro_batch_is_every_nth_image_with_all_its_views():
    views = (View("weak"), View("pool", rows=2))
    image = np.repeat(np.arange(6), 3)
    number = jnp.arange(18)
    given = Rows(number[:, None, None, None], image, number, number * 1.0, image, views)
    for micro in range(3):
        part = gradients.micro_batch(given, micro, 3)
        assert part.views == views and part.groups == 2
        assert part.label.tolist() == [micro] * 3 + [micro + 3] * 3
        assert part.mix_label.tolist() == [*range(3 * micro, 3 * micro + 3),
                                           *range(3 * micro + 9, 3 * micro + 12)]
        assert part.image[:, 0, 0, 0].tolist() == part.mix_label.tolist()


def memory():
    """A per-example term with parameters and a state that follows the rows it sees."""
    def apply(params, state, signals, key):
        pixels = signals.rows.image.reshape(-1, 48) / 255
        value = ((signals.outputs["student"].pooled - params["centre"] - state["seen"]) ** 2).mean()
        return value, {"seen": 0.5 * state["seen"] + 0.5 * pixels.mean(0)}

    return Term(lambda key, signals: ({"centre": jnp.zeros(48)}, {"seen": jnp.zeros(48)}), apply,
                per_example=True)


def by_itself(terms, optimizer, **options):
    """(objective, first state, batch of 8, knobs) of a linear network, made without a recipe."""
    made = objective(terms, {"student": linear()}, **options)
    images = np.random.default_rng(0).integers(0, 256, (8, *SHAPE), np.uint8)
    batch = Batch(jnp.asarray(images), jnp.arange(8, dtype=jnp.int32) % 4, jnp.arange(8))
    knobs = Knobs({"train": {"magnitude": 20.0}}, dict.fromkeys(terms, jnp.float32(0.7)),
                  jnp.float32(0.5))
    net, stats = linear().init(jax.random.key(0))
    own = {name: term.init(None, None) for name, term in terms.items()}
    params = {"nets": {"student": net}, "terms": {name: own[name][0] for name in own}}
    states = {name: own[name][1] for name in own}
    state = TrainState(params, {"student": stats}, {}, states, optimizer.init(params), {},
                       jax.random.key(3), jnp.int32(0), None, {})
    return made, state, batch, knobs


def test_otherwise_it_is_a_group_and_states_go_from_one_to_the_next():
    """By hand: four batches of two images in turn, one update by the mean of their gradients."""
    optimizer = train.sgd(0.0)
    made, state, batch, knobs = by_itself(
        {"ce": losses.cross_entropy(), "own": memory()}, optimizer)
    after, metrics = make_update(made, optimizer, accumulate=4)(state, batch, knobs)

    here, gradients_, values = state, [], []
    for micro in range(4):
        part = jax.tree.map(lambda leaf: leaf[micro::4], batch)

        def loss(params):
            found, aux = made(params, here, part, jax.random.key(0), knobs)
            return 0.7 * (found["ce"] + found["own"]), (found, aux)

        gradient, (found, aux) = jax.grad(loss, has_aux=True)(state.params)
        here = replace(here, stats=aux.stats, terms=aux.terms)
        gradients_.append(gradient)
        values.append(found)
    mean = jax.tree.map(lambda *parts: sum(parts) / 4, *gradients_)
    close(after.params, jax.tree.map(lambda w, g: w - 0.5 * g, state.params, mean))
    close((after.stats, after.terms), (here.stats, here.terms))
    for name in made.terms:
        assert float(metrics[name]) == pytest.approx(np.mean([v[name] for v in values]), rel=1e-5)
    running = np.zeros(48)
    for micro in range(4):
        pixels_of = np.asarray(batch.image)[micro::4].reshape(2, -1)
        running = 0.9 * running + 0.1 * pixels_of.mean(0) / 255
    np.testing.assert_allclose(after.stats["student"]["trunk"]["mean"], running, rtol=1e-5)
    at_once, _ = make_update(made, optimizer)(state, batch, knobs)
    heads = [each.params["nets"]["student"]["head"]["kernel"] for each in (after, at_once, state)]
    assert np.abs(heads[0] - heads[1]).max() > 0.01 * np.abs(heads[0] - heads[2]).max()


def test_its_networks_and_terms_draw_what_no_view_has_drawn():
    """Each is given keys of its own: four of a network, four of a term, 32 of images and rows."""
    def note(seen, key):
        return jnp.roll(seen, 1, axis=0).at[0].set(jax.random.key_data(key))

    def trained(variables, rows, key):
        said, _ = linear().train((variables[0], {"trunk": {"mean": jnp.zeros(48)}}), rows, key)
        return said, {"keys": note(variables[1]["keys"], key)}

    def layer(keys, images, policy):
        shown.append(jax.random.key_data(keys))
        return images

    none, shown = jnp.zeros((4, 2), jnp.uint32), []
    term = Term(lambda key, signals: ({}, none), lambda params, state, signals, key: (
        signals.outputs["student"].logits.mean(), note(state, key)), per_example=True)
    made, state, batch, knobs = by_itself(
        {"own": term}, train.sgd(), views=augment.make({"train": layer}, rows={"train": 4}))
    made = replace(made, nets={"student": linear()._replace(train=trained)})
    state = replace(state, stats={"student": {"keys": none}})
    of_four = gradients.of_micro_batches(made, method.weighted_sum, 4)
    _, _, aux = of_four(state, batch, jax.random.key(5), replace(knobs, policies={}))
    keys = np.concatenate([aux.stats["student"]["keys"], aux.terms["own"], *shown])
    assert keys.shape == (4 + 4 + 32, 2) and len(np.unique(keys, axis=0)) == 40


def test_the_loop_of_an_accelerator_gives_the_same(monkeypatch):
    """On a CPU the micro-batches are unrolled; elsewhere they are a loop in the memory of one."""
    optimizer, results = train.sgd(0.9), []
    made, state, batch, knobs = by_itself(
        {"ce": losses.cross_entropy(), "own": memory()}, optimizer)
    traced = jax.jit(make_update(made, optimizer, accumulate=4)).trace(state, batch, knobs)
    for platform in ("cpu", "cuda", "tpu"):
        lowered = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.while" in lowered) == (platform != "cpu")
    for lowering in (lax.platform_dependent, looped):
        monkeypatch.setattr(gradients.lax, "platform_dependent", lowering)
        after, metrics = make_update(made, optimizer, accumulate=4)(state, batch, knobs)
        results.append((after.params, after.stats, after.terms, after.opt_state, metrics))
    close(*results)


# --- over devices, and as a run ------------------------------------------------------------------


def looped(begun, default, cpu):
    """In place of `lax.platform_dependent`: what an accelerator would run."""
    return default(begun)


@pytest.mark.parametrize("lowering", [lax.platform_dependent, looped])
def test_no_image_leaves_its_device(lowering, monkeypatch):
    """What eight devices tell each other of a batch: sums of gradients and statistics alone."""
    monkeypatch.setattr(gradients.lax, "platform_dependent", lowering)
    whole = recipe(phase(made=objective(views=plain), accumulate=2), resident=False)
    part, mesh = whole.phases[0], sharding.make_mesh()
    cut = sharding.over_data(mesh)
    batch = Batch(*(jax.ShapeDtypeStruct(shape, dtype, sharding=cut) for shape, dtype in (
        ((16, 8, 8, 3), jnp.uint8), ((16,), jnp.int32), ((16,), jnp.int32))))
    state = start.shapes(part, whole, mesh).state
    plan = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
        np.shape(leaf), leaf.dtype, sharding=sharding.replicated(mesh)), start.plan(part, whole, 0))
    update = make_update(part.objective, part.optimizer, accumulate=2)
    with jax.set_mesh(mesh):
        step = lower_step(make_step(update, mesh, 1), mesh, (state, {}, batch, plan))
        text = step.compile().as_text()
    assert "all-reduce" in text
    moved = re.findall(r"= (\S+) (?:all-gather|all-to-all|collective-permute)", text)
    assert not moved


def test_a_run_with_accumulation_on_one_and_on_eight_devices(tmp_path):
    """The same pixels as without; statistics of half a batch, so other losses."""
    terms = {"ce": losses.cross_entropy(), "pixels": pixels()}
    part = phase(made=objective(terms, views=noisy), accumulate=2, ema=0.9, knobs=Knobs(
        {"train": {"magnitude": 20.0}}, {"ce": 1.0, "pixels": 0.0}, 0.1))
    logs = []
    for number, (micro, count) in enumerate([(2, 1), (2, 8), (1, 1)]):
        train.run(recipe(replace(part, accumulate=micro), log_every=1), tmp_path / str(number),
                  devices=jax.devices()[:count])
        logs.append(rows(tmp_path / str(number), "train"))
    assert len(logs[0]) == 6
    for one, eight, at_once in zip(*logs):
        assert one["pixels"] == eight["pixels"] == at_once["pixels"]
        assert one["ce"] == pytest.approx(eight["ce"], rel=1e-4)
    assert logs[0][0]["ce"] != pytest.approx(logs[2][0]["ce"], rel=1e-3)


def test_a_stopped_run_goes_on_bit_by_bit(tmp_path, monkeypatch):
    """With micro-batches, an optimiser of optax's and parameters that rest."""
    made = objective({"ce": losses.cross_entropy()}, views=noisy,
                     trains=("nets/student/head/*", "stats/*"))
    part = phase(made=made, accumulate=2, ema=0.9, optimizer=train.from_optax(
        "lamb", weight_decay=0.1, decay=("*/kernel",), clip_norm=1.0),
        knobs=Knobs({"train": {"magnitude": 20.0}}, {"ce": 1.0}, 0.1), structure="goes on")
    one = jax.devices()[:1]
    train.run(recipe(part), tmp_path / "whole", devices=one)
    with monkeypatch.context() as patch:
        patch.setattr(stop.Stop, "due", lambda stop, step: step == 4)
        with pytest.raises(check.Preempted):
            train.run(recipe(part), tmp_path / "split", devices=one)
    train.run(recipe(part), tmp_path / "split", devices=one)
    assert_same_run(tmp_path / "whole", tmp_path / "split", ["only"])
    save = saved(tmp_path / "whole", "only")
    assert any(path.startswith("opt_state") and "head/kernel" in path for path in save)
    assert not any(path.startswith("opt_state") and "conv" in path for path in save)


# --- refusals ------------------------------------------------------------------------------------


def test_the_terms_of_the_house_say_that_they_are_per_example():
    for term in (losses.cross_entropy(), losses.binary_cross_entropy(), losses.hinton()):
        assert term.per_example and on_views(term, ("train",)).per_example
    pairs = stateless(lambda signals: signals.outputs["student"].logits.std())
    assert not pairs.per_example and not on_views(pairs, ("train",)).per_example


def halved(pullback, losses_, knobs):
    return jax.tree.map(lambda g: g / 2, method.weighted_sum(pullback, losses_, knobs))


PAIRS = stateless(lambda signals: signals.outputs["student"].logits.std())
REFUSED = {
    "a pick": ({"pick": method.top(lambda s: s.rows.lam, ("train",), 0.5)}, {},
               r"\.pick: expected none with accumulate = 2, got a pick"),
    "a term of pairs": ({"terms": {"ce": losses.cross_entropy(), "std": PAIRS}}, {},
                        r"\.terms: expected per-example terms .*got \['std'\]"),
    "another combine": ({}, {"combine": halved}, r"\.combine: expected weighted_sum with"),
    "no micro-batch": ({}, {"accumulate": 0}, r"\.accumulate: expected a whole number"),
    "half a micro-batch": ({}, {"accumulate": 2.0}, r"\.accumulate: expected a whole number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_mean_something_else_is_refused(name, tmp_path):
    parts, options, sentence = REFUSED[name]
    part = phase(made=objective(**parts), **{"accumulate": 2, **options})
    with pytest.raises(check.ConfigError, match="only" + sentence):
        train.run(recipe(part), tmp_path / "run", devices=jax.devices()[:1])
    assert not (tmp_path / "run").exists()
    with pytest.raises(check.ConfigError, match="update" + sentence):
        make_update(part.objective, part.optimizer, part.combine, accumulate=part.accumulate)


@pytest.mark.parametrize("count, devices, sentence", [
    (3, 1, "only.accumulate: expected a divisor of the batch_size 16, got 3"),
    (4, 8, "images of a micro-batch of only: expected a multiple of the 8 devices, got 4"),
])
def test_micro_batches_that_do_not_come_out_even_are_refused(count, devices, sentence, tmp_path):
    with pytest.raises(check.ConfigError, match=sentence):
        train.run(recipe(phase(accumulate=count)), tmp_path / "run",
                  devices=jax.devices()[:devices])
    assert not (tmp_path / "run").exists()


def test_keeping_every_row_is_no_pick_and_one_micro_batch_allows_all():
    make_update(objective(pick=method.keep_all()), train.sgd(), accumulate=2)
    picking = objective({"std": PAIRS}, pick=method.top(lambda s: s.rows.lam, ("train",), 0.5))
    make_update(picking, train.sgd(), halved, accumulate=1)
