"""launch/tpu_pod.sh and slurm.sbatch with stand-ins for gcloud, srun and scontrol on this machine.

The stand-ins note what they were asked and answer as they are told; one of them runs the command of
a pod of two workers as two real processes, and preempts them once.
"""

import json
import os
from pathlib import Path
import shlex
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 150
POD = {"TPU": "pod", "ZONE": "zone", "TYPE": "v5litepod-16", "VERSION": "v2", "RETRY_S": "0"}
TRAIN = ("--config=configs/quickstart.py", "--workdir=gs://bucket/run", "--config.note=two words")

GCLOUD = '''#!{python} -SE
import json, os, signal, subprocess, sys, time
here, words = "{here}", sys.argv[1:]
told = json.load(open(here + "/told.json"))
text = " ".join(words)
with open(here + "/asked", "a") as file:
    file.write(json.dumps(words) + "\\n")

def next_of(kind, last):  # what it was told to answer, one by one
    answer = told[kind].pop(0) if told.get(kind) else last
    json.dump(told, open(here + "/told.json", "w"))
    return answer

def two_workers(command):
    workers = [subprocess.Popen(["bash", "-c", command], env=os.environ | {{
        "SLURM_JOB_ID": told["job"], "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n), "SLURM_STEP_NUM_NODES": "1"}})
        for n in (0, 1)]
    rows = told["rows"]
    if next_of("preempt", False):
        while not (os.path.exists(rows) and os.path.getsize(rows) > 400):
            if any(worker.poll() is not None for worker in workers):
                break
            time.sleep(0.02)
        workers[1].send_signal(signal.SIGTERM)
    codes = [worker.wait() for worker in workers]
    return next((code for code in codes if code), 0)

if "describe" in words:
    print(next_of("queue" if "queued-resources" in words else "state", "READY"))
elif "ssh" in words and "launch.train" in text:
    command = next(word for word in words if word.startswith("--command="))[10:]
    sys.exit(two_workers(command) if "job" in told else next_of("codes", 0))
'''
SRUN = '''#!/bin/bash
echo "srun $*" | head -n 1 >> {here}/asked
while [[ $1 == --* ]]; do shift; done
exec "$@"
'''
PYTHON = '''#!/bin/bash
echo "python [${{JAX_LOCAL_DEVICE_IDS:-}}] $*" >> {here}/asked
exit "$(cat {here}/code)"
'''


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def checkout(home: Path, extras: str, python: str) -> Path:
    """A checkout as a worker has it, whose environment was made already, with this `python`."""
    place = home / "augjax"
    place.mkdir(parents=True)
    for name in ("augjax", "configs", "launch", "setup.py"):
        (place / name).symlink_to(ROOT / name)
    executable(place / ".venv/bin/python", python)
    crc = subprocess.check_output(["cksum"], stdin=open(ROOT / "setup.py")).split()[0].decode()
    (place / ".venv" / f"augjax-{extras}-{crc}").touch()
    return place


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
        return subprocess.run([ROOT / "launch/tpu_pod.sh", *arguments], env=environment, text=True,
                              capture_output=True, check=False, timeout=LIMIT_S)

    def asked(self) -> list[str]:
        """What was asked of gcloud, in a word each."""
        lines = map(json.loads, (self.here / "asked").read_text().splitlines())
        return [self.word(line) for line in lines]

    @staticmethod
    def word(line: list[str]) -> str:
        act = line[3] if line[0] == "compute" else line[0]
        queue = "queue " if "queued-resources" in line else ""
        return queue + ("train" if "launch.train" in " ".join(line) else act)


@pytest.fixture
def pod(tmp_path) -> Pod:
    return Pod(tmp_path / "pod")


NEW = ["create", "ssh", "scp"]


@pytest.mark.parametrize("told, settings, asked, code", [
    ({}, {}, ["describe", "ssh", "scp", "train"], 0),
    ({"state": [""]}, {}, ["describe", *NEW, "train"], 0),
    ({"codes": [75, 75]}, {}, ["describe", "ssh", "scp", *["train", "describe"] * 2, "train"], 0),
    ({"codes": [5]}, {}, ["describe", "ssh", "scp", "train", "describe"], 5),
    ({"codes": [255], "state": ["READY", "PREEMPTED", "PREEMPTED"]}, {},
     ["describe", "ssh", "scp", "train", "describe", "describe", "delete", *NEW, "train"], 0),
    ({"state": [""], "queue": ["", "WAITING_FOR_RESOURCES", "ACTIVE"]}, {"QUEUED": "1"},
     ["describe", *["queue describe", "queue create", "queue describe", "queue describe"], "ssh",
      "scp", "train"], 0),
    ({"state": [""], "queue": ["SUSPENDED", "ACTIVE"]}, {"QUEUED": "1"},
     ["describe", "queue describe", "queue delete", "queue create", "queue describe", "ssh", "scp",
      "train"], 0),
    ({"state": [""], "queue": ["WAITING_FOR_RESOURCES", "FAILED"]}, {"QUEUED": "1"},
     ["describe", *["queue describe"] * 2], 1),
])
def test_a_pod_is_made_where_there_is_none_and_75_means_again(pod, told, settings, asked, code):
    done = pod("train", *TRAIN, told=told, **settings)
    words = [word.removeprefix("queue ") if "QUEUED" not in settings else word
             for word in pod.asked()]
    assert (words, done.returncode) == (asked, code), done.stderr
    if code == 5:
        assert "ended with 5; not preempted, so not started again" in done.stderr


def test_arguments_arrive_as_they_were_given(pod):
    pod("train", *TRAIN)
    line = json.loads((pod.here / "asked").read_text().splitlines()[-1])
    command = next(word for word in line if word.startswith("--command="))
    assert shlex.split(command)[-len(TRAIN):] == list(TRAIN)
    assert "AUGJAX_POD=1" in command and "--worker=all" in line


@pytest.mark.parametrize("arguments, printed", [
    (("create",), ["describe", *NEW]),
    (("train", *TRAIN), ["describe", *NEW, "train"]),
    (("collect", TRAIN[1]), ["storage"]),
    (("collect", "--workdir=runs/a"), ["scp"]),
    (("delete",), ["delete"]),
])
def test_a_dry_run_prints_every_command_and_runs_none(pod, arguments, printed):
    done = pod("--dry_run", *arguments, TO=str(pod.here / "to"))
    assert done.returncode == 0, done.stderr
    assert pod.asked() == [] and not (pod.here / "to").exists()
    pasted = {**os.environ, "PATH": f"{pod.here}/bin:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", done.stdout], env=pasted, check=True, stdout=subprocess.DEVNULL)
    assert pod.asked() == printed


@pytest.mark.parametrize("arguments, said", [
    (("train", "--workdir=runs/a"), "lies on each worker's own disk"),
    (("train", "--config=x"), "give --workdir"),
    (("begin",), "expected create, train, collect or delete, got begin"),
    ((), "got none"),
])
def test_what_cannot_work_is_refused_before_anything_is_made(pod, arguments, said):
    done = pod(*arguments)
    assert done.returncode == 2 and said in done.stderr
    assert pod.asked() == []
    assert pod("train", "--workdir=/nfs/a", SHARED="1").returncode == 0


def test_two_workers_are_preempted_once_and_end(pod, tmp_path):
    """Real processes: SIGTERM for one of them, both save and leave with 75, the next two end."""
    place = checkout(pod.here, "tpu,store", f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    (place / "torch.py").write_text("raise ImportError\n")  # tensorboardX would load it for seconds
    job = os.getpid()  # JAX makes its port of it, above 61,439
    workdir = tmp_path / "run"
    done = pod(
        "train", "--config=configs/quickstart.py", f"--workdir={workdir}",
        "--config.phases=('teacher',)", "--config.teacher.model.name=resnet8_tiny",
        "--config.data.limit=512", "--config.teacher.epochs=5", "--config.log.every_steps=1",
        told={"job": str(job), "preempt": [True], "rows": str(workdir / "metrics.jsonl")},
        SHARED="1", JAX_PLATFORMS="cpu",
        AUGJAX_CACHE=os.path.expanduser("~/.cache/augjax/tests-launch"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert pod.asked() == ["describe", "ssh", "scp", "train", "describe", "train"]
    assert "preempted (exit code 75, the pod is READY)" in done.stderr
    starts = json.loads((workdir / "provenance.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2, 2]
    events = [json.loads(line) for line in (workdir / "events.jsonl").read_text().splitlines()]
    begun = [event["step"] for event in events if event["event"] == "phase"]
    assert begun[0] == 0 < begun[1] < 40
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
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
        done = subprocess.run(["bash", ROOT / "launch/slurm.sbatch", *arguments], env=environment,
                              text=True, capture_output=True, check=False, timeout=LIMIT_S)
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
