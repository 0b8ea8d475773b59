"""What must change nothing: empty masks, picks of all, where the images lie, hidden weights."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from augjax import compress, losses, method, train
from augjax.train import Source
from augjax.types import Knobs
from train.helpers import (
    assert_equal_trees, fingerprint, noisy, objective, phase, prune, recipe, rows, saved, small,
    three_phases,
)


def train_on_one(made, workdir):
    train.run(made, workdir, devices=jax.devices()[:1])
    return workdir


def one_phase(made, **options):
    knobs = Knobs({"train": {"magnitude": 20.0}}, {"ce": 1.0, "pixels": 0.0}, 0.1)
    return phase("only", made, epochs=2, knobs=knobs, **options)


def noisy_objective(**options):
    terms = {"ce": losses.cross_entropy(), "pixels": fingerprint()}
    return objective(terms, views=noisy, **options)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """Two epochs without mask and pick, from images that lie on the device."""
    return train_on_one(recipe(one_phase(noisy_objective())), tmp_path_factory.mktemp("ordinary"))


def assert_same_training(one, other):
    """Bit for bit, but for the norm that is reported, in whose sum compilers fuse what else the
    program has: on one kind of CPU its last bit was another."""
    for row, same in zip(rows(one), rows(other), strict=True):
        norms = [one.pop("gradient_norm", 0.0) for one in (row, same)]
        assert row == same and np.isclose(*norms, rtol=1e-6, atol=0)
    for part in ("params", "stats", "opt_state", "key"):
        assert_equal_trees(saved(one, "only"), saved(other, "only"), part)


def test_sparsity_zero_equals_no_mask(ordinary, tmp_path):
    masked = one_phase(noisy_objective(transform=compress.mask()), edits=(prune(0.0),))
    assert_same_training(ordinary, train_on_one(recipe(masked), tmp_path))


def test_a_pick_that_keeps_all_equals_no_pick(ordinary, tmp_path):
    picking = one_phase(noisy_objective(pick=method.keep_all()))
    assert_same_training(ordinary, train_on_one(recipe(picking), tmp_path))


def test_images_fed_by_the_host_equal_images_on_the_device(ordinary, tmp_path):
    fed = recipe(one_phase(noisy_objective()), resident=False)
    assert_same_training(ordinary, train_on_one(fed, tmp_path))


def test_rows_of_the_log_do_not_depend_on_how_often_it_is_written(ordinary, tmp_path):
    """The mean of two single rows is the row of two steps; the training itself is the same."""
    often = train_on_one(recipe(one_phase(noisy_objective()), log_every=1), tmp_path)
    single = rows(often, "train")
    for number, row in enumerate(rows(ordinary, "train")):
        pair = single[2 * number : 2 * number + 2]
        assert row["step"] == pair[1]["step"]
        for name in ("ce", "loss", "gradient_norm", "pixels"):
            assert np.isclose(row[name], np.mean([p[name] for p in pair]), rtol=1e-6)
    for part in ("params", "stats", "opt_state"):
        assert_equal_trees(saved(ordinary, "only"), saved(often, "only"), part)


def test_evaluating_saving_and_averaging_do_not_touch_the_training(ordinary, tmp_path):
    watched = one_phase(noisy_objective(), ema=0.9, evaluate_epochs=1 / 6)
    train_on_one(recipe(watched, save_epochs=1 / 6), tmp_path)
    for part in ("params", "stats", "opt_state"):
        assert_equal_trees(saved(ordinary, "only"), saved(tmp_path, "only"), part)


# --- masks ---------------------------------------------------------------------------------------


def disturb(start):
    """Puts other numbers under the mask."""
    flat = {f"student/{layer}/kernel": leaf["kernel"]
            for layer, leaf in start.params["student"].items() if "kernel" in leaf}
    net = dict(start.params["student"])
    for path, leaf in flat.items():
        hidden = np.where(start.transform[path], leaf, 7.0 - 100 * np.asarray(leaf))
        net[path.split("/")[1]] = {**net[path.split("/")[1]], "kernel": np.float32(hidden)}
    return replace(start, params={"student": net})


def pruned_and_used(edits):
    """three_phases, and a phase in which the pruned network and its average teach."""
    made = three_phases(structure="hidden")
    *before, pruned = made.phases
    judged = objective(
        {"raw": losses.hinton(teacher="raw"), "mean": losses.hinton(teacher="mean")},
        {"student": small(4), "raw": small(4), "mean": small(4)},
    )
    used = phase("used", judged, frozen={
        "raw": Source("pruned"), "mean": Source("pruned", weights="ema")})
    inherits = phase("inherits", pruned.objective, knobs=pruned.knobs, optimizer=pruned.optimizer,
                     ema=0.9, frozen=pruned.frozen, init={"student": Source("pruned")},
                     edits=(prune(0.75),))
    keeps = replace(inherits, name="keeps", edits=(), init={"student": Source("inherits")})
    return replace(made, phases=[*before, replace(pruned, edits=edits), used, inherits, keeps])


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return train_on_one(pruned_and_used((prune(0.5),)), tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """The same run with other, larger numbers under the masks."""
    made = pruned_and_used((prune(0.5), disturb))
    return train_on_one(made, tmp_path_factory.mktemp("disturbed"))


def kernels(save, prefix):
    return {path.removeprefix(prefix): leaf for path, leaf in save.items()
            if path.startswith(prefix) and path.endswith("kernel")}


def test_masks_hold_through_training_saving_and_restoring(masked):
    first, last = (kernels(saved(masked, "pruned", step), "transform/student/") for step in (3, 6))
    total = sum(mask.size for mask in last.values())
    assert sum(int(mask.sum()) for mask in last.values()) == total - round(total / 2)
    assert_equal_trees(first, last)
    effective = saved(masked, "used", "frozen")
    for net in ("raw", "mean"):  # momentum and weight decay moved what lies below; nobody sees it
        for path, weight in kernels(effective, f"{net}/0/").items():
            assert np.array_equal(weight != 0, last[path]), (net, path)
    for path, weight in kernels(saved(masked, "pruned"), "params/nets/student/").items():
        assert (weight[~last[path]] != 0).any()


def test_what_lies_under_a_mask_is_never_seen(masked, disturbed):
    """Other numbers there change no loss, no gradient, no accuracy, no average, no teacher."""
    assert rows(masked) == rows(disturbed)
    assert_equal_trees(saved(masked, "used", "frozen"), saved(disturbed, "used", "frozen"))
    masks = kernels(saved(masked, "pruned"), "transform/student/")
    under, kept = False, True
    for prefix in ("params/nets/student/", "ema/nets/student/", "opt_state/1/trace/nets/student/"):
        left, right = (kernels(saved(run, "pruned"), prefix) for run in (masked, disturbed))
        for path, mask in masks.items():
            kept &= bool(np.array_equal(left[path][mask], right[path][mask]))
            under |= bool((left[path][~mask] != right[path][~mask]).any())
    assert kept and under


def test_pruning_again_starts_from_the_masks_there_are(masked, disturbed):
    """Though what lies under them is larger by now than what is kept."""
    for run in (masked, disturbed):
        before, after, kept = (kernels(saved(run, name), "transform/student/")
                               for name in ("pruned", "inherits", "keeps"))
        total = sum(mask.size for mask in before.values())
        assert sum(int(mask.sum()) for mask in after.values()) == total - round(0.75 * total)
        assert all(not (after[path] & ~before[path]).any() for path in before)
        assert_equal_trees(after, kept)
