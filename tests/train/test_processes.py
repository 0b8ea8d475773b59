"""Two processes on one machine: they equal one, and stop together at the next sync point.

After `jax.distributed.initialize` SIGTERM no longer ends a process, nor does the first Ctrl-C in a
run, so nothing here waits without a limit, and what outlives it is killed. One CPU device per
process, and every step's loss is read: gloo hangs on queued collectives otherwise.
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
from types import MappingProxyType

import jax
import pytest

from augjax import check, train
from augjax.train import checkpoint, metrics
from augjax.train.stop import listening
from laws.test_devices import assert_equal_to_rounding
from train.helpers import assert_every_step_once, three_phases

VICTIM = Path(__file__).parent / "victim.py"
LIMIT_S = 300
JAX_LOOKS_S = 1.0  # for a SIGTERM, so often


def pair(workdir: Path, of_second: Mapping = MappingProxyType({}), **options) -> list[int]:
    """Runs two processes to their ends; their exit codes. `of_second` are of the second alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    logs = [open(workdir.parent / f"{workdir.name}-{number}.log", "wb") for number in (0, 1)]
    running = [
        subprocess.Popen(
            [sys.executable, str(VICTIM), str(workdir),
             json.dumps({"port": port, "process": number, "log_every": 1, **options,
                         **(of_second if number else {})})],
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


def forget_counts(workdir: Path, bad: int = 0) -> None:
    """Takes from the log what only runs that are fed by the host count: images gone bad."""
    every = metrics.read(workdir)
    assert sum(row.pop("data_bad", 0) for row in every) == bad
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in every))


def assert_stopped(workdir: Path, phase: str, asked: int) -> None:
    """Soon after the step at which a process was asked to, every row written and the step saved."""
    last = metrics.read(workdir)[-1]
    assert last["phase"] == phase and asked < last["step"] <= asked + 3
    assert checkpoint.steps(workdir, phase)[-1] == last["step"]
    checkpoint.verify(checkpoint.folder_of(workdir, phase, last["step"]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    train.run(three_phases(log_every=1), workdir, devices=jax.devices()[:1])
    return workdir


def test_two_processes_stop_together_go_on_and_equal_one(alone, tmp_path):
    """By Ctrl-C in a terminal, which all hear; by one sent to the second; then not at all."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    asked = {"at": "train", "signal": "SIGINT", "rest": 2 * JAX_LOOKS_S}
    codes = pair(workdir, **asked, phase="teacher", step=1)
    assert codes == [check.Preempted.exit_code] * 2
    assert_stopped(workdir, "teacher", 1)
    codes = pair(workdir, {**asked, "phase": "student", "step": 2})
    assert codes == [check.Preempted.exit_code] * 2
    assert_stopped(workdir, "student", 2)
    # each process now reads its share of a batch
    assert pair(workdir, {"bad": ("pruned", 5)}, resident=False) == [0, 0]
    assert_every_step_once(workdir, three_phases(log_every=1))
    forget_counts(workdir, bad=1)
    assert_equal_to_rounding(alone, workdir)
    compiled = [event["phase"] for event in metrics.read_events(workdir)
                if event["event"] == "compiled" and event["what"] == "step"]
    assert compiled == ["teacher", "teacher", "student", "student"]


def test_a_first_ctrl_c_is_a_sigterm_and_a_second_one_ends_the_process(monkeypatch):
    """One of several processes, whatever the main thread waits for: Python's own handlers wait,
    too, so that the second must have none."""
    heard: list[int] = []
    before = {signal.SIGTERM: signal.signal(
        signal.SIGTERM, lambda number, frame: heard.append(number)),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}  # nohup has none
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    try:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == [signal.SIGTERM] and not stop.asked  # nobody leaves the others alone
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
