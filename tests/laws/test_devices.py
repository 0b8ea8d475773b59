"""The number of devices changes nothing but rounding: order, pixels, losses, statistics, picks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses, method, train
from augjax.train import checkpoint, sharding, stop
from augjax.types import View
from train.helpers import (
    fingerprint, knobs, noisy, objective, phase, plain, recipe, rows, saved, three_phases,
)

EXACT = ("pixels", "order", "learning_rate", "epoch", "step", "accuracy")


def made(**options):
    return three_phases(log_every=1, **options)


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    train.run(made(), workdir, devices=jax.devices()[:1])
    return workdir


def assert_equal_to_rounding(one, other):
    """Rows and last saves; whole numbers, masks and keys exactly, floats to a few roundings."""
    left, right = rows(one), rows(other)
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert set(a) == set(b)
        for name in a:
            if name in EXACT or isinstance(a[name], str):
                assert a[name] == b[name], (name, a, b)
            else:
                assert np.isclose(a[name], b[name], rtol=2e-4, atol=1e-5), (name, a, b)
    for name in ("teacher", "student", "pruned"):
        a, b = saved(one, name), saved(other, name)
        assert set(a) == set(b)
        for path in a:
            if a[path].dtype.kind == "f":
                np.testing.assert_allclose(a[path], b[path], rtol=1e-3, atol=1e-5, err_msg=path)
            else:
                assert np.array_equal(a[path], b[path]), path


@pytest.mark.parametrize("count, fsdp", [(2, False), (8, False), (8, True)])
def test_devices_and_fsdp_equal_one_device(on_one, tmp_path, count, fsdp):
    train.run(made(fsdp=fsdp), tmp_path, devices=jax.devices()[:count])
    assert_equal_to_rounding(on_one, tmp_path)


def test_fsdp_cuts_parameters_and_momentum(tmp_path, monkeypatch):
    """Otherwise the law above would say nothing about FSDP."""
    seen = []
    save = checkpoint.Writer.save
    monkeypatch.setattr(checkpoint.Writer, "save", lambda writer, phase, step, state, *rest: (
        seen.append(state), save(writer, phase, step, state, *rest)))
    train.run(recipe(fsdp=True), tmp_path, devices=jax.devices())
    state = seen[-1]
    for tree in (state.params, state.opt_state):
        assert any(len(leaf.addressable_shards[0].data.reshape(-1)) * 8 == leaf.size
                   for leaf in jax.tree.leaves(tree))
    assert state.step.sharding.is_fully_replicated


def test_a_checkpoint_of_eight_devices_continues_on_two(on_one, tmp_path, monkeypatch):
    for last, devices in ((("student", 5), 8), (None, 2)):
        with monkeypatch.context() as patch:
            if last:
                patch.setattr(stop.Stop, "due", lambda stop, step: step == 6 + last[1])
                with pytest.raises(check.Preempted):
                    train.run(made(fsdp=True), tmp_path, devices=jax.devices()[:devices])
                assert checkpoint.steps(tmp_path, "student")[-1] == 5
            else:
                train.run(made(), tmp_path, devices=jax.devices()[:devices])
    assert_equal_to_rounding(on_one, tmp_path)


# --- picks across devices ------------------------------------------------------------------------


def two_views(key, batch, policies):
    """Every image as it is and twice more, noisy: example-major, views "clean" 1 and "loud" 2."""
    clean = plain(key, batch, policies)
    loud = [noisy(jax.random.fold_in(key, n), batch, policies) for n in range(2)]
    rows = jax.tree.map(
        lambda *leaves: jnp.stack(leaves, 1).reshape(-1, *leaves[0].shape[1:]), clean, *loud)
    return replace(rows, views=(View("clean"), View("loud", 2)))


def test_a_pick_over_the_whole_batch_keeps_the_same_rows(tmp_path):
    def darkest(signals):  # exact, so that no rounding decides
        return -signals.rows.image.astype(jnp.float32).sum((1, 2, 3))

    terms = {"ce": losses.cross_entropy(), "pixels": fingerprint(), "order": fingerprint("order")}
    picking = objective(terms, views=two_views, pick=method.top(darkest, ("loud",), 0.5))
    one_phase = phase(made=picking, knobs=knobs({"ce": 1.0, "pixels": 0.0, "order": 0.0},
                                                magnitude=40.0))
    for count in (1, 8):
        train.run(recipe(one_phase, log_every=1), tmp_path / str(count),
                  devices=jax.devices()[:count])
    one, eight = rows(tmp_path / "1", "train"), rows(tmp_path / "8", "train")
    assert len(one) == 6
    for a, b in zip(one, eight):
        assert (a["pixels"], a["order"]) == (b["pixels"], b["order"])
        assert np.isclose(a["ce"], b["ce"], rtol=1e-4)


# --- batches that do not fit ---------------------------------------------------------------------


@pytest.mark.parametrize("field", ["batch_size", "evaluate_batch"])
def test_a_batch_that_devices_cannot_share_is_refused(tmp_path, field):
    bad = replace(phase(), **{field: 20})
    sentence = rf"only.{field}.*multiple of the 8.*got 20.*Use 16 or 24"
    with pytest.raises(check.ConfigError, match=sentence):
        train.run(recipe(bad), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_leaves_that_do_not_divide_stay_whole():
    mesh = sharding.make_mesh()
    shapes = {"scalar": (), "odd": (3, 5), "small": (4,), "wide": (3, 16), "both": (8, 64)}
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    cut = {name: where.spec for name, where in sharding.state_shardings(mesh, tree, True).items()}
    spec = jax.sharding.PartitionSpec
    assert cut == {"scalar": spec(), "odd": spec(), "small": spec(),
                   "wide": spec(None, "data"), "both": spec(None, "data")}
