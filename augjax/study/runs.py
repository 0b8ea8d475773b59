"""Which run comes next, and the runs that this process trains itself, one after the other."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import functools
import itertools
from pathlib import Path
import sys
import traceback
from typing import Any

from augjax import check, train
from augjax.study import folders
from augjax.study.plan import Run, Study
from augjax.train import Recipe
from augjax.train.stop import listening

# From a row's config to its recipe; or to what is called as train.run is, without a recipe.
Build = Callable[[Mapping[str, Any]], Recipe | Callable[..., Any]]


def next_run(study: Study, workdir: Path, tried: Collection[Run], retry: bool = False
             ) -> Run | None:
    """The first run that can begin, as `runs_ready` has them; None where there is none."""
    return next(runs_ready(study, workdir, tried, retry), None)


def runs_ready(study: Study, workdir: Path, tried: Collection[Run], retry: bool = False
               ) -> Iterator[Run]:
    """The runs that can begin: not `tried`, not done, and all that they need is done.

    Numbers that were not finite would be so again: such a run is left alone without `retry`.
    """
    found = folders.states(study, workdir)
    for run, state in found.items():
        if run in tried or state.done or (lost(state) and not retry):
            continue
        if all(found[other].done for other in study.needed(run)):
            yield run


def lost(state: folders.State) -> bool:
    """Whether a run failed in a way that the same config repeats."""
    return state.failure.get("exit_code") == check.NumericsError.exit_code


def train_here(study: Study, workdir: str | Path, build: Build, source_text: str = "",
               retry: bool = False, devices: list | None = None, members: int = 1,
               rows: Collection[str] | None = None) -> None:
    """Trains every run that is not done, in this process, those that others need first.

    Equal programs are compiled once. Up to `members` runs that differ in arrays alone train as one
    population, stacked on the devices. A run that fails is kept with its reason and the others go
    on; those that need it are left. Asked to stop, it raises Preempted once what is under way is
    saved. `devices`: those of each run or population, None for all; `rows`: these and what they
    need alone.
    """
    workdir, tried = Path(workdir), set()
    with listening() as stop:
        while some := next_runs(study, workdir, tried, retry, build, members, rows):
            tried.update(some)
            tell(progress(study, workdir, f"{_listed(some)} {_verb(some, 'begin')}"))
            came = train_some(study, some, workdir, build, source_text, devices)
            for run, (code, reason) in came.items():
                tell(progress(study, workdir, told(run, code, reason)))
            stop.check()


def next_runs(study: Study, workdir: Path, tried: Collection[Run], retry: bool, build: Build,
              members: int, rows: Collection[str] | None = None) -> list[Run]:
    """The first run that can begin, and up to `members` in all that can train as one with it."""
    wanted = study.runs if rows is None else study.with_needs(rows)
    able = (run for run in runs_ready(study, workdir, tried, retry) if run in wanted)
    some = list(itertools.islice(able, 1))
    if not some or members == 1:
        return some
    kind = train.kind_of(build(folders.config_of(study, some[0], workdir)))
    alike = (run for run in able if kind is not None and kind == train.kind_of(
        build(folders.config_of(study, run, workdir))))
    return some + list(itertools.islice(alike, members - 1))


def train_some(study: Study, runs: Sequence[Run], workdir: Path, build: Build,
               source_text: str = "", devices: list | None = None) -> dict[Run, tuple[int, str]]:
    """Trains one run, or several as one population: {run: (exit code, why)}; failures are noted."""
    if len(runs) == 1:
        return {runs[0]: train_one(study, runs[0], workdir, build, source_text, devices)}
    configs = [folders.config_of(study, run, workdir) for run in runs]
    for run in runs:
        folders.forget_failure(workdir, run)
    failed: Mapping[int, BaseException] = {}
    try:
        failed = train.run_together(
            [train.Member(build(config), folders.folder_of(workdir, run), config, source_text)
             for run, config in zip(runs, configs)], "stacked", devices)
    except check.Preempted:
        raise
    except Exception as error:  # noqa: BLE001 as for one run: the night's other rows go on
        failed = dict.fromkeys(range(len(runs)), error)
    return {run: _failure(workdir, run, failed[number]) if number in failed else (0, "")
            for number, run in enumerate(runs)}


def train_one(study: Study, run: Run, workdir: Path, build: Build, source_text: str = "",
              devices: list | None = None) -> tuple[int, str]:
    """Trains one run, or goes on with it: (exit code, why), a failure noted in its folder."""
    config = folders.config_of(study, run, workdir)
    folders.forget_failure(workdir, run)
    try:
        made = build(config)
        made = made if callable(made) else functools.partial(train.run, made)
        made(folders.folder_of(workdir, run), config, source_text, devices=devices)
        return 0, ""
    except check.Preempted:
        raise
    except Exception as error:  # noqa: BLE001 one row's fault must not cost the night's other rows
        return _failure(workdir, run, error)


def _failure(workdir: Path, run: Run, error: BaseException) -> tuple[int, str]:
    """(exit code, why), noted in the run's folder."""
    if isinstance(error, check.AugjaxError):
        code, reason = error.exit_code, str(error)
    else:
        traceback.print_exception(error)
        code, reason = 1, f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
    folders.note_failure(workdir, run, code, reason)
    return code, reason


def _listed(runs: Sequence[Run]) -> str:
    return ", ".join(map(str, runs))


def _verb(runs: Sequence[Run], verb: str) -> str:
    return verb + "s" * (len(runs) == 1)


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
