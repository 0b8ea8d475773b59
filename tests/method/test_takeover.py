"""What a phase takes over from a pruned one: its masks, or the network as it was seen."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from small import BATCH, dataset, objective

from augjax import compress, train
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
