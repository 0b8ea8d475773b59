"""Networks of 32, 4 and 2 bits, taught by nobody: the vanilla rows of role_wise_kd.

Claim     fewer bits, lower accuracy: ResNet-18 on CIFAR-100 74.85, 69.81, 67.06 % at 32, 4, 2 bits
          (role_wise_kd, Table 2)
Command   python -m launch.study --data_dir=DIR --workdir=runs/bits --config=\\
              configs/cifar/role_wise_bits.py:network=resnet18
Cost      scale=small: 9 runs, 0.23 device-hours on one of two CPU cores; full: not measured
Measured  scale=small, CIFAR-10 (JPEG copy), n 3, two CPU cores: 38.94 ± 0.45, 39.98 ± 1.33,
          38.51 ± 0.62 at 32, 4, 2 bits (README); full: not measured
Args      scale=full|small|tiny, network=resnet18|alexnet (of scale=full), dataset=cifar100|cifar10

Weights and activations by DoReFa, the first and the last layer in full precision (spec C6, C7).
Quantised networks start from the weights of the 32-bit row; one epoch at rest renews their
BatchNorm statistics, since quantisation moves all activations; then Adam (recipe RW-q). The paper
gives no spread and no number of runs.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

BITS = (4, 2)
NETWORKS = {"resnet18": "resnet18_cifar", "alexnet": "alexnet_cifar"}
PUBLISHED = {  # role_wise_kd, Table 2: top-1 at 32, 4 and 2 bits
    ("alexnet", "cifar10"): (90.58, 89.72, 88.77), ("alexnet", "cifar100"): (65.80, 60.25, 58.96),
    ("resnet18", "cifar10"): (93.57, 90.97, 90.00), ("resnet18", "cifar100"): (74.85, 69.81, 67.06),
}


class Scale(NamedTuple):
    epochs: float
    images: int  # 0: all
    batch: int = 128


SCALES = {"full": Scale(200.0, 0), "small": Scale(4.0, 5000, 64), "tiny": Scale(1.0, 32, 16)}
TOYS = {"small": "resnet8", "tiny": "resnet8_tiny"}
WORDS = {"scale": tuple(SCALES), "network": tuple(NETWORKS), "dataset": ("cifar100", "cifar10")}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    name, network = chosen["scale"], chosen["network"]
    dataset = chosen["dataset"]
    rows = {row: defaults.config(
        phases, data={"name": dataset, "limit": SCALES[name].images},
        checkpoint={"every_epochs": max(1.0, SCALES[name].epochs / 12), "keep": 1})
        for row, phases in trainings(SCALES[name], TOYS.get(name, NETWORKS[network])).items()}
    published = zip(rows, PUBLISHED[network, dataset]) if name == "full" else ()
    return defaults.study(
        f"Bits of {TOYS.get(name, network)} on {dataset}, taught by nobody", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2),
        data_note="the JPEG copy, where it is that",
        published={row: defaults.published(top1, "role_wise_kd, Table 2")
                   for row, top1 in published},
        comparisons=tuple(defaults.comparison(says, "role_wise_kd, Table 2")
                          for says in ("bits32 > bits4", "bits4 > bits2")),
    )


def trainings(scale: Scale, model: str) -> dict[str, dict[str, ConfigDict]]:
    """{row: its phases}, the 32-bit network first."""
    views = {"train": defaults.view("crop_flip")}
    whole = defaults.phase(model=defaults.model(model), views=views,
                           **papers.role_wise(scale.epochs, scale.batch))
    return {"bits32": {"student": whole}} | {
        f"bits{bits}": quantised(scale, model, bits, views) for bits in BITS}


def quantised(scale: Scale, model: str, bits: int, views: dict[str, ConfigDict]
              ) -> dict[str, ConfigDict]:
    recipe = papers.role_wise_quantised(scale.epochs, scale.batch)
    same = {"model": defaults.model(model, activation_bits=bits), "views": views,
            "transform": {"dorefa": defaults.dorefa(bits)}}
    return {
        "settled": defaults.phase(**same, init="row:bits32", trains=("stats/*",),
                                  **{**recipe, "epochs": 1.0}),
        "student": defaults.phase(**same, init="phase:settled", **recipe),
    }
