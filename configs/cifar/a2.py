"""A2-Aug beside cutout and AutoAugment on CIFAR: four augmentations drawn once, trained together.

Claim     A2-Aug beats crop and flip, cutout and AutoAugment in every network on both data sets
          (a2_aug, Table 2)
Command   python -m launch.study --data_dir=DIR --workdir=runs/a2 --config=\\
              configs/cifar/a2.py:network=wrn_28_10,dataset=cifar100
          small: --config=configs/cifar/a2.py:scale=small,dataset=cifar10
Cost      not measured; an update of "a2" has four rows of every image
Measured  not measured
Rows      none (crop, flip) | cutout | autoaugment | a2
Args      network=wrn_40_2|wrn_28_10|shake_shake_26_2x{32,96}d|pyramidnet_272_200
          dataset=cifar100|cifar10   draw=0|1|...|9: the seed that draws the augmentations
          logit_scale=mean_norm|literal|none: what is done to the logits of Eq. 8 (spec A2)
Scales    full: recipes AA-wrn (200 epochs), AA-ss, AA-pyr (1,800), 5,000 images held out | small:
          ResNet-8 whatever `network` says, 5,000 images and 1,000 held out, 3 epochs | tiny: two
          steps, two branches, toys of the same families

Top-1 of "a2" is that of the branch which held-out training images select, whose BatchNorm set is
then the network's; the paper does not say what it selects by. The table lists all branches and
their ensemble; the plots weight_I and branch_I have what was learnt and how they grew. The rows of
another kind train on the same images. Cutout stands behind every augmentation, crop and flip are
each branch's own (spec A5). Left out: PBA, Fast AutoAugment, RandAugment and DADA, which Table 2
repeats from their papers and which would have to be searched first (RandAugment by a grid).
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import a2, augment, defaults, papers

COUNT = 4
WIDE, SHAKE = ("wrn_40_2", "wrn_28_10"), "shake_shake_26_2x{}d"
PYRAMID = "pyramidnet_272_200"
TABLE = "a2_aug, Table 2"
COLUMNS = ("none", "cutout", "autoaugment", "a2")
ACCURACIES = {  # Table 2 in percent, "a2" with the deviation of three runs; None: not given
    ("cifar10", "wrn_40_2"): (94.4, 95.9, 96.3, 96.7, 0.2),
    ("cifar10", "wrn_28_10"): (96.1, 96.9, 97.4, 98.0, 0.3),
    ("cifar10", SHAKE.format(32)): (96.4, 97.0, 97.5, 97.7, 0.1),
    ("cifar10", SHAKE.format(96)): (97.1, 97.4, 98.0, 98.5, 0.1),
    ("cifar10", PYRAMID): (97.3, None, 98.5, 98.9, 0.2),
    ("cifar100", "wrn_40_2"): (74.0, 74.8, 79.3, 81.3, 0.3),
    ("cifar100", "wrn_28_10"): (81.2, 81.6, 82.9, 85.2, 0.4),
    ("cifar100", SHAKE.format(96)): (82.9, 84.0, 85.7, 86.8, 0.3),
}


class Scale(NamedTuple):
    """Where epochs and batch are 0, they are the recipe's own."""

    epochs: float
    batch: int
    images: int  # 0: all
    holdout: int
    branches: int
    seeds: tuple[int, ...]


SCALES = {
    "full": Scale(0.0, 0, 0, 5000, COUNT, (0, 1, 2)),
    "small": Scale(3.0, 64, 5000, 1000, COUNT, (0, 1, 2)),
    "tiny": Scale(1.0, 16, 32, 100, 2, (0,)),
}
WORDS = {  # what an argument may be; the first unless told
    "scale": tuple(SCALES), "dataset": ("cifar100", "cifar10"),
    "network": (*WIDE, SHAKE.format(32), SHAKE.format(96), PYRAMID),
    "draw": tuple(map(str, range(10))),
    "logit_scale": ("mean_norm", "literal", "none"),
}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    if chosen["scale"] == "small":
        chosen["network"] = "resnet8"
    scale, network, dataset = SCALES[chosen["scale"]], chosen["network"], chosen["dataset"]
    known = ACCURACIES.get((dataset, network), ())
    published = {row: defaults.published(top1, TABLE)
                 for row, top1 in zip(COLUMNS, known) if top1 and chosen["scale"] == "full"}
    if "a2" in published:
        published["a2"] = defaults.published(known[3], TABLE, top1_std=known[4], runs=3)
    worse = ("none", "cutout", "autoaugment")
    return defaults.study(
        f"A2-Aug: {network}, {dataset}", _rows(chosen), weights="selected",
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(), scale=chosen["scale"],
        seeds=scale.seeds, published=published,
        comparisons=tuple(defaults.comparison(f"a2 > {row}", TABLE) for row in worse),
        curves=a2.curves(scale.branches, "a2"))


def _rows(chosen: dict[str, str]) -> dict[str, ConfigDict]:
    scale, network = SCALES[chosen["scale"]], chosen["network"]
    toy = papers.TOYS[network.partition("_")[0]] if chosen["scale"] == "tiny" else {}
    model = defaults.model(network, **toy)
    budget = {"epochs": scale.epochs, "batch": scale.batch}
    recipe = papers.autoaugment(
        network, chosen["dataset"], **{name: value for name, value in budget.items() if value})
    drawn = augment.sample_augmentations(scale.branches, int(chosen["draw"]))
    autoaugment = defaults.view("autoaugment_cifar", defaults.policy("autoaugment", fill="mean"))
    phases = {
        "none": a2.alone(recipe, model, None, "crop_flip"),
        "cutout": a2.alone(recipe, model, None, "autoaugment_cifar"),
        "autoaugment": defaults.phase(**recipe, model=model, views={"train": autoaugment}),
        "a2": a2.joint(recipe, model, drawn, "autoaugment_cifar", "mean",
                       logit_scale=chosen["logit_scale"]),
    }
    return {row: defaults.config(
        {"student": phase},
        data={"name": chosen["dataset"], "limit": scale.images, "holdout": scale.holdout},
        checkpoint={"every_epochs": max(1.0, recipe["epochs"] / 12), "keep": 1})
        for row, phase in phases.items()}
