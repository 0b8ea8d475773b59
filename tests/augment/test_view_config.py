"""What a config says of a view: erasing, and magnitudes by sparsity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import augment, check, defaults, recipe
from augjax.types import Batch
from configs import quickstart

PICTURES = recipe.Pictures("cifar10", 10, (16, 16, 3))
BATCH = Batch(jnp.zeros((400, 16, 16, 3), jnp.uint8), jnp.zeros(400, jnp.int32), jnp.arange(400))
SPARSITIES, MAGNITUDES = (0.0, 0.2, 0.4, 0.6), (14.0, 12.0, 8.0, 4.0)  # spec C3


def phase_of(**fields):
    config = defaults.config({"student": defaults.phase(**fields)}, {"name": "cifar10"})
    return recipe.build_phases(recipe.expanded(config), PICTURES)[0]


def viewed(share, policy=None):
    phase = phase_of(views={"train": defaults.view("none", policy, erase=share)})
    return phase, jax.jit(phase.objective.views)(jax.random.key(0), BATCH, phase.knobs.policies)


@pytest.mark.parametrize("policy", [None, defaults.randaugment(0.0)], ids=["alone", "policy"])
def test_a_view_erases_its_share_of_images_with_the_mean(policy):
    where = (np.asarray(viewed(0.25, policy)[1].image) == (125, 123, 114)).all(-1)
    assert abs(where.any((1, 2)).mean() - 0.25) < 5 * np.sqrt(0.1875 / 400)
    assert not np.asarray(viewed(0.0, policy)[1].image).any()


def test_how_often_is_a_knob_and_whether_is_structure():
    never, seldom, often = (viewed(share)[0] for share in (0.0, 0.25, 0.5))
    assert seldom.structure == often.structure != never.structure
    step = jax.jit(seldom.objective.views)
    images = [np.asarray(step(jax.random.key(0), BATCH, phase.knobs.policies).image)
              for phase in (seldom, often)]
    assert step._cache_size() == 1
    assert (images[0].any((1, 2, 3)) <= images[1].any((1, 2, 3))).all()
    assert images[0].any((1, 2, 3)).sum() < images[1].any((1, 2, 3)).sum()


def test_a_flag_sets_erasing():
    config = quickstart.get_config()
    config.update_from_flattened_dict({"student.views.train.erase.probability": 0.25})
    phases = {phase.name: phase for phase in recipe.build_phases(recipe.expanded(config), PICTURES)}
    assert phases["student"].knobs.policies["train"].erased == np.float32(0.25)


def test_an_erasing_layer_wants_its_number():
    with pytest.raises(check.ConfigError, match="with_erasing"):
        augment.random_erasing(None)(
            augment.image_keys(jax.random.key(0), 400), BATCH.image, augment.randaugment(1.0))
    with pytest.raises(check.ConfigError, match="probability of erasing"):
        viewed(25.0)


def by_sparsity(**changes):
    return defaults.randaugment(9.0, defaults.schedule(**{
        "kind": "sparsity", "sparsities": SPARSITIES, "points": MAGNITUDES, **changes}))


def magnitudes(**fields):
    config = defaults.config({"student": defaults.phase(
        views={"train": defaults.view("none", by_sparsity())}, **fields)}, {"name": "cifar10"})
    return [float(phase.knobs.policies["train"].magnitude)
            for phase in recipe.build_phases(recipe.expanded(config), PICTURES)]


def test_magnitudes_follow_the_phases_sparsity():
    assert magnitudes() == [14.0]
    assert magnitudes(transform={"mask": defaults.mask(0.3)}) == [10.0]
    assert magnitudes(transform={"mask": defaults.mask(0.0)},
                      repeat={"sparsity": (0.2, 0.35, 0.6)}) == pytest.approx([12.0, 9.0, 4.0])


@pytest.mark.parametrize("changes, says", [
    ({"points": ()}, "as many points as sparsities"),
    ({"points": (), "sparsities": ()}, "at least one point"),
    ({"sparsities": (0.1, 0.2, 0.4, 0.6)}, "magnitude_schedule: expected points that cover "
     "sparsity 0, got points from 0.1 to 0.6"),
    ({"points": ("a",) * 4}, "points: expected a list of which each is a finite number")])
def test_a_table_of_sparsities_needs_pairs(changes, says):
    with pytest.raises(check.ConfigError, match=says):
        phase_of(views={"train": defaults.view("none", by_sparsity(**changes))})


@pytest.mark.parametrize("fields", [
    {"transform": {"mask": defaults.mask(0.9)}},
    {"transform": {"mask": defaults.mask(0.0)}, "repeat": {"sparsity": (0.2, 0.9)}}])
def test_a_table_of_sparsities_is_never_extended(fields):
    with pytest.raises(check.ConfigError, match="cover sparsity 0.9, got points from 0 to 0.6"):
        magnitudes(**fields)
