"""A2-Aug as phases of a config: a branch for each of several augmentations, and their ensemble.

`augmentations` are (num_layers, magnitude) of RandAugment, as `augment.sample_augmentations` draws
them; branch i is the view "branch{i}". Every function takes the fields of a recipe, as `papers` has
them, a model's block and the base of the views; `ensemble` are options of
`losses.adaptive_ensemble`, every one of which becomes a field of the term "ensemble".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from augjax import check, defaults

Augmentations = Sequence[tuple[int, float]]
MOST = 10  # branches: a config has its views in alphabetical order


def joint(recipe: Mapping[str, Any], model: ConfigDict, augmentations: Augmentations, base: str,
          fill: Any = 128, separate: bool = True, **ensemble: Any) -> ConfigDict:
    """One network in one stacked pass, with a BatchNorm set for each branch (section 4.3).

    `separate` False is the ablation without: one set for all branches' rows together (Table 5).
    """
    count = len(augmentations)
    return _phase(recipe, model=_changed(model, domains=count if separate else 1),
                  views=_views(augmentations, base, fill, separate),
                  terms=_terms(count, **ensemble))


def independent(recipe: Mapping[str, Any], model: ConfigDict, augmentations: Augmentations,
                base: str, fill: Any = 128, **ensemble: Any) -> ConfigDict:
    """The ablation "ind.": a network for each branch, which sees no other view (Table 5).

    Where the recipe clips the gradient, its norm is that of all networks together.
    """
    nets = ("student", *(f"net{branch}" for branch in range(1, len(augmentations))))
    views = _views(augmentations, base, fill, separate=False)
    models = [_changed(model, views=(view,)) for view in views]
    terms = {f"ce{branch}": defaults.term("cross_entropy", 1.0, (view,), net=net)
             for branch, (view, net) in enumerate(zip(views, nets))}
    terms["ensemble"] = _ensemble(nets, **ensemble)
    return _phase(recipe, model=models[0], views=views, terms=terms,
                  peers={net: defaults.peer(own) for net, own in zip(nets[1:], models[1:])})


def of_scales(recipe: Mapping[str, Any], model: ConfigDict, scales: Sequence[int], base: str,
              **ensemble: Any) -> ConfigDict:
    """The multi-scale variant: image sizes in place of augmentations, a pass each (Table 9)."""
    count = len(scales)
    return _phase(
        recipe, model=_changed(model, domains=count, scales=tuple(scales)),
        views={f"branch{branch}": defaults.view(base, domain=branch) for branch in range(count)},
        terms=_terms(count, **ensemble))


def alone(recipe: Mapping[str, Any], model: ConfigDict, augmentation: tuple[int, float] | None,
          base: str, fill: Any = 128) -> ConfigDict:
    """Cross-entropy under one augmentation, or under the base alone."""
    view = defaults.view(base, _policy(augmentation, fill) if augmentation else None)
    return defaults.phase(**recipe, model=model, views={"train": view})


def curves(branches: int, *rows: str) -> dict[str, ConfigDict]:
    """What a study of these rows plots over epochs: how every branch and their ensemble do, and
    what each counts in it, which the first row has learnt."""
    lines = {"ensemble": defaults.curve("ensemble_accuracy", rows)}
    for i in range(branches):
        lines[f"weight_{i}"] = defaults.curve(f"ensemble_weight_{i}", rows[:1])
        lines[f"branch_{i}"] = defaults.curve(f"branch{i}_accuracy", rows)
    return lines


def imagenet(epochs: float = 120.0, batch: int = 1024) -> dict[str, Any]:
    """A2-IN: the paper gives epochs and batch; SGD, its rate and the cosine are RS-Nets' (spec)."""
    return {
        "optimizer": defaults.optimizer(
            learning_rate=0.1, learning_rate_schedule=defaults.schedule("cosine"), base_batch=256,
            weight_decay=1e-4),
        "epochs": epochs, "batch_size": batch, "eval": {"every_epochs": max(1.0, epochs / 12)}}


def _views(augmentations, base, fill, separate):
    check.require(1 <= len(augmentations) <= MOST, "augmentations", f"1 to {MOST}",
                  len(augmentations), "draw as many")
    return {f"branch{branch}": defaults.view(
        base, _policy(augmentation, fill), domain=branch if separate else 0)
        for branch, augmentation in enumerate(augmentations)}


def _policy(augmentation, fill):
    num_layers, magnitude = augmentation
    return defaults.randaugment(magnitude, num_layers=num_layers, fill=fill)


def _terms(count, **ensemble):
    """The mean over all rows times their number of branches is the sum over branches (Eq. 5)."""
    return {"ce": defaults.term("cross_entropy", count),
            "ensemble": _ensemble(**ensemble)}


def _ensemble(net="student", kl_weight=1.0, logit_scale="mean_norm", average=False):
    """All options as fields; a number as text, so that flags may put a word in its place."""
    return defaults.term("adaptive_ensemble", net=net, kl_weight=float(kl_weight),
                         logit_scale=str(logit_scale), average=average)


def _phase(recipe, **fields):
    """L2 would pull the ensemble's weights towards equal ones: it is the networks' alone (spec)."""
    phase = defaults.phase(**recipe, **fields)
    phase.optimizer.decay = ("nets/*",)
    return phase


def _changed(model, **fields):
    copy = ConfigDict(model.to_dict())
    copy.update(fields)
    return copy
