"""A run that is killed or asked to stop, at any moment, ends as one that never was.

SIGKILL and exit codes need real processes (victim.py); a polite stop is also tried inside this one.
"""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import jax
import pytest

from augjax import check, train
from augjax.train import checkpoint, evaluate, loop, metrics, ready
from train.helpers import assert_every_step_once, assert_same_run, three_phases

VICTIM = Path(__file__).parent / "victim.py"
LIMIT_S = 120  # no process of these tests lives longer


def start(workdir: Path, **options) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, str(VICTIM), str(workdir), json.dumps(options)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    )


def finish(process: subprocess.Popen, limit_s: float = LIMIT_S) -> int:
    """The exit code; a process that hangs is killed and fails the test."""
    try:
        process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail(f"{process.args} did not end within {limit_s} s")
    return process.returncode


def unfinished(workdir: Path) -> list[str]:
    """Folders of saves that were not committed."""
    return [str(path) for path in (workdir / "checkpoints").glob("*/*")
            if path.is_dir() and not (path / checkpoint.DIGESTS).exists()]


@pytest.fixture(scope="module")
def unhurt(tmp_path_factory) -> Path:
    """A run in a process of its own that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("unhurt")
    assert finish(start(workdir)) == 0
    return workdir


def test_killed_at_many_moments_equals_unhurt(unhurt, tmp_path):
    moments = [
        ("saving", "teacher", 6),  # Orbax is writing; the last step of a phase
        ("committing", "student", 6),  # Orbax is done, the digests are not written
        ("evaluating", "student", 9),  # the phase is saved, its last row is not written
        ("saving", "pruned", "frozen"),  # between two phases
        ("train", "pruned", 4),  # between two saves
    ]
    for at, phase, step in moments:
        code = finish(start(tmp_path, at=at, phase=phase, step=step))
        assert code == -signal.SIGKILL, f"{at} {phase} {step} never came"
        if at in ("saving", "committing"):
            assert any(f"/{phase}/{step}" in folder for folder in unfinished(tmp_path))
    assert finish(start(tmp_path)) == 0
    assert not unfinished(tmp_path)
    cleared = [event["folder"] for event in metrics.read_events(tmp_path)
               if event["event"] == "cleared an unfinished save"]
    assert {"teacher/6", "student/6", "pruned/frozen"} <= {
        folder.removesuffix(".orbax-checkpoint-tmp") for folder in cleared}
    assert_every_step_once(tmp_path, three_phases())
    assert_same_run(unhurt, tmp_path)


def test_asked_to_stop_in_a_long_compilation_leaves_with_75(unhurt, tmp_path):
    """SIGTERM from outside, the second phase's compilation hanging: the first phase is kept."""
    process = start(tmp_path, at="compiling", phase="student", step=0, hang=10 * LIMIT_S)
    assert process.stdout.readline() == "at compiling student 0\n"
    process.send_signal(signal.SIGTERM)
    assert finish(process, limit_s=30) == check.Preempted.exit_code == 75
    assert checkpoint.steps(tmp_path, "teacher")[-1] == 6
    assert checkpoint.steps(tmp_path, "student") == []
    assert finish(start(tmp_path)) == 0
    compiled = [(event["phase"], event["what"]) for event in metrics.read_events(tmp_path)
                if event["event"] == "compiled"]
    first = [("teacher", "step"), ("teacher", "evaluate")]  # a new process needs its own, once
    begun = [("student", "start")]  # before the compilation that was asked to stop, and again
    assert compiled == [("teacher", "start"), *first, *begun, *first, *begun,
                        ("student", "step"), ("student", "evaluate")]
    assert_same_run(unhurt, tmp_path)


def test_a_full_disk_is_told_and_nothing_is_lost(unhurt, tmp_path):
    """No file can grow for three steps, the log included: the run goes on, and every row comes."""
    assert finish(start(tmp_path, full=[["student", 6], ["student", 9]])) == 0
    failed = [event for event in metrics.read_events(tmp_path) if event["event"] == "save failed"]
    assert len(failed) <= 1  # the events could not be written either
    assert not unfinished(tmp_path)
    assert_every_step_once(tmp_path, three_phases())
    assert_same_run(unhurt, tmp_path)


def test_a_disk_that_stays_full_ends_the_run_with_4(unhurt, tmp_path):
    assert finish(start(tmp_path, full=[["student", 6], ["nobody", 0]])) == 4
    assert checkpoint.steps(tmp_path, "student") == [3]
    checkpoint.verify(checkpoint.folder_of(tmp_path, "student", 3))
    train.run(three_phases(), tmp_path, devices=jax.devices()[:1])
    assert_every_step_once(tmp_path, three_phases())
    assert_same_run(unhurt, tmp_path)


# --- asked to stop, in this process --------------------------------------------------------------


def strikes(monkeypatch, owner, name: str, when) -> None:
    """Sends this process SIGTERM, once, before `owner.name` runs on arguments that `when` likes."""
    function, sent = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        if not sent and when(*args):
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


def save_counter(monkeypatch) -> list:
    saves, save = [], checkpoint.Writer.save

    def counted(writer, phase, step, *rest):
        saves.append((phase, step))
        save(writer, phase, step, *rest)

    monkeypatch.setattr(checkpoint.Writer, "save", counted)
    return saves


@pytest.mark.parametrize("phase, asked_at, saved_at", [
    ("student", 6, 6),  # at a step that is saved anyway
    ("student", 9, 9),  # at the last step, before the evaluation
    ("pruned", 5, 5),  # between two saves
])
def test_asked_to_stop_saves_the_last_finished_step_once(
        monkeypatch, tmp_path, unhurt, phase, asked_at, saved_at):
    recipe, one = three_phases(), jax.devices()[:1]
    with monkeypatch.context() as patch:
        strikes(patch, loop.Reporter, "pend",
                lambda reporter, step, _: (reporter.phase.name, step) == (phase, asked_at))
        saves = save_counter(patch)
        with pytest.raises(check.Preempted, match=f"step {saved_at} of phase '{phase}'"):
            train.run(recipe, tmp_path, devices=one)
    assert saves.count((phase, saved_at)) == 1 and saves[-1] == (phase, saved_at)
    assert checkpoint.steps(tmp_path, phase)[-1] == saved_at and not unfinished(tmp_path)
    train.run(recipe, tmp_path, devices=one)
    assert_every_step_once(tmp_path, recipe)
    assert_same_run(unhurt, tmp_path)


@pytest.mark.parametrize("phase, step", [("student", 4), ("pruned", 6)])
def test_asked_to_stop_while_evaluating_saves_first(monkeypatch, tmp_path, unhurt, phase, step):
    """Step 4 is evaluated and not saved; step 6 ends the phase and is saved already."""
    recipe, one = three_phases(), jax.devices()[:1]
    where = []
    with monkeypatch.context() as patch:
        now = loop.evaluate_now
        patch.setattr(loop, "evaluate_now", lambda shared, part, state, step, reporter: (
            where.append((part.name, step)), now(shared, part, state, step, reporter)))
        strikes(patch, evaluate, "accuracies", lambda *_: where[-1] == (phase, step))
        saves = save_counter(patch)
        with pytest.raises(check.Preempted):
            train.run(recipe, tmp_path, devices=one)
    assert saves.count((phase, step)) == 1
    assert checkpoint.steps(tmp_path, phase)[-1] == step and not unfinished(tmp_path)
    assert not [row for row in metrics.read(tmp_path) if row["kind"] == "eval"
                and (row["phase"], row["step"]) == (phase, step)]
    train.run(recipe, tmp_path, devices=one)
    assert_every_step_once(tmp_path, recipe)
    assert_same_run(unhurt, tmp_path)


def test_a_save_under_way_is_not_written_twice(monkeypatch, tmp_path):
    """Asked to stop while step 6 is evaluated and still being saved: that save is awaited."""
    recipe, one = three_phases(evaluate_student_epochs=1), jax.devices()[:1]
    commit, evaluating = checkpoint.commit, threading.Event()

    def late(folder):
        if folder.parent.name == "student" and folder.name == "6":
            assert evaluating.wait(30)
        commit(folder)

    def is_sixth(*_):
        if reached[-1] == ("student", 6):
            evaluating.set()
            return True
        return False

    reached, now = [], loop.evaluate_now
    monkeypatch.setattr(loop, "evaluate_now", lambda shared, part, state, step, rest: (
        reached.append((part.name, step)), now(shared, part, state, step, rest)))
    monkeypatch.setattr(checkpoint, "commit", late)
    strikes(monkeypatch, evaluate, "accuracies", is_sixth)
    saves = save_counter(monkeypatch)
    with pytest.raises(check.Preempted):
        train.run(recipe, tmp_path, devices=one)
    assert saves.count(("student", 6)) == 1
    assert checkpoint.steps(tmp_path, "student")[-1] == 6


def test_asked_to_stop_before_the_first_step_saves_nothing(monkeypatch, tmp_path):
    recipe, release = three_phases(structure=None), threading.Event()
    lower = ready.lower_step

    def slow(*args):
        def compile():
            os.kill(os.getpid(), signal.SIGTERM)
            release.wait(120)
            return lower(*args).compile()
        return SimpleNamespace(compile=compile)

    with monkeypatch.context() as patch:
        patch.setattr(ready, "lower_step", slow)
        with pytest.raises(check.Preempted):
            train.run(recipe, tmp_path, devices=jax.devices()[:1])
        release.set()
    assert checkpoint.steps(tmp_path, "teacher") == [] and metrics.read(tmp_path) == []


@pytest.mark.parametrize("times, raised", [(1, check.Preempted), (2, KeyboardInterrupt)])
def test_ctrl_c_asks_and_a_second_one_insists(monkeypatch, tmp_path, times, raised):
    def press(*_):
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.Reporter, "pend", press)
    with pytest.raises(raised):
        train.run(three_phases(), tmp_path, devices=jax.devices()[:1])
    assert checkpoint.steps(tmp_path, "teacher") == ([1] if times == 1 else [])


def test_the_signals_are_handed_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train.run(three_phases(), tmp_path, devices=jax.devices()[:1])
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
