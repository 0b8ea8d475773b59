"""A population: runs of one structure that differ only in arrays, trained by one program.

Seeds, magnitudes, weights of terms, masks, policies and trained weights are all arrays. So members
may be *stacked* on a new first axis, on one device or over the mesh's axis "population", where each
device trains its own, or be *looped* over. On CPUs the loop is faster: convolutions of stacked
weights become grouped ones. A study's grid is a population; a search is one whose members may go
on from each other's state.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from augjax import check
from augjax.train import evaluate, sharding, start
from augjax.train.phases import Phase
from augjax.train.ready import (
    compile_evaluation, compile_step, compiled, evaluation_shapes, make_phase_evaluate,
    make_phase_step, place_plan, Run,
)
from augjax.train.state import TrainState
from augjax.train.update import Plan, Resident
from augjax.types import Batch, PyTree

AXIS = "population"
Members = Any  # one tree of each member: leaves [P, ...], or a list of P trees


class Population(NamedTuple):
    """How members lie and move.

    join(trees) -> members                one tree of each member: states, frozen networks
    part(members, i) -> the tree of member i
    place(plans) -> plans                 one host Plan of each member, put on the devices
    advance(members, frozen, source, plans, steps) -> (members, reports)
                                          so many updates; donates the members, keeps last reports
    choose(members, donors) -> members    member i goes on from the state of donors[i], key kept
    score(members, batches) -> [P]        accuracies in 0..1
    """

    join: Callable[[Sequence[PyTree]], Members]
    part: Callable[[Members, int], PyTree]
    place: Callable[[Sequence[Plan]], Any]
    advance: Callable[[Members, Members, Resident, Any, int], tuple[Members, Any]]
    choose: Callable[[Members, Sequence[int]], Members]
    score: Callable[[Members, Iterable[Batch]], list[float]]


def default_lowering() -> str:
    """The faster one on CPUs, as measured; on accelerators the stack, not measured yet."""
    return "looped" if jax.default_backend() == "cpu" else "stacked"


def make_population(shared: Run, phase: Phase, state: TrainState, frozen: PyTree, size: int,
                    lowering: str, one_frozen: bool = False) -> Population:
    """Compiles (or finds) the programs of `size` members that are like `state`.

    Members have the structure of `phase`, training images that lie on the devices, and frozen
    networks of their own, joined as their states are; `one_frozen`: the same for all, not joined.
    Raises ConfigError where they cannot.
    """
    check.require(shared.resident is not None, "population", "images that lie on the device",
                  "data.resident = False", "set data.resident, or train the runs one by one")
    make = LOWERINGS[check.one_of("population lowering", lowering, LOWERINGS)]
    return make(shared, phase, state, frozen, size, one_frozen)


# --- looped: one member after the other ----------------------------------------------------------


def _looped(shared: Run, phase: Phase, state: TrainState, frozen: PyTree, size: int,
            one_frozen: bool) -> Population:
    update = compile_step(shared, phase, state, frozen)

    def advance(members, frozen, source, plans, steps):
        after, reports = [], []
        networks_of = [frozen] * size if one_frozen else frozen
        for state, networks, plan in zip(members, networks_of, plans):
            for _ in range(steps):
                state, report = update(state, networks, source, plan)
            after.append(state)
            reports.append(report)
        return after, reports

    def choose(members, donors):  # copies: no array may be donated twice
        return [member if donor == own else replace(
            jax.tree.map(jnp.copy, members[donor]), key=member.key)
            for own, (member, donor) in enumerate(zip(members, donors))]

    def score(members, batches):
        judge, batches = compile_evaluation(shared, phase, state), list(batches)
        return [evaluate.accuracies(
            judge, phase.asked, _seen(member), batches, shared.mesh, shared.stop.check
        )["accuracy"] for member in members]

    return Population(
        join=list, part=lambda members, own: members[own],
        place=lambda plans: [place_plan(shared, plan) for plan in plans],
        advance=advance, choose=choose, score=score)


def _seen(state: TrainState) -> tuple[PyTree, PyTree, PyTree]:
    return state.params, state.stats, state.transform


# --- stacked: all members at once ----------------------------------------------------------------


def _stacked(shared: Run, phase: Phase, state: TrainState, frozen: PyTree, size: int,
             one_frozen: bool) -> Population:
    mesh = shared.mesh
    check.require(size % mesh.shape[AXIS] == 0, "members of a population",
                  f"a multiple of {mesh.shape[AXIS]}, the devices along its axis", size,
                  "add members or take other devices")
    step = _stacked_step(shared, phase, state, frozen, size, one_frozen)
    take = jax.jit(lambda members, own: jax.tree.map(lambda leaf: leaf[own], members))
    gather = jax.jit(lambda members, donors: replace(
        jax.tree.map(lambda leaf: leaf[donors], members), key=members.key))

    def join(trees):
        stack = jax.jit(lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees),
                        out_shardings=jax.tree.map(_behind, trees[0]))
        return stack(*trees)

    def part(members, own):  # lies as a lone run's does, so that its programs take it
        return jax.device_put(take(members, own), jax.tree.map(_alone, members))

    def place(plans):
        return jax.tree.map(lambda *leaves: sharding.place(np.stack(leaves), _over(mesh)), *plans)

    def advance(members, frozen, source, plans, steps):
        for _ in range(steps):
            members, reports = step(members, frozen, source, plans)
        return members, reports

    def choose(members, donors):
        chosen = gather(members, np.asarray(donors, np.int32))
        return jax.device_put(chosen, jax.tree.map(lambda leaf: leaf.sharding, members))

    def score(members, batches):
        counts = jax.tree.map(lambda leaf: sharding.place(np.stack([leaf] * size), _over(mesh)),
                              evaluate.zeros(phase.asked))
        judge = _stacked_evaluation(shared, phase, size, (counts, *_seen(members)))
        for batch in batches:
            shared.stop.check()
            counts = judge(counts, *_seen(members), batch)
        first = jax.device_get(counts[phase.asked.names[0]])
        return (first.correct / first.images).tolist()

    return Population(join, part, place, advance, choose, score)


def _stacked_step(shared: Run, phase: Phase, state: TrainState, frozen: PyTree, size: int,
                  one_frozen: bool) -> Callable:
    """The compiled update of all members."""
    mesh, recipe = shared.mesh, shared.recipe

    def all_of(tree):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
            (size, *leaf.shape), leaf.dtype, sharding=_behind(leaf)), tree)

    plans = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
        (size, *leaf.shape), leaf.dtype, sharding=_over(mesh)), start.plan(phase, recipe, 0))
    networks = frozen if one_frozen else all_of(frozen)
    axes = (0, None if one_frozen else 0, None, 0)
    arguments = (all_of(state), networks, shared.resident, plans)
    lies = jax.tree.map(lambda leaf: leaf.sharding, arguments[0]), _over(mesh)

    def step(*arguments):
        return make_phase_step(phase, recipe, jax.sharding.get_abstract_mesh())(*arguments)

    return compiled(shared, (f"{size} steps", phase, arguments), lambda: jax.jit(
        _of_all(step, axes, mesh), donate_argnums=0, out_shardings=lies).lower(*arguments))


def _stacked_evaluation(shared: Run, phase: Phase, size: int, begun: tuple) -> Callable:
    """The compiled evaluation of all members; `begun` is what it takes before the batch."""
    def judge(*arguments):
        return make_phase_evaluate(phase, jax.sharding.get_abstract_mesh())(*arguments)

    arguments = (*begun, evaluation_shapes(shared, phase))
    return compiled(shared, (f"{size} evaluations", phase, arguments),
                    lambda: jax.jit(_of_all(judge, (0, 0, 0, 0, None), shared.mesh),
                                    out_shardings=_over(shared.mesh)).lower(*arguments))


def _of_all(one: Callable, axes: tuple[int | None, ...], mesh: Mesh) -> Callable:
    """`jax.vmap(one, axes)` over members, cut by hand: no member's arrays leave its own devices.

    Inside `one` only "data" is left to XLA, in the current mesh. Left to cut members as well, it
    would gather all their images and maps on every device, for `vmap` makes convolutions grouped
    ones. Nor does it sum the gradient of a grouped kernel where the batch lies, as members and
    batch are one axis there: where batches are cut, the members of a device come in turn.
    """
    each = jax.vmap(one, axes) if mesh.shape["data"] == 1 else _in_turn(one, axes)
    cuts = tuple(PartitionSpec() if axis is None else PartitionSpec(AXIS) for axis in axes)
    return jax.shard_map(functools.wraps(one)(each), in_specs=cuts, out_specs=PartitionSpec(AXIS),
                         axis_names={AXIS}, check_vma=False)


def _in_turn(one: Callable, axes: tuple[int | None, ...]) -> Callable:
    """As `jax.vmap(one, axes)`, but one after the other: in a loop, which CPUs have unrolled, for
    there convolutions in loops are slow, and what devices send each other in them can hang."""
    def each(*arguments):
        def turn(_, own):
            return None, one(*[argument if axis is None else mine
                               for axis, argument, mine in zip(axes, arguments, own)])

        def scanned(unroll):
            return lambda *members: lax.scan(turn, None, members, unroll=unroll)[1]

        members = [None if axis is None else argument for axis, argument in zip(axes, arguments)]
        return lax.platform_dependent(*members, cpu=scanned(True), default=scanned(False))

    return each


def _over(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(AXIS))


def _behind(leaf: jax.Array) -> NamedSharding:
    """How a member's leaf lies behind the new axis."""
    return NamedSharding(leaf.sharding.mesh, PartitionSpec(AXIS, *leaf.sharding.spec))


def _alone(leaf: jax.Array) -> NamedSharding:
    """The inverse of `_behind`, of a stacked leaf."""
    return NamedSharding(leaf.sharding.mesh, PartitionSpec(*leaf.sharding.spec[1:]))


LOWERINGS = {"looped": _looped, "stacked": _stacked}
