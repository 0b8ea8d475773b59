"""Population based augmentation as it trains: intervals, rewards, decisions, a schedule at the end.

The members are one compiled population (`train.population`). Their policies are knobs; what a
decision exchanges are whole states. All that is random follows from the recipe's seed, so a search
that was killed repeats from its last save, bit for bit. A stop saves whatever epoch was trained,
its decision taken or not. Source: Ho et al. 2019; spec P1 to P6.
"""

from collections.abc import Mapping, Sequence
import contextlib
from dataclasses import dataclass, replace
import json
from pathlib import Path
import time
from typing import Any

import jax
import numpy as np

from augjax import check
from augjax.augment.pba_policies import COPIES
from augjax.search import pba
from augjax.search.curves import plot_schedule
from augjax.search.wanted import check_search, describe, Search, searched_policy, with_numbers
from augjax.train import checkpoint, files, folder, metrics, sharding, start, summary
from augjax.train.failures import within_memory
from augjax.train.loop import judged, opened, settled, store
from augjax.train.phases import check_recipe, Phase
from augjax.train.population import default_lowering, make_population, Members, Population
from augjax.train.ready import (
    begin, evaluation_batches, freeze, frozen_again, place_data, Run,
)
from augjax.train.stop import listening

SAVES = "population"  # where the members are saved, a word that no phase may have
DECISIONS = "decisions"  # what stood beside each save
KEPT = ("epoch", "losses", "decided", "scores")  # there of a Standing, with policies and logs


@dataclass
class Standing:
    """Where a search stands between two epochs, or between an epoch and its decision."""

    members: Members
    policies: tuple[pba.Policy, ...]
    logs: tuple[pba.Log, ...]
    epoch: int = 0
    losses: Sequence[float] = ()  # [P] means of the last epoch, NaN where a member went bad
    decided: int = 0  # the epoch of the last decision
    scores: Sequence[float] = ()  # [P] of the last decision
    began: float = 0.0  # when the last decision was taken, by this process's clock


def run(search: Search, workdir: str | Path, description: Mapping[str, Any] | None = None,
        source_text: str = "", use_previous: bool = False, devices: list | None = None
        ) -> dict[str, Any]:
    """Searches, or goes on with it, and returns the summary; writes schedule.json and its plot.

    The summary's phase is the winner: the member with the highest held-out accuracy at the end. Its
    network is saved as a training run's is; images_per_s counts those of all members. The arguments
    are as in `train.run`. Raises an augjax.check error, as that does.
    """
    lowering = search.lowering or default_lowering()
    mesh = sharding.make_mesh(devices, search.members if lowering == "stacked" else 1)
    recipe, workdir = search.recipe, files.require_disk(workdir, "a search's --workdir")
    check_search(search)
    check_recipe(recipe, mesh)
    shapes = start.all_shapes(recipe, mesh)
    with jax.set_mesh(mesh), listening() as stop:
        writer = checkpoint.Writer(workdir, recipe.keep, recipe.milestones)
        shared = Run(recipe, workdir, mesh, stop, writer, shapes)
        with opened(shared, description or describe(search), source_text, use_previous,
                    saves=(SAVES,)) as (_, step):
            with within_memory(recipe.phases[0]):
                shared.resident = place_data(recipe, mesh)
                _train(search, shared, lowering, step)
            return summary.write(recipe, workdir)


# --- training ------------------------------------------------------------------------------------


def _train(search: Search, shared: Run, lowering: str, step: int) -> None:
    """From the last save to the end; every epoch ends with what is due."""
    recipe, phase = search.recipe, search.recipe.phases[0]
    steps, began = recipe.steps_per_epoch(phase), time.perf_counter()
    runs = [replace(shared, recipe=replace(recipe, slot=slot)) for slot in range(search.members)]
    frozen = frozen_again(shared, phase) if step else freeze(shared, phase)
    population, standing = _standing(search, shared, runs, frozen, lowering, step)
    shared.note("phase", phase=phase.name, step=step, devices=shared.mesh.size,
                compile_s=time.perf_counter() - began)
    with contextlib.closing(metrics.Log(shared.workdir, phase.name, step)) as log:
        tell = Teller(search, log)
        while standing.decided < phase.epochs:
            try:
                if _decision_due(search, standing):
                    since = standing.decided
                    _decide(search, shared, population, standing, tell)
                    last = standing.decided == phase.epochs
                    if last or recipe.save_due(phase, standing.decided * steps, since * steps):
                        _save(shared, population, standing, tell, final=last)
                else:
                    _epoch(search, runs, population, standing, frozen)
                shared.stop.check()
            except check.Preempted:
                _save(shared, population, standing, tell, final=True)
                raise check.Preempted(f"stopped after epoch {standing.epoch}, saved") from None
        _finish(search, shared, population, standing, tell)


def _decision_due(search: Search, standing: Standing) -> bool:
    """Whether the epoch trained last ends with a decision that was not taken yet."""
    last = search.recipe.phases[0].epochs
    return standing.epoch > standing.decided and (
        standing.epoch == last or standing.epoch % search.interval_epochs == 0)


def _epoch(search: Search, runs: list[Run], population: Population, standing: Standing,
           frozen: Any) -> None:
    """Trains all members for an epoch."""
    phase, recipe = search.recipe.phases[0], search.recipe
    plans = [start.plan(shown(phase, search.view, policy), run.recipe, standing.epoch)
             for run, policy in zip(runs, standing.policies)]
    standing.members, reports = population.advance(
        standing.members, frozen, runs[0].resident, population.place(plans),
        recipe.steps_per_epoch(phase))
    standing.epoch += 1
    found = [jax.device_get(population.part(reports, own)) for own in range(search.members)]
    standing.losses = [float("nan" if report["bad_step"] >= 0 else report["metrics"]["loss"])
                       for report in found]


def shown(phase: Phase, view: str, policy: pba.Policy) -> Phase:
    """The phase under a member's policy of the moment."""
    probabilities, levels = (numbers[0] for numbers in pba.knobs([policy]))
    knobs = phase.knobs
    policies = {**knobs.policies, view: with_numbers(
        knobs.policies[view], probabilities=probabilities, levels=levels)}
    return replace(phase, knobs=replace(knobs, policies=policies))


def _decide(search: Search, shared: Run, population: Population, standing: Standing,
            tell: "Teller") -> None:
    """Rewards everybody by held-out images; but at the end, the lowest follow the highest. A stop
    while it scores leaves all as it was."""
    phase = search.recipe.phases[0]
    found = population.score(standing.members, evaluation_batches(shared, phase, "holdout"))
    scores = np.where(np.isnan(standing.losses), np.nan, found)
    pba.winner(scores)  # raises NumericsError where nobody has a number
    began = time.perf_counter()
    standing.scores, donors = scores.tolist(), np.arange(search.members)
    if standing.epoch < phase.epochs:
        decision = pba.decide(
            standing.policies, standing.logs, scores, standing.epoch, search.recipe.seed,
            standing.epoch // search.interval_epochs - 1, search.quantile)
        donors, standing.policies, standing.logs = (
            decision.donors, decision.policies, decision.logs)
        standing.members = population.choose(standing.members, donors.tolist())
        jax.block_until_ready(standing.members)
    tell.decision(standing, donors, time.perf_counter() - began)
    standing.decided, standing.began = standing.epoch, time.perf_counter()


class Teller:
    """A row of the log and a line on the screen for every decision."""

    def __init__(self, search: Search, log: metrics.Log):
        self.search, self.log, self.phase = search, log, search.recipe.phases[0]
        self.progress = metrics.Progress(self.phase.name, int(self.phase.epochs))

    def decision(self, standing: Standing, donors: np.ndarray, bookkeeping_s: float) -> None:
        """`bookkeeping_s`: what explore, exploit and the exchange of states took."""
        epochs, seconds = standing.epoch - standing.decided, time.perf_counter() - standing.began
        scores = np.array(standing.scores)
        steps, total = self.search.recipe.steps_per_epoch(self.phase), int(self.phase.epochs)
        images = epochs * steps * self.phase.batch_size * self.search.members
        best, median = float(np.nanmax(scores)), float(np.nanmedian(scores))
        self.log.row("train", standing.epoch * steps, {
            "epoch": standing.epoch, "loss": float(np.nanmedian(standing.losses)),
            "best_reward": best, "median_reward": median,
            "exploits": int((donors != np.arange(len(donors))).sum()),
            "bad_members": int(np.isnan(scores).sum()),
            "bookkeeping_s": round(bookkeeping_s, 4), "seconds": round(seconds, 4),
            "images_per_s": round(images / seconds, 1)})
        left, every = int((total - standing.epoch) * seconds / epochs), self.search.interval_epochs
        self.progress.say(
            f"generation {-(-standing.epoch // every)}/{-(-total // every)}  epoch "
            f"{standing.epoch}/{total}  best reward {best:.2%}  median {median:.2%}  "
            f"{left // 60}:{left % 60:02d} left")


# --- beginnings and ends -------------------------------------------------------------------------


def _standing(search: Search, shared: Run, runs: list[Run], frozen: Any, lowering: str, step: int
              ) -> tuple[Population, Standing]:
    """The compiled population, and where it stands: at its start, or at the save of `step`."""
    phase = search.recipe.phases[0]
    entries = COPIES * len(searched_policy(phase.knobs.policies[search.view]).ops)
    first = pba.start_policies(search.members, entries)
    if step:
        like = {str(slot): shared.shapes[phase.name].state for slot in range(search.members)}
        found = checkpoint.load(checkpoint.folder_of(shared.workdir, SAVES, step), like)
        states = [found[str(slot)] for slot in range(search.members)]
    else:
        states = [begin(run, phase) for run in runs]
    under = shown(phase, search.view, first[0])
    population = make_population(shared, under, states[0], frozen, search.members, lowering,
                                 one_frozen=True)
    members, now = population.join(states), time.perf_counter()
    if not step:
        return population, Standing(members, first, ((),) * search.members, began=now)
    path = shared.workdir / DECISIONS / f"{step}.json"
    kept = json.loads(path.read_text())
    lacking = [name for name in (*KEPT, "seconds") if name not in kept]
    check.require(not lacking, str(path), "what this version keeps beside a save",
                  f"none of {', '.join(lacking)}", "begin the search anew in another folder",
                  check.CheckpointError)
    standing = Standing(members, *pba.from_json(kept), began=now - kept["seconds"],
                        **{name: kept[name] for name in KEPT})
    if _decision_due(search, standing):  # its row, if there is one, is written again
        metrics.cut_back(shared.workdir, [phase.name], phase.name, step - 1)
    return population, standing


def _save(shared: Run, population: Population, standing: Standing, tell: Teller, final: bool
          ) -> None:
    """Saves all members, and before them what the host knows of them; an epoch once, as a search
    comes to the same from before its decision."""
    recipe, say = shared.recipe, tell.progress.say
    step = standing.epoch * recipe.steps_per_epoch(recipe.phases[0])
    known = pba.to_json(standing.policies, standing.logs) | {
        name: getattr(standing, name) for name in KEPT}
    known["seconds"] = time.perf_counter() - standing.began
    settled(shared, SAVES, say)  # it may be this very epoch that is being saved
    if step in checkpoint.steps(shared.workdir, SAVES):
        return

    def first():
        (shared.workdir / DECISIONS).mkdir(exist_ok=True)
        folder.write_json(shared.workdir / DECISIONS / f"{step}.json", known)
        tell.log.flush()

    size = len(standing.policies)
    states = {str(own): population.part(standing.members, own) for own in range(size)}
    store(shared, SAVES, step, states, first, say, final)


def _finish(search: Search, shared: Run, population: Population, standing: Standing,
            tell: Teller) -> None:
    """The winner: its schedule, its test accuracy, its network."""
    phase, recipe = search.recipe.phases[0], search.recipe
    own = pba.winner(standing.scores)
    policy = searched_policy(phase.knobs.policies[search.view])
    schedule = pba.schedule_of_lineage(
        standing.logs[own], standing.policies[own], int(phase.epochs), policy.map, policy.ops)
    state, step = population.part(standing.members, own), recipe.steps(phase)
    store(shared, phase.name, step, state, tell.log.flush, tell.progress.say, final=True)
    tell.log.row("eval", step, {**judged(shared, phase, state), "seconds": 0.0})

    def found():
        tell.log.flush()
        folder.write_json(shared.workdir / "schedule.json", schedule)
        plot_schedule(schedule, shared.workdir / "schedule.png")

    shared.writer.record(found)
    shared.note("phase done", phase=phase.name, step=step, member=own, members=search.members,
                **summary.facts(phase, state))
