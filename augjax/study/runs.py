"""Which run comes next, and the runs that this process trains itself, one after the other."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
import sys
import traceback
from typing import Any

from augjax import check, train
from augjax.study import folders
from augjax.study.plan import Run, Study
from augjax.train import Recipe
from augjax.train.stop import listening

Build = Callable[[Mapping[str, Any]], Recipe]  # from a training config to its recipe


def next_run(study: Study, workdir: Path, tried: Collection[Run], retry: bool = False
             ) -> Run | None:
    """The first run that can begin: not `tried`, not done, and all that it needs is done.

    Numbers that were not finite would be so again: such a run is left alone without `retry`.
    """
    found = folders.states(study, workdir)
    for run, state in found.items():
        if run in tried or state.done or (lost(state) and not retry):
            continue
        if all(found[other].done for other in study.needed(run)):
            return run
    return None


def lost(state: folders.State) -> bool:
    """Whether a run failed in a way that the same config repeats."""
    return state.failure.get("exit_code") == check.NumericsError.exit_code


def train_here(study: Study, workdir: str | Path, build: Build, source_text: str = "",
               retry: bool = False, devices: list | None = None) -> None:
    """Trains every run that is not done, in this process, those that others need first.

    Equal programs are compiled once. A run that fails is kept with its reason and the others go
    on; those that need it are left. Asked to stop, it raises Preempted once the run under way is
    saved. `devices`: those of each run, None for all.
    """
    workdir, tried = Path(workdir), set()
    with listening() as stop:
        while run := next_run(study, workdir, tried, retry):
            tried.add(run)
            tell(progress(study, workdir, f"{run} begins"))
            code, reason = train_one(study, run, workdir, build, source_text, devices)
            tell(progress(study, workdir, told(run, code, reason)))
            stop.check()


def train_one(study: Study, run: Run, workdir: Path, build: Build, source_text: str = "",
              devices: list | None = None) -> tuple[int, str]:
    """Trains one run, or goes on with it: (exit code, why), a failure noted in its folder."""
    config = folders.config_of(study, run, workdir)
    folders.forget_failure(workdir, run)
    try:
        train.run(build(config), folders.folder_of(workdir, run), config, source_text,
                  devices=devices)
        return 0, ""
    except check.Preempted:
        raise
    except check.AugjaxError as error:
        code, reason = error.exit_code, str(error)
    except Exception as error:  # noqa: BLE001 one row's fault must not cost the night's other rows
        traceback.print_exc()
        code, reason = 1, f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
    folders.note_failure(workdir, run, code, reason)
    return code, reason


def told(run: Run, code: int, reason: str) -> str:
    if code == check.Preempted.exit_code:
        return f"{run} was stopped and can go on"
    return f"{run} failed with {code}: {reason}" if code else f"{run} is done"


def progress(study: Study, workdir: Path, text: str) -> str:
    """[done/all] and a sentence."""
    done = [state.done for state in folders.states(study, workdir).values()]
    return f"[{sum(done)}/{len(done)}] {text}"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def exit_code(study: Study, workdir: Path) -> int:
    """0 where every run is done, else the highest code of those that failed, at least 1."""
    found = folders.states(study, workdir).values()
    if all(state.done for state in found):
        return 0
    return max([1, *(state.failure.get("exit_code", 1) for state in found)])
