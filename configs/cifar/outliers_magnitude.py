"""Ever stronger RandAugment in the outliers' own space, with and without a teacher, on CIFAR-100.

Claim     the teacher's K likeliest classes help at every magnitude, the more the stronger the
          distortion; with them a magnitude of 1 beats no augmentation, without them it does not
          (circumventing_outliers, Table 1)
Command   python -m launch.study --config=configs/cifar/outliers_magnitude.py:scale=full \\
              --data_dir=DIR --workdir=runs/outliers_magnitude
          small: --config=configs/cifar/outliers_magnitude.py:scale=small,dataset=cifar10
Cost      not measured
Measured  not measured
Rows      ra_M: two operations of the own space at magnitude M; ra_kd_M: and taught; teacher
Scales    full: WRN-28-10 taught by WRN-28-10, recipe AA-wrn (200 epochs), M = 0 to 7
          | small: ResNet-8 from ResNet-20, 5,000 images, 3 epochs (the teacher 6), M = 0, 1, 4, 7
          | tiny: two steps, for tests

What the paper leaves open has a key, beside "scale" (spec B5, CO2, CO3, M2), its default first:
  teacher=autoaugment|plain       what the teacher trained with; the paper calls it "unaware"
  sample=fixed|uniform            an operation moves by what M says, or by up to that
  topk=literal|renormalised       over which classes the K probabilities sum to 1: all, or the K
  network=wrn_28_10|wrn_28_10_tf  the common form, or AutoAugment's code's
  dataset=cifar100|cifar10        K = 5 or 3; Table 1 is of CIFAR-100
The teacher has a seed of its own, so no student begins with its weights. The paper does not say
how many runs an entry is the mean of; these are three.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

OPTIONS = {  # the first of each is the default
    "scale": ("full", "small", "tiny"),
    "dataset": ("cifar100", "cifar10"),
    "network": ("wrn_28_10", "wrn_28_10_tf"),
    "teacher": ("autoaugment", "plain"),
    "sample": ("fixed", "uniform"),
    "topk": ("literal", "renormalised"),
}
ERRORS = {  # Table 1, percent, M = 0 to 7
    "ra": (18.4, 19.5, 20.7, 22.4, 25.7, 31.6, 40.3, 55.1),
    "ra_kd": (18.0, 17.6, 18.5, 19.9, 21.9, 27.0, 34.9, 48.0),
}
TABLE = "circumventing_outliers, Table 1"
K = {"cifar10": 3, "cifar100": 5}
TOY = {"depth": 10, "widen": 1}
TEACHERS_SEED = 3


class Scale(NamedTuple):
    magnitudes: tuple[int, ...]
    epochs: float
    teacher_epochs: float
    images: int  # 0: all
    batch: int
    seeds: tuple[int, ...]


SCALES = {
    "full": Scale(tuple(range(8)), 200.0, 200.0, 0, 128, (0, 1, 2)),
    "small": Scale((0, 1, 4, 7), 3.0, 6.0, 5000, 64, (0, 1, 2)),
    "tiny": Scale((0, 1), 1.0, 1.0, 32, 16, (0,)),
}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, OPTIONS)
    scale = SCALES[chosen["scale"]]
    rows = {f"{line}_{magnitude}": _student(chosen, magnitude, taught=line == "ra_kd")
            for line in ERRORS for magnitude in scale.magnitudes}
    return defaults.study(
        "RandAugment in the outliers' own space, without and with the teacher's likeliest classes",
        {"teacher": _teacher(chosen), **rows},
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=chosen["scale"], seeds=scale.seeds, seeds_of={"teacher": (TEACHERS_SEED,)},
        report_of={"teacher": "teacher"}, published=_published(chosen),
        comparisons=_comparisons(scale.magnitudes),
        figures={"magnitude": defaults.figure("distortion magnitude M", scale.magnitudes, {
            label: tuple(f"{line}_{magnitude}" for magnitude in scale.magnitudes)
            for line, label in (("ra", "RandAugment"), ("ra_kd", "RandAugment and KD"))})},
    )


def _student(chosen: dict[str, str], magnitude: int, taught: bool) -> ConfigDict:
    scale = SCALES[chosen["scale"]]
    policy = defaults.policy(
        "outliers", fill="mean", magnitude=float(magnitude),
        magnitude_schedule=defaults.schedule(), sample=chosen["sample"], num_layers=2)
    terms = {"ce": defaults.term("cross_entropy")}
    if taught:
        terms["kl"] = defaults.term("topk_kl", 1.0, k=K[chosen["dataset"]],
                                    renormalise=chosen["topk"] == "renormalised")
    return _config(chosen, "student", scale.epochs, model=_model(chosen, "resnet8"), terms=terms,
                   views={"train": defaults.view("crop_flip", policy)},
                   teacher="row:teacher" if taught else defaults.NONE)


def _teacher(chosen: dict[str, str]) -> ConfigDict:
    view = defaults.view("crop_flip")
    if chosen["teacher"] == "autoaugment":
        view = defaults.view("autoaugment_cifar", defaults.policy("autoaugment", fill="mean"))
    return _config(chosen, "teacher", SCALES[chosen["scale"]].teacher_epochs,
                   model=_model(chosen, "resnet20"), views={"train": view})


def _model(chosen: dict[str, str], small: str) -> ConfigDict:
    if chosen["scale"] == "small":
        return defaults.model(small)
    return defaults.model(chosen["network"], **(TOY if chosen["scale"] == "tiny" else {}))


def _config(chosen: dict[str, str], phase: str, epochs: float, **fields) -> ConfigDict:
    scale = SCALES[chosen["scale"]]
    recipe = papers.autoaugment_wrn(epochs, scale.batch)
    return defaults.config({phase: defaults.phase(**recipe, **fields)},
                           data={"name": chosen["dataset"], "limit": scale.images},
                           checkpoint={"every_epochs": max(1.0, epochs / 12), "keep": 1})


def _published(chosen: dict[str, str]) -> dict[str, ConfigDict]:
    if (chosen["scale"], chosen["dataset"]) != ("full", "cifar100"):
        return {}
    return {f"{line}_{magnitude}": defaults.published(round(100 - error, 1), TABLE)
            for line, errors in ERRORS.items() for magnitude, error in enumerate(errors)}


def _comparisons(magnitudes: tuple[int, ...]) -> tuple[ConfigDict, ...]:
    """Taught beats untaught at every M; taught at M = 1 beats M = 0, untaught does not."""
    says = [f"ra_kd_{magnitude} > ra_{magnitude}" for magnitude in magnitudes]
    says += ["ra_kd_1 > ra_0", "ra_kd_1 > ra_kd_0", "ra_0 > ra_1"]
    return tuple(defaults.comparison(words, TABLE) for words in says)
