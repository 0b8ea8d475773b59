"""Making a phase ready: its state, its compiled programs, its data on the devices."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
import functools
import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from augjax import check, tree
from augjax.data import feed, resident, workers_for
from augjax.train import checkpoint, evaluate, files, folder, metrics, sharding, start
from augjax.train.phases import Phase, Recipe, saved_step
from augjax.train.state import TrainState
from augjax.train.stop import Stop
from augjax.train.update import lower_step, make_step, make_update, Plan, Resident
from augjax.types import Batch, PyTree


@dataclass
class Run:
    """What the functions below share while a recipe trains."""

    recipe: Recipe
    workdir: Path
    mesh: Mesh
    stop: Stop
    writer: checkpoint.Writer
    shapes: dict[str, start.Shapes]
    profile: bool = False
    resident: Resident | None = None  # the training images, once the folder is ours
    tests: dict[Any, list[Batch]] = field(default_factory=dict)  # evaluation batches kept on device
    programs: dict[Any, Any] = field(default_factory=dict)  # of phases without a structure

    @property
    def primary(self) -> bool:
        return jax.process_index() == 0

    def note(self, event: str, **fields: Any) -> None:
        """Adds a line to events.jsonl."""
        if self.primary:
            metrics.note(self.workdir, event, **fields)


_COMPILED: dict[Any, Any] = {}  # phases of equal structure share a program inside a process,
# one without a structure has it in its run


def forget() -> None:
    """Lets go of every compiled program, of which Linux allows a process some thousands."""
    _COMPILED.clear()
    jax.clear_caches()


def ready(shared: Run, phase: Phase, step: int) -> tuple[TrainState, PyTree]:
    """(state, frozen networks) on the mesh, new or restored."""
    if not step:
        frozen = freeze(shared, phase)
        return begin(shared, phase), frozen
    like, at = shared.shapes[phase.name], checkpoint.folder_of(shared.workdir, phase.name, step)
    return checkpoint.load(at, like.state), frozen_again(shared, phase)


def frozen_again(shared: Run, phase: Phase) -> PyTree:
    """The frozen networks as they were stored when the phase began."""
    like = shared.shapes[phase.name].frozen
    stored = checkpoint.folder_of(shared.workdir, phase.name, checkpoint.FROZEN)
    return checkpoint.load(stored, like) if like else {}


def freeze(shared: Run, phase: Phase) -> PyTree:
    """The frozen networks that a phase begins with, on the mesh; stored once."""
    recipe, workdir, mesh = shared.recipe, shared.workdir, shared.mesh
    like = shared.shapes[phase.name]
    stored = checkpoint.folder_of(workdir, phase.name, checkpoint.FROZEN)
    host = start.freeze(phase, recipe, workdir, mesh)
    frozen = jax.tree.map(lambda leaf, to: sharding.place(leaf, to.sharding), host, like.frozen)
    if frozen:
        named = {name: {"source": str(source), "sha256": tree.digest({"": host[name]}),
                        "step": saved_step(source, files.place(source.run or workdir))}
                 for name, source in phase.frozen.items()}
        for name, source in phase.frozen.items() if shared.primary else ():
            if source.run:  # which may not have been trained to its end
                check.tell(f"augjax: {name} of phase {phase.name!r} is {source}, step "
                           f"{named[name]['step']}")
        require_same(recipe, workdir, phase, named)
        shared.writer.save(phase.name, checkpoint.FROZEN, frozen, lambda: (
            folder.write_json(stored.parent / "frozen.json", named) if shared.primary else None))
        shared.writer.wait()
    return frozen


def require_same(recipe: Recipe, workdir: Path, phase: Phase, named: dict[str, dict[str, str]]
                 ) -> None:
    """Raises CheckpointError where an earlier phase had another network from the same source."""
    for earlier in recipe.phases[: recipe.number(phase)]:
        path = checkpoint.folder_of(workdir, earlier.name, checkpoint.FROZEN).parent / "frozen.json"
        known = json.loads(files.read_text(path)).values() if files.exists(path) else ()
        for name, one in named.items():
            for other in known:
                check.require(
                    one["source"] != other["source"] or one["sha256"] == other["sha256"],
                    f"{name} of phase {phase.name!r}, {one['source']}",
                    f"the network that phase {earlier.name!r} was taught by, SHA-256 "
                    f"{other['sha256'][:12]}", f"another, {one['sha256'][:12]}",
                    "bring it back, or begin anew in another folder", check.CheckpointError)


def begin(shared: Run, phase: Phase) -> TrainState:
    """The phase's first state on the mesh."""
    recipe, like, whole = shared.recipe, shared.shapes[phase.name], sharding.replicated(shared.mesh)
    words = np.asarray(jax.random.key_data(start.phase_key(recipe, phase)))
    begun = start.start(phase, recipe, shared.workdir, shared.mesh), words
    begun = jax.tree.map(lambda leaf: sharding.place(leaf, whole), begun)
    first = start.assembly(phase, like.signals)
    assemble = compiled(shared, ("start", phase, begun), lambda: jax.jit(
        lambda begun, words: first(begun, jax.random.wrap_key_data(words)),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like.state)).lower(*begun))
    return assemble(*begun)


def compile_step(shared: Run, phase: Phase, state: TrainState, frozen: PyTree) -> Any:
    """Compiles (or finds) the phase's update; a stop need not wait for it."""
    plan = place_plan(shared, start.plan(phase, shared.recipe, 0))
    source = shared.resident or batch_shapes(shared.recipe, phase.batch_size, shared.mesh)
    arguments = (state, frozen, source, plan)
    return compiled(shared, ("step", phase, arguments), lambda: lower_step(
        make_phase_step(phase, shared.recipe, shared.mesh), shared.mesh, arguments))


def compile_evaluation(shared: Run, phase: Phase, state: TrainState) -> Any:
    """Compiles (or finds) the `evaluate` of what the phase has trained."""
    whole = sharding.replicated(shared.mesh)
    counts = jax.tree.map(lambda x: sharding.place(x, whole), evaluate.zeros(phase.asked))
    arguments = (counts, state.params, state.stats, state.transform,
                 evaluation_shapes(shared, phase))
    return compiled(shared, ("evaluate", phase, arguments), lambda: jax.jit(
        make_phase_evaluate(phase, shared.mesh), out_shardings=whole).lower(*arguments))


def make_phase_step(phase: Phase, recipe: Recipe, mesh: Mesh) -> Callable:
    """The pure step of a phase, as `make_step` has it."""
    update = make_update(
        phase.objective, phase.optimizer, phase.combine, phase.ema, phase.accumulate)
    return make_step(update, mesh, recipe.log_every)


def make_phase_evaluate(phase: Phase, mesh: Mesh) -> Callable:
    """The pure evaluation of what a phase has trained, as `make_evaluate` has it."""
    objective = phase.objective
    judge = evaluate.make_evaluate(objective.nets, objective.transform, phase.asked)

    @functools.wraps(judge)
    def gathering(counts, params, stats, transform, batch):
        return judge(counts, *sharding.gathered((params, stats, transform), mesh), batch)

    return gathering


def compiled(shared: Run, what: tuple[str, Phase, PyTree],
             lower: Callable[[], jax.stages.Lowered]) -> Any:
    """What `lower` compiles to, from an earlier phase of equal structure where there was one, or
    from this phase's earlier call in this run."""
    kind, phase, arguments = what
    shapes = str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), arguments))
    devices = tuple(device.id for device in shared.mesh.devices.flat)
    lone = phase.structure is None
    key = (kind, devices, phase.name if lone else phase.structure, shared.recipe.log_every, shapes)
    programs = shared.programs if lone else _COMPILED
    if key not in programs:
        if kind == "step" and shared.primary:
            check.tell(f"augjax: compiling phase {phase.name!r}")
        programs[key] = shared.stop.while_waiting(lower().compile)
        shared.note("compiled", what=kind, phase=phase.name)
    return programs[key]


# --- data ----------------------------------------------------------------------------------------


def place_data(recipe: Recipe, mesh: Mesh) -> Resident | None:
    if not recipe.resident:
        return None
    whole = sharding.replicated(mesh)
    image, label = resident(recipe.data.train)
    return Resident(sharding.place(image, whole), sharding.place(label, whole))


def place_plan(shared: Run, plan: Plan) -> Plan:
    whole = sharding.replicated(shared.mesh)
    return jax.tree.map(lambda leaf: sharding.place(leaf, whole), plan)


def sources(shared: Run, phase: Phase, step: int, end: int, told: Callable[[str], None] = print
            ) -> Iterator[Resident | Batch]:
    """What the update reads at each step from `step` to `end`; `told` hears of bad images."""
    if shared.resident:
        for _ in range(step, end):
            yield shared.resident
        return
    where = sharding.over_data(shared.mesh)
    part = (jax.process_index(), jax.process_count())
    train, seed = shared.recipe.data.train, shared.recipe.seed
    workers = shared.recipe.workers or workers_for(train)
    for batch in feed(train, seed, phase.batch_size, step, end - step, part, workers=workers,
                      told=told):
        yield jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, x), batch)


def batch_shapes(recipe: Recipe, size: int, mesh: Mesh) -> Batch:
    """A Batch of `size` images as ShapeDtypeStructs, cut over the devices."""
    def cut(shape, dtype):
        return jax.ShapeDtypeStruct((size, *shape), dtype, sharding=sharding.over_data(mesh))

    return Batch(cut(recipe.data.image_shape, np.uint8), cut((), np.int32), cut((), np.int32))


def evaluation_shapes(shared: Run, phase: Phase) -> Batch:
    """`batch_shapes` of what `evaluation_batches` gives."""
    size = shared.recipe.evaluation_batch(phase, shared.mesh.size)
    return batch_shapes(shared.recipe, size, shared.mesh)


def evaluation_batches(shared: Run, phase: Phase, split: str) -> Any:
    size = shared.recipe.evaluation_batch(phase, shared.mesh.size)
    source = getattr(shared.recipe.data, split)
    if not shared.recipe.resident:
        return evaluate.batches(source, size, shared.mesh)
    if (split, size) not in shared.tests:
        shared.tests[split, size] = list(evaluate.batches(source, size, shared.mesh))
    return shared.tests[split, size]
