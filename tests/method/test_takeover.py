"""What a phase takes over from a pruned one: its masks, or the network as it was seen."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from small import BATCH, dataset, objective

from augjax import check, compress, data, defaults, recipe, train, tree
from augjax.train import start
from augjax.types import chain, Knobs


def half(begun):
    masks = compress.prune_l1(begun.params, begun.transform["mask"], 0.5)
    return replace(begun, transform={"mask": masks})


@pytest.mark.parametrize("transform, masked", [
    (chain(mask=compress.mask()), True), (chain(), False), (compress.mask(), False),
], ids=["the same mask", "no mask", "a mask of another name"])
def test_a_pruned_weight_does_not_come_back(tmp_path, transform, masked):
    knobs = Knobs({}, {"ce": 1.0}, 0.1)
    pruned = train.Phase("pruned", objective(transform=chain(mask=compress.mask())), knobs,
                         epochs=1, batch_size=BATCH, edits=(half,))
    after = train.Phase("after", objective(transform=transform), knobs, epochs=1, batch_size=BATCH,
                        init={"student": train.Source("pruned")})
    recipe = train.Recipe([pruned, after], dataset())
    devices = jax.devices()[:1]
    train.run(replace(recipe, phases=[pruned]), tmp_path, devices=devices)
    begun = start.start(after, recipe, tmp_path, train.sharding.make_mesh(devices))
    seen = transform.apply(begun.params, begun.transform)["student"]["head"]["kernel"]
    assert np.mean(np.asarray(seen) == 0) == 0.5
    assert np.any(begun.params["student"]["head"]["kernel"] == 0) != masked


def zeros(workdir, made, name):
    """{weight: where what a finished phase's network sees is 0}."""
    phase = next(phase for phase in made.phases if phase.name == name)
    params, _, state = start.read(train.Source(name), made, workdir,
                                  train.sharding.make_mesh(jax.devices()[:1]))
    seen = tree.flatten(phase.objective.transform.apply(params, state))
    return {path: np.asarray(leaf == 0) for path, leaf in seen.items() if "kernel" in path}


@pytest.mark.parametrize("transform, fresh", [
    ({}, ()), ({"mask": defaults.mask(0.8)}, ()), ({"mask": defaults.mask(0.6)}, ("*",)),
], ids=["no mask", "deepened", "weights anew"])
def test_no_config_trains_a_pruned_weight_back(tmp_path, transform, fresh):
    """It is refused when it is built, or what was pruned is 0 after some steps."""
    same = {"model": defaults.model("resnet8_tiny"), "batch_size": 8}
    config = defaults.config(
        {"pruned": defaults.phase(**same, transform={"mask": defaults.mask(0.6)}),
         "after": defaults.phase(**same, init="phase:pruned", init_fresh=fresh,
                                 transform=transform)}, {"name": "digits", "limit": 24})
    try:
        made = recipe.build(config)
    except check.ConfigError:
        assert not transform
        return
    made = replace(made, data=replace(made.data, test=data.limited(made.data.test, 8)))
    summary = train.run(made, tmp_path, devices=jax.devices()[:1])
    assert summary["phases"]["after"]["steps"] == 3
    before, after = (zeros(tmp_path, made, phase.name) for phase in made.phases)
    assert all(np.all(after[path][gone]) for path, gone in before.items())
    everywhere = np.concatenate([gone.ravel() for gone in after.values()])
    assert everywhere.mean() == pytest.approx(transform["mask"].sparsity, abs=1e-3)
