"""Interrupted equals uninterrupted: from every save, the rest of the run comes out the same."""

from dataclasses import replace
import json
from pathlib import Path
import shutil

import jax
import pytest

from augjax import check, train
from augjax.train import checkpoint, metrics, stop
from train.helpers import (
    assert_every_step_once, assert_same_run, copied, LAST, phase, recipe, rows, three_phases,
)

ONE = jax.devices()[:1]
MADE = replace(three_phases(structure="interrupted", keep=99), save_epochs=1 / 6)  # after each step
NAMES = list(LAST)
TIMES = ("images_per_s", "step_images_per_s", "compile_s", "device_hours")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train.run(MADE, workdir, devices=ONE)
    assert_every_step_once(workdir, MADE)
    assert all(checkpoint.steps(workdir, name) == list(range(1, LAST[name] + 1)) for name in NAMES)
    return workdir


def forget_after(workdir: Path, name: str, step: int) -> None:
    """As if the run had ended after this save; its log still has what came later."""
    for later in NAMES[NAMES.index(name) + 1:]:
        shutil.rmtree(workdir / "checkpoints" / later)
    for other in range(step + 1, LAST[name] + 1):
        shutil.rmtree(checkpoint.folder_of(workdir, name, other))


@pytest.mark.parametrize("name, step", [
    ("teacher", 3), ("teacher", 6),  # is evaluated; ends the phase
    ("student", 1), ("student", 6), ("student", 9),  # the first one; ends an epoch; ends the phase
    ("pruned", 4),
])
def test_from_any_save_the_rest_comes_out_the_same(whole, tmp_path, name, step):
    workdir = copied(whole, tmp_path / "run")
    forget_after(workdir, name, step)
    train.run(MADE, workdir, devices=ONE)
    assert_every_step_once(workdir, MADE)
    assert_same_run(whole, workdir, NAMES[NAMES.index(name):])
    begun = [event for event in metrics.read_events(workdir) if event["event"] == "phase"]
    assert (begun[len(NAMES)]["phase"], begun[len(NAMES)]["step"]) == (name, step)  # not from 0


def test_a_finished_run_is_only_looked_at(whole, tmp_path):
    workdir = copied(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in (workdir / "checkpoints").rglob("*")
              if path.is_file()}
    summary = train.run(MADE, workdir, devices=ONE)
    assert rows(workdir) == rows(whole)
    told = [json.loads((run / "summary.json").read_text()) for run in (whole, workdir)]
    assert summary == told[1]
    for name in NAMES:
        for field, value in told[0]["phases"][name].items():
            assert field in TIMES or told[1]["phases"][name][field] == value, field
    assert before == {path: path.read_bytes() for path in (workdir / "checkpoints").rglob("*")
                      if path.is_file()}


def test_stopped_again_and_again_equals_never_stopped(whole, tmp_path, monkeypatch):
    stops = (2, 3, 5, 8)  # of the student's nine steps
    monkeypatch.setattr(stop.Stop, "due", lambda stop, step: step - LAST["teacher"] in stops)
    workdir = tmp_path / "run"
    for done in stops:
        with pytest.raises(check.Preempted):
            train.run(MADE, workdir, devices=ONE)
        assert checkpoint.steps(workdir, "student")[-1] == done
    train.run(MADE, workdir, devices=ONE)
    assert_every_step_once(workdir, MADE)
    assert_same_run(whole, workdir)


def test_images_fed_by_the_host_go_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    made = recipe(phase(epochs=2, structure="fed"), resident=False)
    train.run(made, tmp_path / "whole", devices=ONE)
    with monkeypatch.context() as patch:
        patch.setattr(stop.Stop, "due", lambda stop, step: step == 8)
        with pytest.raises(check.Preempted):
            train.run(made, tmp_path / "split", devices=ONE)
    train.run(made, tmp_path / "split", devices=ONE)
    assert_same_run(tmp_path / "whole", tmp_path / "split", ["only"])


def test_another_seed_is_another_run(whole, tmp_path):
    """Otherwise equality above would say little."""
    train.run(replace(MADE, seed=1), tmp_path, devices=ONE)
    for one, other in zip(rows(whole, "train"), rows(tmp_path, "train")):
        assert one["pixels"] != other["pixels"] and one["order"] != other["order"]
        assert one["loss"] != other["loss"]
