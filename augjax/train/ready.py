"""Making a phase ready: its state, its compiled programs, its data on the devices."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
import time
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from augjax import tree
from augjax.data import feed, resident
from augjax.train import checkpoint, evaluate, folder, metrics, sharding, start
from augjax.train.phases import Phase, Recipe
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
    resident: Resident | None
    shapes: dict[str, start.Shapes]
    profile: bool = False
    tests: dict[Any, list[Batch]] = field(default_factory=dict)  # evaluation batches kept on device

    @property
    def primary(self) -> bool:
        return jax.process_index() == 0

    def note(self, event: str, **fields: Any) -> None:
        """Adds a line to events.jsonl."""
        if self.primary:
            metrics.note(self.workdir, event, **fields)


@dataclass(frozen=True)
class Programs:
    """The two compiled programs of a phase."""

    step: Any
    evaluate: Any
    compile_s: float


_COMPILED: dict[Any, Any] = {}  # phases of equal structure share a program inside a process


def ready(shared: Run, phase: Phase, step: int) -> tuple[TrainState, PyTree]:
    """(state, frozen networks) on the mesh, new or restored."""
    recipe, workdir, mesh = shared.recipe, shared.workdir, shared.mesh
    like = shared.shapes[phase.name]
    stored = checkpoint.folder_of(workdir, phase.name, checkpoint.FROZEN)
    if step:
        state = checkpoint.load(checkpoint.folder_of(workdir, phase.name, step), like.state)
        return state, checkpoint.load(stored, like.frozen) if like.frozen else {}
    host = start.freeze(phase, recipe, workdir, mesh)
    frozen = jax.tree.map(lambda leaf, to: sharding.place(leaf, to.sharding), host, like.frozen)
    if frozen:
        named = {name: {"source": str(source), "sha256": tree.digest({"": host[name]})}
                 for name, source in phase.frozen.items()}
        shared.writer.save(phase.name, checkpoint.FROZEN, frozen, lambda: (
            folder.write_json(stored.parent / "frozen.json", named) if shared.primary else None))
        shared.writer.wait()
    begun = start.start(phase, recipe, workdir, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like.state)
    assemble = jax.jit(start.assembly(phase, recipe, like.signals), out_shardings=shardings)
    return assemble(begun), frozen


def compile_phase(shared: Run, phase: Phase, state: TrainState, frozen: PyTree) -> Programs:
    """Compiles (or finds) the phase's update and its evaluation; a stop need not wait for them."""
    began = time.perf_counter()
    recipe, mesh = shared.recipe, shared.mesh
    update = make_update(
        phase.objective, phase.optimizer, phase.combine, phase.ema, phase.accumulate)
    plan = place_plan(shared, start.plan(phase, recipe, 0))
    source = shared.resident or batch_shapes(recipe, phase.batch_size, mesh)
    arguments = (state, frozen, source, plan)
    learner = phase.objective.learners[0]
    judge = evaluate.make_evaluate(
        phase.objective.nets[learner], learner, phase.objective.transform)
    counts = jax.tree.map(lambda x: sharding.place(x, sharding.replicated(mesh)), evaluate.zero())
    seen = (counts, state.params["nets"], state.stats[learner], state.transform,
            batch_shapes(recipe, phase.evaluate_batch, mesh))
    step = _compiled(shared, ("step", phase, arguments), lambda: lower_step(
        make_step(update, mesh, recipe.log_every), mesh, arguments))
    judged = _compiled(shared, ("evaluate", phase, seen), lambda: jax.jit(
        judge, out_shardings=sharding.replicated(mesh)).lower(*seen))
    return Programs(step, judged, time.perf_counter() - began)


def _compiled(shared: Run, what: tuple[str, Phase, PyTree],
              lower: Callable[[], jax.stages.Lowered]) -> Any:
    kind, phase, arguments = what
    shapes = str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), arguments))
    devices = tuple(device.id for device in shared.mesh.devices.flat)
    key = (kind, devices, phase.structure, shared.recipe.log_every, shapes)
    if phase.structure is None or key not in _COMPILED:
        program = shared.stop.while_waiting(lower().compile)
        shared.note("compiled", what=kind, phase=phase.name)
        if phase.structure is None:
            return program
        _COMPILED[key] = program
    return _COMPILED[key]


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


def batch_shapes(recipe: Recipe, size: int, mesh: Mesh) -> Batch:
    """A Batch of `size` images as ShapeDtypeStructs, cut over the devices."""
    def cut(shape, dtype):
        return jax.ShapeDtypeStruct((size, *shape), dtype, sharding=sharding.over_data(mesh))

    return Batch(cut(recipe.data.image_shape, np.uint8), cut((), np.int32), cut((), np.int32))


def evaluation_batches(shared: Run, phase: Phase, split: str) -> Any:
    source = getattr(shared.recipe.data, split)
    if not shared.recipe.resident:
        return evaluate.batches(source, phase.evaluate_batch, shared.mesh)
    key = (split, phase.evaluate_batch)
    if key not in shared.tests:
        shared.tests[key] = list(evaluate.batches(source, phase.evaluate_batch, shared.mesh))
    return shared.tests[key]
