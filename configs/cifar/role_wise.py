"""Role-wise augmentation: a policy learnt for the teacher, another one for its low-bit student.

Claim     a student under the policy that was learnt with its own bits and with its teacher's help
          (stage beta) ends above one under the teacher's policy, above distillation without any
          policy and above a policy without distillation, at 4 and at 2 bits: ResNet-18 on CIFAR-100
          69.81, 70.24, 73.85, 74.21 % at 4 bits (role_wise_kd, Tables 2 and 3)
Command   python -m launch.study --data_dir=DIR --workdir=runs/role_wise --config=\\
              configs/cifar/role_wise.py:network=resnet18
Cost      not measured
Measured  not measured
Args      scale=full|small|tiny, network=resnet18|alexnet (of scale=full), dataset=cifar100|cifar10

From nothing to the numbers, each stage resumable in its middle:

search_teacher   PBA with the teacher's architecture on 4,000 images of CIFAR-10 (spec P5), its
                 reward on 36,000 others; for CIFAR-100 this schedule is transferred
teacher          full precision under what was found (stage alpha)
vanillaK         K bits on crops and flips, taught by nobody; 32: full precision
alphaK           under the teacher's policy, taught by nobody
kdK              crops and flips, taught by `teacher` with II-KD
searchK          PBA with the K-bit student and its teacher's help, on the data set's own images
betaK            under what was found, taught (stage beta)
controlK         under the teacher's policy, taught (Table 3, A_T)

The searched student starts from the teacher's weights at once, without an epoch at rest. The
teacher has seen the search's held-out images, as in the paper.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

BITS = (4, 2)
NETWORKS = {"resnet18": "resnet18_cifar", "alexnet": "alexnet_cifar"}
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


class Scale(NamedTuple):
    epochs: float
    images: int  # 0: all
    reduced: tuple[int, int]  # of a search: training images, images that reward
    search_epochs: float
    search: dict[str, Any]
    batch: int = 128


SCALES = {
    "full": Scale(200.0, 0, (4000, 36000), 200.0, {}),
    "small": Scale(4.0, 5000, (1000, 1000), 9.0, {"members": 6}, 64),
    "tiny": Scale(1.0, 32, (32, 20), 2.0, {"members": 2, "interval_epochs": 1}, 16),
}
TOYS = {"small": "resnet8", "tiny": "resnet8_tiny"}
TAPS = {"resnet18": ("f1", "f2", "f3", "f4"), "alexnet": ("f1", "f2", "f3", "f4")}
WORDS = {"scale": tuple(SCALES), "network": tuple(NETWORKS), "dataset": ("cifar100", "cifar10")}


class Chosen(NamedTuple):
    scale: Scale
    model: str
    dataset: str
    taps: tuple[str, ...]


def get_config(arg: str = "") -> ConfigDict:
    words = defaults.chosen(arg, WORDS)
    name, network, dataset = words["scale"], words["network"], words["dataset"]
    taps = TAPS[network] if name == "full" else ("f1", "f2", "f3")
    rows = stages(Chosen(SCALES[name], TOYS.get(name, NETWORKS[network]), dataset, taps))
    once = ("search_teacher", "teacher", *(f"search{bits}" for bits in BITS))
    return defaults.study(
        f"Role-wise augmentation: {TOYS.get(name, network)} on {dataset}", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2),
        seeds_of={} if name == "tiny" else dict.fromkeys(once, (0,)),
        data_note="the JPEG copy, where it is that",
        published=published(network, dataset) if name == "full" else {},
        comparisons=tuple(defaults.comparison(f"beta{bits} > {other}{bits}", TABLES)
                          for bits in BITS for other in ("control", "kd", "alpha", "vanilla")))


def stages(chosen: Chosen) -> dict[str, ConfigDict]:
    """{row: its training or search}, in the order of need."""
    found, scale = {"train": replayed("row:search_teacher")}, chosen.scale
    plain = {"train": defaults.view("crop_flip")}
    recipe = papers.role_wise(scale.epochs, scale.batch)
    searched = papers.role_wise(scale.search_epochs, scale.batch)
    rows = {
        "search_teacher": search(chosen, "cifar10", whole(chosen, searching(), searched)),
        "teacher": train(chosen, student=whole(chosen, found, recipe)),
        "vanilla32": train(chosen, student=whole(chosen, plain, recipe)),
    }
    teaching = taught(chosen, scale.epochs)
    for bits in BITS:
        own = {"train": replayed(f"row:search{bits}")}
        rows |= {
            f"vanilla{bits}": low_bit(chosen, bits, plain, "row:vanilla32"),
            f"alpha{bits}": low_bit(chosen, bits, found, "row:teacher"),
            f"kd{bits}": low_bit(chosen, bits, plain, "row:teacher", teaching),
            f"search{bits}": search(chosen, chosen.dataset, quantised(
                chosen, bits, searching(), "row:teacher", scale.search_epochs,
                taught(chosen, scale.search_epochs))),
            f"beta{bits}": low_bit(chosen, bits, own, "row:teacher", teaching),
            f"control{bits}": low_bit(chosen, bits, found, "row:teacher", teaching),
        }
    return rows


def whole(chosen: Chosen, views: dict[str, ConfigDict], recipe: dict[str, Any]) -> ConfigDict:
    """A phase in full precision, taught by nobody."""
    return defaults.phase(model=defaults.model(chosen.model), views=views, **recipe)


def quantised(chosen: Chosen, bits: int, views: dict[str, ConfigDict], init: str, epochs: float,
              teaching: dict[str, Any]) -> ConfigDict:
    """A phase in `bits` bits that starts from another network (recipe RW-q)."""
    return defaults.phase(
        model=defaults.model(chosen.model, activation_bits=bits), views=views, init=init,
        transform={"dorefa": defaults.dorefa(bits)},
        **{**papers.role_wise_quantised(epochs, chosen.scale.batch), **teaching})


def low_bit(chosen: Chosen, bits: int, views: dict[str, ConfigDict], init: str,
            teaching: dict[str, Any] | None = None) -> ConfigDict:
    """An epoch at rest for BatchNorm's statistics, then the training."""
    settled = quantised(chosen, bits, views, init, 1.0, {"trains": ("stats/*",)})
    return train(chosen, settled=settled, student=quantised(
        chosen, bits, views, "phase:settled", chosen.scale.epochs, teaching or {}))


def taught(chosen: Chosen, epochs: float) -> dict[str, Any]:
    """II-KD from the teacher: lambda 0.4, halved thrice, cut by cross-entropy's gradient."""
    halved = defaults.schedule("piecewise", epochs=tuple(
        share * epochs for share in (0.3, 0.6, 0.9)), factors=(0.5,) * 3)
    return {
        "teacher": "row:teacher", "combine": defaults.combine("clipped"),
        "terms": {"ce": defaults.term("cross_entropy"), "kd": defaults.term(
            "ii_kd", 0.4, taps=chosen.taps, teacher_taps=chosen.taps, weight_schedule=halved)}}


def searching() -> dict[str, ConfigDict]:
    return {"train": defaults.view("crop_flip", defaults.searched())}


def replayed(schedule: str) -> ConfigDict:
    """What a search found, stretched to the phase's epochs."""
    return defaults.view("crop_flip", defaults.policy("replay", fill="mean", schedule=schedule))


def search(chosen: Chosen, dataset: str, phase: ConfigDict) -> ConfigDict:
    images, rewarding = chosen.scale.reduced
    return defaults.config(
        {"student": phase}, data={"name": dataset, "limit": images, "holdout": rewarding},
        checkpoint={"every_epochs": max(1.0, chosen.scale.search_epochs / 12), "keep": 1},
        search=defaults.search(**chosen.scale.search))


def train(chosen: Chosen, **phases: ConfigDict) -> ConfigDict:
    return defaults.config(
        phases, data={"name": chosen.dataset, "limit": chosen.scale.images},
        checkpoint={"every_epochs": max(1.0, chosen.scale.epochs / 12), "keep": 1})


def published(network: str, dataset: str) -> dict[str, ConfigDict]:
    vanilla, alpha, others = PUBLISHED[network, dataset]
    known = {"vanilla32": vanilla, "teacher": alpha} | {
        f"{row}{bits}": top1 for row, values in others.items()
        for bits, top1 in zip(BITS, values)}
    return {row: defaults.published(top1, TABLES) for row, top1 in known.items()}
