"""Checkpoints never lie: altered files are named, failed saves are told and tried again."""

from dataclasses import replace
from pathlib import Path
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, train
from augjax.train import checkpoint, metrics
from train.helpers import (
    assert_equal_trees, assert_every_step_once, assert_same_run, copied, recipe, saved,
    three_phases,
)


@pytest.fixture(scope="module")
def unhurt(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train.run(three_phases(), workdir, devices=jax.devices()[:1])
    return workdir


def go_on(workdir: Path, **options):
    return train.run(three_phases(), workdir, devices=jax.devices()[:1], **options)


def largest_file(folder: Path) -> Path:
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def back_to(workdir: Path, phase: str, step: int) -> None:
    """Makes `step` the newest save of the run."""
    names = [part.name for part in three_phases().phases]
    for later in names[names.index(phase) + 1:]:
        shutil.rmtree(workdir / "checkpoints" / later)
    for other in checkpoint.steps(workdir, phase):
        if other > step:
            shutil.rmtree(checkpoint.folder_of(workdir, phase, other))


# --- altered files -------------------------------------------------------------------------------


def test_every_altered_missing_or_unknown_file_is_named(unhurt, tmp_path):
    whole = checkpoint.folder_of(unhurt, "student", 9)
    files = [f.relative_to(whole) for f in whole.rglob("*") if f.is_file() and f.stat().st_size]
    assert len(files) > 5
    damages = {
        "flipped": flip,
        "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
        "removed": Path.unlink,
    }
    for number, name in enumerate(files):
        for kind, damage in damages.items():
            copy = copied(whole, tmp_path / f"{number}-{kind}")
            damage(copy / name)
            told = "digests.json|SHA-256" if name.name == checkpoint.DIGESTS else name.name
            with pytest.raises(check.CheckpointError, match=told) as caught:
                checkpoint.verify(copy)
            assert caught.value.exit_code == 4
    copy = copied(whole, tmp_path / "added")
    (copy / "state" / "stranger").write_text("?")
    with pytest.raises(check.CheckpointError, match="stranger"):
        checkpoint.verify(copy)
    checkpoint.verify(whole)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_an_altered_save_is_refused_and_left_as_it_is(unhurt, tmp_path, damage):
    workdir = copied(unhurt, tmp_path / "run")
    back_to(workdir, "student", 9)
    file = largest_file(checkpoint.folder_of(workdir, "student", 9))
    flip(file) if damage == "flipped" else file.write_bytes(file.read_bytes()[:-7])
    log = (workdir / "metrics.jsonl").read_text()
    for _ in range(2):
        with pytest.raises(check.CheckpointError, match=file.name):
            go_on(workdir)
    assert checkpoint.steps(workdir, "student") == [6, 9]
    assert (workdir / "metrics.jsonl").read_text() == log


@pytest.mark.parametrize("phase, step, before", [
    ("student", 9, ("student", 6)), ("teacher", 3, None), ("pruned", 3, ("student", 9)),
])
def test_by_the_flag_the_save_before_is_used(unhurt, tmp_path, phase, step, before):
    workdir = copied(unhurt, tmp_path / "run")
    back_to(workdir, phase, step)
    flip(largest_file(checkpoint.folder_of(workdir, phase, step)))
    go_on(workdir, use_previous=True)
    notes = [e for e in metrics.read_events(workdir) if e["event"] == "went back one save"]
    assert [(note["phase"], note["step"]) for note in notes] == [(phase, step)]
    starts = [e for e in metrics.read_events(workdir) if e["event"] == "phase"]
    restart = starts[3]  # the first one after the three of the first run
    assert (restart["phase"], restart["step"]) == (before or ("teacher", 0))
    assert_every_step_once(workdir, three_phases())
    assert_same_run(unhurt, workdir)


def test_after_going_back_the_flag_is_not_needed_again(unhurt, tmp_path, monkeypatch):
    """Stopped before the altered step comes again: the same command without the flag goes on."""
    workdir = copied(unhurt, tmp_path / "run")
    back_to(workdir, "student", 9)
    flip(largest_file(checkpoint.folder_of(workdir, "student", 9)))
    with monkeypatch.context() as patch:
        patch.setattr(train.loop.Reporter, "pend",
                      lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            go_on(workdir, use_previous=True)
    go_on(workdir)
    assert_same_run(unhurt, workdir)


def test_an_altered_frozen_teacher_is_refused_and_the_flag_goes_back_a_phase(unhurt, tmp_path):
    workdir = copied(unhurt, tmp_path / "run")
    back_to(workdir, "student", 6)
    flip(largest_file(checkpoint.folder_of(workdir, "student", checkpoint.FROZEN)))
    with pytest.raises(check.CheckpointError, match="frozen"):
        go_on(workdir)
    go_on(workdir, use_previous=True)
    assert_same_run(unhurt, workdir)


# --- what is kept --------------------------------------------------------------------------------


def test_the_last_saves_and_the_milestones_are_kept(tmp_path):
    made = recipe(save_epochs=1 / 6, keep=2, milestones=(1, 3))
    train.run(made, tmp_path, devices=jax.devices()[:1])
    assert checkpoint.steps(tmp_path, "only") == [1, 3, 5, 6]


def test_a_save_that_is_being_forgotten_is_no_longer_listed(tmp_path, monkeypatch):
    """However far the removal of its files came before a kill."""
    made = recipe(save_epochs=0.5, keep=1)
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
    train.run(made, tmp_path, devices=jax.devices()[:1])
    assert checkpoint.steps(tmp_path, "only") == [6]


# --- saves that fail -----------------------------------------------------------------------------


def failing(monkeypatch, places, in_background: bool) -> list:
    """Every attempt to save one of `places`, as often as it is listed, finds no room."""
    save, left = checkpoint.ocp.save_async, list(places)

    class Response:
        def result(self):
            raise OSError(28, "No space left on device")

    def save_async(folder, state):
        place = (folder.parent.name, int(folder.name) if folder.name.isdigit() else folder.name)
        if place not in left:
            return save(folder, state)
        left.remove(place)
        (folder.parent / f"{folder.name}.orbax-checkpoint-tmp").mkdir()
        if in_background:
            return Response()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.ocp, "save_async", save_async)
    return left


@pytest.mark.parametrize("in_background", [False, True])
def test_a_failed_save_is_told_and_training_goes_on(unhurt, tmp_path, monkeypatch, in_background):
    left = failing(monkeypatch, [("teacher", 3), ("student", 3), ("student", 6)], in_background)
    go_on(tmp_path)
    assert not left
    events = metrics.read_events(tmp_path)
    failed = [event for event in events if event["event"] == "save failed"]
    assert [event["phase"] for event in failed] == ["teacher", "student", "student"]
    assert all("No space left" in event["why"] for event in failed)
    counted = [(row["phase"], row["kind"], row["step"], row["saves_failed"])
               for row in metrics.read(tmp_path) if "saves_failed" in row]
    assert counted == [  # each is found at the save after it, before which a row is written
        ("teacher", "eval", 6, 1), ("student", "train", 8, 1), ("student", "eval", 9, 1)]
    assert not list((tmp_path / "checkpoints").glob("*/*tmp"))  # they would fill the disk further
    assert_every_step_once(tmp_path, three_phases())
    assert_same_run(unhurt, tmp_path)


@pytest.mark.parametrize("in_background", [False, True])
def test_the_last_save_of_a_phase_is_tried_twice(unhurt, tmp_path, monkeypatch, in_background):
    left = failing(monkeypatch, [("student", 9)], in_background)
    go_on(tmp_path)
    assert not left
    assert_same_run(unhurt, tmp_path)


@pytest.mark.parametrize("in_background", [False, True])
def test_the_final_failure_leaves_the_last_good_save(unhurt, tmp_path, monkeypatch, in_background):
    with monkeypatch.context() as patch:
        failing(patch, [("student", 6), ("student", 9), ("student", 9)], in_background)
        with pytest.raises(check.CheckpointError, match="No space left"):
            go_on(tmp_path)
    assert checkpoint.steps(tmp_path, "student") == [3]
    checkpoint.verify(checkpoint.folder_of(tmp_path, "student", 3))
    assert not list((tmp_path / "checkpoints").glob("*/*tmp"))
    go_on(tmp_path)
    assert_same_run(unhurt, tmp_path)


def test_a_save_does_not_count_while_rows_of_the_log_wait(unhurt, tmp_path, monkeypatch):
    """Otherwise a run restored from it would lack them."""
    flush, refused = metrics.Log.flush, []

    def no_room(log):
        if log.phase == "student" and not refused:
            refused.append(checkpoint.steps(tmp_path, "student"))
            raise OSError(28, "No space left on device")
        flush(log)

    monkeypatch.setattr(metrics.Log, "flush", no_room)
    train.run(replace(three_phases(), keep=9), tmp_path, devices=jax.devices()[:1])
    assert refused == [[]] and checkpoint.steps(tmp_path, "student") == [6, 9]  # and not 3
    assert_same_run(unhurt, tmp_path)


def test_no_room_for_the_frozen_teacher_is_a_checkpoint_error(tmp_path, monkeypatch):
    failing(monkeypatch, [("student", "frozen")] * 2, in_background=True)
    with pytest.raises(check.CheckpointError, match="No space left"):
        go_on(tmp_path)
    assert checkpoint.steps(tmp_path, "teacher") == [3, 6]


# --- what is written -----------------------------------------------------------------------------


def test_a_save_holds_the_step_and_not_what_comes_after(tmp_path):
    """The updates that follow reuse the state's memory while the save is still being written."""
    update = jax.jit(lambda state: jax.tree.map(lambda leaf: 2 * leaf + 1, state), donate_argnums=0)
    state = {"a": jnp.arange(2.0**23), "b": jnp.arange(2**21)}  # 40 MB: written for a while
    before = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
    writer = checkpoint.Writer(tmp_path, keep=1)
    writer.save("phase", 1, state)
    for _ in range(20):
        state = update(state)
    jax.block_until_ready(state)
    writer.wait()
    assert_equal_trees(saved(tmp_path, "phase", 1), before)


def test_only_what_is_asked_for_is_read_and_must_be_there(tmp_path):
    state = {"a": {"b": jnp.arange(6.0).reshape(2, 3)}, "key": jax.random.key(3), "c": jnp.int32(1)}
    writer = checkpoint.Writer(tmp_path, keep=1)
    writer.save("phase", 1, state)
    writer.wait()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def like(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=here)

    folder = checkpoint.folder_of(tmp_path, "phase", 1)
    part = checkpoint.load(folder, {"a": {"b": like(2, 3)}})
    assert list(part) == ["a"] and np.array_equal(part["a"]["b"], state["a"]["b"])
    for wrong in ({"a": {"b": like(3, 3)}}, {"a": {"d": like(2, 3)}}, {"e": like()}):
        with pytest.raises(check.CheckpointError, match="leaves that this config needs"):
            checkpoint.load(folder, wrong)
