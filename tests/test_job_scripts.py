"""launch/slurm.sbatch with stand-ins for srun and scontrol, environment.sh with one for Python, and
the text of all scripts.

The stand-in for srun also runs the command of two tasks as two real processes.
"""

import json
import os
import re
import shutil

import pytest
from script_runs import (
    checkout, ended, executable, INSTALLER, lines_of, PYTHON, ROOT, SRUN, train_for_real)


@pytest.fixture
def slurm(tmp_path):
    """Runs slurm.sbatch as SLURM would; the python that it starts ends with `code`."""
    place = checkout(tmp_path, "cuda,store", PYTHON.format(here=tmp_path))
    executable(tmp_path / "bin/srun", SRUN.format(here=tmp_path))
    executable(tmp_path / "bin/scontrol", f'#!/bin/bash\necho "scontrol $*" >> {tmp_path}/asked\n')

    def submit(*arguments, code=0, **variables):
        (tmp_path / "asked").write_text("")
        (tmp_path / "code").write_text(str(code))
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("CUDA_VISIBLE_DEVICES", "JAX_LOCAL_DEVICE_IDS")}
        environment |= {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "77",
                        "SLURM_SUBMIT_DIR": str(place), **variables}
        done = ended(["bash", ROOT / "launch/slurm.sbatch", *arguments], environment)
        return done, (tmp_path / "asked").read_text().splitlines()

    return submit


@pytest.mark.parametrize("code, requeued", [(0, False), (75, True), (5, False), (137, False)])
def test_a_job_goes_back_into_the_queue_after_75_alone(slurm, code, requeued):
    done, asked = slurm("--config=a b.py", "--workdir=w", code=code)
    assert done.returncode == code, done.stderr
    assert asked[0].startswith("srun --kill-on-bad-exit=0 --wait=120 bash -c")
    assert asked[1] == "python [] -m launch.train --config=a b.py --workdir=w"
    assert asked[2:] == ["scontrol requeue 77"] * requeued
    assert ("not started again" in done.stderr) == (code not in (0, 75))


@pytest.mark.parametrize("visible, tasks, taken", [
    ("0,1,2,3", "1", "0,1,2,3"),  # alone on its node
    ("5", "8", "0"),  # bound to one GPU
    ("0,1", "2", ""),  # JAX takes the one of the task's number
    ("", "1", ""),  # no GPU
])
def test_a_task_takes_the_gpus_that_are_its_own(slurm, visible, tasks, taken):
    _, asked = slurm(CUDA_VISIBLE_DEVICES=visible, SLURM_NTASKS_PER_NODE=tasks)
    assert asked[1].startswith(f"python [{taken}] ")


def test_a_dry_job_prints_and_runs_none(slurm):
    done, asked = slurm("--dry_run", "--workdir=w")
    assert (done.returncode, asked) == (0, [])
    assert done.stdout.startswith("srun ") and "--workdir=w" in done.stdout
    assert "scontrol requeue 77" in done.stdout


def test_two_tasks_train_one_run(slurm, tmp_path):
    """Real processes of launch.train, which find each other by SLURM's variables."""
    workdir = tmp_path / "run"
    arguments, variables = train_for_real(tmp_path / "augjax", workdir, epochs=1)
    done, asked = slurm(*arguments, **variables, TASKS="2", SLURM_JOB_ID=str(os.getpid()))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(asked) == 1 and asked[0].startswith("srun ")
    starts = json.loads((workdir / "provenance.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2]
    rows = lines_of(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 9))
    assert json.loads((workdir / "summary.json").read_text())["phases"]["teacher"]["steps"] == 8


# --- their environment ---------------------------------------------------------------------------

CALLERS = {  # as in quickstart.sh, slurm.sbatch and on a worker
    "strict": "set -euo pipefail\nsource launch/environment.sh\nmake_environment x\necho went on",
    "lax": "set -uo pipefail\nsource launch/environment.sh\nmake_environment x\necho went on",
    "listed": "source launch/environment.sh && make_environment x && echo went on"}


@pytest.mark.parametrize("caller", CALLERS)
def test_an_installation_that_failed_does_not_count(tmp_path, caller):
    """Nor does an environment whose making was cut off, before it had a pip."""
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    (tmp_path / "setup.py").touch()
    executable(tmp_path / "python", INSTALLER.format(here=tmp_path))
    executable(tmp_path / ".venv/bin/python", INSTALLER.format(here=tmp_path))

    def make(code):
        (tmp_path / "asked").write_text("")
        (tmp_path / "code").write_text(str(code))
        done = ended(["bash", "-c", f"cd {tmp_path}\n{CALLERS[caller]}"],
                     {**os.environ, "PYTHON": str(tmp_path / "python")})
        lines = (tmp_path / "asked").read_text().splitlines()
        asked = [re.search(r"venv|pip \w+", line) for line in lines]
        return done, [found[0] for found in asked if found]

    for asked in (["venv", "pip install"], ["pip install"]):
        done, did = make(1)
        assert (done.returncode, done.stdout, did) == (69, "", asked), done.stderr
        assert "could not install augjax[x]" in done.stderr
    for asked in (["pip install"], []):
        done, did = make(0)
        assert (done.returncode, done.stdout, did) == (0, "went on\n", asked), done.stderr


# --- the text of the scripts ---------------------------------------------------------------------

SCRIPTS = sorted([*(ROOT / "launch").glob("*.sh"), ROOT / "launch/slurm.sbatch"])


def test_no_array_is_empty():
    """Under `set -u` bash before 4.4 (macOS has 3.2) refuses to expand one."""
    for script in SCRIPTS:
        assert not re.search(r"=\(\s*\)", script.read_text()), script


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    done = ended(["shellcheck", "-x", "--source-path", ROOT, *SCRIPTS], dict(os.environ))
    assert done.returncode == 0, done.stdout
