"""A study's runs side by side: a process for each device, as many at a time as devices."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import os
from pathlib import Path
import signal
import subprocess
import threading
import time
from typing import IO

from augjax import check
from augjax.study import folders
from augjax.study.plan import Run, Study
from augjax.study.runs import next_run, progress, tell, told
from augjax.train.stop import listening

Seat = dict[str, str]  # the environment that shows a process its devices and no others
Start = Callable[[Run, Seat, Path], subprocess.Popen]  # (run, seat, log file) -> its process
POLL_S = 0.2


def seats(backend: str, count: int, devices_per_run: int, visible: str | None = None
          ) -> list[Seat]:
    """A seat for every group of `devices_per_run` of `count` devices; [] where one process does.

    `visible` is what the environment shows already: CUDA_VISIBLE_DEVICES, TPU_VISIBLE_CHIPS.
    Raises ConfigError for several TPU chips a run.
    """
    if backend not in ("gpu", "tpu") or count < 2 * devices_per_run:
        return []
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    groups = [",".join(names[first:first + devices_per_run])
              for first in range(0, count - devices_per_run + 1, devices_per_run)]
    if backend == "gpu":
        return [{"CUDA_VISIBLE_DEVICES": group} for group in groups]
    check.require(devices_per_run == 1, "devices_per_run", "1 on TPUs", devices_per_run,
                  "run the study's commands (--list) on as many hosts")
    alone = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
    return [{"TPU_VISIBLE_CHIPS": group, **alone} for group in groups]


def train_side_by_side(study: Study, workdir: str | Path, places: Sequence[Seat], start: Start,
                       retry: bool = False) -> None:
    """Trains every run that is not done, each in a process of its own on a free seat.

    A run that fails is kept with its reason and the others go on. Asked to stop, it asks them all,
    waits until they are saved, and raises Preempted, as it does when one of them was preempted.
    """
    workdir, tried, preempted = Path(workdir), set(), []
    sitting: dict[int, tuple[Run, subprocess.Popen]] = {}
    more = True  # whether a run may have become ready since we last looked
    (workdir / "logs").mkdir(parents=True, exist_ok=True)
    with listening() as stop, _none_left_behind(sitting):
        while True:
            for seat in [seat for seat, (_, one) in sitting.items() if one.poll() is not None]:
                run, process = sitting.pop(seat)
                code, more = ended(study, workdir, run, process.returncode), True
                preempted += [run] if code == check.Preempted.exit_code else []
            free = [seat for seat in range(len(places)) if seat not in sitting]
            more = bool(more and free and not stop.asked)
            run = next_run(study, workdir, tried, retry) if more else None
            if run:
                tried.add(run)
                tell(progress(study, workdir, f"{run} begins, log in {log_of(workdir, run)}"))
                sitting[free[0]] = run, start(run, places[free[0]], log_of(workdir, run))
            elif sitting:
                more = False
                _ask(sitting if stop.asked else {})
                time.sleep(POLL_S)
            else:
                break
    check.require(not preempted and not stop.asked, "study", "an undisturbed end",
                  f"a stop of {', '.join(map(str, preempted)) or 'all'}", "start it again",
                  check.Preempted)


def ended(study: Study, workdir: Path, run: Run, returned: int) -> int:
    """The exit code of a process that ended; one that could not say why is noted as failed."""
    stopped = (check.Preempted.exit_code, -signal.SIGTERM, -signal.SIGINT)
    code = check.Preempted.exit_code if returned in stopped else 1 if returned < 0 else returned
    failure = folders.state_of(study, run, workdir).failure
    if code not in (0, check.Preempted.exit_code) and not failure:
        cause = f"killed by {signal.Signals(-returned).name}" if returned < 0 else "no reason given"
        failure = {"reason": f"{cause}; its log ends: {_last_line(log_of(workdir, run))}"}
        folders.note_failure(workdir, run, code, failure["reason"])
    tell(progress(study, workdir, told(run, code, failure.get("reason", ""))))
    return code


def leash(stream: IO) -> None:
    """Asks this process to stop when `stream` ends: when whoever holds its other end is gone."""

    def wait():
        stream.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def log_of(workdir: Path, run: Run) -> Path:
    return workdir / "logs" / f"{run.row}-{run.seed}.txt"


@contextlib.contextmanager
def _none_left_behind(sitting: dict[int, tuple[Run, subprocess.Popen]]) -> Iterator[None]:
    """Whatever ends this, no process goes on without it."""
    try:
        yield
    finally:
        _ask(sitting)
        for _, process in sitting.values():
            process.wait()


def _ask(sitting: dict[int, tuple[Run, subprocess.Popen]]) -> None:
    for _, process in sitting.values():
        process.terminate()  # one that has ended is left alone


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")[:300]
