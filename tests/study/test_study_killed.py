"""A study that is killed, asked to stop and continued ends in the table of one that never was."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import jax
import pytest
from small_study import build, planned, timeless

from augjax import check, study
from augjax.train import metrics
from train.helpers import assert_same_run

VICTIM = Path(__file__).parent / "study_victim.py"


def trained(workdir):
    """Goes on with the study to its end, in this process, and returns its table."""
    made = planned()
    study.train_here(made, workdir, build, devices=jax.devices()[:1])
    return study.report(made, workdir, "command")


def killed(workdir, run, step):
    """Begins the study in a process of its own, which ends in the middle of a run."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(VICTIM), str(workdir), run, str(step)], timeout=200,
                          capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def statuses(workdir):
    return {str(run): state.status for run, state in study.states(planned(), workdir).items()}


@pytest.fixture(scope="module")
def unhurt(tmp_path_factory):
    """(folder, table) of a study that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("unhurt")
    return workdir, trained(workdir)


def test_killed_stopped_and_continued_gives_the_same_table(unhurt, tmp_path, monkeypatch):
    """Killed in kd/0 between two saves, asked to stop in plain/1."""
    killed(tmp_path, "kd/0", 2)
    assert statuses(tmp_path) == {
        "plain/0": "done", "kd/0": "started", "plain/1": "missing", "kd/1": "missing"}
    row = metrics.Log.row

    def ask(log, kind, step, values):
        row(log, kind, step, values)
        if statuses(tmp_path)["plain/1"] == "started":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(metrics.Log, "row", ask)
        with pytest.raises(check.Preempted):
            trained(tmp_path)
    assert statuses(tmp_path) == {
        "plain/0": "done", "kd/0": "done", "plain/1": "started", "kd/1": "missing"}

    table = trained(tmp_path)
    assert [row["n"] for row in table["rows"]] == [2, 2]
    assert timeless(table) == timeless(unhurt[1])
    for run in planned().runs:
        one, other = (study.folder_of(workdir, run) for workdir in (unhurt[0], tmp_path))
        assert_same_run(one, other, phases=("student",))


def test_each_seed_has_the_teacher_of_its_own(unhurt):
    teachers = [json.loads((unhurt[0] / f"runs/kd/{seed}/summary.json").read_text())["phases"][
        "student"]["frozen"]["teacher"] for seed in (0, 1)]
    assert [one["source"].split("/runs/")[1] for one in teachers] == [
        "plain/0#student", "plain/1#student"]
    assert teachers[0]["sha256"] != teachers[1]["sha256"]


@pytest.mark.parametrize("row", ["plain", "kd"])
def test_the_second_seed_of_a_row_compiles_nothing(unhurt, row):
    events = metrics.read_events(unhurt[0] / "runs" / row / "1")
    assert "compiled" not in [event["event"] for event in events]
