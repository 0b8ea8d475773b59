"""Runs in lockstep: a population each of whose members has a run folder of its own."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
import time
from typing import Any

import jax

from augjax import check
from augjax.train import checkpoint, files, sharding, start
from augjax.train.failures import within_memory
from augjax.train.loop import evaluate_now, finish_phase, opened, save, save_once
from augjax.train.phases import check_recipe, Phase, Recipe
from augjax.train.population import (
    AXIS, default_lowering, make_population, Members, Population,
)
from augjax.train.ready import compile_evaluation, place_data, ready, Run
from augjax.train.report import Reporter
from augjax.train.state import TrainState
from augjax.train.stop import listening


@dataclass(frozen=True)
class Member:
    """One run: its recipe, its folder, and what the folder keeps of its config."""

    recipe: Recipe
    workdir: Path
    description: Mapping[str, Any] | None = None
    source_text: str = ""


@dataclass
class Together:
    """What the functions below share."""

    runs: dict[int, Run] = field(default_factory=dict)  # {member: its run}, of those still well
    failed: dict[int, check.AugjaxError] = field(default_factory=dict)

    @contextlib.contextmanager
    def failing_alone(self, member: int) -> Iterator[None]:
        """A member's failure is its own; only a wish to stop concerns all."""
        try:
            yield
        except check.Preempted:
            raise
        except check.AugjaxError as error:
            self.failed[member] = error
            self.runs.pop(member, None)


def kind_of(recipe: Any) -> Hashable | None:
    """Equal for recipes that can train as one population; None for what cannot, as a search."""
    if not isinstance(recipe, Recipe) or not recipe.resident or any(
            phase.structure is None for phase in recipe.phases):
        return None
    phases = tuple(
        (phase.name, phase.structure, phase.batch_size, recipe.steps(phase), phase.evaluate_epochs,
         phase.evaluate_batch) for phase in recipe.phases)
    return (phases, id(recipe.data), recipe.fsdp, recipe.log_every, recipe.save_epochs, recipe.keep,
            recipe.milestones)


def run_together(members: Sequence[Member], lowering: str = "", devices: list | None = None
                 ) -> dict[int, check.AugjaxError]:
    """Trains what is not finished of every member; returns {member: why} of those that failed.

    Each ends with the run folder that `run` would have made, to rounding. Members that stand at
    the same step go on together, whatever the others have done; a member that fails leaves, and
    the others go on. `lowering`: a row of population.LOWERINGS, the backend's own if "".

    Raises ConfigError unless `kind_of` is the same for all, and Preempted once all are saved.
    """
    kinds = {kind_of(member.recipe) for member in members}
    check.require(len(kinds) == 1 and None not in kinds, "population",
                  "runs that differ in arrays alone", f"{len(kinds)} kinds of runs",
                  "train those of each kind together, the others one by one")
    lowering = lowering or default_lowering()
    mesh = sharding.make_mesh(devices, len(members) if lowering == "stacked" else 1)
    for member in members:
        check_recipe(member.recipe, mesh)
    recipe, all_of = members[0].recipe, Together()
    shapes = start.all_shapes(recipe, mesh)
    with jax.set_mesh(mesh), listening() as stop, contextlib.ExitStack() as folders:
        positions, resident, tests = {}, None, {}
        for number, member in enumerate(members):
            writer = checkpoint.Writer(member.workdir, recipe.keep, recipe.milestones)
            run = Run(member.recipe, files.place(member.workdir), mesh, stop, writer, shapes,
                      tests=tests)
            with all_of.failing_alone(number):
                positions[number] = folders.enter_context(
                    opened(run, member.description, member.source_text))
                all_of.runs[number] = run
        for begun in sorted(set(positions.values())):
            here = [number for number, found in positions.items() if found == begun]
            for place in range(begun[0], len(recipe.phases)):
                with within_memory(recipe.phases[place]):
                    resident = resident or place_data(recipe, mesh)
                    for run in all_of.runs.values():
                        run.resident = resident
                    train_phase(all_of, here, place, begun[1] if place == begun[0] else 0, lowering)
        return all_of.failed


# --- one phase -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seat:
    """A member in one phase; its place on the members' axis is its place in `Crew.seats`."""

    number: int
    run: Run
    phase: Phase
    reporter: Reporter


@dataclass
class Crew:
    """All who began a phase, those who failed since included: their arrays stay where they lie."""

    all_of: Together
    seats: list[Seat]
    places: int  # on the members' axis; those beyond the seats repeat the first
    population: Population
    members: Members
    frozen: Members

    def well(self) -> Iterator[tuple[Seat, TrainState]]:
        """Every member that has not failed, with its state."""
        for place, seat in enumerate(self.seats):
            if seat.number in self.all_of.runs:
                yield seat, self.population.part(self.members, place)


def train_phase(all_of: Together, here: Sequence[int], place: int, step: int, lowering: str
                ) -> None:
    """Trains one phase of the members `here` from `step` to its end."""
    with contextlib.ExitStack() as logs:
        crew = seated(all_of, here, place, step, lowering, logs)
        if crew is None:
            return
        run, phase = crew.seats[0].run, crew.seats[0].phase
        total, per_epoch = run.recipe.steps(phase), run.recipe.steps_per_epoch(phase)
        while step < total:
            if step and run.recipe.evaluation_due(phase, step):
                judge(crew, step)
            plans = place_plans(crew, step // per_epoch)
            for halt in halts(run.recipe, phase, step):
                crew.members, reports = crew.population.advance(
                    crew.members, crew.frozen, run.resident, plans, halt - step)
                step = halt
                keep(crew, step, reports)
        judge(crew, step)
        finish(crew, step)


def seated(all_of: Together, here: Sequence[int], place: int, step: int, lowering: str,
           logs: contextlib.ExitStack) -> Crew | None:
    """Everybody's state side by side, and the programs that move it; None where nobody is left."""
    began, begun = time.perf_counter(), {}
    for number in [number for number in here if number in all_of.runs]:
        run = all_of.runs[number]
        with all_of.failing_alone(number):
            begun[number] = ready(run, run.recipe.phases[place], step)
    if not begun:
        return None
    run, states = all_of.runs[next(iter(begun))], list(begun.values())
    phase = run.recipe.phases[place]
    states += states[:1] * (-len(states) % run.mesh.shape[AXIS])
    population = make_population(run, phase, *states[0], len(states), lowering)
    compile_evaluation(run, phase, states[0][0])
    compile_s, seats = (time.perf_counter() - began) / len(begun), []
    for number in begun:
        run = all_of.runs[number]
        run.note("phase", phase=phase.name, step=step, devices=run.mesh.size, compile_s=compile_s,
                 members=len(begun))
        title = "" if seats else f"{phase.name} of {len(begun)}"
        own = run.recipe.phases[place]
        reporter = Reporter(run.recipe, own, run.workdir, step, 1 / len(begun), title)
        logs.callback(reporter.close)
        seats.append(Seat(number, run, own, reporter))
    members, frozen = (population.join(trees) for trees in zip(*states))
    return Crew(all_of, seats, len(states), population, members, frozen)


def place_plans(crew: Crew, epoch: int) -> Any:
    """What the host decides of an epoch, for every place."""
    plans = [start.plan(seat.phase, seat.run.recipe, epoch) for seat in crew.seats]
    return crew.population.place(plans + plans[:1] * (crew.places - len(plans)))


def halts(recipe: Recipe, phase: Phase, step: int) -> Iterator[int]:
    """The steps at which somebody looks: rows of the log, saves, and the halt that comes next."""
    halt = recipe.next_halt(phase, step)
    for at in range(step + 1, halt + 1):
        if at == halt or at % recipe.log_every == 0 or recipe.save_due(phase, at):
            yield at


def keep(crew: Crew, step: int, reports: Any) -> None:
    """Writes the rows that are due, and saves where it is time; a stop ends here."""
    run, phase = crew.seats[0].run, crew.seats[0].phase
    stopping, last = run.stop.asked, step == run.recipe.steps(phase)
    for place, seat in enumerate(crew.seats):
        if seat.number in crew.all_of.runs:
            with crew.all_of.failing_alone(seat.number):
                seat.reporter.pend(step, crew.population.part(reports, place))
    if last or stopping or run.recipe.save_due(phase, step):
        for seat, state in crew.well():
            with crew.all_of.failing_alone(seat.number):
                save(seat.run, seat.phase, state, step, seat.reporter, final=last or stopping)
    if stopping:
        raise check.Preempted(f"stopped after step {step} of phase {phase.name!r}; all are saved")


def judge(crew: Crew, step: int) -> None:
    """Evaluates everybody; a stop in the middle saves those first who have not saved this step."""
    try:
        for seat, state in crew.well():
            with crew.all_of.failing_alone(seat.number):
                evaluate_now(seat.run, seat.phase, state, step, seat.reporter)
    except check.Preempted:
        for seat, state in crew.well():
            with crew.all_of.failing_alone(seat.number):
                save_once(seat.run, seat.phase, state, step, seat.reporter)
        raise


def finish(crew: Crew, step: int) -> None:
    """The last words of a phase, as of a lone run."""
    for seat, state in crew.well():
        with crew.all_of.failing_alone(seat.number):
            finish_phase(seat.run, seat.phase, state, step, seat.reporter)
