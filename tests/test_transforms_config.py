"""Masks and quantisers as configs: what goes into the network, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, defaults, models, recipe, tree
from augjax.augment import plain
from augjax.types import Batch, Start

PICTURES = recipe.Pictures("digits", 10, (8, 8, 3))


def phases_of(transform, first=None, **model):
    """A phase that is pruned or not, and one that starts from it."""
    net = defaults.model("resnet8_tiny", **model)
    config = defaults.config(
        phases={"first": defaults.phase(model=defaults.model("resnet8_tiny"),
                                        transform=first or {}),
                "second": defaults.phase(model=net, transform=transform, init="phase:first")},
        data={"name": "digits", "image_size": 8})
    return recipe.build_phases(recipe.expanded(config), PICTURES)


def refusal(*args, **model):
    with pytest.raises(check.ConfigError) as caught:
        phases_of(*args, **model)
    return str(caught.value)


def shown(phase):
    """{path: what the network is shown of a weight} after the phase's edits."""
    params, stats = phase.objective.nets["student"].init(jax.random.key(0))
    start = Start({"student": params}, {"student": stats},
                  phase.objective.transform.init({"student": params}))
    for edit in phase.edits:
        start = edit(start)
    return tree.flatten(phase.objective.transform.apply(start.params, start.transform))


def test_pruned_and_quantised_weights_are_zero_or_one_of_the_levels():
    weights = shown(phases_of({"mask": defaults.mask(0.6), "dorefa": defaults.dorefa(2)})[1])
    exempt = [path for path in weights if "/stem/" in path or "/head/" in path]
    kernels = [path for path in weights if path.endswith("kernel") and path not in exempt]
    for path in kernels:
        assert set(np.round(np.unique(3 * weights[path]), 4)) <= {-3, -1, 0, 1, 3}
    everything = np.concatenate([weights[path].ravel() for path in (*kernels, *exempt)
                                 if path.endswith("kernel")])
    assert np.mean(everything == 0) == pytest.approx(0.6, abs=1e-3)
    assert all(len(np.unique(weights[path])) > 5 for path in exempt if path.endswith("kernel"))


def test_bits_of_weights_are_data_and_those_of_activations_are_program():
    def structure(bits, **model):
        return phases_of({"dorefa": defaults.dorefa(bits)}, **model)[1].structure

    assert structure(2) == structure(4) == structure(32) != phases_of({})[1].structure
    assert structure(4) != structure(4, activation_bits=4)


def test_activations_are_quantised_in_the_network_alone():
    params, stats = models.build("resnet8_tiny", 10, (8, 8, 3), [0.5] * 3, [0.25] * 3).init(
        jax.random.key(0))
    rows = train_rows()
    said = {bits: phases_of({}, activation_bits=bits)[1].objective.nets["student"].predict(
        (params, stats), rows).features["f1"] for bits in (2, 32)}
    assert (said[2] != said[32]).any() and said[2].shape == said[32].shape


def train_rows():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    return plain(Batch(jnp.asarray(images), jnp.zeros(4, jnp.int32), jnp.arange(4)))


@pytest.mark.parametrize("transform, part", [
    ({"dorefa": defaults.dorefa(0)}, "1 to 32"),
    ({"dorefa": defaults.dorefa(33)}, "1 to 32"),
    ({"dorefa": {"bits": 4, "bit": 2}}, "Did you mean 'bits'"),
    ({"dorefas": {"bits": 4}}, "Did you mean 'dorefa'"),
    ({"mask": defaults.mask(1.0)}, "[0, 1)"),
    ({"mask": defaults.mask(0.5, scope="globl")}, "Did you mean 'global'"),
])
def test_what_makes_no_sense_is_refused(transform, part):
    assert part in refusal(transform)


def test_pruned_weights_may_not_come_back_as_levels():
    pruned = {"mask": defaults.mask(0.5)}
    assert "Add transform.mask" in refusal({"dorefa": defaults.dorefa(2)}, pruned)
    assert phases_of({"dorefa": defaults.dorefa(2), **pruned}, pruned)
