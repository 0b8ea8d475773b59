"""The one training loop: every method, every phase, from nothing or from where a run stopped."""

from collections.abc import Iterator, Mapping
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
import numpy as np

from augjax import check, tree
from augjax.data import feed, resident
from augjax.train import checkpoint, evaluate, folder, metrics, sharding, start, summary
from augjax.train.phases import Phase, Recipe, Source, check_recipe
from augjax.train.report import Reporter
from augjax.train.state import TrainState
from augjax.train.stop import Stop, listening
from augjax.train.update import Plan, Resident, lower_step, make_step, make_update
from augjax.types import Batch, PyTree


@dataclass
class Run:
    """What the functions below share while a recipe trains."""

    recipe: Recipe
    workdir: Path
    mesh: Mesh
    stop: Stop
    writer: checkpoint.Writer
    resident: Resident | None
    profile: bool = False
    tests: dict[Any, list[Batch]] = field(default_factory=dict)  # evaluation batches kept on device

    @property
    def primary(self) -> bool:
        return jax.process_index() == 0


@dataclass(frozen=True)
class Programs:
    """The two compiled programs of a phase."""

    step: Any
    evaluate: Any
    compile_s: float


TRACED = (10, 15)  # --profile: the steps between which a trace is written
_COMPILED: dict[Any, Any] = {}  # phases of equal structure share a program inside a process


def run(
    recipe: Recipe,
    workdir: str | Path,
    description: Mapping[str, Any] | None = None,
    source_text: str = "",
    use_previous: bool = False,
    profile: bool = False,
    devices: list | None = None,
) -> dict[str, Any]:
    """Trains every phase that is not finished yet and returns the summary (DESIGN section 5).

    description   the config as plain data, compared with the run folder's; None: from the recipe
    use_previous  go back to the last save that is whole, where the latest one was altered
    Raises an augjax.check error whose `exit_code` is that of DESIGN section 5.
    """
    mesh, workdir = sharding.make_mesh(devices), Path(workdir)
    check_recipe(recipe, mesh)
    lock = folder.held(workdir) if jax.process_index() == 0 else contextlib.nullcontext()
    with lock, jax.set_mesh(mesh), listening() as stop:
        if jax.process_index() == 0:
            folder.remember(workdir, description or summary.describe(recipe))
            folder.provenance(workdir, source_text)
            folder.write_json(workdir / "data.json", summary.describe_data(recipe.data))
            for name in checkpoint.clear_unfinished(workdir):
                metrics.note(workdir, "cleared an unfinished save", folder=name)
        _together("folder")
        writer = checkpoint.Writer(workdir, recipe.keep, recipe.milestones)
        shared = Run(recipe, workdir, mesh, stop, writer, _place_data(recipe, mesh), profile)
        number, step = position(recipe, workdir, use_previous)
        if shared.primary:
            names = [phase.name for phase in recipe.phases]
            metrics.cut_back(workdir, names, names[number] if step else None, step)
        for phase in recipe.phases[number:]:
            train_phase(shared, phase, step)
            step = 0
        return summary.write(recipe, workdir) if shared.primary else {}


def position(recipe: Recipe, workdir: Path, use_previous: bool) -> tuple[int, int]:
    """(phase number, step) of the newest save, verified; (0, 0) where there is none."""
    for number, phase in reversed(list(enumerate(recipe.phases))):
        for step in reversed(checkpoint.steps(workdir, phase.name)):
            try:
                checkpoint.verify(checkpoint.folder_of(workdir, phase.name, step))
                return number, step
            except check.CheckpointError as error:
                if not use_previous:
                    raise
                metrics.note(workdir, "went back one save", phase=phase.name, step=step,
                             reason=str(error))
    return 0, 0


def train_phase(shared: Run, phase: Phase, step: int) -> None:
    """Trains one phase from `step` (0, or that of a checkpoint) to its end."""
    recipe = shared.recipe
    total, per_epoch = recipe.steps(phase), recipe.steps_per_epoch(phase)
    state, frozen = ready(shared, phase, step)
    shared.stop.check()
    programs = compile_phase(shared, phase, state, frozen)
    note(shared, "phase", phase=phase.name, step=step, compile_s=programs.compile_s)
    with contextlib.closing(Reporter(recipe, phase, shared.workdir, step)) as reporter:
        feeding = sources(shared, phase, step, total)
        while step < total:
            if step and recipe.evaluation_due(phase, step):
                evaluate_now(shared, phase, programs, state, step, reporter)
            plan = _place_plan(shared, start.plan(phase, recipe, step // per_epoch))
            for _ in range(step, recipe.next_halt(phase, step)):
                state, report = programs.step(state, frozen, next(feeding), plan)
                step += 1
                reporter.pend(step, report)
                between(shared, phase, state, step, reporter)
        evaluate_now(shared, phase, programs, state, step, reporter)
    facts = summary.facts(phase, state)
    note(shared, "phase done", phase=phase.name, step=step, **facts)
    if shared.primary:
        summary.write(recipe, shared.workdir)


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
    """Saves a step whose numbers are finite. A failure is told and tried again; a final one raises."""
    reporter.drain()
    _settled(shared, reporter)
    began = time.perf_counter()
    shared.writer.save(phase.name, step, state)
    note(shared, "save", phase=phase.name, step=step, stall_s=time.perf_counter() - began)
    if final and not _settled(shared, reporter):
        shared.writer.save(phase.name, step, state)
        shared.writer.wait()


def _settled(shared: Run, reporter: Reporter) -> bool:
    """Whether the save before this moment was committed; says so if not."""
    try:
        shared.writer.wait()
        return True
    except check.CheckpointError as error:
        note(shared, "save failed", phase=reporter.phase.name, why=str(error))
        reporter.say(f"the last save failed and will be tried again. {error}")
        return False


def evaluate_now(shared: Run, phase: Phase, programs: Programs, state: TrainState, step: int,
                 reporter: Reporter) -> None:
    """Adds the evaluation row of a step; a stop in the middle saves the step first."""
    reporter.drain()
    learner = phase.objective.learners[0]
    kinds = {"": (state.params["nets"][learner], state.stats[learner])}
    if phase.ema:
        kinds["ema_"] = (state.ema["nets"][learner], state.ema["stats"][learner])
    values = {}
    try:
        for split in ("test", "holdout") if shared.recipe.data.holdout else ("test",):
            for kind, (params, stats) in kinds.items():
                found = evaluate.accuracies(
                    programs.evaluate, (params, stats, state.transform),
                    _evaluation_batches(shared, phase, split), shared.mesh, shared.stop.check)
                prefix = kind + ("" if split == "test" else f"{split}_")
                values |= {prefix + name: value for name, value in found.items()}
        reporter.evaluation(step, values)
    except check.Preempted:
        _settled(shared, reporter)  # it may be this very step that is being saved
        if step not in checkpoint.steps(shared.workdir, phase.name):
            save(shared, phase, state, step, reporter, final=True)
        raise


def note(shared: Run, event: str, **fields: Any) -> None:
    if shared.primary:
        metrics.note(shared.workdir, event, **fields)


# --- readiness --------------------------------------------------------------------------------------


def ready(shared: Run, phase: Phase, step: int) -> tuple[TrainState, PyTree]:
    """(state, frozen networks) on the mesh, new or restored."""
    recipe, workdir, mesh = shared.recipe, shared.workdir, shared.mesh
    like = start.shapes(phase, recipe, mesh)
    stored = checkpoint.folder_of(workdir, phase.name, checkpoint.FROZEN)
    if step:
        state = checkpoint.load(checkpoint.folder_of(workdir, phase.name, step), like.state)
        return state, checkpoint.load(stored, like.frozen) if like.frozen else {}
    host = start.freeze(phase, recipe, workdir, mesh)
    frozen = jax.tree.map(lambda leaf, to: sharding.place(leaf, to.sharding), host, like.frozen)
    if frozen:
        if shared.primary:
            named = {name: {"source": str(source), "sha256": tree.digest({"": host[name]})}
                     for name, source in phase.frozen.items()}
            stored.parent.mkdir(parents=True, exist_ok=True)
            folder.write_json(stored.parent / "frozen.json", named)
        shared.writer.save(phase.name, checkpoint.FROZEN, frozen)
        shared.writer.wait()
    begun = start.start(phase, recipe, workdir, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like.state)
    assemble = jax.jit(start.assembly(phase, recipe, like.signals), out_shardings=shardings)
    return assemble(begun), frozen


def compile_phase(shared: Run, phase: Phase, state: TrainState, frozen: PyTree) -> Programs:
    """Compiles (or finds) the phase's update and its evaluation; a stop need not wait for them."""
    began = time.perf_counter()
    recipe, mesh = shared.recipe, shared.mesh
    update = make_update(phase.objective, phase.optimizer, phase.combine, phase.ema)
    plan = _place_plan(shared, start.plan(phase, recipe, 0))
    source = shared.resident or _batch_shapes(recipe, phase.batch_size, mesh)
    arguments = (state, frozen, source, plan)
    learner = phase.objective.learners[0]
    judge = evaluate.make_evaluate(
        phase.objective.nets[learner], learner, phase.objective.transform)
    counts = jax.tree.map(lambda x: sharding.place(x, sharding.replicated(mesh)), evaluate.zero())
    seen = (counts, state.params["nets"][learner], state.stats[learner], state.transform,
            _batch_shapes(recipe, phase.evaluate_batch, mesh))
    step = _compiled(shared, ("step", phase, arguments), lambda: lower_step(
        make_step(update, mesh, recipe.log_every), mesh, arguments))
    judged = _compiled(shared, ("evaluate", phase, seen), lambda: jax.jit(
        judge, out_shardings=sharding.replicated(mesh)).lower(*seen))
    return Programs(step, judged, time.perf_counter() - began)


def _compiled(shared: Run, what: tuple[str, Phase, PyTree], lower) -> Any:
    kind, phase, arguments = what
    shapes = str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), arguments))
    key = (kind, phase.structure, shared.recipe.log_every, shapes)
    if phase.structure is None or key not in _COMPILED:
        program = shared.stop.while_waiting(lower().compile)
        metrics.note(shared.workdir, "compiled", what=kind, phase=phase.name)
        if phase.structure is None:
            return program
        _COMPILED[key] = program
    return _COMPILED[key]


# --- data -------------------------------------------------------------------------------------------


def _place_data(recipe: Recipe, mesh: Mesh) -> Resident | None:
    if not recipe.resident:
        return None
    whole = sharding.replicated(mesh)
    image, label = resident(recipe.data.train)
    return Resident(sharding.place(image, whole), sharding.place(label, whole))


def _place_plan(shared: Run, plan: Plan) -> Plan:
    whole = sharding.replicated(shared.mesh)
    return jax.tree.map(lambda leaf: sharding.place(leaf, whole), plan)


def sources(shared: Run, phase: Phase, step: int, end: int) -> Iterator[Resident | Batch]:
    """What the update reads at each step from `step` to `end`."""
    if shared.resident:
        for _ in range(step, end):
            yield shared.resident
        return
    where = sharding.over_data(shared.mesh)
    part = (jax.process_index(), jax.process_count())
    for batch in feed(shared.recipe.data.train, shared.recipe.seed, phase.batch_size, step,
                      end - step, part):
        yield jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, x), batch)


def _batch_shapes(recipe: Recipe, size: int, mesh: Mesh) -> Batch:
    def cut(shape, dtype):
        return jax.ShapeDtypeStruct((size, *shape), dtype, sharding=sharding.over_data(mesh))

    return Batch(cut(recipe.data.image_shape, np.uint8), cut((), np.int32), cut((), np.int32))


def _evaluation_batches(shared: Run, phase: Phase, split: str) -> Any:
    source = getattr(shared.recipe.data, split)
    if not shared.recipe.resident:
        return evaluate.batches(source, phase.evaluate_batch, shared.mesh)
    key = (split, phase.evaluate_batch)
    if key not in shared.tests:
        shared.tests[key] = list(evaluate.batches(source, phase.evaluate_batch, shared.mesh))
    return shared.tests[key]


def _together(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def evaluate_source(source: Source, recipe: Recipe) -> dict[str, float]:
    """{accuracy, top5_accuracy, loss} of a trained network over every test image."""
    mesh, phase = sharding.make_mesh(), source.origin or recipe.phase(source.phase)
    check_recipe(recipe, mesh)
    with jax.set_mesh(mesh):
        params, stats, state = start.read(source, recipe, Path(source.run or "."), mesh)
        objective = phase.objective
        judge = evaluate.make_evaluate(objective.nets[source.learner], source.learner,
                                       objective.transform)
        whole = sharding.replicated(mesh)
        variables = jax.tree.map(lambda leaf: sharding.place(leaf, whole), (params, stats, state))
        found = evaluate.batches(recipe.data.test, phase.evaluate_batch, mesh)
        return evaluate.accuracies(jax.jit(judge, out_shardings=whole), variables, found, mesh)
