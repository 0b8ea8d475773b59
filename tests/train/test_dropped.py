"""What a phase leaves behind of what it takes: extra layers, a head."""

import jax
import numpy as np
import pytest

from augjax import check, models, train, tree
from augjax.train import phases, Source, start
from helpers import CLASSES, objective, phase, recipe, saved, SHAPE


def taking(tmp_path, **source):
    """(what the first phase saved, what the second began with): extra layers, then none."""
    def net(**options):
        return models.build("resnet8_tiny", CLASSES, SHAPE, [0.5] * 3, [0.25] * 3, **options)

    long = phase("long", objective(nets={"student": net(extra_blocks=2)}))
    short = phase("short", objective(nets={"student": net()}),
                  init={"student": Source("long", **source)})
    made = recipe(long, short)
    mesh = train.make_mesh(jax.devices()[:1])
    phases.check_recipe(made, mesh)
    train.run(recipe(long), tmp_path, devices=jax.devices()[:1])
    begun = start.start(short, made, tmp_path, mesh)
    return saved(tmp_path, "long"), tree.flatten(
        {"params/nets": begun.params, "stats": begun.stats})


def test_extra_layers_are_dropped_and_the_rest_is_taken(tmp_path):
    trained, begun = taking(tmp_path, drop=("extra_*",), fresh=("head/bias",))
    assert len(begun) < sum(path.startswith(("params/nets", "stats")) for path in trained)
    for path, leaf in begun.items():
        alike = np.array_equal(leaf, trained[path])
        assert alike == (path != "params/nets/student/head/bias"), path


@pytest.mark.parametrize("source, message", [
    ({}, "extra_block1"),
    ({"drop": ("extra_block1/*",)}, "extra_block2"),
    ({"drop": ("extra_*", "nothing_*")}, "drop.*'nothing_"),
    ({"drop": ("extra_*",), "fresh": ("heads/*",)}, "fresh.*'heads/"),
])
def test_what_does_not_fit_is_named(tmp_path, source, message):
    with pytest.raises(check.ConfigError, match=message):
        taking(tmp_path, **source)
