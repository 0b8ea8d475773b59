"""Memories and attention through a whole run: stopped and gone on with equals never stopped."""

from flax import linen as nn
import jax
import numpy as np
import pytest

from augjax import check, losses, models, train
from augjax.models.norm import BatchNorm
from augjax.train import stop
from augjax.types import Outputs
from train.helpers import assert_same_run, CLASSES, objective, phase, recipe, saved, SHAPE

ONE = jax.devices()[:1]
TAPS = {"taps": ("f0", "f1"), "teacher_taps": ("f0", "f1")}
STEPS, STOP = 6, 3  # the attention's last update of two is seen at the third


class Two(nn.Module):
    """Two small maps."""

    @nn.compact
    def __call__(self, x, mode):
        x = f0 = nn.relu(nn.Conv(4, (3, 3), strides=4, use_bias=False, name="conv0")(x))
        x = nn.relu(BatchNorm(name="norm")(nn.Conv(3, (1, 1), name="conv1")(x), mode))
        pooled = x.mean((1, 2))
        return Outputs(nn.Dense(CLASSES, name="head")(pooled), {"f0": f0, "f1": x}, pooled)


def test_memories_and_attention_survive_a_stop(tmp_path, monkeypatch):
    net = models.from_linen(Two(), SHAPE, [0.5] * 3, [0.25] * 3)
    terms = {"ce": losses.cross_entropy(), "crd": losses.crd(96, negatives=20, width=4),
             "mhgd": losses.mhgd(**TAPS, heads=2, pretrain_steps=2)}
    made = objective(terms, {"student": net, "teacher": net}, ("student", "teacher"),  # at rest
                     trains=("nets/student/*", "stats/student/*", "terms/*"))
    made = recipe(phase(made=made, optimizer=train.sgd(0.9, weight_decay=1e-2)))
    train.run(made, tmp_path / "whole", devices=ONE)
    with monkeypatch.context() as patch:
        patch.setattr(stop.Stop, "due", lambda self, step: step == STOP)
        with pytest.raises(check.Preempted):
            train.run(made, tmp_path / "parts", devices=ONE)
    half = saved(tmp_path / "parts", "only")
    train.run(made, tmp_path / "parts", devices=ONE)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", ("only",))
    end = saved(tmp_path / "parts", "only")
    assert end["step"] == STEPS and half["step"] == STOP
    assert half["terms/mhgd/updates"] == end["terms/mhgd/updates"] == 3
    for path, array in half.items():  # CRD's memory goes on, MHGD's attention is at rest
        if path.startswith("terms/crd/memory"):
            assert not np.array_equal(array, end[path])
            assert np.any(array != 0) and "terms/crd/z/student" in half
        if path.startswith("terms/mhgd/attention"):
            assert np.array_equal(array, end[path])
    assert (half["terms/crd/label"] >= 0).sum() == 16 * STOP
    assert (end["terms/crd/label"] >= 0).all()
