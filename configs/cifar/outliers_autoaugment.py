"""AutoAugment with the teacher's K likeliest classes beside other augmentations, on CIFAR.

Claim     KD on AutoAugment's images beats AutoAugment, PBA and RandAugment alone, even where the
          teacher is the weaker network (circumventing_outliers, Table 2); 50 clean epochs after
          AutoAugment help, and more with KD in them (section 3.4)
Command   python -m launch.study --data_dir=DIR --workdir=runs/outliers_autoaugment --config=\\
              configs/cifar/outliers_autoaugment.py:network=wrn_28_10,dataset=cifar100
          with a PBA schedule as well: ...,schedule=FILE, the published log
          (pba/schedules/rcifar10_16_wrn.txt) or a schedule.json
          small: --config=configs/cifar/outliers_autoaugment.py:scale=small,dataset=cifar10
Cost      not measured
Measured  not measured
Rows      none (crop, flip) | autoaugment | pba (only where a schedule is given) | randaugment
          | autoaugment_kd, the paper's | clean, clean_kd: on from autoaugment | teacher
Scales    full: recipes AA-wrn (200 epochs), AA-ss, AA-pyr (1,800) | small: ResNet-8 from
          ResNet-20 whatever `network` says, 5,000 images, 3 epochs (the teacher 6, clean 0.75)
          | tiny: two steps, toys of the same families, for tests

  network=wrn_28_10|wrn_28_10_tf|shake_shake_26_2x{32,96,112}d|pyramidnet_272_200
  dataset=cifar100|cifar10    K = 5 or 3, weight 1
  topk=literal|renormalised   spec CO2

The teacher is a WRN-28-10 trained with AutoAugment; on CIFAR-100 PyramidNet is its own. It has a
seed that no student has. Numbers of the table but the last column were published by others;
Fast AutoAugment's column has no row, as augjax does not search for it. Not in the paper, and so
ours: three runs of each row; RandAugment's settings (N 2, M 14 on torchvision's scale, spec R1's
best for a dense network on CIFAR-100; the others' cutout behind it); the rate of the clean epochs,
a tenth of the first and a cosine again; and clean epochs for all but WRN-28-10 on CIFAR-100.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

WIDE, SHAKE = ("wrn_28_10", "wrn_28_10_tf"), "shake_shake_26_2x{}d"
PYRAMID = "pyramidnet_272_200"
OPTIONS = {  # the first of each is the default
    "scale": ("full", "small", "tiny"),
    "dataset": ("cifar100", "cifar10"),
    "network": (*WIDE, *(SHAKE.format(width) for width in (32, 96, 112)), PYRAMID),
    "topk": ("literal", "renormalised"),
    "schedule": (),  # a file
}
COLUMNS = ("none", "autoaugment", "pba", "randaugment", "autoaugment_kd")
ERRORS = {  # Table 2 in percent; None: not given
    ("cifar10", "wrn_28_10"): (3.9, 2.6, 2.6, 2.7, 2.4),
    ("cifar10", SHAKE.format(32)): (3.6, 2.5, 2.5, None, 2.3),
    ("cifar10", SHAKE.format(96)): (2.9, 2.0, 2.0, 2.0, 1.8),
    ("cifar10", SHAKE.format(112)): (2.8, 1.9, 2.0, None, 1.9),
    ("cifar10", PYRAMID): (2.7, 1.5, 1.5, 1.5, 1.5),
    ("cifar100", "wrn_28_10"): (18.8, 17.1, 16.7, 16.7, 16.2),
    ("cifar100", SHAKE.format(96)): (17.1, 14.3, 15.3, None, 13.8),
    ("cifar100", PYRAMID): (14.0, 10.7, 10.9, None, 10.6),
}
CLEAN = {"clean": 16.8, "clean_kd": 16.2}  # section 3.4, of WRN-28-10 on CIFAR-100
PAPER = "circumventing_outliers"
K = {"cifar10": 3, "cifar100": 5}
RANDAUGMENT_M = 14.0
CLEAN_RATE = 0.1  # of the first rate
TEACHERS_SEED = 3


class Scale(NamedTuple):
    """Where epochs are 0, they and the batch are the recipe's own."""

    epochs: float
    teacher_epochs: float
    clean_epochs: float
    batch: int
    images: int  # 0: all
    seeds: tuple[int, ...]


SCALES = {
    "full": Scale(0.0, 0.0, 50.0, 0, 0, (0, 1, 2)),
    "small": Scale(3.0, 6.0, 0.75, 64, 5000, (0, 1, 2)),
    "tiny": Scale(1.0, 1.0, 1.0, 16, 32, (0,)),
}


class Choice(NamedTuple):
    """What the arg chose; `schedule` is "" where no PBA schedule was given."""

    scale: str
    dataset: str
    network: str
    topk: str
    schedule: str


def get_config(arg: str = "") -> ConfigDict:
    chosen = Choice(**defaults.chosen(arg, OPTIONS))
    return defaults.study(
        f"AutoAugment and the teacher's likeliest classes: {chosen.network}, {chosen.dataset}",
        _rows(chosen), claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=chosen.scale, seeds=SCALES[chosen.scale].seeds,
        seeds_of={"teacher": (TEACHERS_SEED,)}, report_of={"teacher": "teacher"},
        published=_published(chosen), comparisons=_comparisons(chosen),
    )


def _rows(chosen: Choice) -> dict[str, ConfigDict]:
    scale, taught = SCALES[chosen.scale], {"teacher": "row:teacher", "terms": _topk(chosen)}
    student, teacher = _networks(chosen)
    policies = {
        "autoaugment": defaults.policy("autoaugment", fill="mean"),
        "randaugment": defaults.randaugment(RANDAUGMENT_M, fill="mean"),
    }
    if chosen.schedule:
        policies["pba"] = defaults.policy("replay", fill="mean", schedule=chosen.schedule)
    views = {"none": {"train": defaults.view("crop_flip")}} | {
        name: {"train": defaults.view("autoaugment_cifar", policy)}
        for name, policy in policies.items()}

    def row(view: str, **fields) -> ConfigDict:
        return _config(chosen, "student", student, scale.epochs, views=views[view], **fields)

    def clean(**fields) -> ConfigDict:
        config = _config(chosen, "student", student, scale.clean_epochs, views=views["none"],
                         init="row:autoaugment", **fields)
        config.student.optimizer.learning_rate *= CLEAN_RATE
        return config

    return {
        "teacher": _config(chosen, "teacher", teacher, scale.teacher_epochs,
                           views=views["autoaugment"]),
        **{name: row(name) for name in COLUMNS if name in views},
        "autoaugment_kd": row("autoaugment", **taught),
        "clean": clean(), "clean_kd": clean(**taught),
    }


def _topk(chosen: Choice) -> dict[str, ConfigDict]:
    return {"ce": defaults.term("cross_entropy"),
            "kl": defaults.term("topk_kl", 1.0, k=K[chosen.dataset],
                                renormalise=chosen.topk == "renormalised")}


def _networks(chosen: Choice) -> tuple[str, str]:
    """The student's and the teacher's."""
    if chosen.scale == "small":
        return "resnet8", "resnet20"
    own = chosen.network in WIDE or (chosen.dataset, chosen.network) == ("cifar100", PYRAMID)
    return chosen.network, chosen.network if own else WIDE[0]


def _config(chosen: Choice, phase: str, network: str, epochs: float, **fields) -> ConfigDict:
    scale, family = SCALES[chosen.scale], network.partition("_")[0]
    toy = papers.TOYS[family] if chosen.scale == "tiny" else {}
    budget = {"epochs": epochs, "batch": scale.batch}
    recipe = papers.autoaugment(
        network, chosen.dataset, **{name: value for name, value in budget.items() if value})
    return defaults.config(
        {phase: defaults.phase(model=defaults.model(network, **toy), **recipe, **fields)},
        data={"name": chosen.dataset, "limit": scale.images},
        checkpoint={"every_epochs": max(1.0, recipe["epochs"] / 12), "keep": 1})


# --- what was published --------------------------------------------------------------------------


def _errors(dataset: str, network: str) -> dict[str, float]:
    """{row: error in percent} of Table 2; both forms of WRN-28-10 have its row."""
    known = ERRORS.get((dataset, network.removesuffix("_tf")), ())
    return {name: error for name, error in zip(COLUMNS, known) if error}


def _published(chosen: Choice) -> dict[str, ConfigDict]:
    if chosen.scale != "full":
        return {}
    teacher = _errors(chosen.dataset, _networks(chosen)[1])["autoaugment"]
    numbers = {"teacher": (teacher, "Table 2")} | {
        row: (error, "Table 2") for row, error in _errors(chosen.dataset, chosen.network).items()
        if row != "pba" or chosen.schedule}
    if chosen.dataset == "cifar100" and chosen.network in WIDE:
        numbers |= {row: (error, "section 3.4") for row, error in CLEAN.items()}
    return {row: defaults.published(round(100 - error, 1), f"{PAPER}, {where}")
            for row, (error, where) in numbers.items()}


def _comparisons(chosen: Choice) -> tuple[ConfigDict, ...]:
    """The paper's row against those that its table has below it, and the clean epochs."""
    errors = _errors(chosen.dataset, chosen.network)
    worse = [row for row, error in errors.items() if error > errors["autoaugment_kd"]
             and (row != "pba" or chosen.schedule)]
    return (*(defaults.comparison(f"autoaugment_kd > {row}", f"{PAPER}, Table 2") for row in worse),
            *(defaults.comparison(words, f"{PAPER}, section 3.4 (WRN-28-10, CIFAR-100)")
              for words in ("clean > autoaugment", "clean_kd > clean")))
