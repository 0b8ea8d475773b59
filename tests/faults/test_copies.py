"""Saves that somebody copied: row 6."""

import shutil

import jax
import pytest

from augjax import check, train
from augjax.train import checkpoint
from train.helpers import assert_same_run, phase, recipe

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def made():
    return recipe(phase(epochs=2, structure="row 6"), save_epochs=0.5)


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train.run(made, workdir, devices=ONE)
    return workdir


def test_a_copied_save_is_accepted_whatever_it_was_copied_with(whole, made, tmp_path):
    """The marker is a file of the folder like any other, with the digests of the rest: times,
    owners and order do not count, so rsync, gsutil and cp all copy a save that counts."""
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copyfile(whole / name, tmp_path / "run" / name)
    there = checkpoint.folder_of(whole, "only", 9)
    for file in sorted(there.rglob("*"), reverse=True):  # one by one, with new times
        if file.is_file():
            to = checkpoint.folder_of(tmp_path / "run", "only", 9) / file.relative_to(there)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
    train.run(made, tmp_path / "run", devices=ONE)
    assert_same_run(whole, tmp_path / "run", ["only"])


def test_a_copy_cut_short_is_never_taken_for_a_save(whole, tmp_path):
    """Whatever files of it came: without the marker it is not listed, with it the rest is missed.
    """
    there = checkpoint.folder_of(whole, "only", 12)
    files = [file.relative_to(there) for file in sorted(there.rglob("*")) if file.is_file()]
    for count in range(1, len(files)):
        here = checkpoint.folder_of(tmp_path / str(count), "only", 12)
        for file in files[:count]:
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there / file, here / file)
        if checkpoint.steps(tmp_path / str(count), "only"):
            with pytest.raises(check.CheckpointError, match="no such file"):
                checkpoint.verify(here)


@pytest.mark.xfail(strict=True, reason="whatever has no digests is removed when a run starts there")
def test_a_copy_without_its_marker_is_left_alone(whole, tmp_path):
    """orbax#394: somebody's copy, not ours to delete."""
    here = checkpoint.folder_of(tmp_path, "only", 12)
    shutil.copytree(checkpoint.folder_of(whole, "only", 12), here)
    (here / checkpoint.DIGESTS).unlink()
    checkpoint.clear_unfinished(tmp_path)
    assert here.is_dir()
