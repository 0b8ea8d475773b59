"""A whole update whose BatchNorm statistics are taken over groups of images by global position: the
per-card batches of the papers and the per-core groups of TPU recipes, on any number of devices."""

import jax
import numpy as np
import pytest

from augjax import train
from train.helpers import BATCH, knobs, objective, phase, recipe, rows, saved, small


def trained(workdir, images, devices):
    made = phase(made=objective(nets={"student": small(8, images=images)}), knobs=knobs())
    train.run(recipe(made, log_every=1), workdir, devices=jax.devices()[:devices])
    return [row["loss"] for row in rows(workdir, "train")], saved(workdir, "only")


@pytest.mark.parametrize("images", [4, 1])  # 2 images a device: groups across devices, and inside
def test_groups_are_the_same_on_eight_devices_and_on_one(tmp_path, images):
    (losses, state), (others, other) = (
        trained(tmp_path / str(count), images, count) for count in (1, 8))
    np.testing.assert_allclose(losses, others, rtol=2e-4)
    assert set(state) == set(other)
    for path in state:
        if state[path].dtype.kind == "f":
            np.testing.assert_allclose(state[path], other[path], rtol=1e-3, atol=1e-5, err_msg=path)


def test_groups_matter_here(tmp_path):
    """Else the law above would say nothing: the batch as one group trains otherwise."""
    losses = [trained(tmp_path / str(images), images, 1)[0] for images in (4, BATCH)]
    assert abs(losses[0][-1] - losses[1][-1]) > 1e-3
