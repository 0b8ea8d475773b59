"""A2-Aug on ImageNet: three augmentations drawn once, its ablations, image sizes in their place.

Claim     A2-Aug gains 2.9 points with ResNet-50 and 3.0 with ResNet-200 (a2_aug, Table 3); without
          separate BatchNorm, learnt weights, the divergence or its normalised logits it gains less,
          a network for each branch no more (Tables 5, 7 and 8); sizes gain as well (Table 9)
Command   python -m launch.study --config=configs/imagenet/a2.py:network=resnet50,part=table3 \\
              --data_dir=DIR --workdir=runs/a2_imagenet
Cost      not measured; an update has three rows of every image. The paper's 1.6 times its baseline
          cannot be three forward and backward passes (spec A7): expect three times
Measured  not measured
Rows      part=table3: none, a2 | part=ablations: none, a2, independent, shared_bn, average, no_kl,
          no_norm, literal (ours) | part=scales: none, scales
Args      network=resnet50|resnet200 (published rows of the ablations are ResNet-50's)
          draw=0|1|...|9 (seed of the augmentations)   scale=full|tiny
Scales    full: recipe A2-IN (120 epochs), bfloat16 convolutions, 50,000 training images held out
          | tiny: two steps at 32 pixels, two branches

Top-1 is that of the branch which held-out images select. Not in the paper, and so ours: rate,
momentum, L2 and schedule (RS-Nets'), which sizes stand for the augmentations of Table 9 (224, 192,
160 and 128, MutualNet's), and how many runs its ablations have; here each row has three seeds.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import a2, augment, defaults


class Scale(NamedTuple):
    epochs: float
    batch: int
    images: int  # 0: all
    holdout: int
    pixels: int
    branches: int
    sizes: tuple[int, ...]
    options: dict  # of the network
    seeds: tuple[int, ...]


SCALES = {
    "full": Scale(120.0, 1024, 0, 50_000, 224, 3, (224, 192, 160, 128), {"dtype": "bfloat16"},
                  (0, 1, 2)),
    "tiny": Scale(1.0, 16, 32, 1000, 64, 2, (64, 32),
                  {"blocks": (1, 1, 1, 1), "widths": (8, 8, 16, 16)}, (0,)),
}
PARTS = {  # the first unless told
    "table3": ("none", "a2"),
    "ablations": ("none", "a2", "independent", "shared_bn", "average", "no_kl", "no_norm",
                  "literal"),
    "scales": ("none", "scales"),
}
WORDS = {"scale": tuple(SCALES), "part": tuple(PARTS), "network": ("resnet50", "resnet200"),
         "draw": tuple(map(str, range(10)))}
PUBLISHED = {  # {network: {row: (top-1, what else, table)}}
    "resnet50": {
        "none": (76.3, {}, 3), "a2": (79.2, {"top1_std": 0.4, "runs": 3}, 3),
        "independent": (79.0, {}, 5), "shared_bn": (74.7, {}, 5), "average": (78.1, {}, 7),
        "no_kl": (77.5, {}, 8), "no_norm": (78.8, {}, 8), "scales": (79.1, {}, 9)},
    "resnet200": {"none": (78.5, {}, 3), "a2": (81.5, {"top1_std": 0.5, "runs": 3}, 3)},
}
CLAIMS = {
    "a2 > none": 3, "a2 > shared_bn": 5, "a2 > independent": 5, "a2 > average": 7,
    "a2 > no_norm": 8, "no_norm > no_kl": 8, "no_kl > none": 8, "scales > none": 9,
}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    scale, network = SCALES[chosen["scale"]], chosen["network"]
    rows = _rows(scale, network, int(chosen["draw"]), PARTS[chosen["part"]])
    branches = len(scale.sizes) if chosen["part"] == "scales" else scale.branches
    shown = tuple(row for row in ("a2", "average", "scales") if row in rows)
    return defaults.study(
        f"A2-Aug on ImageNet, {network}: {chosen['part']}", rows, weights="selected",
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(), scale=chosen["scale"],
        seeds=scale.seeds,
        published={row: defaults.published(top1, f"a2_aug, Table {number}", **known)
                   for row, (top1, known, number) in PUBLISHED[network].items()
                   if row in rows and chosen["scale"] == "full"},
        comparisons=tuple(defaults.comparison(says, f"a2_aug, Table {number}")
                          for says, number in CLAIMS.items()
                          if set(says.split(" > ")) <= set(rows)),
        curves={f"weight_{i}": defaults.curve(f"ensemble_weight_{i}", shown)
                for i in range(branches)} | {
            f"branch_{i}": defaults.curve(f"branch{i}_accuracy", shown) for i in range(branches)
        } | {"ensemble": defaults.curve("ensemble_accuracy", shown)})


def _rows(scale: Scale, network: str, draw: int, wanted: tuple[str, ...]) -> dict[str, ConfigDict]:
    model = defaults.model(network, image_size=scale.pixels, **scale.options)
    recipe = a2.imagenet(scale.epochs, scale.batch)
    drawn = augment.sample_augmentations(scale.branches, draw)
    joint = {
        "a2": {}, "average": {"average": True}, "shared_bn": {"separate": False},
        "no_kl": {"kl_weight": 0.0}, "no_norm": {"logit_scale": "none"},
        "literal": {"logit_scale": "literal"},
    }
    phases = {row: a2.joint(recipe, model, drawn, "flip", **options)
              for row, options in joint.items()}
    phases["independent"] = a2.independent(recipe, model, drawn, "flip")
    phases["scales"] = a2.of_scales(recipe, model, scale.sizes, "flip")
    phases["none"] = a2.alone(recipe, model, None, "flip")
    return {row: defaults.config(
        {"student": phases[row]}, log={"every_steps": 100},
        data={"name": "imagenet2012", "image_size": scale.pixels, "resident": False,
              "limit": scale.images, "holdout": scale.holdout},
        checkpoint={"every_epochs": 1.0, "keep": 1}) for row in wanted}
