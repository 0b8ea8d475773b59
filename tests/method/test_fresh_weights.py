"""Weights that start anew under masks of a trained network are no weights that it began from."""

from dataclasses import replace

import jax
import numpy as np
from small import BATCH, dataset, objective

from augjax import compress, train, tree
from augjax.train import start
from augjax.types import Knobs


def test_what_starts_anew_is_not_where_its_mask_came_from(tmp_path):
    """spec C4: "weights re-initialised"; a run of the same seed drew the same key before."""
    def half(begun):
        return replace(begun, transform=compress.prune_l1(begun.params, begun.transform, 0.5))

    only = train.Phase("only", objective(transform=compress.mask()), Knobs({}, {"ce": 1.0}, 0.1),
                       epochs=1, batch_size=BATCH, edits=(half,))
    recipe, devices = train.Recipe([only], dataset()), jax.devices()[:1]
    mesh = train.sharding.make_mesh(devices)
    train.run(recipe, tmp_path, devices=devices)
    source = train.Source("only", run=str(tmp_path), origin=only, fresh=("*",))
    anew = replace(only, init={"student": source}, edits=())
    here = tmp_path / "another"
    scratch, fresh = (start.start(one, replace(recipe, phases=[one]), here, mesh)
                      for one in (only, anew))
    kernels = {path for path in tree.flatten(scratch.params) if path.endswith("kernel")}
    assert kernels
    for path in kernels:
        first, second = (tree.flatten(one.params)[path] for one in (scratch, fresh))
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.5, path
    masks = [leaf for leaf in jax.tree.leaves(fresh.transform)]
    assert 0.4 < np.mean(np.concatenate([mask.ravel() for mask in masks]) == 0) < 0.6
