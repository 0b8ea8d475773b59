"""Which run comes next and what becomes of those that fail, with training itself put aside."""

import os
import signal
import subprocess
import sys
import time

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest
from small_study import planned, pretend, taught, training

from augjax import check, defaults, recipe, study
from augjax.study import beside, runs
from augjax.train import metrics
from augjax.train.stop import listening


@pytest.fixture
def made():
    """plain <- kd <- lost, and other beside them; one seed."""
    return planned(rows={"lost": taught("row:kd"), "kd": taught(), "plain": training(),
                         "other": training()}, seeds=(0,))


@pytest.fixture
def trained(monkeypatch, made):
    """The runs in the order they were trained; a run in `trained.fails` raises instead."""
    class Trained(list):
        fails = {}

    seen = Trained()

    def fake(recipe, place, config, source_text, devices):
        run = made.run("/".join(place.parts[-2:]))
        seen.append(str(run))
        if str(run) in seen.fails:
            raise seen.fails[str(run)]
        pretend(place.parents[2], made, str(run), 0.5)

    monkeypatch.setattr(runs.train, "run", fake)
    return seen


def go(made, workdir, **options):
    study.train_here(made, workdir, lambda config: None, **options)
    return {str(run): state.status for run, state in study.states(made, workdir).items()}


def test_runs_in_order_of_need_and_only_once(made, trained, tmp_path):
    assert set(go(made, tmp_path).values()) == {"done"}
    assert trained == ["plain/0", "kd/0", "lost/0", "other/0"]
    go(made, tmp_path)
    assert len(trained) == 4
    assert study.exit_code(made, tmp_path) == 0


def test_nan_stops_nobody_else_and_is_not_tried_again(made, trained, tmp_path):
    trained.fails = {"kd/0": check.NumericsError("NaN at step 2")}
    assert go(made, tmp_path) == {
        "plain/0": "done", "kd/0": "failed", "lost/0": "missing", "other/0": "done"}
    assert study.exit_code(made, tmp_path) == 5
    assert study.state_of(made, made.run("kd/0"), tmp_path).failure == {
        "exit_code": 5, "reason": "NaN at step 2"}
    go(made, tmp_path)
    assert trained == ["plain/0", "kd/0", "other/0"]
    trained.fails = {}
    assert set(go(made, tmp_path, retry=True).values()) == {"done"}
    assert not list(tmp_path.glob("runs/*/*/failed.json"))
    assert study.exit_code(made, tmp_path) == 0


@pytest.mark.parametrize("error, code, reason", [
    (check.CheckpointError("the disk is full"), 4, "the disk is full"),
    (RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore"), 1,
     "RuntimeError: RESOURCE_EXHAUSTED: out of memory"),
])
def test_other_failures_are_tried_again_by_the_next_start(made, trained, tmp_path, capfd, error,
                                                          code, reason):
    trained.fails = {"plain/0": error}
    go(made, tmp_path)
    assert trained == ["plain/0", "other/0"]
    assert study.state_of(made, made.run("plain/0"), tmp_path).failure == {
        "exit_code": code, "reason": reason}
    assert study.exit_code(made, tmp_path) == code
    assert ("Traceback" in capfd.readouterr().err) == (code == 1)
    trained.fails = {}
    assert set(go(made, tmp_path).values()) == {"done"}


def test_a_stop_in_a_run_or_between_two_ends_the_study(made, trained, tmp_path):
    trained.fails = {"kd/0": check.Preempted("stopped")}
    with pytest.raises(check.Preempted):
        go(made, tmp_path)
    assert trained == ["plain/0", "kd/0"]
    assert not list(tmp_path.glob("runs/*/*/failed.json"))
    trained.fails = {}

    def ask(config):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(check.Preempted):
        study.train_here(made, tmp_path, ask)
    assert trained[2:] == ["kd/0"]
    assert set(go(made, tmp_path).values()) == {"done"}


def test_folders_begun_with_another_config_are_refused(made, tmp_path):
    pretend(tmp_path, made, "plain/0", 0.5)
    study.check_folders(made, tmp_path)
    changed = planned(rows={"plain": training(epochs=2.0)}, seeds=(0,))
    with pytest.raises(check.ConfigError, match="student.epochs: 1.0 there, 2.0 now"):
        study.check_folders(changed, tmp_path)


def test_a_study_remembers_itself(tmp_path):
    with pytest.raises(check.ConfigError, match="study.json"):
        study.recall(tmp_path)
    study.remember(tmp_path, {"a": 1}, "text", "command")
    assert study.recall(tmp_path) == {"config": {"a": 1}, "config_source": "text",
                                      "command": "command"}


# --- side by side --------------------------------------------------------------------------------


@pytest.mark.parametrize("asked, found", [
    (("cpu", 8, 1, None), []),
    (("gpu", 1, 1, None), []),
    (("gpu", 3, 2, None), []),
    (("gpu", 2, 1, None), ["0", "1"]),
    (("gpu", 3, 1, "4,GPU-7a,6"), ["4", "GPU-7a", "6"]),
    (("gpu", 5, 2, None), ["0,1", "2,3"]),
])
def test_a_seat_for_each_device_where_there_are_several(asked, found):
    assert [seat["CUDA_VISIBLE_DEVICES"] for seat in study.seats(*asked)] == found


def test_tpu_chips_are_seats_of_one():
    assert [seat["TPU_VISIBLE_CHIPS"] for seat in study.seats("tpu", 4, 1)] == list("0123")
    with pytest.raises(check.ConfigError, match="devices_per_run"):
        study.seats("tpu", 4, 2)


class Process:
    """A stand-in for a run's process: it runs until it is let go."""

    def __init__(self, run):
        self.run, self.returncode = run, None

    def poll(self):
        return self.returncode

    def terminate(self):
        self.returncode = self.returncode if self.returncode is not None else 75

    def wait(self):
        return self.returncode


def side_by_side(made, workdir, ends, seats_count=2):
    """What happened, as (run, seat) pairs; `ends` gives the exit code of each run."""
    begun, alive = [], []

    def start(run, seat, log):
        for one in alive:
            one.returncode = ends.get(str(one.run), 0)  # whoever sat there before ends now
            if one.returncode == 0:
                pretend(workdir, made, str(one.run), 0.5)
        begun.append((str(run), seat["place"]))
        alive[:] = [Process(run)]
        return alive[0]

    def sleep(seconds):
        for one in alive:
            one.returncode = ends.get(str(one.run), 0)
            if one.returncode == 0:
                pretend(workdir, made, str(one.run), 0.5)

    beside.time = type("clock", (), {"sleep": staticmethod(sleep)})
    try:
        study.train_side_by_side(
            made, workdir, [{"place": str(number)} for number in range(seats_count)], start)
    finally:
        beside.time = time
    return begun


def test_a_free_seat_takes_the_next_run_that_can_begin(made, tmp_path):
    begun = side_by_side(made, tmp_path, {})
    assert begun[:2] == [("plain/0", "0"), ("other/0", "1")]  # kd waits for plain
    assert [run for run, _ in begun[2:]] == ["kd/0", "lost/0"]
    assert study.exit_code(made, tmp_path) == 0


def test_a_process_that_dies_is_noted_with_the_end_of_its_log(made, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/kd-0.txt").write_text("line\nout of memory\n\n")
    begun = side_by_side(made, tmp_path, {"kd/0": -signal.SIGKILL})
    assert [run for run, _ in begun] == ["plain/0", "other/0", "kd/0"]
    state = study.state_of(made, made.run("kd/0"), tmp_path)
    assert state.failure == {"exit_code": 1,
                             "reason": "killed by SIGKILL; its log ends: out of memory"}


def test_what_a_process_said_of_itself_is_kept(made, tmp_path):
    study.folders.note_failure(tmp_path, made.run("plain/0"), 3, "no data")
    assert beside.ended(made, tmp_path, made.run("plain/0"), 3) == 3
    assert study.state_of(made, made.run("plain/0"), tmp_path).failure["reason"] == "no data"


@pytest.mark.parametrize("returned", [75, -signal.SIGTERM])
def test_a_preempted_process_preempts_the_study_after_the_others(made, tmp_path, returned):
    with pytest.raises(check.Preempted, match="plain/0"):
        side_by_side(made, tmp_path, {"plain/0": returned}, seats_count=1)
    found = {str(run): state.status for run, state in study.states(made, tmp_path).items()}
    assert found == {"plain/0": "missing", "kd/0": "missing", "lost/0": "missing",
                     "other/0": "done"}


def test_a_stop_asks_every_process_and_begins_no_other(tmp_path):
    """Real processes that only sleep; the signal comes while they do."""
    made = planned(rows={row: training() for row in "abc"}, seeds=(0,))
    processes = []

    def start(run, seat, log):
        processes.append(subprocess.Popen(
            [sys.executable, "-c", "import os, time; time.sleep(60)"]))
        if len(processes) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return processes[-1]

    began = time.monotonic()
    with pytest.raises(check.Preempted, match="a/0, b/0"):
        study.train_side_by_side(made, tmp_path, [{}, {}, {}], start)
    assert [one.returncode for one in processes] == [-signal.SIGTERM] * 2
    assert time.monotonic() - began < 30


def test_a_stop_that_comes_while_the_last_process_ends_well_is_a_stop(made, tmp_path):
    class Quick(Process):
        def terminate(self):
            self.returncode = 0

    def start(run, seat, log):
        os.kill(os.getpid(), signal.SIGTERM)
        pretend(tmp_path, made, str(run), 0.5)
        return Quick(run)

    with pytest.raises(check.Preempted, match="a stop of all"):
        study.train_side_by_side(made, tmp_path, [{}], start)
    assert [run for run, state in study.states(made, tmp_path).items() if state.done] == [
        made.run("plain/0")]


def test_whatever_ends_the_study_ends_its_processes(made, tmp_path):
    processes = []

    def start(run, seat, log):
        if processes:
            raise KeyboardInterrupt
        processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return processes[0]

    with pytest.raises(KeyboardInterrupt):
        study.train_side_by_side(made, tmp_path, [{}, {}], start)
    assert processes[0].returncode == -signal.SIGTERM


def test_the_leash_stops_a_run_whose_study_is_gone():
    reader, writer = os.pipe()
    with listening() as stop, open(reader) as stream:
        study.leash(stream)
        time.sleep(0.05)
        assert not stop.asked
        os.close(writer)
        for _ in range(200):
            time.sleep(0.01)
            if stop.asked:
                break
        assert stop.asked


# --- runs that differ in arrays alone, as one population -----------------------------------------


def test_who_trains_as_one_population(trained, tmp_path, monkeypatch):
    """Of one kind, ready, and no more than `members`; who needs another waits for it."""
    grid = planned(rows={"lost": taught(), "plain": training(), "b": training(), "c": training(),
                         "long": training(epochs=2.0)}, seeds=(0, 1))
    together = []

    def fake(members, lowering, devices):
        assert lowering == "stacked"
        names = ["/".join(member.workdir.parts[-2:]) for member in members]
        together.append(names)
        for name in names:
            if name != "b/1":
                pretend(tmp_path, grid, name, 0.5)
        return {names.index("b/1"): check.NumericsError("NaN at step 2")} if "b/1" in names else {}

    monkeypatch.setattr(runs.train, "run_together", fake)
    monkeypatch.setattr(runs.train, "kind_of", lambda config: str(
        [config["student"]["teacher"] != "none", config["student"]["epochs"]]))
    study.train_here(grid, tmp_path, lambda config: config, members=4)
    assert together == [["plain/0", "b/0", "c/0", "plain/1"], ["lost/0", "lost/1"],
                        ["long/0", "long/1"], ["b/1", "c/1"]]
    state = study.state_of(grid, grid.run("b/1"), tmp_path)
    assert state.status == "failed" and state.failure["exit_code"] == 5
    assert sum(found.done for found in study.states(grid, tmp_path).values()) == 9


def test_a_population_makes_the_table_of_lone_runs(tmp_path):
    """Two magnitudes and two seeds; nothing put aside here."""
    shown = {f"m{m}": training(views={
        "train": defaults.view("crop", defaults.randaugment(m), pad=1)}) for m in (3, 9)}
    grid, data = planned(rows=shown), recipe.load_data(shown["m3"])
    for members, folder in ((1, tmp_path / "alone"), (4, tmp_path / "together")):
        study.train_here(grid, folder, lambda config: recipe.build(ConfigDict(config), data),
                         members=members, devices=jax.devices()[:1])
    for run in grid.runs:
        alone, together = (metrics.read(study.folder_of(tmp_path / name, run))
                           for name in ("alone", "together"))
        for mine, theirs in zip(together, alone, strict=True):
            assert mine.keys() == theirs.keys()
            np.testing.assert_allclose(mine.get("loss"), theirs.get("loss"), 2e-3)
    events = metrics.read_events(study.folder_of(tmp_path / "together", grid.runs[-1]))
    assert [event["members"] for event in events if event["event"] == "phase"] == [4]
