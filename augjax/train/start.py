"""What a phase begins with, and what the host decides for each of its epochs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from augjax import check, tree
from augjax.data import order
from augjax.method.objective import evaluate
from augjax.train import checkpoint, files, sharding
from augjax.train.optimizers import of_moving
from augjax.train.phases import check_trains, Phase, Recipe, saved_step, Source
from augjax.train.state import Meters, TrainState
from augjax.train.update import metric_names, Plan
from augjax.types import Batch, Clock, Knobs, Params, PyTree, Start, Stats

# Keys of a phase are fold_in(phase key, step) for its updates; what happens before the first of
# them lies far beyond any step.
PURPOSE_INIT, PURPOSE_TERMS, PURPOSE_ANEW = 2**31, 2**31 + 1, 2**31 + 2


def phase_key(recipe: Recipe, phase: Phase) -> jax.Array:
    """The key of (run, phase); a member of a search folds its slot in."""
    key = jax.random.fold_in(jax.random.key(recipe.seed), recipe.number(phase))
    return key if recipe.slot is None else jax.random.fold_in(key, recipe.slot)


def read(source: Source, recipe: Recipe, workdir: Path, mesh: Mesh) -> tuple[Params, Stats, PyTree]:
    """(parameters of all learners, statistics of one, transform state), as host arrays.

    A transform's state belongs to all networks that were trained together, so it comes with them.
    """
    phase = source.origin or recipe.phase(source.phase)
    folder = files.place(source.run or workdir)
    step = saved_step(source, folder)
    check.one_of("learner", source.learner, phase.objective.learners)
    variables = {name: jax.eval_shape(net.init, jax.random.key(0))
                 for name, net in phase.objective.learning.items()}
    params = {name: params for name, (params, _) in variables.items()}
    masks = jax.eval_shape(phase.objective.transform.init, params)
    stats = {source.learner: variables[source.learner][1]}
    check.require(source.weights == "raw" or phase.ema is not None, f"source {source}",
                  "a phase that kept an average", "weights = ema", "use weights = raw")
    wanted = {"transform": masks} | (
        {"ema": {"nets": params, "stats": stats}} if source.weights == "ema"
        else {"params": {"nets": params}, "stats": stats}
    )
    at = checkpoint.folder_of(folder, phase.name, step)
    whole = sharding.state_shardings(mesh, wanted, fsdp=False)
    loaded = checkpoint.load(at, _with(wanted, whole))
    weights = loaded["ema"] if source.weights == "ema" else loaded["params"] | {
        "stats": loaded["stats"]}
    return jax.tree.map(
        np.asarray, (weights["nets"], weights["stats"][source.learner], loaded["transform"]))


def freeze(phase: Phase, recipe: Recipe, workdir: Path, mesh: Mesh
           ) -> dict[str, tuple[Params, Stats]]:
    """{onlooker: (effective weights, statistics)} as host arrays."""
    frozen = {}
    for name, source in phase.frozen.items():
        params, stats, state = read(source, recipe, workdir, mesh)
        origin = source.origin or recipe.phase(source.phase)
        effective = origin.objective.transform.apply(params, state)
        frozen[name] = jax.tree.map(np.asarray, (effective[source.learner], stats))
    return frozen


def start(phase: Phase, recipe: Recipe, workdir: Path, mesh: Mesh) -> Start:
    """The learners' parameters and statistics and the transform's state, edited, on the host.

    What starts anew in a network that comes from elsewhere is drawn from a key of its own: with the
    key of a start from scratch it would be the very weights that a run of the same seed, whose mask
    may have come with it, began from. Masks go on where the phase has the same; elsewhere what
    comes is the network as it was seen: pruned weights are 0, and are trained like others. No
    config may ask for that (`recipe`); who builds phases in Python carries the mask.
    """
    params, stats, inherited = {}, {}, {}
    own_key = phase_key(recipe, phase)
    key, anew = (jax.random.fold_in(own_key, what) for what in (PURPOSE_INIT, PURPOSE_ANEW))
    known = tree.flatten(_transform_shapes(phase))
    for place, (name, net) in enumerate(phase.objective.learning.items()):
        if name in phase.init:
            source = phase.init[name]
            trained, stats[name], state = read(source, recipe, workdir, mesh)
            if not set(tree.flatten(state)) <= set(known):
                origin = source.origin or recipe.phase(source.phase)
                trained, state = origin.objective.transform.apply(trained, state), {}
            params[name] = trained[source.learner]
            inherited.update(tree.flatten(state))
            if source.drop or source.fresh:
                old, new = (params[name], stats[name]), net.init(jax.random.fold_in(anew, place))
                params[name], stats[name] = (_taken(*pair, source) for pair in zip(old, new))
        else:
            params[name], stats[name] = net.init(jax.random.fold_in(key, place))
    fresh = phase.objective.transform.init(params)
    begun = Start(params, stats, tree.map_with_path(lambda p, new: inherited.get(p, new), fresh))
    for edit in phase.edits:
        begun = edit(begun)
    return jax.tree.map(np.asarray, begun)


def _taken(trained: PyTree, new: PyTree, source: Source) -> PyTree:
    """A new tree with the trained leaves, but where it starts anew."""
    kept = tree.flatten(tree.without(trained, source.drop + source.fresh))
    return tree.map_with_path(lambda path, leaf: kept.get(path, leaf), new)


def _transform_shapes(phase: Phase) -> PyTree:
    learning = phase.objective.learning.items()
    params = {name: jax.eval_shape(net.init, jax.random.key(0))[0] for name, net in learning}
    return jax.eval_shape(phase.objective.transform.init, params)


def assembly(phase: Phase, signals: PyTree) -> Callable[[Start, jax.Array], TrainState]:
    """The pure function from a Start and `phase_key` to the phase's first state; `signals` hold
    shapes alone."""

    def assemble(begun, key):
        params, states = {"nets": begun.params, "terms": {}}, {}
        for place, (name, term) in enumerate(phase.objective.terms.items()):
            term_key = jax.random.fold_in(jax.random.fold_in(key, PURPOSE_TERMS), place)
            params["terms"][name], states[name] = term.init(term_key, signals)
        told = metric_names(phase.objective, signals, params["terms"], states)
        zero = jnp.zeros((), jnp.float32)
        return TrainState(
            params=params,
            stats=begun.stats,
            transform=begun.transform,
            terms=states,
            opt_state=of_moving(phase.optimizer, phase.objective.trains).init(params),
            ema={"nets": begun.params, "stats": begun.stats} if phase.ema else {},
            key=key,
            step=jnp.int32(0),
            meters=Meters(dict.fromkeys(told, zero), jnp.int32(0), jnp.int32(-1)),
            frozen={},
        )

    return assemble


@dataclass(frozen=True)
class Shapes:
    """What a phase's state, frozen networks and signals look like: ShapeDtypeStructs."""

    state: TrainState  # with shardings
    frozen: PyTree  # with shardings
    signals: PyTree


def all_shapes(recipe: Recipe, mesh: Mesh) -> dict[str, Shapes]:
    """{phase: its shapes}; phases of equal structure are traced once.

    Raises ConfigError for what only a trace can show, before any phase has begun.
    """
    traced: dict[Any, Shapes] = {}
    for phase in recipe.phases:
        if kind_of(phase) not in traced:
            with check.refusing(f"phase {phase.name!r}", "parts that fit together", "correct them"):
                traced[kind_of(phase)] = shapes(phase, recipe, mesh)
    return {phase.name: traced[kind_of(phase)] for phase in recipe.phases}


def kind_of(phase: Phase) -> Any:
    """Phases of one kind have the same shapes and the same program."""
    return phase.structure or phase.name, phase.batch_size, phase.accumulate


def shapes(phase: Phase, recipe: Recipe, mesh: Mesh) -> Shapes:
    """Traced, not computed: what a checkpoint of the phase must hold."""
    nets, transform = phase.objective.nets, phase.objective.transform
    variables = {name: jax.eval_shape(net.init, jax.random.key(0)) for name, net in nets.items()}
    frozen = {name: variables[name] for name in phase.objective.onlookers}
    params = {name: variables[name][0] for name in phase.objective.learners}
    stats = {name: variables[name][1] for name in phase.objective.learners}
    begun = Start(params, stats, jax.eval_shape(transform.init, params))
    batch, knobs = example(phase, recipe)

    def see(begun, frozen, batch):
        looked = SimpleNamespace(frozen=frozen, stats=begun.stats)
        weights = transform.apply(begun.params, begun.transform)
        return phase.objective.see(weights, looked, batch, phase_key(recipe, phase), knobs)[0]

    signals = jax.eval_shape(see, begun, frozen, batch)
    state = jax.eval_shape(assembly(phase, signals), begun, jax.random.key(0))
    check_trains(phase, {**state.params, "stats": state.stats})
    losses, _ = jax.eval_shape(
        partial(evaluate, phase.objective.terms, key=jax.random.key(0)),
        state.params["terms"], state.terms, signals)
    for name, value in losses.items():
        check.require(value.shape == (), f"{phase.name}.terms.{name}", "one number",
                      f"an array {value.shape}", "take the mean over the rows")
    state, frozen = (_with(part, sharding.state_shardings(mesh, part, recipe.fsdp))
                     for part in (state, frozen))
    return Shapes(state, frozen, signals)


def example(phase: Phase, recipe: Recipe) -> tuple[Batch, Knobs]:
    """Shapes of what the networks see at once, and the knobs of the first step."""
    size = phase.batch_size // phase.accumulate
    whole = jax.ShapeDtypeStruct((size,), jnp.int32)
    image = jax.ShapeDtypeStruct((size, *recipe.data.image_shape), jnp.uint8)
    batch = Batch(image, whole, whole)
    return batch, jax.tree.map(lambda table: jnp.asarray(table[0]), plan(phase, recipe, 0).knobs)


def _with(shapes: PyTree, shardings: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes, shardings,
    )


# --- what the host decides for an epoch ----------------------------------------------------------


def plan(phase: Phase, recipe: Recipe, epoch: int) -> Plan:
    """Order and knobs of one epoch, as host arrays."""
    steps = recipe.steps_per_epoch(phase)
    first = epoch * steps
    places = None
    if recipe.resident:
        who = order(recipe.seed, epoch, len(recipe.data.train))
        places = who[: steps * phase.batch_size].reshape(steps, phase.batch_size)
    return Plan(np.int32(first), places, tabulate(phase.knobs, first, steps, recipe.steps(phase)))


def tabulate(knobs: Knobs, first: int, steps: int, total: int) -> Knobs:
    """The knobs at `steps` steps from `first` on: every leaf becomes [steps, ...].

    Schedules see a clock in float64, so that what begins at epoch 0.7 is not a step late.
    """
    clock = _clock(first + np.arange(steps, dtype=np.int32), steps, total)

    def value(leaf):
        found = np.asarray(leaf(clock) if callable(leaf) else leaf)
        scalar = isinstance(leaf, (bool, int, float))  # means float32; arrays know their type
        found = found.astype(np.float32) if scalar or found.dtype == np.float64 else found
        return found if callable(leaf) else np.broadcast_to(found, (steps, *found.shape))

    tabulated = jax.tree.map(value, replace(knobs, clock=None), is_leaf=callable)
    shown = Clock(clock.step, np.float32(clock.epoch), np.float32(clock.progress))
    return replace(tabulated, clock=shown)


def moving(phase: Phase, recipe: Recipe, step: int) -> dict[str, float]:
    """{path: value at a step} of the knobs that are numbers on a schedule, such as
    "policies/train/magnitude" or "weights/kd"; not of the learning rate."""
    knobs = tree.flatten({"policies": phase.knobs.policies, "weights": phase.knobs.weights})
    clock = _clock(np.int32(step), recipe.steps_per_epoch(phase), recipe.steps(phase))
    found = {path: np.asarray(leaf(clock)) for path, leaf in knobs.items() if callable(leaf)}
    return {path: float(value) for path, value in found.items() if value.ndim == 0}


def _clock(step: np.ndarray, per_epoch: int, total: int) -> Clock:
    return Clock(step, step / per_epoch, np.minimum(step / total, 1))
