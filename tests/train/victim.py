"""A run to be killed: `python victim.py WORKDIR '{"at": "train", "phase": "student", "step": 4}'`.

Trains `helpers.three_phases` and, when the named moment comes, sends itself a signal (SIGKILL
unless "signal" says another), after which it does nothing for "rest" seconds, or, with "hang",
waits there so that somebody else can. Ends as `launch` ends. With "full", the disk is full from the
save of the first step named to that of the second; with "bad", an image of the step named was bad.
Options "port" and "process" make it one of two processes.
"""

from functools import partial
import json
import os
from pathlib import Path
import resource
import signal
import sys
import time
from types import SimpleNamespace

sys.path[:0] = [str(Path(__file__).resolve().parents[up]) for up in (1, 2)]

import conftest  # noqa: E402, F401 the compile cache
import jax  # noqa: E402

WORKDIR, OPTIONS = Path(sys.argv[1]), json.loads(sys.argv[2])
jax.config.update("jax_num_cpu_devices", OPTIONS.get("devices", 1))
if "port" in OPTIONS:
    jax.distributed.initialize(f"127.0.0.1:{OPTIONS['port']}", 2, OPTIONS["process"])

from augjax import train  # noqa: E402
from augjax.train import checkpoint, evaluate, loop, metrics, ready  # noqa: E402
from launch import common  # noqa: E402
from train.helpers import three_phases  # noqa: E402


def strike(at: str, phase: str, step: int | str) -> None:
    """What is done at a moment, if it is the one asked for."""
    if (at, phase, step) != (OPTIONS.get("at"), OPTIONS.get("phase"), OPTIONS.get("step")):
        return
    print(f"at {at} {phase} {step}", flush=True)
    if "hang" in OPTIONS:
        time.sleep(OPTIONS["hang"])
    else:
        os.kill(os.getpid(), getattr(signal, OPTIONS.get("signal", "SIGKILL")))
        time.sleep(OPTIONS.get("rest", 0))


def after(owner, name: str, moment) -> None:
    """Strikes when `owner.name` has returned; `moment` makes (at, phase, step) of its arguments."""
    function = getattr(owner, name)

    def wrapped(*args, **kwargs):
        result = function(*args, **kwargs)
        strike(*moment(*args))
        return result

    setattr(owner, name, wrapped)


def before(owner, name: str, moment) -> None:
    """Strikes just before `owner.name` runs."""
    function = getattr(owner, name)

    def wrapped(*args, **kwargs):
        strike(*moment(*args))
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def place(folder: Path) -> tuple[str, int | str]:
    name = folder.name
    return folder.parent.name, int(name) if name.isdigit() else name


def saving(folder: Path, state) -> tuple[str, str, int | str]:
    """The moment at which Orbax, in the background, has begun to write."""
    while not any(path.is_dir() for path in folder.parent.glob(f"{folder.name}*")):
        time.sleep(0.001)
    return "saving", *place(folder)


after(metrics.Log, "row", lambda log, kind, step, values: (kind, log.phase, step))
after(checkpoint.ocp, "save_async", saving)
before(checkpoint, "commit", lambda folder: ("committing", *place(folder)))


def fill_the_disk(first: list, last: list) -> None:
    """No file can grow from the save of step `first` until that of step `last` is begun."""
    save = checkpoint.Writer.save

    def saved(writer, phase, step, state, *before):
        if [phase, step] in (first, last):
            room = 1 if [phase, step] == first else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        save(writer, phase, step, state, *before)

    checkpoint.Writer.save = saved


def spoil(phase: str, step: int) -> None:
    """An image that this step sees could not be read."""
    pend = loop.Reporter.pend

    def pended(reporter, at, report):
        if (reporter.phase.name, at) == (phase, step):
            reporter.bad_image("an image is none")
        pend(reporter, at, report)

    loop.Reporter.pend = pended


def strike_inside() -> None:
    """Strikes in the middle of a compilation, and between the batches of an evaluation."""
    lower_step, compile_step = ready.lower_step, loop.compile_step
    accuracies, evaluate_now = evaluate.accuracies, loop.evaluate_now
    where = []

    def known_phase(shared, phase, *rest):
        where[:] = [phase.name, 0]
        return compile_step(shared, phase, *rest)

    def known_step(shared, phase, state, step, reporter):
        where[:] = [phase.name, step]
        evaluate_now(shared, phase, state, step, reporter)

    def compiling(lowered):
        strike("compiling", *where)
        return lowered.compile()

    def watched(compiled, branches, variables, data, mesh, between):
        return accuracies(compiled, branches, variables, data, mesh,
                          lambda: (strike("evaluating", *where), between()))

    loop.compile_step, loop.evaluate_now, evaluate.accuracies = known_phase, known_step, watched
    ready.lower_step = lambda *args: SimpleNamespace(compile=partial(compiling, lower_step(*args)))


def main(*_: str) -> None:
    strike_inside()
    if "full" in OPTIONS:
        fill_the_disk(*OPTIONS["full"])
    if "bad" in OPTIONS:
        spoil(*OPTIONS["bad"])
    options = {name: OPTIONS[name] for name in ("log_every", "resident") if name in OPTIONS}
    train.run(three_phases(**options), WORKDIR)


if __name__ == "__main__":
    common.run(main, ("WORKDIR", "OPTIONS"))
