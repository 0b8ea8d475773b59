"""How many augmentations A2-Aug takes: from one to six, by draws that begin alike, on CIFAR.

Claim     four or five augmentations do; of more than five it hardly matters which were drawn
          (a2_aug, Figure 4, of WRN-40-2 on CIFAR-100 by 10 seeds, which is only plotted)
Command   python -m launch.study --config=configs/cifar/a2_count.py:scale=small \\
              --data_dir=DIR --workdir=runs/a2_count
Cost      not measured
Measured  not measured
Rows      nN_dD: the first N augmentations of draw D, trained by seed D; a line of the plot for each
          draw, so that their spread is that of the figure's error bars
Args      scale=full|small|tiny
Scales    full: WRN-40-2 on CIFAR-100, recipe AA-wrn (200 epochs), 5,000 images held out, draws 0 to
          9 | small: ResNet-8 on CIFAR-10, 5,000 images and 1,000 held out, 3 epochs, N = 1, 2 and
          4, three draws | tiny: two steps

Top-1 is that of the branch which held-out images select. Which N the figure has cannot be read from
the text copy. Epochs are the same for all N, so an update of N branches costs N times as much.
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
    counts: tuple[int, ...]
    draws: int


SCALES = {
    "full": Scale("wrn_40_2", {}, "cifar100", 200.0, 128, 0, 5000, (1, 2, 3, 4, 5, 6), 10),
    "small": Scale("resnet8", {}, "cifar10", 3.0, 64, 5000, 1000, (1, 2, 4), 3),
    "tiny": Scale("wrn_40_2", {"depth": 10, "widen": 1}, "cifar10", 1.0, 16, 32, 100, (1, 2), 1),
}


def get_config(arg: str = "") -> ConfigDict:
    name = defaults.chosen(arg, {"scale": tuple(SCALES)})["scale"]
    scale = SCALES[name]
    draws, most = range(scale.draws), max(scale.counts)
    drawn = {draw: augment.sample_augmentations(most, draw) for draw in draws}
    rows = {f"n{count}_d{draw}": _row(scale, drawn[draw][:count])
            for draw in draws for count in scale.counts}
    return defaults.study(
        "How many augmentations A2-Aug takes", rows, weights="selected",
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(), scale=name, seeds=(0,),
        seeds_of={f"n{count}_d{draw}": (draw,) for draw in draws for count in scale.counts},
        data_note="the JPEG copy, where it is that",
        figures={"count": defaults.figure("augmentations", tuple(map(float, scale.counts)), {
            f"draw {draw}": tuple(f"n{count}_d{draw}" for count in scale.counts)
            for draw in draws})})


def _row(scale: Scale, augmentations: tuple[tuple[int, float], ...]) -> ConfigDict:
    phase = a2.joint(papers.autoaugment_wrn(scale.epochs, scale.batch),
                     defaults.model(scale.network, **scale.options), augmentations,
                     "autoaugment_cifar", "mean")
    return defaults.config(
        {"student": phase},
        data={"name": scale.dataset, "limit": scale.images, "holdout": scale.holdout},
        checkpoint={"every_epochs": max(1.0, scale.epochs / 12), "keep": 1})
