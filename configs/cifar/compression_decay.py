"""Pruning step by step with a magnitude that falls, against one that stays.

Claim     a magnitude that falls with the weights that are left gives more, at every sparsity, than
          any of four that stay, and these more than none (augmentation_in_compression, Figure 3,
          whose curves are only plotted)
Command   python -m launch.study --config=configs/cifar/compression_decay.py:scale=small \\
              --data_dir=DIR --workdir=runs/decay
Cost      scale=small: 18 runs, 1.0 device-hours on one of two busy CPU cores; full: not measured
Measured  scale=small, CIFAR-10 (JPEG copy), n 3, two CPU cores: decayed 35.54 ± 0.99, none
          39.06 ± 0.48, constants 35.75 to 37.85 (README); full: not measured
Args      scale=full|small|tiny, retrain=finetune|full

A dense ResNet-20 on CIFAR-100 is trained and then pruned to 0.2, 0.4 and 0.6, each step from the
last (spec C3). retrain=finetune: a tenth of the rate for half the epochs; full: the whole recipe.
A magnitude by sparsity is `magnitude_schedule` of kind "sparsity": between its points it is
interpolated, so another ladder needs no other table. Compared is what stands after the last rung;
those before it are in table.json (`other_phases`).
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

OPTIMA = {0.0: 14.0, 0.2: 12.0, 0.4: 8.0, 0.6: 4.0}  # augmentation_in_compression IV-A (B)
LADDER = tuple(OPTIMA)[1:]
RETRAIN = {"finetune": papers.fine_tuning, "full": papers.repdistiller}


class Scale(NamedTuple):
    model: str
    dataset: str
    epochs: float
    images: int  # 0: all
    batch: int = 64


SCALES = {
    "full": Scale("resnet20", "cifar100", 240.0, 0),
    "small": Scale("resnet8", "cifar10", 3.0, 5000),
    "tiny": Scale("resnet8_tiny", "cifar10", 1.0, 32, 16),
}
WORDS = {"scale": tuple(SCALES), "retrain": tuple(RETRAIN)}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    name, retrain = chosen["scale"], RETRAIN[chosen["retrain"]]
    magnitudes = {"none": None, "decayed": falling()} | {
        f"constant{m:g}": defaults.randaugment(m) for m in OPTIMA.values()}
    rows = {row: training(SCALES[name], retrain, policy) for row, policy in magnitudes.items()}
    constants = [row for row in rows if row.startswith("constant")]
    return defaults.study(
        "A magnitude that falls while weights are pruned", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2),
        report=f"pruned-{len(LADDER)}", data_note="the JPEG copy, where it is that",
        comparisons=tuple(
            defaults.comparison(f"decayed > {row}", "augmentation_in_compression, Figure 3")
            for row in (*constants, "none")),
    )


def falling() -> ConfigDict:
    """The optimum of the phase's own sparsity."""
    return defaults.randaugment(OPTIMA[0.0], defaults.schedule(
        "sparsity", sparsities=tuple(OPTIMA), points=tuple(OPTIMA.values())))


def training(scale: Scale, retrain, policy: ConfigDict | None) -> ConfigDict:
    same = {"model": defaults.model(scale.model),
            "views": {"train": defaults.view("crop_flip", policy)}}
    phases = {
        "dense": defaults.phase(
            **same, transform={"mask": defaults.mask(0.0)},
            **papers.repdistiller(scale.model, scale.epochs, scale.batch)),
        "pruned": defaults.phase(
            **same, transform={"mask": defaults.mask(LADDER[0])}, init="phase:dense",
            repeat={"sparsity": LADDER}, **retrain(scale.model, scale.epochs, scale.batch)),
    }
    return defaults.config(phases, data={"name": scale.dataset, "limit": scale.images},
                           checkpoint={"every_epochs": max(1.0, scale.epochs / 12), "keep": 1})
