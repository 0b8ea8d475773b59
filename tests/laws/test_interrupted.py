"""Interrupted equals uninterrupted: from every save, the rest of the run comes out the same."""

from dataclasses import replace
from pathlib import Path
import shutil

import jax
import pytest

from augjax import check, train
from augjax.train import checkpoint, stop
from train.helpers import (
    assert_equal_trees, assert_every_step_once, assert_same_run, copied, LAST, phase, recipe, rows,
    saved, three_phases,
)

ONE = jax.devices()[:1]
MADE = replace(three_phases(structure="interrupted", keep=99), save_epochs=1 / 6)  # after each step
NAMES = list(LAST)


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
    ("teacher", 1), ("teacher", 3), ("teacher", 6),  # 3 is evaluated, 6 ends the phase
    ("student", 1), ("student", 6), ("student", 7), ("student", 9),  # 6 ends an epoch
    ("pruned", 1), ("pruned", 4), ("pruned", 6),
])
def test_from_any_save_the_rest_comes_out_the_same(whole, tmp_path, name, step):
    workdir = copied(whole, tmp_path / "run")
    forget_after(workdir, name, step)
    train.run(MADE, workdir, devices=ONE)
    assert_every_step_once(workdir, MADE)
    assert rows(whole) == rows(workdir)
    for part in NAMES[NAMES.index(name):]:
        for number in checkpoint.steps(workdir, part):
            assert_equal_trees(saved(whole, part, number), saved(workdir, part, number))


def test_a_finished_run_is_only_looked_at(whole, tmp_path):
    workdir = copied(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in (workdir / "checkpoints").rglob("*")
              if path.is_file()}
    summary = train.run(MADE, workdir, devices=ONE)
    assert rows(workdir) == rows(whole)
    assert before == {path: path.read_bytes() for path in (workdir / "checkpoints").rglob("*")
                      if path.is_file()}
    assert set(summary["phases"]) == set(NAMES)


def test_stopped_after_every_step_equals_never_stopped(whole, tmp_path, monkeypatch):
    """The student's nine steps in nine runs."""
    monkeypatch.setattr(stop.Stop, "due", lambda stop, step: 6 < step < 6 + LAST["student"])
    workdir = tmp_path / "run"
    for done in range(1, LAST["student"]):
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
