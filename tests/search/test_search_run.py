"""A search as it trains: resumed bit for bit, members as lone runs, a schedule that is replayed."""

from dataclasses import replace
import json

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest
from train.helpers import rows, saved

from augjax import augment, check, defaults, recipe, search, train
from augjax.search import generations
from augjax.train import checkpoint

ONE = jax.devices()[:1]
EPOCHS, STEPS = 4, 3  # of 32 images


def config(lowering="looped", members=4, **changes) -> ConfigDict:
    """Four members, a decision after every epoch."""
    fields = {
        "model": defaults.model("resnet8_tiny"), "batch_size": 32, "epochs": float(EPOCHS),
        "views": {"train": defaults.view("crop", defaults.searched(), pad=1)},
        "optimizer": defaults.optimizer(learning_rate=0.05), "eval": {"batch_size": 120}}
    return defaults.config(
        {"student": defaults.phase(**{**fields, **changes})},
        data={"name": "digits", "limit": 96, "holdout": 120, "image_size": 8},
        search=defaults.search(members=members, interval_epochs=1, lowering=lowering))


@pytest.fixture(scope="module")
def data():
    return recipe.load_data(config())


@pytest.fixture(scope="module", params=["looped", "stacked"])
def searched(request, data, tmp_path_factory):
    """(search, its folder) of a whole search."""
    made, folder = recipe.build_search(config(request.param), data), tmp_path_factory.mktemp("s")
    search.run(made, folder, devices=ONE)
    return made, folder


def test_what_a_search_leaves(searched):
    made, folder = searched
    schedule = json.loads((folder / "schedule.json").read_text())
    augment.check_schedule(schedule)
    assert schedule["epochs"] == EPOCHS
    assert (folder / "schedule.png").stat().st_size > 10_000
    summary = json.loads((folder / "summary.json").read_text())["phases"]["student"]
    assert summary["steps"] == EPOCHS * STEPS
    decisions = rows(folder, "train")
    assert [row["epoch"] for row in decisions] == [1, 2, 3, 4]
    assert [row["exploits"] for row in decisions] == [1, 1, 1, 0]  # a quarter of four
    assert summary["holdout_accuracy"] == pytest.approx(decisions[-1]["best_reward"], abs=1e-6)
    assert checkpoint.steps(folder, "student") == [EPOCHS * STEPS]


def test_again_it_is_done(searched):
    """Nothing is trained: the winner is judged once more, as a run that is done is."""
    made, folder = searched
    before, schedule = rows(folder), (folder / "schedule.json").read_text()
    search.run(made, folder, devices=ONE)
    assert rows(folder) == before
    assert (folder / "schedule.json").read_text() == schedule


@pytest.mark.parametrize("epoch", [1, 3])
def test_interrupted_equals_uninterrupted(searched, tmp_path, monkeypatch, epoch):
    """Stopped while an epoch trains, behind a decision or before one."""
    made, folder = searched

    def stopping(search, runs, population, standing, frozen, at):
        runs[0].stop.asked = at + 1 == epoch
        return train_epoch(search, runs, population, standing, frozen, at)

    train_epoch = generations._epoch
    monkeypatch.setattr(generations, "_epoch", stopping)
    with pytest.raises(check.Preempted):
        search.run(made, tmp_path, devices=ONE)
    monkeypatch.undo()
    assert not (tmp_path / "schedule.json").exists()
    search.run(made, tmp_path, devices=ONE)
    assert (tmp_path / "schedule.json").read_text() == (folder / "schedule.json").read_text()

    def timeless(place):
        return [{name: value for name, value in row.items() if name != "bookkeeping_s"}
                for row in rows(place)]

    assert timeless(tmp_path) == timeless(folder)
    ours, theirs = saved(tmp_path, "student"), saved(folder, "student")
    for path in theirs:
        np.testing.assert_array_equal(ours[path], theirs[path], path)


def test_a_member_equals_a_lone_run(searched, data, tmp_path, monkeypatch):
    """Where nobody follows anybody: here of a policy that stays."""
    made, _ = searched
    policy = search.Policy((3,) * 30, (5,) * 30)
    phase = generations.shown(made.recipe.phases[0], "train", policy)
    train.run(replace(made.recipe, slot=2, phases=[phase]), tmp_path / "lone", devices=ONE)
    monkeypatch.setattr(generations.pba, "start_policies", lambda size: (policy,) * size)
    monkeypatch.setattr(generations.pba, "decide", lambda policies, logs, *_: search.Decision(
        np.arange(4), policies, logs))
    search.run(made, tmp_path / "many", devices=ONE)
    member = saved(tmp_path / "many", "population")
    theirs = saved(tmp_path / "lone", "student")
    for path in theirs:
        if path.startswith(("params", "stats", "key", "opt_state")):
            np.testing.assert_allclose(member[f"2/{path}"], theirs[path], 2e-3, 2e-3, err_msg=path)


def test_a_replayed_schedule_trains(searched, data, tmp_path):
    _, folder = searched
    again = defaults.view("crop", defaults.policy("replay", fill="mean", schedule=f"run:{folder}"),
                          pad=1)
    block = config(views={"train": again})
    with block.unlocked():
        del block["search"]
    summary = train.run(recipe.build(block, data), tmp_path, devices=ONE)
    assert summary["phases"]["student"]["steps"] == EPOCHS * STEPS


def test_a_member_gone_bad_is_replaced(data, tmp_path, monkeypatch):
    """Its score is no number, so it follows another; all gone bad end with exit code 5."""
    made = recipe.build_search(config(), data)

    def lost(members):
        def epoch(search, runs, population, standing, frozen, at):
            losses = train_epoch(search, runs, population, standing, frozen, at)
            return np.where(np.isin(np.arange(4), members) & (at == 0), np.nan, losses)
        return epoch

    train_epoch = generations._epoch
    monkeypatch.setattr(generations, "_epoch", lost([3]))
    search.run(made, tmp_path / "one", devices=ONE)
    kept = json.loads((tmp_path / "one/decisions/3.json").read_text())
    assert [log[-1]["target"] for log in kept["logs"] if log] == [3]
    monkeypatch.setattr(generations, "_epoch", lost([0, 1, 2, 3]))
    with pytest.raises(check.NumericsError):
        search.run(made, tmp_path / "all", devices=ONE)


REFUSED = {
    "at least 2 members": dict(members=1),
    "whole epochs": dict(epochs=2.5),
    "kind pba": dict(views={"train": defaults.view("crop", defaults.randaugment(3), pad=1)}),
}


@pytest.mark.parametrize("says", REFUSED)
def test_refused(data, says):
    with pytest.raises(check.ConfigError, match=says):
        recipe.build_search(config(**REFUSED[says]), data)


def test_refused_data(data):
    made = recipe.build_search(config(), data)
    for holdout, says in ((None, "images that reward"), (data.train, "not trained on")):
        other = replace(made.recipe, data=replace(data, holdout=holdout))
        with pytest.raises(check.ConfigError, match=says):
            search.check_search(replace(made, recipe=other))


def test_refused_folder_and_config(searched, data, tmp_path):
    made, folder = searched
    with pytest.raises(check.ConfigError, match="search"):
        recipe.build(config(), data)
    other = replace(made, recipe=replace(made.recipe, seed=7))
    with pytest.raises(check.ConfigError, match="seed: 0 there, 7 now"):
        search.run(other, folder, devices=ONE)
