"""Networks of 32, 4 and 2 bits, taught by nobody: the vanilla rows of role_wise_kd.

Claim     fewer bits, lower accuracy: ResNet-18 on CIFAR-100 74.85, 69.81, 67.06 % at 32, 4, 2 bits
          (role_wise_kd, Table 2)
Command   python -m launch.study --data_dir=DIR --workdir=runs/bits --config=\
              configs/cifar/role_wise_bits.py:network=resnet18
Cost      scale=small: 9 runs, about 0.25 device-hours on one of two CPU cores; full: not measured
Measured  scale=small, CIFAR-10 (JPEG copy), n 3, two CPU cores: 38.94 ± 0.45, 33.09 ± 0.90,
          31.48 ± 1.27 at 32, 4, 2 bits (README); full: not measured
Args      scale=full|small|tiny, network=resnet18|alexnet (of scale=full), dataset=cifar100|cifar10

Weights and activations by DoReFa, the first and the last layer in full precision (spec C6, C7).
All start from scratch (ambiguities RW19): 32 bits by SGD (recipe RW-fp), fewer by Adam (RW-q). The
paper gives no spread and no number of runs.
"""

from ml_collections import ConfigDict

from augjax import defaults, role_wise
from augjax.role_wise import BITS

PUBLISHED = {  # role_wise_kd, Table 2: top-1 at 32, 4 and 2 bits
    ("alexnet", "cifar10"): (90.58, 89.72, 88.77), ("alexnet", "cifar100"): (65.80, 60.25, 58.96),
    ("resnet18", "cifar10"): (93.57, 90.97, 90.00), ("resnet18", "cifar100"): (74.85, 69.81, 67.06),
}
WORDS = {"scale": tuple(role_wise.SCALES), "network": tuple(role_wise.NETWORKS),
         "dataset": ("cifar100", "cifar10")}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    name, network, dataset = chosen["scale"], chosen["network"], chosen["dataset"]
    model = role_wise.TOYS.get(name, role_wise.NETWORKS[network])
    setting, plain = role_wise.Setting(role_wise.SCALES[name], dataset, ()), role_wise.plain()
    rows = {"bits32": role_wise.train(setting, student=role_wise.whole(setting, model, plain))} | {
        f"bits{bits}": role_wise.from_scratch(setting, model, bits, plain) for bits in BITS}
    published = zip(rows, PUBLISHED[network, dataset]) if name == "full" else ()
    return defaults.study(
        f"Bits of {model} on {dataset}, taught by nobody", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2),
        data_note="the JPEG copy, where it is that",
        published={row: defaults.published(top1, "role_wise_kd, Table 2")
                   for row, top1 in published},
        comparisons=tuple(defaults.comparison(says, "role_wise_kd, Table 2")
                          for says in ("bits32 > bits4", "bits4 > bits2")),
    )
