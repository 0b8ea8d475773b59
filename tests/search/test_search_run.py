"""A search as it trains: resumed bit for bit, members as lone runs, a schedule that is replayed."""

from dataclasses import replace
import json
from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest
from train.helpers import assert_equal_trees, rows, saved

from augjax import augment, check, defaults, recipe, search, train
from augjax.search import generations
from augjax.train import checkpoint, metrics

ROOT = Path(__file__).resolve().parents[2]
ONE = jax.devices()[:1]
EPOCHS, STEPS = 5, 3  # of 32 images
THREE = ("rotate", "cutout", "color")
POLICIES = {  # the stacked population searches a policy of its own operations
    "looped": defaults.searched(),
    "stacked": defaults.policy("pba", fill="mean", ops=THREE, probabilities=(0.0,) * 6,
                               levels=(0.0,) * 6)}


def config(lowering="looped", members=4, **changes) -> ConfigDict:
    """Four members, decisions after epochs 2, 4 and 5, which are no multiples of the 5 steps after
    which a save comes due."""
    fields = {
        "model": defaults.model("resnet8_tiny"), "batch_size": 32, "epochs": float(EPOCHS),
        "views": {"train": defaults.view("crop", POLICIES[lowering], pad=1)},
        "optimizer": defaults.optimizer(learning_rate=0.05), "eval": {"batch_size": 120}}
    return defaults.config(
        {"student": defaults.phase(**{**fields, **changes})},
        data={"name": "digits", "limit": 96, "holdout": 120, "image_size": 8},
        checkpoint={"every_epochs": 5 / 3},
        search=defaults.search(members=members, interval_epochs=2, lowering=lowering))


@pytest.fixture(scope="module")
def data():
    return recipe.load_data(config())


@pytest.fixture(scope="module", params=["looped", "stacked"])
def searched(request, data, tmp_path_factory):
    """(search, its folder) of a whole search."""
    made, folder = recipe.build_search(config(request.param), data), tmp_path_factory.mktemp("s")
    search.run(made, folder, devices=ONE)
    return made, folder


looped = pytest.mark.parametrize("searched", ["looped"], indirect=True)


def saves(folder, event):
    """(where, step) of every such event of a save."""
    return [(told["phase"], told.get("step")) for told in metrics.read_events(folder)
            if told["event"] == event]


def test_what_a_search_leaves(searched):
    made, folder = searched
    schedule = json.loads((folder / "schedule.json").read_text())
    augment.check_schedule(schedule)
    assert schedule["epochs"] == EPOCHS
    assert tuple(schedule["ops"]) == (
        THREE if made.lowering == "stacked" else augment.maps.PBA_OPS)
    assert (folder / "schedule.png").stat().st_size > 10_000
    summary = json.loads((folder / "summary.json").read_text())["phases"]["student"]
    assert summary["steps"] == EPOCHS * STEPS
    decisions = rows(folder, "train")
    assert [row["epoch"] for row in decisions] == [2, 4, 5]
    assert [row["exploits"] for row in decisions] == [1, 1, 0]  # a quarter of four
    assert [row["bad_members"] for row in decisions] == [0, 0, 0]
    assert summary["holdout_accuracy"] == pytest.approx(decisions[-1]["best_reward"], abs=1e-6)
    assert saves(folder, "save") == [*(("population", step) for step in (6, 12, 15)),
                                     ("student", 15)]
    assert checkpoint.steps(folder, "population") == [12, 15]  # the last two, as a run keeps


def test_images_per_s_are_those_of_all_members(searched):
    _, folder = searched
    found = json.loads((folder / "summary.json").read_text())["phases"]["student"]
    seconds = sum(row["seconds"] for row in metrics.read(folder) if row["kind"] == "train")
    assert found["images_per_s"] == pytest.approx(4 * EPOCHS * STEPS * 32 / seconds, rel=1e-2)


@pytest.mark.parametrize("every, interval, at", [
    (200 / 12, 3, [18, 36, 51, 69, 84, 102, 117, 135, 153, 168, 186]),  # the published search
    (16.67, 3, [18, 36, 51, 69, 84, 102, 117, 135, 153, 168, 186]),
    (1.0, 3, [*range(3, 200, 3)]), (6.0, 3, [*range(6, 200, 6)]), (1000.0, 3, [])])
def test_after_which_decisions_a_save_is_due(every, interval, at):
    """At every first one after a save has come due, whatever steps decisions fall on."""
    made = train.Recipe((), SimpleNamespace(train=range(4000)), save_epochs=every)
    phase, steps = SimpleNamespace(batch_size=128), 31
    assert at == [epoch for epoch in range(interval, 200, interval)
                  if made.save_due(phase, epoch * steps, (epoch - interval) * steps)]


def test_again_it_is_done(searched):
    """Nothing is trained: the winner is judged once more, as a run that is done is."""
    made, folder = searched
    before, schedule = rows(folder), (folder / "schedule.json").read_text()
    search.run(made, folder, devices=ONE)
    assert rows(folder) == before
    assert (folder / "schedule.json").read_text() == schedule


# --- interrupted ---------------------------------------------------------------------------------


def stop(run):
    run.stop.asked = True


def kill(run):
    raise KeyboardInterrupt


def when(patch, what, epoch, happens):
    """`happens` as an epoch's training or scoring begins, `epoch` epochs trained before it."""
    does = getattr(generations, what)

    def watched(made, runs, population, standing, *rest):
        if standing.epoch == epoch:
            happens(runs[0] if isinstance(runs, list) else runs)
        return does(made, runs, population, standing, *rest)

    patch.setattr(generations, what, watched)


def assert_same_search(one, other):
    """Schedule, rows, the winner and all members with what the host knows of them."""
    for name in ("schedule.json", f"decisions/{EPOCHS * STEPS}.json"):
        ours, theirs = (json.loads((folder / name).read_text()) | {"seconds": 0}
                        for folder in (one, other))
        assert ours == theirs, name
    ours, theirs = ([{**row, "bookkeeping_s": 0} for row in rows(folder)]
                    for folder in (one, other))
    assert ours == theirs
    for name in ("student", "population"):
        assert_equal_trees(saved(one, name), saved(other, name))


STOPS = [  # (in what, after how many epochs, what happens, saves that are there then)
    ("_epoch", 0, stop, [3]),  # without a decision
    ("_epoch", 1, stop, [3, 6]),  # with one, which is not taken
    ("_epoch", 2, kill, [3, 6]),  # behind that decision, whose row was written
    ("_decide", 4, stop, [6, 12]),  # in the middle of scoring
]


def test_interrupted_equals_uninterrupted(searched, tmp_path, monkeypatch):
    made, folder = searched
    monkeypatch.setattr(generations, "plot_schedule", lambda *_: None)
    for what, epoch, happens, there in STOPS:
        with monkeypatch.context() as patch:
            when(patch, what, epoch, happens)
            with pytest.raises((check.Preempted, KeyboardInterrupt)):
                search.run(made, tmp_path, devices=ONE)
        assert checkpoint.steps(tmp_path, "population") == there
        assert not (tmp_path / "schedule.json").exists()
    search.run(made, tmp_path, devices=ONE)
    assert_same_search(tmp_path, folder)


def no_room(patch, places):
    """Every attempt to save one of `places`, as often as it is listed, finds a full disk."""
    save, left = checkpoint.ocp.save_async, list(places)

    def save_async(place, state):
        name = f"{place.parent.name}/{place.name}"
        if name not in left:
            return save(place, state)
        left.remove(name)
        raise OSError(28, "No space left on device")

    patch.setattr(checkpoint.ocp, "save_async", save_async)
    return left


@looped
def test_failed_and_altered_saves(searched, tmp_path, monkeypatch, capsys):
    """A failure is told and tried again, and ends a search if the last attempt fails; an altered
    save is refused, and gone back from by the flag."""
    made, folder = searched
    monkeypatch.setattr(generations, "plot_schedule", lambda *_: None)
    with monkeypatch.context() as patch:
        left = no_room(patch, ["population/6", "population/15", "student/15"])
        search.run(made, tmp_path, devices=ONE)
    assert not left
    assert [where for where, _ in saves(tmp_path, "save failed")] == [
        "population", "population", "student"]
    assert capsys.readouterr().err.count("the last save failed and will be tried again") == 3
    assert_same_search(tmp_path, folder)

    latest = checkpoint.folder_of(tmp_path, "population", 15)
    file = max((file for file in latest.rglob("*") if file.is_file()),
               key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(check.CheckpointError, match="SHA-256"):
        search.run(made, tmp_path, devices=ONE)
    left = no_room(monkeypatch, ["population/15", "population/15"])
    with pytest.raises(check.CheckpointError, match="No space left"):
        search.run(made, tmp_path, use_previous=True, devices=ONE)
    assert not left and checkpoint.steps(tmp_path, "population") == [12]
    assert saves(tmp_path, "went back one save") == [("population", 15)]
    beside = tmp_path / "decisions/12.json"  # as an older version wrote it
    beside.write_text(json.dumps({"epoch": 4, **json.loads(beside.read_text()), "seconds": 0.0}
                                 ).replace('"seconds"', '"something"'))
    with pytest.raises(check.CheckpointError, match="got none of seconds"):
        search.run(made, tmp_path, devices=ONE)


def test_the_command_hands_its_flag_on():
    script = "\n".join([
        "from launch import common, search as command",
        "command.recipe.build_search = lambda config: 'built'",
        "numbers = dict(holdout_accuracy=1, final_accuracy=1, device_hours=1)",
        "command.search.run = lambda *given, **more: print(given[:2], more) or {",
        "    'phases': {'student': numbers}}",
        "common.run(command.main)"])
    done = subprocess.run(
        [sys.executable, "-c", script, "--config=configs/cifar/pba.py:part=search", "--workdir=at",
         "--use_previous_checkpoint"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("('built', 'at') {'use_previous': True}"), done.stderr


# --- members -------------------------------------------------------------------------------------


def test_a_member_equals_a_lone_run(searched, data, tmp_path, monkeypatch):
    """Where nobody follows anybody: here of a policy that stays."""
    made, _ = searched
    entries = 6 if made.lowering == "stacked" else 30
    policy = search.Policy((3,) * entries, (5,) * entries)
    phase = generations.shown(made.recipe.phases[0], "train", policy)
    train.run(replace(made.recipe, slot=2, phases=[phase]), tmp_path / "lone", devices=ONE)
    monkeypatch.setattr(generations.pba, "start_policies", lambda size, *_: (policy,) * size)
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
    """Its score is no number, so it follows another, though a stop lies between; all gone bad end
    with exit code 5."""
    made = recipe.build_search(config(), data)

    def lost(members):
        def epoch(search, runs, population, standing, *rest):
            train_epoch(search, runs, population, standing, *rest)
            if standing.epoch == 2:
                runs[0].stop.asked = len(members) == 1
                standing.losses = [np.nan if member in members else loss
                                   for member, loss in enumerate(standing.losses)]
        return epoch

    train_epoch = generations._epoch
    monkeypatch.setattr(generations, "_epoch", lost([3]))
    with pytest.raises(check.Preempted):
        search.run(made, tmp_path / "one", devices=ONE)
    file = tmp_path / "one/decisions/6.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 1000.0}))
    monkeypatch.setattr(generations, "_epoch", train_epoch)
    when(monkeypatch, "_epoch", 2, stop)
    with pytest.raises(check.Preempted):
        search.run(made, tmp_path / "one", devices=ONE)
    kept = json.loads((tmp_path / "one/decisions/9.json").read_text())
    assert [log[-1]["target"] for log in kept["logs"] if log] == [3]
    row, = metrics.read(tmp_path / "one")
    assert row["bad_members"] == 1
    assert 1000 < row["seconds"] < 2000  # those before the stop count
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
    fewer = replace(made, members=2, interval_epochs=1, quantile=0.5)
    for says in ("search.members: 4 there, 2 now", "search.interval_epochs: 2 there, 1 now",
                 "search.quantile: 0.25 there, 0.5 now"):
        with pytest.raises(check.ConfigError, match=says):
            search.run(fewer, folder, devices=ONE)
    assert generations.describe(replace(made, lowering="")) == generations.describe(made)
