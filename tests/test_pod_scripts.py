"""launch/tpu_pod.sh and slurm.sbatch with stand-ins for gcloud, srun and scontrol on this machine.

The stand-ins note what they were asked and answer as they are told; each also runs the command of
two workers or tasks as two real processes, and that of a pod is preempted once.
"""

import fcntl
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from script_runs import (
    checkout, ended, executable, GCLOUD, lines_of, PYTHON, REAL, ROOT, SRUN, train_for_real)

POD = {"TPU": "pod", "ZONE": "zone", "TYPE": "v5litepod-16", "VERSION": "v2", "RETRY_S": "0"}
TRAIN = ("--config=configs/quickstart.py", "--workdir=gs://bucket/run", "--config.note=two words")


class Pod:
    """`tpu_pod.sh` in front of a stand-in for gcloud."""

    def __init__(self, here: Path):
        self.here = here
        here.mkdir()
        executable(here / "bin/gcloud", GCLOUD.format(python=sys.executable, here=here))

    def __call__(self, *arguments: str, told=None, **settings: str) -> subprocess.CompletedProcess:
        (self.here / "told.json").write_text(json.dumps(told or {}))
        (self.here / "asked").write_text("")
        environment = {**os.environ, **POD, "HOME": str(self.here),
                       "PATH": f"{self.here}/bin:{os.environ['PATH']}", **settings}
        return ended([ROOT / "launch/tpu_pod.sh", *arguments], environment)

    def asked(self) -> list[str]:
        """What was asked of gcloud, in a word each."""
        return [self.word(line) for line in lines_of(self.here / "asked")]

    def command(self) -> str:
        """What the workers were last told to run."""
        return next(word for word in lines_of(self.here / "asked")[-1]
                    if word.startswith("--command=")).removeprefix("--command=")

    @staticmethod
    def word(line: list[str]) -> str:
        act = line[3] if line[0] == "compute" else line[0]
        queue = "queue " if "queued-resources" in line else ""
        return queue + ("train" if "launch.train" in " ".join(line) else act)


@pytest.fixture
def pod(tmp_path) -> Pod:
    return Pod(tmp_path / "pod")


NEW, SET_UP = ["create", "ssh", "scp"], ["describe", "ssh", "scp"]
AGAIN = ["describe", "delete", *NEW, "train"]
QUEUED = {"QUEUED": "1"}


@pytest.mark.parametrize("told, settings, asked, code", [
    ({}, {}, [*SET_UP, "train"], 0),
    ({"state": ["NOT_FOUND"]}, {}, ["describe", *NEW, "train"], 0),
    ({"codes": [75, 75]}, {}, [*SET_UP, *["train", "describe"] * 2, "train"], 0),
    ({"codes": [5]}, {}, [*SET_UP, "train", "describe"], 5),
    ({"codes": [1], "state": ["READY", "PREEMPTED", "PREEMPTED"]}, {},
     [*SET_UP, "train", "describe", *AGAIN], 0),
    ({"state": ["NOT_FOUND"], "queue": ["NOT_FOUND", "WAITING_FOR_RESOURCES", "ACTIVE"]}, QUEUED,
     ["describe", *["queue describe", "queue create", "queue describe", "queue describe"], "ssh",
      "scp", "train"], 0),
    ({"state": ["NOT_FOUND"] * 2, "queue": ["SUSPENDING", "SUSPENDED", "ACTIVE"]}, QUEUED,
     [*["describe", "queue describe"] * 2, "queue delete", "queue create", "queue describe", "ssh",
      "scp", "train"], 0),
    ({"state": ["NOT_FOUND"], "queue": ["WAITING_FOR_RESOURCES", "FAILED"]}, QUEUED,
     ["describe", *["queue describe"] * 2], 1),
])
def test_a_pod_is_made_where_there_is_none_and_75_means_again(pod, told, settings, asked, code):
    done = pod("train", *TRAIN, told=told, **settings)
    words = [word.removeprefix("queue ") if "QUEUED" not in settings else word
             for word in pod.asked()]
    assert (words, done.returncode) == (asked, code), done.stderr
    if code == 5:
        assert "ended with 5; not preempted, so not started again" in done.stderr


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_a_pod_that_was_taken_away_is_deleted_and_made_anew(pod, state):
    assert pod("create", told={"state": [state]}).returncode == 0
    assert pod.asked() == ["describe", "delete", *NEW]


@pytest.mark.parametrize("state", ["CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING",
                                   "UNHIDING"])
def test_a_passing_state_is_waited_for(pod, state):
    done = pod("create", told={"state": [state, state]})
    assert (done.returncode, pod.asked()) == (0, ["describe"] * 2 + SET_UP), done.stderr
    assert f"pod is {state}; again in 0 s" in done.stderr


@pytest.mark.parametrize("states, settings", [
    (["STOPPED"], {}), (["STOPPING", "STOPPED"], {}), (["HIDING", "HIDDEN"], {}), (["UNKNOWN"], {}),
    ([""], {}), (["MADE_UP"], {}), (["NOT_FOUND"], QUEUED), (["PERMISSION_DENIED"], {})])
def test_a_pod_in_another_state_is_left_as_it_is(pod, states, settings):
    """In the second last there is a queued resource alone, in the last gcloud does not answer."""
    done = pod("train", *TRAIN, told={"state": states, "queue": ["ACTIVE"]}, **settings)
    assert done.returncode == 2
    assert {word.removeprefix("queue ") for word in pod.asked()} == {"describe"}
    assert ("(gcloud) PERMISSION_DENIED" if "PERMISSION" in states[0] else
            "got queued ACTIVE. It was left as it is" if settings else
            f"to be READY, got {states[-1]}. It was left as it is") in done.stderr


@pytest.mark.parametrize("then, asked, code", [
    (["READY", "READY"], ["describe"] * 2, 255),
    (["READY", "PREEMPTED", "PREEMPTED"], ["describe"] * 2 + AGAIN, 0),
    (["PERMISSION_DENIED", "READY"], ["describe"] * 2, 255),
])
def test_a_lost_connection_is_not_taken_for_the_end_of_the_training(pod, then, asked, code):
    done = pod("train", *TRAIN, told={"codes": [255], "state": ["READY", *then]})
    assert (pod.asked(), done.returncode) == ([*SET_UP, "train", *asked], code), done.stderr
    if code:
        assert "launch.train may go on there" in done.stderr
        typed = done.stderr.splitlines()[-1].split("last save: ")[1]
        assert shlex.split(typed) == ["./launch/tpu_pod.sh", "train", *TRAIN]


def test_a_worker_refuses_to_train_twice_at_a_time(pod):
    """JAX would end the run that its workers are in (seen with jax 0.10: exit code 134 of both)."""
    checkout(pod.here, "tpu,store", "#!/bin/bash\nflock -n ~/.augjax_training true || exit 7\n")
    pod("train", *TRAIN)
    worker = ["bash", "-c", pod.command()], {**os.environ, "HOME": str(pod.here)}
    assert ended(*worker).returncode == 7  # it is held while launch.train runs, and let go of then
    with open(pod.here / ".augjax_training") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = ended(*worker)
    assert (refused.returncode, refused.stderr) == (2, "launch.train runs on pod already\n")


def test_arguments_arrive_as_they_were_given(pod):
    pod("train", *TRAIN)
    assert shlex.split(pod.command())[-len(TRAIN):] == list(TRAIN)
    assert "AUGJAX_POD=1" in pod.command()
    assert "--worker=all" in lines_of(pod.here / "asked")[-1]


@pytest.mark.parametrize("arguments, settings, printed", [
    (("create",), {}, ["describe", *NEW]),
    (("create",), QUEUED, ["describe", *["queue describe", "queue create"], "queue describe", "ssh",
                           "scp"]),
    (("train", *TRAIN), {}, ["describe", *NEW, "train"]),
    (("collect", TRAIN[1]), {}, ["storage"]),
    (("collect", "--workdir=runs/a"), {}, ["scp"]),
    (("delete",), {}, ["delete"]),
])
def test_a_dry_run_prints_every_command_and_runs_none(pod, arguments, settings, printed):
    """Wherever among the words --dry_run stands; launch.train would not get it."""
    settings = {**settings, "TO": str(pod.here / "to")}
    for place in {0, 1, len(arguments)}:
        done = pod(*arguments[:place], "--dry_run", *arguments[place:], **settings)
        assert done.returncode == 0, done.stderr
        assert pod.asked() == [] and not (pod.here / "to").exists()
        assert "--dry_run" not in done.stdout
    pasted = {**os.environ, "PATH": f"{pod.here}/bin:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", done.stdout], env=pasted, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    assert [word.removeprefix("queue ") if not settings.get("QUEUED") else word
            for word in pod.asked()] == printed


@pytest.mark.parametrize("arguments", [
    ("--help",), ("-h",), ("create", "--help"), ("delete", "-h"), ("train", *TRAIN, "--help")])
def test_help_prints_the_usage_alone(pod, arguments):
    done = pod(*arguments, TPU="")
    assert (done.returncode, done.stderr, pod.asked()) == (0, "", [])
    assert "./launch/tpu_pod.sh [--dry_run] create\n" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("pause before another try")


@pytest.mark.parametrize("arguments, said", [
    (("train", "--workdir=runs/a"), "lies on each worker's own disk"),
    (("train", "--config=x"), "give --workdir"),
    (("begin",), "expected create, train, collect or delete, got begin"),
    (("create", "pod"), "expected nothing after create, got pod"),
    (("delete", "a", "b"), "expected nothing after delete, got a b"),
    (("delete", "--dry_run=true"), "expected --dry_run or nothing, got --dry_run=true"),
    (("train", *TRAIN, "-dry_run"), "expected --dry_run or nothing, got -dry_run"),
    ((), "got none"),
])
def test_what_cannot_work_is_refused_before_anything_is_made(pod, arguments, said):
    done = pod(*arguments)
    assert done.returncode == 2 and said in done.stderr
    assert pod.asked() == []
    assert pod("train", "--workdir=/nfs/a", SHARED="1").returncode == 0


def test_two_workers_are_preempted_once_and_end(pod, tmp_path):
    """Real processes: SIGTERM for one of them, both save and leave with 75, the next two end."""
    place = checkout(pod.here, "tpu,store", REAL)
    for worker in ("worker0", "worker1"):  # the homes of two machines
        (pod.here / worker).mkdir()
        (pod.here / worker / "augjax").symlink_to(place)
    job = os.getpid()  # JAX makes its port of it, above 61,439
    workdir = tmp_path / "run"
    arguments, variables = train_for_real(place, workdir, epochs=5)
    done = pod("train", *arguments, SHARED="1", **variables, told={
        "job": str(job), "preempt": [True], "rows": str(workdir / "metrics.jsonl")})
    assert done.returncode == 0, done.stderr[-3000:]
    assert pod.asked() == ["describe", "ssh", "scp", "train", "describe", "train"]
    assert "preempted (exit code 75, the pod is READY)" in done.stderr
    starts = json.loads((workdir / "provenance.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2, 2]
    begun = [event["step"] for event in lines_of(workdir / "events.jsonl")
             if event["event"] == "phase"]
    assert begun[0] == 0 < begun[1] < 40
    rows = lines_of(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 41))
    assert json.loads((workdir / "summary.json").read_text())["phases"]["teacher"]["steps"] == 40


# --- SLURM ---------------------------------------------------------------------------------------

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
