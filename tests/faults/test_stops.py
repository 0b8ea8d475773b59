"""Asked to stop where tests/train/test_killed.py does not: as a teacher is read, in a final save;
and what a run does not need to go on well: its teacher's folder, a clock, TensorBoard, a network.
"""

import json
import os
from pathlib import Path
import shutil
import signal
import socket
import sys
import threading
import time

import jax
import pytest

from augjax import check, train
from augjax.train import checkpoint, folder, metrics, ready, start
from train.helpers import (
    assert_equal_trees, assert_every_step_once, assert_same_run, copied, phase, recipe, rows, saved,
    three_phases,
)
from train.test_refusals import distilling

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def unhurt(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("unhurt") / "run"
    train.run(three_phases(), workdir, devices=ONE)
    return workdir


def signalled(monkeypatch, owner, name: str, when, *signals: int) -> None:
    """Sends this process the signals, once, before `owner.name` runs on what `when` likes."""
    function, sent = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        if not sent and when(*args):
            sent.append(True)
            for number in signals:
                os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


def unfinished(workdir: Path) -> list[Path]:
    return [path for path in (workdir / "checkpoints").glob("*/*")
            if path.is_dir() and not (path / checkpoint.DIGESTS).exists()]


# --- rows 10 and 11 ------------------------------------------------------------------------------


@pytest.mark.parametrize("owner, name", [(start, "freeze"), (start, "start")])
def test_asked_to_stop_while_a_network_is_read(unhurt, tmp_path, monkeypatch, owner, name):
    """The teacher that is frozen, or what the pruned student starts from: 75, and no new step."""
    phase_name = "student" if name == "freeze" else "pruned"
    with monkeypatch.context() as patch:
        signalled(patch, owner, name, lambda phase, *_: phase.name == phase_name, signal.SIGTERM)
        with pytest.raises(check.Preempted) as caught:
            train.run(three_phases(), tmp_path, devices=ONE)
    assert caught.value.exit_code == 75
    assert checkpoint.steps(tmp_path, phase_name) == [] and not unfinished(tmp_path)
    train.run(three_phases(), tmp_path, devices=ONE)
    assert_same_run(unhurt, tmp_path)


@pytest.mark.parametrize("signals, raised", [
    ((signal.SIGTERM, signal.SIGTERM), check.Preempted),
    ((signal.SIGTERM, signal.SIGINT), KeyboardInterrupt),
    ((signal.SIGINT, signal.SIGINT), KeyboardInterrupt),
])
def test_asked_twice_in_the_final_save_it_is_whole_or_not_there(
        unhurt, tmp_path, monkeypatch, signals, raised):
    """The first signal at step 5, which is then saved; the second while that save is written."""
    commit, done = checkpoint.commit, threading.Event()

    def insisted(folder):
        last = (folder.parent.name, folder.name) == ("student", "5")
        if last:
            os.kill(os.getpid(), signals[1])
            time.sleep(0.2)  # the main thread hears of it while this save is not committed
        commit(folder)
        if last:
            done.set()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "commit", insisted)
        signalled(patch, train.loop.Reporter, "pend",
                  lambda reporter, step, _: (reporter.phase.name, step) == ("student", 5),
                  signals[0])
        with pytest.raises(raised):
            train.run(three_phases(), tmp_path, devices=ONE)
        assert done.wait(30)  # CPython before 3.13 takes a thread for gone that Ctrl-C cut short
    assert checkpoint.steps(tmp_path, "student")[-1] == 5 and not unfinished(tmp_path)
    for step in checkpoint.steps(tmp_path, "student"):
        checkpoint.verify(checkpoint.folder_of(tmp_path, "student", step))
    train.run(three_phases(), tmp_path, devices=ONE)
    assert_every_step_once(tmp_path, three_phases())
    assert_same_run(unhurt, tmp_path)


# --- row 17: the teacher's folder ----------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """(folder of a teacher, recipe of another run that takes it, that run unhurt)."""
    place = tmp_path_factory.mktemp("taught")
    teacher = phase("teacher", structure="row 17")
    train.run(recipe(teacher), place / "teacher", devices=ONE)
    source = train.Source("teacher", str(place / "teacher"), origin=teacher)
    made = recipe(distilling(frozen={"teacher": source}, epochs=2, structure="row 17 student"),
                  save_epochs=0.5)
    train.run(made, place / "unhurt", devices=ONE)
    return place / "teacher", made, place / "unhurt"


def test_a_teacher_that_changes_after_the_run_began_changes_nothing(
        taught, tmp_path, monkeypatch):
    """Its weights and their digest lie in the run; they are read from there when it goes on."""
    teacher, made, unhurt = taught
    with monkeypatch.context() as patch:
        signalled(patch, train.loop.Reporter, "pend", lambda _, step, report: step == 5,
                  signal.SIGTERM)
        with pytest.raises(check.Preempted):
            train.run(made, tmp_path / "run", devices=ONE)
    kept = copied(teacher, tmp_path / "kept")
    step = checkpoint.folder_of(teacher, "teacher", 6)
    try:
        other = recipe(phase("teacher", structure="row 17"), seed=1)
        train.run(other, tmp_path / "other", devices=ONE)
        shutil.rmtree(step)
        shutil.copytree(checkpoint.folder_of(tmp_path / "other", "teacher", 6), step)
        train.run(made, tmp_path / "run", devices=ONE)
    finally:
        shutil.rmtree(teacher)
        shutil.copytree(kept, teacher)
    assert_same_run(unhurt, tmp_path / "run", ["student"])


def test_a_later_phase_refuses_another_teacher_of_the_same_source(tmp_path):
    made = three_phases()
    named = {"teacher": {"source": "run:DIR#teacher", "sha256": "a" * 64}}
    (tmp_path / "checkpoints/student").mkdir(parents=True)
    folder.write_json(tmp_path / "checkpoints/student/frozen.json", named)
    last = made.phases[-1]
    ready.require_same(made, tmp_path, last, named)
    ready.require_same(made, tmp_path, made.phases[1], {"teacher": {
        "source": "run:DIR#teacher", "sha256": "b" * 64}})  # its own beginning, not a later one
    named["teacher"]["sha256"] = "b" * 64
    with pytest.raises(check.CheckpointError, match="'student' was taught by, SHA-256 aaaa"):
        ready.require_same(made, tmp_path, last, named)


@pytest.mark.parametrize("right, told", [((0.2, 0.1, 0.9), 1), ((0.5, 0.1, 0.1), 0)])
def test_a_teacher_that_is_right_by_chance_is_told_of(tmp_path, capsys, right, told):
    """By its first row; of four classes."""
    made = three_phases()
    reporter = train.loop.Reporter(made, made.phases[1], tmp_path, 0)
    for step, share in zip((2, 4, 6), right):
        reporter.pend(step, {"bad_step": -1, "metrics": {"loss": 1.0, "teacher_accuracy": share}})
    reporter.drain()
    reporter.flush()
    said = capsys.readouterr().err
    assert said.count("teacher is right about 20.00% of what it is shown") == told
    assert [row["teacher_accuracy"] for row in rows(tmp_path, "train")] == list(right)


def test_the_digest_of_a_teacher_is_stored_and_its_copy_verified(taught, tmp_path):
    """A bit of the run's own copy that flips is refused with 4, as any checkpoint's."""
    workdir = copied(taught[2], tmp_path / "run")
    frozen = checkpoint.folder_of(workdir, "student", checkpoint.FROZEN)
    assert len(json.loads((frozen.parent / "frozen.json").read_text())[
        "teacher"]["sha256"]) == 64
    file = max((f for f in frozen.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(check.CheckpointError, match=file.name):
        ready.frozen_again(_run_of(taught[1], workdir), taught[1].phases[0])


def _run_of(made, workdir):
    mesh = train.make_mesh(ONE)
    return ready.Run(made, workdir, mesh, None, None, start.all_shapes(made, mesh))


# --- rows 23 and 28 ------------------------------------------------------------------------------


def test_a_lock_of_a_process_that_is_gone_holds_nobody(tmp_path):
    """What a crash leaves is a file; the lock went with the process (test_refusals kills one)."""
    (tmp_path / "lock").write_text("pid 1 on elsewhere")
    with folder.held(tmp_path):
        assert (tmp_path / "lock").read_text() == f"pid {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize("seconds", [-86400.0, 86400.0])
def test_a_clock_that_jumps_changes_no_number(unhurt, tmp_path, monkeypatch, seconds):
    """By a day, between two saves. (In a save a jump ahead costs that save, which is tried again:
    Orbax waits by this clock.)"""
    true, row, jumped = time.time, metrics.Log.row, []

    def jump(log, kind, step, values):
        row(log, kind, step, values)
        if (log.phase, kind, step) == ("student", "eval", 4):
            while not checkpoint.steps(tmp_path, "student"):  # step 3 is being saved
                time.sleep(0.01)
            jumped.append(seconds)

    monkeypatch.setattr(metrics.Log, "row", jump)
    monkeypatch.setattr(time, "time", lambda: true() + sum(jumped))
    train.run(three_phases(), tmp_path, devices=ONE)
    assert jumped
    assert_same_run(unhurt, tmp_path)
    assert all(row["seconds"] >= 0 and row["images_per_s"] >= 0
               for row in metrics.read(tmp_path) if row["kind"] == "train")


def test_without_tensorboard_and_network_it_trains(unhurt, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(101, "Network is unreachable")

    for module in [name for name in sys.modules if name.split(".")[0] == "tensorboardX"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    train.run(three_phases(), tmp_path, devices=ONE)
    assert not list((tmp_path / "tensorboard").rglob("*.tfevents*"))
    assert_same_run(unhurt, tmp_path)


def test_events_that_cannot_be_noted_are_told_and_cost_nothing(
        unhurt, tmp_path, monkeypatch, capsys):
    """events.jsonl alone is on a disk that only reads."""
    real = open

    def read_only(file, mode="r", *rest, **more):
        if str(file).endswith("events.jsonl") and "a" in mode:
            raise OSError(30, "Read-only file system")
        return real(file, mode, *rest, **more)

    monkeypatch.setattr("builtins.open", read_only)
    made = recipe(phase("teacher", structure="row 17"))
    summary = train.run(made, tmp_path, devices=ONE)
    assert summary["phases"] == {}  # which is made of events; the rows and the steps are there
    assert "could not note 'phase': [Errno 30]" in capsys.readouterr().err
    assert [row["step"] for row in rows(tmp_path, "train")] == [2, 4, 6]
    assert checkpoint.steps(tmp_path, "teacher") == [6]


# --- row 29 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept_until", [1, 2, 4])
def test_rows_written_after_the_last_save_come_once(unhurt, tmp_path, kept_until):
    """The log is ahead of the newest save by any number of rows, the last of them cut off."""
    workdir = copied(unhurt, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints/pruned")
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if '"pruned"' in line)
    (workdir / "metrics.jsonl").write_text(
        "".join(lines[: first + kept_until]) + lines[first + kept_until][:9])
    train.run(three_phases(), workdir, devices=ONE)
    assert_every_step_once(workdir, three_phases())
    assert_equal_trees(saved(unhurt, "pruned"), saved(workdir, "pruned"))
