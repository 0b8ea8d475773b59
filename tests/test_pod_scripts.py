"""launch/tpu_pod.sh with a stand-in for gcloud on this machine.

It notes what it was asked and answers as it is told; it also runs the command of two workers as two
real processes, and preempts them once.
"""

import fcntl
import json
import os
from pathlib import Path
import shlex
import subprocess

import pytest
from script_runs import (
    checkout, ended, executable, GCLOUD, lines_of, REAL, ROOT, train_for_real)
from stand_in_gcloud import word

from augjax.train import folder

POD = {"TPU": "pod", "ZONE": "zone", "TYPE": "v5litepod-16", "VERSION": "v2", "RETRY_S": "0"}
TRAIN = ("--config=configs/quickstart.py", "--workdir=gs://bucket/run", "--config.note=two words")


class Pod:
    """`tpu_pod.sh` in front of a stand-in for gcloud."""

    def __init__(self, here: Path):
        self.here = here
        here.mkdir()
        executable(here / "bin/gcloud", GCLOUD)

    def __call__(self, *arguments: str, told=None, **settings: str) -> subprocess.CompletedProcess:
        (self.here / "told.json").write_text(json.dumps(told or {}))
        (self.here / "asked").write_text("")
        return ended([ROOT / "launch/tpu_pod.sh", *arguments], {**self.machine(), **settings})

    def machine(self) -> dict[str, str]:
        """The variables of who types, with the stand-in before any other gcloud."""
        return {**os.environ, **POD, "HOME": str(self.here), "STAND_IN": str(self.here),
                "PATH": f"{self.here}/bin:{os.environ['PATH']}"}

    def asked(self) -> list[str]:
        """What was asked of gcloud, in a word each."""
        return [word(line) for line in lines_of(self.here / "asked")]

    def command(self, n: int = -1) -> str:
        """What the workers were told to run, at the last or another question."""
        return next(said for said in lines_of(self.here / "asked")[n]
                    if said.startswith("--command=")).removeprefix("--command=")


@pytest.fixture
def pod(tmp_path) -> Pod:
    return Pod(tmp_path / "pod")


PREPARED = ["ssh", "scp", "ssh"]
SET_UP = ["describe", *PREPARED]
NEW = ["create", *SET_UP]
AGAIN = ["describe", "delete", "describe", *NEW, "train"]
QUEUED, LOOK = {"QUEUED": "1"}, ["describe", "queue describe"]
NONE = "NOT_FOUND"


@pytest.mark.parametrize("told, asked, code", [
    ({}, [*SET_UP, "train"], 0),
    ({"describe": [NONE]}, ["describe", *NEW, "train"], 0),
    ({"train": [75, 75]}, [*SET_UP, "train"] * 3, 0),
    ({"train": [5]}, [*SET_UP, "train", "describe"], 5),
    ({"train": [1]}, [*SET_UP, "train", *["describe"] * 2], 1),
    ({"train": [1], "describe": ["READY", "PREEMPTED", "PREEMPTED", NONE]},
     [*SET_UP, "train", "describe", *AGAIN], 0),
    ({"train": [134], "describe": ["READY", "READY", "PREEMPTED", "PREEMPTED", NONE]},
     [*SET_UP, "train", *["describe"] * 2, *AGAIN], 0),
])
def test_a_pod_is_made_where_there_is_none_and_75_means_again(pod, told, asked, code):
    done = pod("train", *TRAIN, told=told)
    assert (pod.asked(), done.returncode) == (asked, code), done.stderr
    if code:
        assert f"ended with {code}; not preempted, so not started again" in done.stderr


@pytest.mark.parametrize("told, asked, code", [
    ({"describe": [NONE] * 3, "queue describe": [NONE, "WAITING_FOR_RESOURCES", "ACTIVE"]},
     [*LOOK, "queue create", *LOOK * 2], 0),
    ({"describe": [NONE] * 3, "queue describe": ["SUSPENDING", "SUSPENDED", NONE]},
     [*LOOK * 2, "queue delete", *LOOK, "queue create"], 0),
    ({"describe": [NONE] * 3, "queue describe": ["PROVISIONING", "FAILED", NONE]},
     [*LOOK * 2, "queue delete", *LOOK, "queue create"], 0),
    ({"describe": [NONE] * 2, "queue describe": ["WAITING_FOR_RESOURCES", NONE]},
     [*LOOK * 2, "queue create"], 0),
    ({"describe": [NONE] * 2, "queue describe": ["ACCEPTED", "UNAVAILABLE"]}, LOOK * 2, 0),
    ({"describe": [NONE] * 2, "queue describe": ["ACCEPTED", "PERMISSION_DENIED"]}, LOOK * 2, 2),
])
def test_a_queue_is_waited_in_and_what_left_it_is_asked_for_anew(pod, told, asked, code):
    done = pod("train", *TRAIN, told=told, **QUEUED)
    then = [*SET_UP, "train"] if code == 0 else []
    assert (pod.asked(), done.returncode) == ([*asked, *then], code), done.stderr


PREEMPTED = ["READY", "PREEMPTED"]


@pytest.mark.parametrize("told, asked", [
    ({"describe": [*PREEMPTED, NONE, NONE], "create": [1]},  # no more capacity
     ["describe", "delete", "describe", "create", "describe", *NEW]),
    ({"describe": [*PREEMPTED, "PREEMPTED", NONE], "delete": [1]},
     [*["describe", "delete"] * 2, "describe", *NEW]),
    ({"describe": ["READY", "UNAVAILABLE"]}, ["describe", *SET_UP]),
    ({"ssh": [0, 0, 255]}, ["describe", "ssh", *SET_UP]),
    ({"scp": [0, 1]}, ["describe", "ssh", "scp", *SET_UP]),
    ({"ssh": [0, 0, 0, 69]}, SET_UP * 2),  # the network of a worker
    ({"train": [11], "ssh": [0, 0, 11, 11]}, [*["describe", "ssh"] * 2, *SET_UP]),
])
def test_a_restart_tries_again_what_fails(pod, told, asked):
    """In the last gcloud ran the command twice on a worker, as it does after an ssh 255: the lock
    is held there until what was begun first ends."""
    done = pod("train", *TRAIN, told={"train": [75], **told})
    assert (pod.asked(), done.returncode) == ([*SET_UP, "train", *asked, "train"], 0), done.stderr


@pytest.mark.parametrize("told, asked, code, said", [
    ({"describe": [NONE], "create": [1]}, ["describe", "create"], 1, ""),
    ({"describe": ["UNAVAILABLE"]}, ["describe"], 1, "(gcloud) UNAVAILABLE"),
    ({"ssh": [11]}, ["describe", "ssh"], 2, "launch.train runs on pod; nothing was changed there"),
    ({"ssh": [255]}, ["describe", "ssh"], 255, ""),
    ({"ssh": [0, 69]}, SET_UP, 69, ""),
    ({"train": [75], "describe": ["READY", "STOPPED"]}, [*SET_UP, "train", "describe"], 2,
     "to be READY, got STOPPED. It was left as it is"),
])
def test_a_first_start_does_not_try_again_and_some_answers_are_final(pod, told, asked, code, said):
    done = pod("train", *TRAIN, told=told)
    assert (pod.asked(), done.returncode) == (asked, code), done.stderr
    assert said in done.stderr


def test_a_pod_that_could_not_be_made_anew_is_not_deleted(pod):
    done = pod("create", told={"describe": ["PREEMPTED"]}, TYPE="")
    assert "set TYPE" in done.stderr and pod.asked() == ["describe"]


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_a_pod_that_was_taken_away_is_deleted_and_made_anew(pod, state):
    assert pod("create", told={"describe": [state, NONE]}).returncode == 0
    assert pod.asked() == ["describe", "delete", "describe", *NEW]


@pytest.mark.parametrize("state", ["CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING",
                                   "UNHIDING"])
def test_a_passing_state_is_waited_for(pod, state):
    done = pod("create", told={"describe": [state, state]})
    assert (done.returncode, pod.asked()) == (0, ["describe"] * 2 + SET_UP), done.stderr
    assert f"pod is {state}; again in 0 s" in done.stderr


@pytest.mark.parametrize("states, settings", [
    (["STOPPED"], {}), (["STOPPING", "STOPPED"], {}), (["HIDING", "HIDDEN"], {}), (["UNKNOWN"], {}),
    ([""], {}), (["MADE_UP"], {}), ([NONE], QUEUED), (["PERMISSION_DENIED"], {})])
def test_a_pod_in_another_state_is_left_as_it_is(pod, states, settings):
    """In the second last there is a queued resource alone, in the last gcloud refuses."""
    done = pod("train", *TRAIN, told={"describe": states, "queue describe": ["MADE_UP"]},
               **settings)
    assert done.returncode == 2
    assert set(pod.asked()) <= set(LOOK)
    assert ("(gcloud) PERMISSION_DENIED" if "PERMISSION" in states[0] else
            "got queued MADE_UP. It was left as it is" if settings else
            f"to be READY, got {states[-1]}. It was left as it is") in done.stderr


@pytest.mark.parametrize("then, asked, code", [
    (["READY", "READY"], ["describe"] * 2, 255),
    (["READY", "PREEMPTED", "PREEMPTED", NONE], ["describe"] * 2 + AGAIN, 0),
    (["UNAVAILABLE", "READY", "READY"], ["describe"] * 3, 255),
])
def test_a_lost_connection_is_not_taken_for_the_end_of_the_training(pod, then, asked, code):
    done = pod("train", *TRAIN, told={"train": [255], "describe": ["READY", *then]})
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
        looked = ended(["bash", "-c", pod.command(-4)], worker[1])
    assert (refused.returncode, looked.returncode) == (11, 11), refused.stderr + looked.stderr


def test_arguments_arrive_as_they_were_given(pod):
    pod("train", *TRAIN)
    assert shlex.split(pod.command())[-len(TRAIN):] == list(TRAIN)
    assert "AUGJAX_POD=1" in pod.command()
    assert "--worker=all" in lines_of(pod.here / "asked")[-1]


def test_a_pod_is_told_the_commit_that_it_cannot_ask_for(pod, monkeypatch, tmp_path):
    pod("train", *TRAIN)
    here = folder._git_commit()
    assert f"export AUGJAX_POD=1 AUGJAX_COMMIT={here} &&" in pod.command()
    monkeypatch.setenv("AUGJAX_COMMIT", "abc-dirty")
    assert folder._git_commit() == here  # git knows
    monkeypatch.setenv("PATH", str(tmp_path))
    assert folder._git_commit() == "abc-dirty"
    monkeypatch.delenv("AUGJAX_COMMIT")
    assert folder._git_commit() == "unknown"


@pytest.mark.parametrize("arguments, settings, printed", [
    (("create",), {}, ["describe", "create", *PREPARED]),
    (("create",), QUEUED, [*LOOK, "queue create", *PREPARED]),
    (("train", *TRAIN), {}, ["describe", "create", *PREPARED, "train"]),
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
    subprocess.run(["bash", "-euc", done.stdout], env=pod.machine(), check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert pod.asked() == printed


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
    assert pod.asked() == [*SET_UP, "train"] * 2
    assert "launch.train was preempted, and saved" in done.stderr
    starts = json.loads((workdir / "provenance.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2, 2]
    begun = [event["step"] for event in lines_of(workdir / "events.jsonl")
             if event["event"] == "phase"]
    assert begun[0] == 0 < begun[1] < 40
    rows = lines_of(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 41))
    assert json.loads((workdir / "summary.json").read_text())["phases"]["teacher"]["steps"] == 40
