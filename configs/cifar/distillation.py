"""A small student taught by a larger network on CIFAR-10, under weak, mixed and strong views.

Claim     picked CutMix views teach more than CutMix views, and these more than weak ones
          (kd_thrives_on_da, Tables 1-2); the teacher's K likeliest classes tame strong RandAugment
          (circumventing_outliers, Tables 1 and 3); of several strong views, the one that the
          teacher knows and the student does not teaches more than any (augmentation_in_compression,
          Figure 7); decoupled KD teaches more than KD (mdistiller)
Command   python -m launch.study --config=configs/cifar/distillation.py:scale=small \\
              --data_dir=DIR --workdir=runs/distillation
Cost      scale=small: see the table that it writes; scale=full: not measured
Measured  scale=small: README; scale=full: not measured
Scales    full: ResNet-20 from ResNet-56, recipe RD (240 epochs) | small: ResNet-8 from ResNet-20,
          5,000 images, 3 epochs for every row (the teacher 6) | tiny: two steps, for tests

The papers have no CIFAR-10 rows for these pairs, so nothing published stands beside ours. Row dkd
of scale=full has mdistiller's numbers for this pair on CIFAR-100: beta 2
(configs/cifar100/dkd/res56_res20.yaml) and a weight that rises over 20 epochs (engine/cfg.py), here
at every step, there once an epoch. The other scales, too short for that, have its default beta, 8,
and no warm-up.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from augjax import defaults


class Scale(NamedTuple):
    student: str
    teacher: str
    epochs: float
    teacher_epochs: float
    images: int  # 0: all
    batch: int
    dkd: Mapping[str, Any] = {}  # options of its term


SCALES = {
    "full": Scale("resnet20", "resnet56", 240.0, 240.0, 0, 64, {
        "other_weight": 2.0, "weight_schedule": defaults.schedule(
            "table", epochs=(0.0, 20.0), points=(0.0, 1.0))}),
    "small": Scale("resnet8", "resnet20", 3.0, 6.0, 5000, 64),
    "tiny": Scale("resnet8_tiny", "resnet8_tiny", 1.0, 1.0, 32, 16),
}
CANDIDATES = 4  # views of an image that the teacher filter chooses from
KL = {"tau": 4.0, "tau_square": True}


def get_config(arg: str = "") -> ConfigDict:
    name = defaults.chosen(arg, {"scale": tuple(SCALES)})["scale"]
    scale = SCALES[name]
    rows = {row: _row(scale, **fields) for row, fields in _rows(scale).items()}
    return defaults.study(
        "What a larger teacher adds, by what the student sees",
        {"teacher": _teacher(scale), **rows},
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds_of={"teacher": (0,)}, report_of={"teacher": "teacher"},
        data_note="the JPEG copy, where it is that",
        comparisons=(
            defaults.comparison("kd > cross_entropy", "kd_thrives_on_da, Table 3"),
            defaults.comparison("dkd > kd", "mdistiller's README"),
            defaults.comparison("kd_cutmix > kd", "kd_thrives_on_da, Table 1"),
            defaults.comparison("kd_pick > kd_cutmix", "kd_thrives_on_da, Table 2"),
            defaults.comparison("randaugment9_topk > randaugment9",
                                "circumventing_outliers, Table 1"),
            defaults.comparison("randaugment20_topk > randaugment20",
                                "circumventing_outliers, Table 1"),
            defaults.comparison("randaugment9 > randaugment20",
                                "augmentation_in_compression, Figure 1"),
            defaults.comparison("teacher_filter > random_magnitude",
                                "augmentation_in_compression, Figure 7"),
        ),
    )


def _rows(scale: Scale) -> dict[str, dict]:
    """What each row shows its student, and what it minimises."""
    ce, kd = _ce(1.0), {"ce": _ce(0.1), "kd": defaults.term("hinton", 0.9, **KL)}
    weak = {"train": defaults.view("crop_flip")}
    mixed = {"ce": _ce(0.1, ("weak",)),
             "kd": defaults.term("hinton", 0.9, ("weak",), **KL)}
    topk = {"ce": ce, "kl": defaults.term("topk_kl", 1.0, k=3)}
    random = defaults.policy("ranged_randaugment", lowest=0.0, highest=30.0)
    candidates = {"train": defaults.view("crop_flip", random, rows=CANDIDATES)}
    return {
        "cross_entropy": {"views": weak, "terms": {"ce": ce}, "teacher": defaults.NONE},
        "kd": {"views": weak, "terms": kd},
        "dkd": {"views": weak, "terms": {"ce": ce, "kd": defaults.term("dkd", 1.0, **scale.dkd)}},
        "kd_cutmix": {
            "views": _weak_and_cutmix(1),
            "terms": mixed | {"kd_mixed": defaults.term("hinton", 0.9, ("mixed",), **KL)}},
        "kd_pick": {
            "views": _weak_and_cutmix(2), "pick": defaults.pick("top"),
            "terms": mixed | {"kd_mixed": defaults.term("hinton", 0.9, ("picked",), **KL)}},
        "randaugment9": {"views": _strong(9.0), "terms": {"ce": ce}, "teacher": defaults.NONE},
        "randaugment9_topk": {"views": _strong(9.0), "terms": topk},
        "randaugment20": {"views": _strong(20.0), "terms": {"ce": ce}, "teacher": defaults.NONE},
        "randaugment20_topk": {"views": _strong(20.0), "terms": topk},
        "random_magnitude": {"views": {"train": defaults.view("crop_flip", random)}, "terms": kd},
        "teacher_filter": {"views": candidates, "terms": kd,
                           "pick": defaults.pick("teacher_filter")},
    }


def _ce(weight: float, views: tuple[str, ...] = ()) -> ConfigDict:
    return defaults.term("cross_entropy", weight, views)


def _strong(magnitude: float) -> dict[str, ConfigDict]:
    return {"train": defaults.view("crop_flip", defaults.randaugment(magnitude))}


def _weak_and_cutmix(rows: int) -> dict[str, ConfigDict]:
    return {"weak": defaults.view("crop_flip"), "mixed": defaults.mixed("weak", rows=rows)}


def _row(scale: Scale, teacher: str = "row:teacher", **fields) -> ConfigDict:
    model = defaults.model(scale.student, bn_per_view=True)  # the papers' separate passes
    return _config(scale, student=_phase(scale.epochs, scale, model=model, teacher=teacher,
                                         **fields))


def _teacher(scale: Scale) -> ConfigDict:
    return _config(scale, teacher=_phase(
        scale.teacher_epochs, scale, model=defaults.model(scale.teacher),
        views={"train": defaults.view("crop_flip")}, terms={"ce": _ce(1.0)}))


def _phase(epochs: float, scale: Scale, **fields) -> ConfigDict:
    """Recipe RD of spec/recipes.md, its decays at the same shares of any number of epochs."""
    steps_down = defaults.schedule(
        "piecewise", epochs=tuple(epochs * share for share in (0.625, 0.75, 0.875)),
        factors=(0.1, 0.1, 0.1))
    rate = defaults.optimizer(learning_rate=0.05, weight_decay=5e-4,
                              learning_rate_schedule=steps_down)
    return defaults.phase(optimizer=rate, epochs=epochs, batch_size=scale.batch,
                          eval={"every_epochs": max(1.0, epochs / 12)}, **fields)


def _config(scale: Scale, **phases: ConfigDict) -> ConfigDict:
    return defaults.config(phases, data={"name": "cifar10", "limit": scale.images},
                           checkpoint={"every_epochs": max(1.0, max(
                               phase.epochs for phase in phases.values()) / 12), "keep": 1})
