"""KD from ResNet-110 under RandAugment whose magnitude is random, the best one, or filtered.

Claim     augmentation_in_compression, Figure 7: of several views of random magnitude, the one that
          the teacher knows best and the student least (Eq. 6) teaches more than any (baseline A)
          and, in 4 of 6 cases, than the one best magnitude (baseline B); choosing by what the
          teacher knows alone gains 0.59 points on CIFAR-100 with ResNet-20, by what the student
          does not know alone loses 1.24
Command   python -m launch.study --data_dir=DIR --workdir=runs/teacher_filter \\
              --config=configs/cifar/compression_teacher_filter.py:network=all,data=cifar100
Cost      not measured
Measured  not measured
Rows      "network=resnet20" (unless told), "network=mobilenetv2", "network=shufflenetv2" or
          "network=all" | "data=cifar100" (unless told) or "data=cifar10" | "magnitude=M" (0 to 30)
          for B; each row is NETWORK-VIEWS
Scales    full: recipe RD, 240 epochs, three seeds | small: ResNet-8 from ResNet-20 in place of all,
          5,000 images, 3 epochs (the teacher 6) | tiny: two steps, for tests

A's magnitudes are uniform over 0 to 30, anew for every image; the filter chooses among four such
views; the parts of Eq. 6 have weight 1, and "known" and "unlearnt" switch one of them off. None of
these numbers is in the paper, nor are its recipe and the weights of KD (0.1 and 0.9 at temperature
4, KT's): spec B9, D1 and R1 choose. The teacher has learnt with crop and flip alone.
The paper's text gives the best magnitude for ResNet-20 on CIFAR-100 alone, 14, from undistilled
training (Figure 1). The row "optimal" is there for that network and data, and for others where
"magnitude=M" says what a search has found. Of the figure, the text tells A and the two ablations of
ResNet-20 on CIFAR-100; only these are published here, and RepDistiller's teacher.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers


class Scale(NamedTuple):
    epochs: float
    teacher_epochs: float
    images: int  # 0: all
    batch: int
    networks: tuple[str, str] | None  # (teacher, student) in place of all


SCALES = {
    "full": Scale(240.0, 240.0, 0, 64, None),
    "small": Scale(3.0, 6.0, 5000, 64, ("resnet20", "resnet8")),
    "tiny": Scale(1.0, 1.0, 32, 16, ("resnet8_tiny", "resnet8_tiny")),
}
TEACHER = "resnet110"
STUDENTS = {"resnet20": "resnet20", "mobilenetv2": "mobilenetv2_cifar",
            "shufflenetv2": "shufflenetv2_cifar"}
CANDIDATES = 4  # views of an image that the filter chooses from
FILTERS = {  # {row: weights of Eq. 6's parts: the teacher's cross-entropy, KL of the student}
    "filter": (1.0, 1.0), "known": (1.0, 0.0), "unlearnt": (0.0, 1.0)}
BEST = {("resnet20", "cifar100"): 14.0}
FIGURE, TEXT = "augmentation_in_compression, Figure 7", "augmentation_in_compression, section IV-D"
CLAIMS = (("{0}-filter > {0}-random", FIGURE), ("{0}-filter > {0}-optimal", FIGURE),
          ("{0}-known > {0}-random", TEXT), ("{0}-random > {0}-unlearnt", TEXT),
          ("{0}-filter > {0}-known", TEXT))
PUBLISHED = {  # on CIFAR-100; the ablations as differences from the first
    "resnet20-random": (70.52, FIGURE), "resnet20-known": (71.11, TEXT),
    "resnet20-unlearnt": (69.28, TEXT), "teacher": (74.31, "RepDistiller's README")}
WORDS = {  # what an argument may be; the first unless told
    "network": (*STUDENTS, "all"), "data": ("cifar100", "cifar10"), "scale": tuple(SCALES),
    "magnitude": ("published", *map(str, range(31))),
}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    scale, dataset = SCALES[chosen["scale"]], chosen["data"]
    teacher = scale.networks[0] if scale.networks else TEACHER
    rows = {"teacher": _config(scale, dataset, _phase(scale, teacher, scale.teacher_epochs))}
    claims = []
    for name, network in STUDENTS.items():
        if chosen["network"] not in (name, "all"):
            continue
        network = scale.networks[1] if scale.networks else network
        magnitude = BEST.get((name, dataset))
        if chosen["magnitude"] != "published":
            magnitude = float(chosen["magnitude"])
        for row, fields in _rows(magnitude).items():
            rows[f"{name}-{row}"] = _config(scale, dataset, _taught(scale, network, **fields))
        claims += [defaults.comparison(says.format(name), source) for says, source in CLAIMS
                   if magnitude is not None or "optimal" not in says]
    told = chosen["scale"] == "full" and dataset == "cifar100"
    return defaults.study(
        f"Views filtered by the teacher, {dataset}", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(), scale=chosen["scale"],
        seeds_of={"teacher": (0,)}, comparisons=tuple(claims),
        published={row: defaults.published(*cell) for row, cell in PUBLISHED.items()
                   if told and row in rows})


def _rows(magnitude: float | None) -> dict[str, dict]:
    """What each row shows its student; B is left out where its magnitude is not known."""
    random = defaults.policy("ranged_randaugment", lowest=0.0, highest=30.0, num_layers=2,
                             map="torchvision", per="image")
    rows = {"random": {"views": {"train": defaults.view("crop_flip", random)}}}
    if magnitude is not None:
        best = defaults.randaugment(magnitude)
        rows["optimal"] = {"views": {"train": defaults.view("crop_flip", best)}}
    return rows | {
        name: {"views": {"train": defaults.view("crop_flip", random, rows=CANDIDATES)},
               "pick": defaults.pick("teacher_filter", ce_weight=ce, kl_weight=kl)}
        for name, (ce, kl) in FILTERS.items()}


def _taught(scale: Scale, network: str, **fields) -> ConfigDict:
    terms = {"ce": defaults.term("cross_entropy", 0.1),
             "kd": defaults.term("hinton", 0.9, tau=4.0, tau_square=True)}
    return _phase(scale, network, scale.epochs, teacher="row:teacher", terms=terms, **fields)


def _phase(scale: Scale, network: str, epochs: float, **fields) -> ConfigDict:
    """Recipe RD; without fields, cross-entropy under crop and flip."""
    return defaults.phase(**papers.repdistiller(network, epochs, scale.batch),
                          model=defaults.model(network), **fields)


def _config(scale: Scale, dataset: str, phase: ConfigDict) -> ConfigDict:
    return defaults.config(
        {"student": phase}, data={"name": dataset, "limit": scale.images},
        checkpoint={"every_epochs": phase.eval.every_epochs, "keep": 1})
