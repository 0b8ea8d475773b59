"""A checkout as a worker or a node has it, stand-ins for gcloud and srun, and what runs them."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 400  # of a run that hangs; one took 120 beside much other work
REAL = f'#!/bin/bash\nexec {sys.executable} "$@"\n'

GCLOUD = f'#!/bin/bash\nexec {sys.executable} -SE {ROOT}/tests/stand_in_gcloud.py "$@"\n'
SRUN = '''#!/bin/bash
echo "srun $*" | head -n 1 >> {here}/asked
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1 SLURM_NTASKS=${{TASKS:-1}}
for ((n = 0; n < SLURM_NTASKS; n++)); do
  SLURM_PROCID=$n SLURM_LOCALID=$n "$@" &
  tasks+=($!)
done
for task in "${{tasks[@]}}"; do wait "$task" || code=$?; done
exit "${{code:-0}}"
'''
PYTHON = '''#!/bin/bash
echo "python [${{JAX_LOCAL_DEVICE_IDS:-}}] $*" >> {here}/asked
exit "$(cat {here}/code)"
'''
INSTALLER = '''#!/bin/bash
echo "$*" >> {here}/asked
case "$*" in
  *" venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && touch .venv/pip ;;
  *"pip --version") [ -f .venv/pip ] ;;
  *"pip install"*) exit "$(cat {here}/code)" ;;
esac
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


def train_for_real(place: Path, workdir: Path, epochs: int) -> tuple[list[str], dict[str, str]]:
    """(arguments, variables) of the cheapest training of 8 steps an epoch, in a checkout."""
    executable(place / ".venv/bin/python", REAL)
    (place / "torch.py").write_text("raise ImportError\n")  # tensorboardX would load it for seconds
    arguments = [
        "--config=configs/quickstart.py", f"--workdir={workdir}", "--config.phases=('teacher',)",
        "--config.teacher.model.name=resnet8_tiny", "--config.data.limit=512",
        f"--config.teacher.epochs={epochs}", "--config.log.every_steps=1"]
    return arguments, {"JAX_PLATFORMS": "cpu",
                       "AUGJAX_CACHE": os.path.expanduser("~/.cache/augjax/tests-launch")}


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ended(command: list, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Runs it; past LIMIT_S it is killed with all that it started."""
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True)
    try:
        said = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(command, process.returncode, *said)
