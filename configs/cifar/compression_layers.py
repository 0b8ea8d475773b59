"""Strong augmentation, learnt with extra layers and kept when these are dropped.

Claim     a network that learns strong augmentation with extra layers, which are then dropped, ends
          above one that had them on weak augmentation alone (B), and this one above one that never
          had them (A) (augmentation_in_compression, Figure 6, whose bars are only plotted)
Command   python -m launch.study --data_dir=DIR --workdir=runs/layers --config=\\
              configs/cifar/compression_layers.py:scale=small,dataset=cifar10
Cost      not measured
Measured  not measured
Args      scale=full|small|tiny, network=resnet20|mobilenetv2|shufflenetv2 (of scale=full),
          dataset=cifar100|cifar10, head=reuse|reinit

The paper leaves nearly all of it open (spec C5 has the readings): the extra layers, 20 or nearly,
stand between the last stage and the head, have its shape, and leave by their names; before the
second stage one epoch at rest renews the BatchNorm statistics. Weak is M 14, the optimum of a
dense ResNet-20 and, by this reading, of the others; strong is M 20, beyond that optimum.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

NETWORKS = {  # {name: (network, extra blocks: about 20 layers)}
    "resnet20": ("resnet20", 10), "mobilenetv2": ("mobilenetv2_cifar", 7),
    "shufflenetv2": ("shufflenetv2_cifar", 7)}
WEAK, STRONG = 14.0, 20.0
PAPER = "augmentation_in_compression, Figure 6"


class Scale(NamedTuple):
    epochs: float
    images: int  # 0: all
    batch: int = 64


SCALES = {"full": Scale(240.0, 0), "small": Scale(3.0, 5000), "tiny": Scale(1.0, 32, 16)}
TOYS = {"small": ("resnet8", 3), "tiny": ("resnet8_tiny", 1)}
WORDS = {"scale": tuple(SCALES), "network": tuple(NETWORKS), "dataset": ("cifar100", "cifar10"),
         "head": ("reuse", "reinit")}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    name = chosen["scale"]
    model, extra = TOYS.get(name, NETWORKS[chosen["network"]])
    dataset = chosen["dataset"]
    fresh = ("head/*",) if chosen["head"] == "reinit" else ()
    rows = {row: defaults.config(
        phases(SCALES[name], model, blocks, first, fresh),
        data={"name": dataset, "limit": SCALES[name].images},
        checkpoint={"every_epochs": max(1.0, SCALES[name].epochs / 12), "keep": 1})
        for row, (blocks, first) in {
            "a": (0, STRONG), "b": (extra, WEAK), "ours": (extra, STRONG)}.items()}
    return defaults.study(
        f"Strong augmentation with extra layers: {model} on {dataset}", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2), report="small",
        data_note="the JPEG copy, where it is that",
        comparisons=tuple(defaults.comparison(says, PAPER)
                          for says in ("ours > b", "ours > a", "b > a")),
    )


def phases(scale: Scale, model: str, extra: int, first: float, fresh: tuple[str, ...]
           ) -> dict[str, ConfigDict]:
    """With the extra blocks on `first`; without them, statistics alone; without them on WEAK."""
    recipe = papers.repdistiller(model, scale.epochs, scale.batch)
    small = {"model": defaults.model(model), "views": shown(WEAK)}
    dropped = {"init_drop": ("extra_*",) if extra else (), "init_fresh": fresh}
    return {
        "large": defaults.phase(model=defaults.model(model, extra_blocks=extra),
                                views=shown(first), **recipe),
        "settled": defaults.phase(**small, init="phase:large", **dropped, trains=("stats/*",),
                                  **{**recipe, "epochs": 1.0}),
        "small": defaults.phase(**small, init="phase:settled", **recipe),
    }


def shown(magnitude: float) -> dict[str, ConfigDict]:
    return {"train": defaults.view("crop_flip", defaults.randaugment(magnitude))}
