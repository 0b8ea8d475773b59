"""Population based augmentation as it trains: intervals, rewards, decisions, a schedule at the end.

The members are one compiled population (`train.population`). Their policies are knobs; what a
decision exchanges are whole states. All that is random follows from the recipe's seed, so a search
that was killed repeats from its last save, bit for bit. Source: Ho et al. 2019; spec P1 to P6.
"""

from collections.abc import Mapping
import contextlib
from dataclasses import dataclass, replace
import json
from pathlib import Path
import time
from typing import Any

import jax
import numpy as np

from augjax import check
from augjax.augment import PopulationPolicy
from augjax.search import pba
from augjax.search.curves import plot_schedule
from augjax.train import checkpoint, files, folder, metrics, sharding, start, summary
from augjax.train.failures import within_memory
from augjax.train.loop import judged, opened
from augjax.train.phases import check_recipe, Phase, Recipe
from augjax.train.population import default_lowering, make_population, Members, Population
from augjax.train.ready import (
    begin, evaluation_batches, freeze, frozen_again, place_data, Run,
)
from augjax.train.stop import listening

SAVES = "population"  # where the members are saved, a word that no phase may have
DECISIONS = "decisions"  # what stood beside each save


@dataclass(frozen=True)
class Search:
    """What is searched: the policy of a view, while a population trains a recipe's only phase.

    recipe    its data have a holdout; its view's policy is `augment.pba`'s, whose numbers are ours
    members, interval_epochs, quantile    as PBA: 16, 3, 0.25 (spec P4)
    lowering  a row of train.population.LOWERINGS, the backend's own if ""
    """

    recipe: Recipe
    view: str = "train"
    members: int = 16
    interval_epochs: int = 3
    quantile: float = pba.QUANTILE
    lowering: str = ""


@dataclass
class Standing:
    """Where a search stands between two epochs."""

    epoch: int
    members: Members
    policies: tuple[pba.Policy, ...]
    logs: tuple[pba.Log, ...]
    scores: list[float]  # of the last decision


def run(search: Search, workdir: str | Path, description: Mapping[str, Any] | None = None,
        source_text: str = "", devices: list | None = None) -> dict[str, Any]:
    """Searches, or goes on with it, and returns the summary; writes schedule.json and its plot.

    The summary's phase is the winner: the member with the highest held-out accuracy at the end. Its
    network is saved as a training run's is. Raises an augjax.check error, as `train.run` does.
    """
    lowering = search.lowering or default_lowering()
    mesh = sharding.make_mesh(devices, search.members if lowering == "stacked" else 1)
    recipe, workdir = search.recipe, files.require_disk(workdir, "a search's --workdir")
    check_search(search)
    check_recipe(recipe, mesh)
    shapes = start.all_shapes(recipe, mesh)
    with jax.set_mesh(mesh), listening() as stop:
        shared = Run(recipe, workdir, mesh, stop, checkpoint.Writer(workdir, 1), shapes)
        with opened(shared, description, source_text, saves=(SAVES,)) as (_, step):
            shared.resident = place_data(recipe, mesh)
            with within_memory(recipe.phases[0]):
                _train(search, shared, lowering, step)
            return summary.write(recipe, workdir)


# --- checks --------------------------------------------------------------------------------------


def check_search(search: Search) -> None:
    """Raises ConfigError for what cannot be searched, before any device work."""
    recipe = search.recipe
    pba.check_population(search.members)
    check.require(len(recipe.phases) == 1, "phases of a search", "one, whose policy is searched",
                  [phase.name for phase in recipe.phases], "train the others before it")
    phase = recipe.phases[0]
    check.require(phase.epochs == int(phase.epochs), f"{phase.name}.epochs", "whole epochs",
                  phase.epochs, "a schedule counts whole epochs")
    check.require(isinstance(search.interval_epochs, int)
                  and 1 <= search.interval_epochs < phase.epochs, "search.interval_epochs",
                  f"1 to {int(phase.epochs) - 1} whole epochs", search.interval_epochs,
                  "PBA's is 3")
    check.require(recipe.data.holdout is not None, "data.holdout",
                  "images that reward a policy", "none", "hold out training images")
    check.require(not _overlap(recipe.data.train, recipe.data.holdout), "data.holdout",
                  "images that are not trained on", "some that are", "carve them out of the others")
    check.require(jax.process_count() == 1, "search", "one process", jax.process_count(),
                  "one host holds the whole population")
    policy = phase.knobs.policies.get(search.view)
    check.require(_find(policy) is not None, f"{phase.name}.views.{search.view}.policy",
                  "kind pba, whose numbers a search sets", type(policy).__name__,
                  "use defaults.policy(\"pba\", ...), or name another view")


def _overlap(one: Any, other: Any) -> bool:
    """Whether two splits share images of one reader."""
    return one.reader is other.reader and bool(np.intersect1d(one.positions, other.positions).size)


def _find(policy: Any) -> PopulationPolicy | None:
    """PBA's policy, alone or beside a view's erasing."""
    policy = getattr(policy, "policy", policy)
    return policy if isinstance(policy, PopulationPolicy) else None


def _with(policy: Any, **numbers: Any) -> Any:
    """A policy with other probabilities and levels."""
    if isinstance(policy, PopulationPolicy):
        return replace(policy, **numbers)
    return replace(policy, policy=_with(policy.policy, **numbers))


# --- training ------------------------------------------------------------------------------------


def _train(search: Search, shared: Run, lowering: str, step: int) -> None:
    """From the last save to the end; every epoch ends with what is due."""
    recipe, phase = search.recipe, search.recipe.phases[0]
    began = time.perf_counter()
    runs = [replace(shared, recipe=replace(recipe, slot=slot)) for slot in range(search.members)]
    frozen = frozen_again(shared, phase) if step else freeze(shared, phase)
    population, standing = _standing(search, shared, runs, frozen, lowering, step)
    shared.note("phase", phase=phase.name, step=step, compile_s=time.perf_counter() - began)
    with contextlib.closing(metrics.Log(shared.workdir, phase.name, step)) as log:
        tell = Teller(search, log, standing.epoch)
        for epoch in range(standing.epoch, int(phase.epochs)):
            losses = _epoch(search, runs, population, standing, frozen, epoch)
            last, decides = standing.epoch == phase.epochs, _due(search, standing.epoch)
            if last or decides:
                _decide(search, shared, population, standing, tell, losses, last)
            if last or shared.stop.asked or (decides and recipe.save_due(
                    phase, standing.epoch * recipe.steps_per_epoch(phase))):
                _save(shared, population, standing, search.members, log)
            if shared.stop.asked:
                shared.writer.wait()
                raise check.Preempted(f"stopped after epoch {standing.epoch}; it is saved")
        shared.writer.wait()
        _finish(search, shared, population, standing, log)


def _due(search: Search, epoch: int) -> bool:
    return epoch % search.interval_epochs == 0


def _epoch(search: Search, runs: list[Run], population: Population, standing: Standing,
           frozen: Any, epoch: int) -> np.ndarray:
    """Trains all members for an epoch; their mean losses [P], NaN where one went bad."""
    phase, recipe = search.recipe.phases[0], search.recipe
    plans = [start.plan(shown(phase, search.view, policy), run.recipe, epoch)
             for run, policy in zip(runs, standing.policies)]
    standing.members, reports = population.advance(
        standing.members, frozen, runs[0].resident, population.place(plans),
        recipe.steps_per_epoch(phase))
    standing.epoch = epoch + 1
    found = [jax.device_get(population.part(reports, own)) for own in range(search.members)]
    return np.array([np.nan if report["bad_step"] >= 0 else report["metrics"]["loss"]
                     for report in found])


def shown(phase: Phase, view: str, policy: pba.Policy) -> Phase:
    """The phase under a member's policy of the moment."""
    probabilities, levels = (numbers[0] for numbers in pba.knobs([policy]))
    knobs = phase.knobs
    policies = {**knobs.policies, view: _with(
        knobs.policies[view], probabilities=probabilities, levels=levels)}
    return replace(phase, knobs=replace(knobs, policies=policies))


def _decide(search: Search, shared: Run, population: Population, standing: Standing,
            tell: "Teller", losses: np.ndarray, last: bool) -> None:
    """Rewards everybody by held-out images; but at the end, the lowest follow the highest."""
    phase = search.recipe.phases[0]
    found = population.score(standing.members, evaluation_batches(shared, phase, "holdout"))
    scores = np.where(np.isnan(losses), np.nan, found)
    pba.winner(scores)  # raises NumericsError where nobody has a number
    began = time.perf_counter()
    standing.scores, donors = scores.tolist(), np.arange(search.members)
    if not last:
        decision = pba.decide(
            standing.policies, standing.logs, scores, standing.epoch, search.recipe.seed,
            standing.epoch // search.interval_epochs - 1, search.quantile)
        donors, standing.policies, standing.logs = (
            decision.donors, decision.policies, decision.logs)
        standing.members = population.choose(standing.members, donors.tolist())
        jax.block_until_ready(standing.members)
    tell.decision(standing, losses, donors, time.perf_counter() - began)


class Teller:
    """A row of the log and a line on the screen for every decision."""

    def __init__(self, search: Search, log: metrics.Log, epoch: int):
        self.search, self.log, self.phase = search, log, search.recipe.phases[0]
        self.progress = metrics.Progress(self.phase.name, int(self.phase.epochs))
        self.epoch, self.time = epoch, time.perf_counter()

    def decision(self, standing: Standing, losses: np.ndarray, donors: np.ndarray,
                 bookkeeping_s: float) -> None:
        """`bookkeeping_s`: what explore, exploit and the exchange of states took."""
        now, epochs = time.perf_counter(), standing.epoch - self.epoch
        seconds, scores = now - self.time, np.array(standing.scores)
        steps = self.search.recipe.steps_per_epoch(self.phase)
        images = epochs * steps * self.phase.batch_size * self.search.members
        best, median = float(np.nanmax(scores)), float(np.nanmedian(scores))
        self.log.row("train", standing.epoch * steps, {
            "epoch": standing.epoch, "loss": float(np.nanmedian(losses)), "best_reward": best,
            "median_reward": median, "exploits": int((donors != np.arange(len(donors))).sum()),
            "bookkeeping_s": round(bookkeeping_s, 4), "seconds": round(seconds, 4),
            "images_per_s": round(images / seconds, 1)})
        left = int((self.phase.epochs - standing.epoch) * seconds / max(epochs, 1))
        every, total = self.search.interval_epochs, int(self.phase.epochs)
        self.progress.say(
            f"generation {-(-standing.epoch // every)}/{-(-total // every)}  epoch "
            f"{standing.epoch}/{total}  best reward {best:.2%}  median {median:.2%}  "
            f"{left // 60}:{left % 60:02d} left")
        self.epoch, self.time = standing.epoch, now


# --- beginnings and ends -------------------------------------------------------------------------


def _standing(search: Search, shared: Run, runs: list[Run], frozen: Any, lowering: str, step: int
              ) -> tuple[Population, Standing]:
    """The compiled population, and where it stands: at its start, or at the save of `step`."""
    phase = search.recipe.phases[0]
    if step:
        like = {str(slot): shared.shapes[phase.name].state for slot in range(search.members)}
        found = checkpoint.load(checkpoint.folder_of(shared.workdir, SAVES, step), like)
        states = [found[str(slot)] for slot in range(search.members)]
    else:
        states = [begin(run, phase) for run in runs]
    under = shown(phase, search.view, pba.start_policies(search.members)[0])
    population = make_population(shared, under, states[0], frozen, search.members, lowering,
                                 one_frozen=True)
    standing = Standing(0, population.join(states), pba.start_policies(search.members),
                        ((),) * search.members, [])
    if step:
        kept = json.loads((shared.workdir / DECISIONS / f"{step}.json").read_text())
        standing.policies, standing.logs = pba.from_json(kept)
        standing.epoch, standing.scores = kept["epoch"], kept["scores"]
    return population, standing


def _save(shared: Run, population: Population, standing: Standing, size: int, log: metrics.Log
          ) -> None:
    """Saves all members, and before them what the host knows of them."""
    recipe = shared.recipe
    step = standing.epoch * recipe.steps_per_epoch(recipe.phases[0])
    known = pba.to_json(standing.policies, standing.logs) | {
        "epoch": standing.epoch, "scores": standing.scores}

    def first():
        (shared.workdir / DECISIONS).mkdir(exist_ok=True)
        folder.write_json(shared.workdir / DECISIONS / f"{step}.json", known)
        log.flush()

    states = {str(own): population.part(standing.members, own) for own in range(size)}
    shared.writer.save(SAVES, step, states, first)


def _finish(search: Search, shared: Run, population: Population, standing: Standing,
            log: metrics.Log) -> None:
    """The winner: its schedule, its test accuracy, its network."""
    phase, recipe = search.recipe.phases[0], search.recipe
    own = pba.winner(standing.scores)
    policy = _find(phase.knobs.policies[search.view])
    schedule = pba.schedule_of_lineage(
        standing.logs[own], standing.policies[own], int(phase.epochs), policy.map, policy.ops)
    state, step = population.part(standing.members, own), recipe.steps(phase)
    shared.writer.save(phase.name, step, state)
    shared.writer.wait()
    log.row("eval", step, {**judged(shared, phase, state), "seconds": 0.0})
    log.flush()
    shared.note("phase done", phase=phase.name, step=step, member=own,
                **summary.facts(phase, state))
    folder.write_json(shared.workdir / "schedule.json", schedule)
    plot_schedule(schedule, shared.workdir / "schedule.png")
