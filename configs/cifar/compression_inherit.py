"""Strong augmentation, learnt before pruning and inherited by what is left.

Claim     a network that is pruned after strong augmentation and retrained on weak ends above one
          that was pruned before (A) and one that never saw strong augmentation (B)
          (augmentation_in_compression, Figure 4, whose bars are only plotted); trained anew from
          random weights, the pruned network does not profit from strong augmentation (section V)
Command   python -m launch.study --data_dir=DIR --workdir=runs/inherit --config=\\
              configs/cifar/compression_inherit.py:scale=small,dataset=cifar10
Cost      scale=small: 15 runs, 1.1 device-hours on one of two busy CPU cores; full: not measured
Measured  scale=small, CIFAR-10 (JPEG copy), n 3, two CPU cores, sparsity 0.6: ours 38.81 ± 1.28,
          A 39.38 ± 0.58, B 40.18 ± 1.25 (README); full: not measured
Args      scale=full|small|tiny, network=resnet20|mobilenetv2|shufflenetv2 (of scale=full),
          dataset=cifar100|cifar10

Rows      b_pP      dense on weak, pruned to P %, retrained on weak
          a_pP      the mask of b, weights anew: pruned on strong, then on weak (spec C4's reading)
          ours_pP   dense on strong, pruned, retrained on weak
          anew_strong_pP, anew_weak_pP    the mask of b, weights anew, strong or weak throughout

Strong is M 14, the optimum of the dense ResNet-20; weak is the optimum of the sparsity, for the
other networks ResNet-20's. Both stages take the whole recipe, so all rows see equal epochs.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

NETWORKS = {"resnet20": "resnet20", "mobilenetv2": "mobilenetv2_cifar",
            "shufflenetv2": "shufflenetv2_cifar"}
STRONG = 14.0
WEAK = {0.2: 12.0, 0.4: 8.0, 0.6: 4.0, 0.9: 2.0}  # 0.9: ours, of no paper
PAPER = "augmentation_in_compression, Figure 4"


class Scale(NamedTuple):
    epochs: float
    images: int  # 0: all
    sparsities: tuple[float, ...]
    batch: int = 64


SCALES = {
    "full": Scale(240.0, 0, (0.2, 0.4, 0.6)),
    "small": Scale(3.0, 5000, (0.6,)),
    "tiny": Scale(1.0, 32, (0.6,), 16),
}
TOYS = {"small": "resnet8", "tiny": "resnet8_tiny"}
WORDS = {"scale": tuple(SCALES), "network": tuple(NETWORKS), "dataset": ("cifar100", "cifar10")}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    name = chosen["scale"]
    model = TOYS.get(name, NETWORKS[chosen["network"]])
    dataset = chosen["dataset"]
    rows = {}
    for sparsity in SCALES[name].sparsities:
        rows |= {f"{row}_p{100 * sparsity:.0f}": defaults.config(
            phases, data={"name": dataset, "limit": SCALES[name].images},
            checkpoint={"every_epochs": max(1.0, SCALES[name].epochs / 12), "keep": 1})
            for row, phases in schemes(SCALES[name], model, sparsity).items()}
    return defaults.study(
        f"Strong augmentation before pruning: {model} on {dataset}", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2), report="retrained",
        data_note="the JPEG copy, where it is that",
        comparisons=tuple(
            defaults.comparison(f"ours_p{100 * p:.0f} > {other}_p{100 * p:.0f}", source)
            for p in SCALES[name].sparsities
            for other, source in (("a", PAPER), ("b", PAPER), ("anew_strong", "section V"),
                                  ("anew_weak", "section V"))),
    )


def schemes(scale: Scale, model: str, sparsity: float) -> dict[str, dict[str, ConfigDict]]:
    """{row: its two stages}; the second is the same pruned network in all of them."""
    weak = WEAK[sparsity]
    anew = {"init": f"row:b_p{100 * sparsity:.0f}#retrained", "init_fresh": ("*",)}

    def stage(magnitude: float, pruned: float, **source) -> ConfigDict:
        return defaults.phase(
            model=defaults.model(model), transform={"mask": defaults.mask(pruned)},
            views={"train": defaults.view("crop_flip", defaults.randaugment(magnitude))},
            **source, **papers.repdistiller(model, scale.epochs, scale.batch))

    def then(magnitude: float) -> ConfigDict:
        return stage(magnitude, sparsity, init="phase:first")

    return {
        "b": {"first": stage(weak, 0.0), "retrained": then(weak)},
        "a": {"first": stage(STRONG, sparsity, **anew), "retrained": then(weak)},
        "ours": {"first": stage(STRONG, 0.0), "retrained": then(weak)},
        "anew_strong": {"first": stage(STRONG, sparsity, **anew), "retrained": then(STRONG)},
        "anew_weak": {"first": stage(weak, sparsity, **anew), "retrained": then(weak)},
    }
