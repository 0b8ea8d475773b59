"""Which magnitude of RandAugment suits which sparsity: a grid of both, and the line through it.

Claim     the sparser the network, the weaker its best and its largest useful augmentation: M 14,
          12, 8, 4 at sparsity 0, 0.2, 0.4, 0.6 for ResNet-20 on CIFAR-100
          (augmentation_in_compression, Figure 1; its curves are only plotted)
Command   python -m launch.study --data_dir=DIR --workdir=runs/magnitude --config=\\
              configs/cifar/compression_magnitude.py:scale=small,dataset=cifar10
Cost      scale=small: 60 runs, 1.6 device-hours on one of two busy CPU cores; full: not measured
Measured  scale=small, CIFAR-10 (JPEG copy), n 3, two CPU cores: no magnitude beats none at any
          sparsity (README); full: not measured
Args      scale=full|small|tiny, network=resnet20|mobilenetv2|shufflenetv2 (of scale=full),
          dataset=cifar100|cifar10

Magnitudes are chosen on held-out training images and told on the test images. Every pruned network
starts from the dense one that was trained on crops and flips alone, pruned to its sparsity by
global L1 (spec C2), and is retrained by the whole recipe; the dense networks start from scratch.
All rows with a policy share one compiled program: mask and magnitude are arrays.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

NETWORKS = {"resnet20": "resnet20", "mobilenetv2": "mobilenetv2_cifar",
            "shufflenetv2": "shufflenetv2_cifar"}


class Scale(NamedTuple):
    epochs: float
    images: int  # 0: all
    held_out: int
    sparsities: tuple[float, ...]
    magnitudes: tuple[float, ...]
    batch: int = 64


SCALES = {
    "full": Scale(240.0, 0, 5000, (0.0, 0.2, 0.4, 0.6), tuple(map(float, range(31)))),
    "small": Scale(3.0, 5000, 1000, (0.0, 0.2, 0.4, 0.6, 0.9), (2.0, 6.0, 14.0)),
    "tiny": Scale(1.0, 32, 10, (0.0, 0.6), (4.0,), 16),
}
TOYS = {"small": "resnet8", "tiny": "resnet8_tiny"}  # whatever the network
WORDS = {"scale": tuple(SCALES), "network": tuple(NETWORKS), "dataset": ("cifar100", "cifar10")}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    name, dataset = chosen["scale"], chosen["dataset"]
    scale, model = SCALES[name], TOYS.get(name, NETWORKS[chosen["network"]])
    grid = {(p, m): f"p{100 * p:.0f}_m{m:g}" for p in scale.sparsities for m in scale.magnitudes}
    plain = {p: f"p{100 * p:.0f}_none" for p in scale.sparsities}
    rows = {row: training(scale, model, dataset, p, None) for p, row in plain.items()}
    rows |= {row: training(scale, model, dataset, p, m) for (p, m), row in grid.items()}
    return defaults.study(
        f"Magnitudes for sparsities: {model} on {dataset}", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2),
        data_note="the JPEG copy, where it is that",
        optima={"magnitudes": defaults.optimum(
            "magnitude", scale.magnitudes, "sparsity", scale.sparsities,
            tuple(tuple(grid[p, m] for m in scale.magnitudes) for p in scale.sparsities),
            tuple(plain.values()))},
    )


def training(scale: Scale, model: str, dataset: str, sparsity: float, magnitude: float | None
             ) -> ConfigDict:
    """One network: dense from scratch, or pruned from the dense one without RandAugment."""
    policy = None if magnitude is None else defaults.randaugment(magnitude)
    student = defaults.phase(
        model=defaults.model(model), views={"train": defaults.view("crop_flip", policy)},
        init="row:p0_none" if sparsity else "scratch",
        transform={"mask": defaults.mask(sparsity)},
        **papers.repdistiller(model, scale.epochs, scale.batch))
    return defaults.config(
        {"student": student},
        checkpoint={"every_epochs": max(1.0, scale.epochs / 12), "keep": 1},
        data={"name": dataset, "limit": scale.images, "holdout": scale.held_out})
