"""Role-wise augmentation: a policy learnt for the teacher, another one for its low-bit student.

Claim     a student under the policy that was learnt with its own bits and with its teacher's help
          (stage beta) ends above one under the teacher's policy, above distillation without any
          policy and above a policy without distillation, at 4 and at 2 bits: ResNet-18 on CIFAR-100
          69.81, 70.24, 73.85, 74.21 % at 4 bits (role_wise_kd, Tables 2 and 3)
Command   python -m launch.study --data_dir=DIR --workdir=runs/role_wise --config=\\
              configs/cifar/role_wise.py:network=resnet18
Cost      scale=small,part=evidence: 16 runs, 1.03 device-hours on two busy CPU cores; all else: not
          measured
Measured  scale=small, CIFAR-10 (JPEG copy), n 3, two CPU cores: beta4 38.88 ± 0.26, control4 39.92
          ± 0.31, beta2 37.86 ± 0.53, control2 38.12 ± 0.37 (README; crops and flips before the
          policies, no cutout); full: not measured
Args      scale=full|small|tiny, network=resnet18|alexnet (of scale=full), dataset=cifar100|cifar10,
          part=all|evidence (beta against control alone)
          (other ways of teaching: role_wise_methods.py; full precision: role_wise_pairs.py)

From nothing to the numbers, each stage resumable in its middle:

search_teacher   PBA with the teacher's architecture on 4,000 images of CIFAR-10 (spec P5), its
                 reward on 36,000 others; for CIFAR-100 this schedule is transferred
teacher          full precision under what was found (stage alpha)
vanillaK         K bits from scratch on crops and flips, taught by nobody; 32: full precision
alphaK           from scratch under the teacher's policy, taught by nobody
kdK              crops and flips, taught by `teacher` with II-KD
searchK          PBA with the K-bit student and its teacher's help, on the data set's own images
betaK            under what was found, taught (stage beta)
controlK         under the teacher's policy, taught (Table 3, A_T)

The searched student starts from the teacher's weights at once, without an epoch at rest. The
teacher has seen the search's held-out images, as in the paper.
"""

from ml_collections import ConfigDict

from augjax import defaults, role_wise
from augjax.role_wise import BITS

TABLES = "role_wise_kd, Tables 2 and 3"
PUBLISHED = {  # top-1 of vanilla 32, stage alpha 32 (the teacher), then by BITS of these rows
    ("alexnet", "cifar10"): (90.58, 91.62, {
        "vanilla": (89.72, 88.77), "alpha": (90.06, 89.28), "kd": (90.55, 89.18),
        "beta": (92.00, 90.63)}),
    ("alexnet", "cifar100"): (65.80, 66.40, {
        "vanilla": (60.25, 58.96), "alpha": (60.65, 58.59), "kd": (65.55, 63.49),
        "beta": (65.69, 64.06), "control": (64.97,)}),
    ("resnet18", "cifar10"): (93.57, 94.49, {
        "vanilla": (90.97, 90.00), "alpha": (91.47, 89.99), "kd": (91.42, 90.60),
        "beta": (94.44, 93.20)}),
    ("resnet18", "cifar100"): (74.85, 75.19, {
        "vanilla": (69.81, 67.06), "alpha": (70.24, 67.32), "kd": (73.85, 72.44),
        "beta": (74.21, 73.35), "control": (73.46,)}),
}
TAPS = ("f1", "f2", "f3", "f4")
EVIDENCE = ("beta", "control")  # and what they need
WORDS = {"scale": tuple(role_wise.SCALES), "network": tuple(role_wise.NETWORKS),
         "dataset": ("cifar100", "cifar10"), "part": ("all", "evidence")}


def get_config(arg: str = "") -> ConfigDict:
    words = defaults.chosen(arg, WORDS)
    name, network, dataset = words["scale"], words["network"], words["dataset"]
    setting = role_wise.Setting(
        role_wise.SCALES[name], dataset, TAPS if name == "full" else TAPS[:3])
    model = role_wise.TOYS.get(name, role_wise.NETWORKS[network])
    once = ("search_teacher", "teacher", *(f"search{bits}" for bits in BITS))
    wanted = once + tuple(f"{row}{bits}" for row in EVIDENCE for bits in BITS)
    rows = {row: config for row, config in stages(setting, model).items()
            if words["part"] == "all" or row in wanted}
    claims = [f"beta{bits} > {other}{bits}" for bits in BITS
              for other in ("control", "kd", "alpha", "vanilla")]
    return defaults.study(
        f"Role-wise augmentation: {model} on {dataset}", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2),
        seeds_of={} if name == "tiny" else dict.fromkeys(once, (0,)),
        data_note="the JPEG copy, where it is that",
        published={row: told for row, told in published(network, dataset).items()
                   if row in rows} if name == "full" else {},
        comparisons=tuple(defaults.comparison(says, TABLES) for says in claims
                          if set(says.split(" > ")) <= set(rows)))


def stages(setting: role_wise.Setting, model: str) -> dict[str, ConfigDict]:
    """{row: its training or search}, in the order of need."""
    found, plain = role_wise.replayed(setting, "search_teacher"), role_wise.plain()
    rows = {
        "search_teacher": role_wise.search(setting, role_wise.whole(
            setting, model, role_wise.searched(), searching=True), "cifar10"),
        "teacher": role_wise.train(setting, student=role_wise.whole(setting, model, found)),
        "vanilla32": role_wise.train(setting, student=role_wise.whole(setting, model, plain)),
    }
    for bits in BITS:
        own = role_wise.replayed(setting, f"search{bits}")
        rows[f"search{bits}"] = role_wise.low_bit_search(setting, model, bits, "ii_kd")
        rows |= {f"{row}{bits}": role_wise.from_scratch(setting, model, bits, shown)
                 for row, shown in (("vanilla", plain), ("alpha", found))}
        rows |= {f"{row}{bits}": role_wise.low_bit(
            setting, model, bits, shown, "row:teacher", "ii_kd")
            for row, shown in (("kd", plain), ("beta", own), ("control", found))}
    return rows


def published(network: str, dataset: str) -> dict[str, ConfigDict]:
    vanilla, alpha, others = PUBLISHED[network, dataset]
    known = {"vanilla32": vanilla, "teacher": alpha} | {
        f"{row}{bits}": top1 for row, values in others.items()
        for bits, top1 in zip(BITS, values)}
    return {row: defaults.published(top1, TABLES) for row, top1 in known.items()}
