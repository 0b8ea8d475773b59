"""What A2-Aug is made of, taken away part by part, and its branches trained alone, on CIFAR.

Claim     separate BatchNorm, the learnt ensemble, the divergence and its normalised logits each add
          to A2-Aug, and one network does as well as one for each branch (a2_aug, Tables 5, 7 and 8,
          of ResNet-50 on ImageNet: configs/imagenet/a2.py); it beats the best of its augmentations
          trained alone with as many forward passes (ours: the paper compares epochs)
Command   python -m launch.study --data_dir=DIR --workdir=runs/a2_ablations \\
              --config=configs/cifar/a2_ablations.py:scale=small,part=evidence
Cost      scale=small,part=evidence: 24 runs, 0.43 device-hours on two CPU cores; full: not
          measured
Measured  scale=small, CIFAR-10 (JPEG copy), n 3, two CPU cores: a2 30.95 ± 0.97, average 31.35 ±
          0.34, shared_bn 29.79 ± 1.93, alone_1 44.29 ± 1.10 (README); full: not measured
Rows      a2 | alone_0 ... alone_3: its augmentations one by one, four times the epochs
          | average: the plain mean of the branches (Table 7) | shared_bn: one BatchNorm set for all
          (Table 5; of the four branches' images together) | none: crop, flip, cutout
          and with part=all: no_kl, no_norm (Table 8) | literal: Eq. 8 as it is written, where the
          divergence all but vanishes (spec A2) | independent: a network for each branch (Table 5)
Args      scale=full|small|tiny, part=all|evidence, draw=0|1|...|9 (seed of the augmentations)
Scales    full: WRN-40-2 on CIFAR-100, recipe AA-wrn (200 epochs), 5,000 images held out | small:
          ResNet-8 on CIFAR-10, 2,500 images and 1,000 held out, 2 epochs | tiny: two steps, two
          branches

Top-1 is that of the branch which held-out images select. Which single augmentation is best is
chosen on them too (`alone` in the table, by mean accuracy over seeds). In "no_norm" Q stands for
Q / ||Q||, at temperature 1.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import a2, augment, defaults, papers


class Scale(NamedTuple):
    network: str
    options: dict
    dataset: str
    epochs: float
    batch: int
    images: int  # 0: all
    holdout: int
    branches: int
    seeds: tuple[int, ...]


SCALES = {
    "full": Scale("wrn_40_2", {}, "cifar100", 200.0, 128, 0, 5000, 4, (0, 1, 2)),
    "small": Scale("resnet8", {}, "cifar10", 2.0, 64, 2500, 1000, 4, (0, 1, 2)),
    "tiny": Scale("wrn_40_2", {"depth": 10, "widen": 1}, "cifar10", 1.0, 16, 32, 100, 2, (0,)),
}
WORDS = {"scale": tuple(SCALES), "part": ("all", "evidence"), "draw": tuple(map(str, range(10)))}
EVIDENCE = ("a2", "average", "shared_bn", "none")  # and every augmentation alone
CLAIMS = {
    "a2 > shared_bn": "a2_aug, Table 5 (79.2, 74.7 on ImageNet)",
    "a2 > independent": "a2_aug, Table 5 (79.2, 79.0 on ImageNet)",
    "a2 > average": "a2_aug, Table 7 (79.2, 78.1 on ImageNet)",
    "a2 > no_norm": "a2_aug, Table 8 (79.2, 78.8 on ImageNet)",
    "no_norm > no_kl": "a2_aug, Table 8 (78.8, 77.5 on ImageNet)",
    "no_kl > none": "a2_aug, Table 8 (77.5, 76.3 on ImageNet)",
    "a2 > literal": "ours: spec A2",
}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    scale, draw = SCALES[chosen["scale"]], int(chosen["draw"])
    alone = [f"alone_{branch}" for branch in range(scale.branches)]
    rows = {row: config for row, config in _rows(scale, draw).items()
            if chosen["part"] == "all" or row in (*EVIDENCE, *alone)}
    claims = CLAIMS | {f"a2 > {row}": "ours: as many forward passes" for row in alone}
    return defaults.study(
        "What A2-Aug is made of", rows, weights="selected",
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(), scale=chosen["scale"],
        seeds=scale.seeds, data_note="the JPEG copy, where it is that",
        published={"a2": defaults.published(81.3, "a2_aug, Table 2", top1_std=0.3, runs=3)}
        if chosen["scale"] == "full" else {},
        comparisons=tuple(defaults.comparison(says, where) for says, where in claims.items()
                          if set(says.split(" > ")) <= set(rows)),
        optima={"alone": defaults.optimum(
            "augmentation", tuple(map(float, range(scale.branches))), "branches",
            (float(scale.branches),), (tuple(alone),))},
        curves=a2.curves(scale.branches, "a2", "average"))


def _rows(scale: Scale, draw: int) -> dict[str, ConfigDict]:
    model = defaults.model(scale.network, **scale.options)
    recipe = papers.autoaugment_wrn(scale.epochs, scale.batch)
    longer = papers.autoaugment_wrn(scale.branches * scale.epochs, scale.batch)
    drawn = augment.sample_augmentations(scale.branches, draw)
    seen = ("autoaugment_cifar", "mean")
    joint = {
        "a2": {}, "average": {"average": True}, "shared_bn": {"separate": False},
        "no_kl": {"kl_weight": 0.0}, "no_norm": {"logit_scale": "none"},
        "literal": {"logit_scale": "literal"},
    }
    phases = {"none": a2.alone(recipe, model, None, *seen)}
    phases |= {f"alone_{branch}": a2.alone(longer, model, augmentation, *seen)
               for branch, augmentation in enumerate(drawn)}
    phases |= {row: a2.joint(recipe, model, drawn, *seen, **options)
               for row, options in joint.items()}
    phases["independent"] = a2.independent(recipe, model, drawn, *seen)
    return {row: defaults.config(
        {"student": phase},
        data={"name": scale.dataset, "limit": scale.images, "holdout": scale.holdout},
        checkpoint={"every_epochs": max(1.0, phase.epochs / 12), "keep": 1})
        for row, phase in phases.items()}
