"""Two processes on one machine: they equal one, and stop together at the next sync point.

After `jax.distributed.initialize` SIGTERM no longer ends a process, so nothing here waits without a
limit, and what outlives it is killed. One CPU device per process, and every step's loss is read:
gloo hangs on queued collectives otherwise.
"""

import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys

import jax
import pytest

from augjax import check, train
from augjax.train import checkpoint, metrics
from laws.test_devices import assert_equal_to_rounding
from train.helpers import assert_every_step_once, three_phases

VICTIM = Path(__file__).parent / "victim.py"
LIMIT_S = 120


def pair(workdir: Path, **options) -> list[int]:
    """Runs two processes to their ends; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    logs = [open(workdir.parent / f"{workdir.name}-{number}.log", "wb") for number in (0, 1)]
    running = [
        subprocess.Popen(
            [sys.executable, str(VICTIM), str(workdir),
             json.dumps({"port": port, "process": number, "log_every": 1, **options})],
            stdout=log, stderr=subprocess.STDOUT, env=environment)
        for number, log in enumerate(logs)
    ]
    try:
        return [process.wait(LIMIT_S) for process in running]
    except subprocess.TimeoutExpired:
        pytest.fail("two processes hang: " + Path(logs[0].name).read_text()[-2000:])
    finally:
        for process, log in zip(running, logs):
            process.send_signal(signal.SIGKILL)
            process.wait()
            log.close()


def forget_counts(workdir: Path) -> None:
    """Takes from the log what only runs that are fed by the host count: images gone bad, none."""
    every = metrics.read(workdir)
    assert {row.pop("data_bad", 0) for row in every} == {0}
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in every))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    train.run(three_phases(log_every=1), workdir, devices=jax.devices()[:1])
    return workdir


def test_two_processes_stop_together_go_on_and_equal_one(alone, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    codes = pair(workdir, at="train", phase="student", step=3, signal="SIGTERM")
    assert codes == [check.Preempted.exit_code] * 2
    phases = [name for name in ("teacher", "student", "pruned") if checkpoint.steps(workdir, name)]
    last = checkpoint.steps(workdir, phases[-1])[-1]
    checkpoint.verify(checkpoint.folder_of(workdir, phases[-1], last))
    trained = [row for row in metrics.read(workdir) if row["kind"] == "train"]
    assert (trained[-1]["phase"], trained[-1]["step"]) == (phases[-1], last)
    assert phases[-1] == "pruned" or last >= 3
    assert pair(workdir, resident=False) == [0, 0]  # each process now reads its share of a batch
    assert_every_step_once(workdir, three_phases(log_every=1))
    forget_counts(workdir)
    assert_equal_to_rounding(alone, workdir)
    compiled = [event["phase"] for event in metrics.read_events(workdir)
                if event["event"] == "compiled" and event["what"] == "step"]
    assert compiled in (["teacher", "student", "student"], ["teacher", "student", "pruned"])
