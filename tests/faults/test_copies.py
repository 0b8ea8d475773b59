"""Saves that somebody copied: row 6."""

import shutil

import jax
import pytest

from augjax import check, train
from augjax.train import checkpoint, metrics, saves
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


@pytest.fixture
def bare(whole, tmp_path):
    """A run folder whose last save was copied without its digests."""
    shutil.copytree(whole, tmp_path / "bare")
    here = checkpoint.folder_of(tmp_path / "bare", "only", 12)
    (here / checkpoint.DIGESTS).unlink()
    return tmp_path / "bare"


def test_a_copy_without_its_digests_stops_the_run_and_stays(bare, made):
    """orbax#394: somebody's copy, not ours to delete; nor are the rows that came before it."""
    before = {path: path.read_bytes() for path in (bare / "checkpoints").rglob("*")
              if path.is_file()} | {0: (bare / "metrics.jsonl").read_bytes()}
    with pytest.raises(check.CheckpointError, match="--adopt_checkpoint=only/12"):
        train.run(made, bare, devices=ONE)
    assert before == {path: path.read_bytes() for path in (bare / "checkpoints").rglob("*")
                      if path.is_file()} | {0: (bare / "metrics.jsonl").read_bytes()}


def test_an_adopted_copy_is_a_save_again(bare, whole, made):
    train.run(made, bare, adopt=["only/12"], devices=ONE)
    assert_same_run(whole, bare, ["only"])
    checkpoint.verify(checkpoint.folder_of(bare, "only", 12))
    assert "adopted a copy of a save" in [
        event["event"] for event in metrics.read_events(bare)]


@pytest.mark.parametrize("name, told", [
    ("only/9", "got a save"), ("only/13", "got none"), ("onyl/12", "Did you mean 'only'"),
    ("only", "expected PHASE/STEP")])
def test_what_is_no_such_copy_is_refused(bare, made, name, told):
    with pytest.raises(check.ConfigError, match=told):
        train.run(made, bare, adopt=[name], devices=ONE)


def test_a_copy_that_cannot_be_read_is_not_adopted(bare, made):
    here = checkpoint.folder_of(bare, "only", 12)
    largest = max((path for path in here.rglob("*") if path.is_file()),
                  key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(check.CheckpointError):
        train.run(made, bare, adopt=["only/12"], devices=ONE)
    assert not (here / checkpoint.DIGESTS).exists()


def test_a_copy_in_the_way_of_a_save_fails_the_save_and_stays(tmp_path):
    """It came while the run was on."""
    folder = checkpoint.folder_of(tmp_path, "only", 12)
    folder.mkdir(parents=True)
    (folder / "theirs").write_text("a copy")
    writer = checkpoint.Writer(tmp_path, keep=1)
    writer.save("only", 12, {"a": jax.numpy.zeros(3)})
    with pytest.raises(check.CheckpointError, match="move it away"):
        writer.wait()
    assert (folder / "theirs").read_text() == "a copy"


def test_what_could_not_be_removed_stays_ours(tmp_path, monkeypatch):
    """Its mark goes with it, or the next start would take it for somebody's copy."""
    folder = checkpoint.folder_of(tmp_path, "only", 12)
    folder.mkdir(parents=True)
    for path in (folder / "half", folder.with_name("12.writing"), folder.with_name("9.writing")):
        path.write_text("")
    remove = saves.files.remove
    with monkeypatch.context() as patch:
        patch.setattr(saves.files, "remove", lambda path: None if path == folder else remove(path))
        checkpoint.clear_unfinished(tmp_path)
    assert (folder / "half").exists() and not checkpoint.strays(tmp_path)
    assert not folder.with_name("9.writing").exists()  # there is no such folder
    checkpoint.clear_unfinished(tmp_path)
    assert not folder.exists() and not folder.with_name("12.writing").exists()
