"""What a search is asked for, and what is refused before it begins."""

from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import numpy as np

from augjax import check
from augjax.augment import PopulationPolicy
from augjax.search import pba
from augjax.train import summary
from augjax.train.phases import Recipe
from augjax.train.population import LOWERINGS


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


def describe(search: Search) -> dict[str, Any]:
    """A search made in Python as plain data, for config.json; it may go on in another lowering."""
    own = {field.name: getattr(search, field.name) for field in fields(Search)
           if field.name not in ("recipe", "lowering")}
    return summary.describe(search.recipe) | {"search": own}


def checked_fields(given: Any) -> dict[str, Any]:
    """What a config says of a search, as `Search` takes it beside its recipe. Raises ConfigError
    for a field that is none, of another type, or of a number that no recipe is searched with."""
    plain = {field.name: field.default for field in fields(Search) if field.name != "recipe"}
    whole = check.filled("search", given, plain, {})
    _check_numbers(whole["members"], whole["quantile"], whole["lowering"])
    return whole


def _check_numbers(members: int, quantile: float, lowering: str) -> None:
    pba.check_population(members)
    pba.check_quantile(quantile)
    check.one_of("search.lowering", lowering, ("", *LOWERINGS))


def check_search(search: Search) -> None:
    """Raises ConfigError for what cannot be searched, before any device work."""
    recipe = search.recipe
    _check_numbers(search.members, search.quantile, search.lowering)
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
    check.require(searched_policy(policy) is not None, f"{phase.name}.views.{search.view}.policy",
                  "kind pba, whose numbers a search sets", type(policy).__name__,
                  "use defaults.policy(\"pba\", ...), or name another view")


def _overlap(one: Any, other: Any) -> bool:
    """Whether two splits share images of one reader."""
    return one.reader is other.reader and bool(np.intersect1d(one.positions, other.positions).size)


def searched_policy(policy: Any) -> PopulationPolicy | None:
    """PBA's policy, alone or beside a view's erasing."""
    policy = getattr(policy, "policy", policy)
    return policy if isinstance(policy, PopulationPolicy) else None


def with_numbers(policy: Any, **numbers: Any) -> Any:
    """A policy with other probabilities and levels."""
    if isinstance(policy, PopulationPolicy):
        return replace(policy, **numbers)
    return replace(policy, policy=with_numbers(policy.policy, **numbers))
