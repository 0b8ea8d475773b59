"""The one training loop: every method, every phase, from nothing or from where a run stopped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
from dataclasses import replace
from pathlib import Path
import time
from typing import Any

import jax
from jax.experimental import multihost_utils

from augjax import check
from augjax.train import checkpoint, evaluate, files, folder, metrics, sharding, start, summary
from augjax.train.failures import repeating, within_memory
from augjax.train.phases import check_recipe, Phase, Recipe, Source
from augjax.train.ready import (
    compile_evaluation, compile_step, evaluation_batches, place_data, place_plan, ready, Run,
    sources,
)
from augjax.train.report import Reporter
from augjax.train.state import TrainState
from augjax.train.stop import listening
from augjax.types import PyTree

TRACED = (10, 15)  # --profile: the steps between which a trace is written


def run(
    recipe: Recipe,
    workdir: str | Path,
    description: Mapping[str, Any] | None = None,
    source_text: str = "",
    use_previous: bool = False,
    adopt: Sequence[str] = (),
    profile: bool = False,
    devices: list | None = None,
) -> dict[str, Any]:
    """Trains every phase that is not finished yet and returns the summary (DESIGN section 5).

    description   the config as plain data, compared with the run folder's; None: from the recipe
    use_previous  go back to the last save that is whole, where the latest one was altered
    adopt         "phase/step" of copies of saves whose digests were lost: they count from now on
    Raises an augjax.check error whose `exit_code` is that of DESIGN section 5.
    """
    mesh, workdir = sharding.make_mesh(devices), files.place(workdir)
    if profile:
        files.require_disk(workdir, "--profile")
    check_recipe(recipe, mesh)
    shapes = start.all_shapes(recipe, mesh)
    with jax.set_mesh(mesh), listening() as stop:
        made = Run(recipe, workdir, mesh, stop,
                   checkpoint.Writer(workdir, recipe.keep, recipe.milestones), shapes, profile)
        with opened(made, description, source_text, use_previous, adopt) as (number, step):
            for phase in recipe.phases[number:]:
                with within_memory(phase):
                    made.resident = made.resident or place_data(recipe, mesh)
                    train_phase(made, phase, step)
                step = 0
            return summary.write(recipe, workdir) if made.primary else {}


@contextlib.contextmanager
def opened(shared: Run, description: Mapping[str, Any] | None = None, source_text: str = "",
           use_previous: bool = False, adopt: Sequence[str] = (), saves: Sequence[str] = ()
           ) -> Iterator[tuple[int, int]]:
    """Holds the run folder, new or found, and yields the (phase number, step) to go on from.

    `saves` are the folders of the phases' saves; they have the phases' names if not told otherwise.
    """
    recipe, workdir = shared.recipe, shared.workdir
    names = [phase.name for phase in recipe.phases]
    saves, facts = saves or names, summary.describe_data(recipe.data)
    description = description or summary.describe(recipe)
    folder.require_agreed(description, facts)
    with folder.held(workdir) if shared.primary else contextlib.nullcontext():
        if shared.primary:
            folder.remember(workdir, description)
            folder.remember_data(workdir, facts)
            folder.provenance(workdir, source_text)
            for name in checkpoint.clear_unfinished(workdir):
                metrics.note(workdir, "cleared an unfinished save", folder=name)
            adopt_copies(shared, adopt)
            for phase, step, why in checkpoint.set_aside(workdir, saves) if use_previous else ():
                metrics.note(workdir, "went back one save", phase=phase, step=step, reason=why)
        _together("folder")
        number, step = newest(workdir, saves)
        if shared.primary:
            metrics.cut_back(workdir, names, names[number] if step else None, step)
        try:
            yield number, step
        finally:
            shared.writer.join()  # before the folder is let go: a save may still be under way


def adopt_copies(shared: Run, named: Sequence[str]) -> None:
    """Takes the named copies of saves for saves; CheckpointError for any other without digests."""
    workdir, here = shared.workdir, jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for name in named:
        phase, _, step = name.partition("/")
        check.one_of("the phase of --adopt_checkpoint", phase, shared.shapes)
        frozen = step == checkpoint.FROZEN
        check.require(frozen or step.isdecimal(), "--adopt_checkpoint", "PHASE/STEP", name,
                      "name the copy by its two last folders")
        like = shared.shapes[phase].frozen if frozen else shared.shapes[phase].state
        checkpoint.adopt(checkpoint.folder_of(workdir, phase, step), jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like))
        metrics.note(workdir, "adopted a copy of a save", folder=name)
    strays = checkpoint.strays(workdir)
    check.require(not strays, f"saves in {workdir}", f"{checkpoint.DIGESTS} in every folder",
                  f"none in {', '.join(strays)}, which this run did not leave",
                  "copy it from where the save came from, move the folder away, or have "
                  f"launch.train take it as it is: --adopt_checkpoint={','.join(strays)}",
                  check.CheckpointError)


def newest(workdir: Path, saves: Sequence[str]) -> tuple[int, int]:
    """(phase number, step) of the newest save, verified; (0, 0) where there is none."""
    for number, name in reversed(list(enumerate(saves))):
        for step in reversed(checkpoint.steps(workdir, name)):
            checkpoint.verify(checkpoint.folder_of(workdir, name, step))
            return number, step
    return 0, 0


def train_phase(shared: Run, phase: Phase, step: int) -> None:
    """Trains one phase from `step` (0, or that of a checkpoint) to its end."""
    recipe = shared.recipe
    total, per_epoch = recipe.steps(phase), recipe.steps_per_epoch(phase)
    state, frozen = ready(shared, phase, step)
    shared.stop.check()
    began = time.perf_counter()
    update = compile_step(shared, phase, state, frozen)
    update = repeating(update, phase) if recipe.deterministic else update
    compile_evaluation(shared, phase, state)  # now, so that no evaluation has to wait for it
    shared.note("phase", phase=phase.name, step=step, devices=shared.mesh.size,
                compile_s=time.perf_counter() - began)
    with contextlib.ExitStack() as stack:
        reporter = stack.enter_context(
            contextlib.closing(Reporter(recipe, phase, shared.workdir, step)))
        feeding = stack.enter_context(contextlib.closing(
            sources(shared, phase, step, total, reporter.bad_image)))  # a stop ends its workers
        while step < total:
            if step and recipe.evaluation_due(phase, step):
                evaluate_now(shared, phase, state, step, reporter)
            plan = place_plan(shared, start.plan(phase, recipe, step // per_epoch))
            for _ in range(step, recipe.next_halt(phase, step)):
                state, report = update(state, frozen, next(feeding), plan)
                step += 1
                reporter.pend(step, report)
                between(shared, phase, state, step, reporter)
        evaluate_now(shared, phase, state, step, reporter)
        finish_phase(shared, phase, state, step, reporter)


def finish_phase(shared: Run, phase: Phase, state: TrainState, step: int, reporter: Reporter
                 ) -> None:
    """Makes sure of every row, and notes what the phase ends with."""
    shared.writer.record(reporter.flush)
    shared.note("phase done", phase=phase.name, step=step, **summary.facts(phase, state))
    if shared.primary:
        summary.write(shared.recipe, shared.workdir)


def between(shared: Run, phase: Phase, state: TrainState, step: int, reporter: Reporter) -> None:
    """What may happen between two updates: a trace begins or ends, a save, a stop."""
    if shared.profile and step in TRACED:
        jax.block_until_ready(state.step)
        if step == TRACED[0]:
            jax.profiler.start_trace(str(shared.workdir / "profile" / phase.name))
        else:
            jax.profiler.stop_trace()
    last = step == shared.recipe.steps(phase)
    stopping = shared.stop.due(reporter.steps_before + step)
    if last or stopping or shared.recipe.save_due(phase, step):
        save(shared, phase, state, step, reporter, final=last or stopping)
    if stopping:
        raise check.Preempted(f"stopped after step {step} of phase {phase.name!r}; it is saved")


def save(shared: Run, phase: Phase, state: TrainState, step: int, reporter: Reporter,
         final: bool) -> None:
    """Saves a step whose numbers are finite. A failure is told and tried again; the last raises."""
    reporter.drain()
    store(shared, phase.name, step, state, reporter.flush, reporter.failed_save, final)


def save_once(shared: Run, phase: Phase, state: TrainState, step: int, reporter: Reporter) -> None:
    """Returns when this step is saved, which it may be already."""
    settled(shared, phase.name, reporter.failed_save)  # of this very step, it may be
    if step not in checkpoint.steps(shared.workdir, phase.name):
        save(shared, phase, state, step, reporter, final=True)


def store(shared: Run, name: str, step: int, state: PyTree, first: Callable[[], None],
          say: Callable[[str], None], final: bool) -> None:
    """Saves in the folder `name`, `first` before all; told with `say`, a failed save before this
    one is let go. A final save has returned when it is committed, is tried twice, and raises."""
    settled(shared, name, say)
    began = time.perf_counter()
    shared.writer.save(name, step, state, first)
    shared.note("save", phase=name, step=step, stall_s=time.perf_counter() - began)
    if final and not settled(shared, name, say):
        shared.writer.save(name, step, state, first)
        shared.writer.wait()


def settled(shared: Run, name: str, say: Callable[[str], None]) -> bool:
    """Whether the save before this moment was committed; says so if not."""
    try:
        shared.writer.wait()
        return True
    except check.CheckpointError as error:
        shared.note("save failed", phase=name, why=str(error))
        say(f"the last save failed and will be tried again. {error}")
        return False


def evaluate_now(shared: Run, phase: Phase, state: TrainState, step: int, reporter: Reporter
                 ) -> None:
    """Adds the evaluation row of a step; a stop in the middle saves the step first."""
    reporter.drain()
    try:
        reporter.evaluation(step, judged(shared, phase, state))
    except check.Preempted:
        save_once(shared, phase, state, step, reporter)
        raise


def judged(shared: Run, phase: Phase, state: TrainState) -> dict[str, float]:
    """An evaluation row: accuracies on test images and held-out ones, of the weights as they are
    and of their moving average; `data_bad` images, if any, could not be read and count for nothing.
    A stop between two batches raises Preempted."""
    judge, values, unread = compile_evaluation(shared, phase, state), {}, {}
    kinds = {"": (state.params, state.stats)}
    if phase.ema:
        kinds["ema_"] = {**state.params, "nets": state.ema["nets"]}, state.ema["stats"]
    for split in ("test", "holdout") if shared.recipe.data.holdout else ("test",):
        for kind, (params, stats) in kinds.items():
            found = evaluate.accuracies(
                judge, phase.asked, (params, stats, state.transform),
                evaluation_batches(shared, phase, split), shared.mesh, shared.stop.check)
            unread[split] = len(getattr(shared.recipe.data, split)) - found.pop("images")
            prefix = kind + ("" if split == "test" else f"{split}_")
            values |= {prefix + name: value for name, value in found.items()}
    bad = sum(unread.values())
    return values | ({"data_bad": bad} if bad else {})


def _together(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def evaluate_source(source: Source, recipe: Recipe, domain: int = 0) -> dict[str, float]:
    """{accuracy, top5_accuracy, loss, images} of a trained network, over the test `images` that can
    be read, by one of its BatchNorm sets."""
    mesh, phase = sharding.make_mesh(), source.origin or recipe.phase(source.phase)
    check_recipe(replace(recipe, resident=False), mesh)  # no training image is asked for
    with jax.set_mesh(mesh):
        params, stats, state = start.read(source, recipe, files.place(source.run or "."), mesh)
        objective = phase.objective
        asked = evaluate.Branches(((source.learner, domain),))
        judge = evaluate.make_evaluate(objective.nets, objective.transform, asked)
        whole = sharding.replicated(mesh)
        variables = {"nets": params, "terms": {}}, {source.learner: stats}, state
        variables = jax.tree.map(lambda leaf: sharding.place(leaf, whole), variables)
        size = recipe.evaluation_batch(phase, mesh.size)
        found = evaluate.batches(recipe.data.test, size, mesh)
        return evaluate.accuracies(
            jax.jit(judge, out_shardings=whole), asked, variables, found, mesh)
