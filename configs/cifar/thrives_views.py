"""What KD shows its student on CIFAR-100: weak views, mixup, CutMix, and CutMix picked three ways.

Claim     kd_thrives_on_da, Tables 1 and 2: KD gains from mixup and more from CutMix, and of two
          CutMix views the half on which student and teacher differ most teaches best, better than
          the half on which either is least sure. Its own numbers have mixup above CutMix at
          resnet56-resnet20
Command   python -m launch.study --config=configs/cifar/thrives_views.py:pair=all \\
              --data_dir=DIR --workdir=runs/thrives_views
Cost      not measured
Measured  not measured
Rows      "pair=NAME" (resnet56-resnet20 unless told) or "pair=all"; each row is PAIR-VIEWS |
          "teacher=trained" (by recipe RD, one seed) or "teacher=converted": the paper's,
          RepDistiller's, in runs/teachers/NAME (as its row is called), as made by
          python -m launch.convert --source=repdistiller
Scales    full: recipe RD, 240 epochs, three seeds | small: ResNet-8 from ResNet-20 in place of any
          pair, 5,000 images, 3 epochs (the teacher 6) | tiny: two steps, for tests

"ce_mixup" and "ce_cutmix" are controls that the paper does not have: the same views under
cross-entropy with their mixed labels and no teacher (every batch mixed by mixup, half of them by
CutMix: spec B7). Under KD every batch is mixed, and the mixed labels are not used.
Left out of what was published: both entropies at vgg13-vgg8, garbled in the text copy (spec R3).

Figure 4, the mean KL of what is picked over that of its pool (Eq. 3's r, at least 1), is the plot
PAIR-r. The figure's curves of other data: the field `pick_ratio` in the rows of kind "train" of
metrics.jsonl in the runs kd_pick of configs/tiny_imagenet/thrives_pairs.py and kd_pick_200 of
configs/imagenet/thrives.py.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, pairs, papers


class Scale(NamedTuple):
    epochs: float
    teacher_epochs: float
    images: int  # 0: all
    batch: int
    networks: tuple[str, str] | None  # (teacher, student) in place of every pair


SCALES = {
    "full": Scale(240.0, 240.0, 0, 64, None),
    "small": Scale(3.0, 6.0, 5000, 64, ("resnet20", "resnet8")),
    "tiny": Scale(1.0, 1.0, 32, 16, ("resnet8_tiny", "resnet8_tiny")),
}
PAIRS = {pair: pairs.PAIRS[pair] for pair in
         ("resnet56-resnet20", "wrn40_2-wrn16_2", "vgg13-vgg8")}
PICKS = {  # {row: its criterion}
    "kd_pick": "kl", "kd_pick_teacher": "teacher_entropy", "kd_pick_student": "student_entropy"}
TABLE_1, TABLE_2 = "kd_thrives_on_da, Table 1", "kd_thrives_on_da, Table 2"
CLAIMS = (
    ("{0}-kd_mixup > {0}-kd", TABLE_1), ("{0}-kd_cutmix > {0}-kd", TABLE_1),
    ("{0}-kd_cutmix > {0}-kd_mixup", TABLE_1), ("{0}-kd_pick > {0}-kd_cutmix", TABLE_2),
    ("{0}-kd_pick > {0}-kd_pick_teacher", TABLE_2), ("{0}-kd_pick > {0}-kd_pick_student", TABLE_2),
)
ALONE = {"resnet56": 72.34, "resnet20": 69.06, "wrn_40_2": 75.61, "wrn_16_2": 73.26,
         "vgg13": 74.64, "vgg8": 70.36}
PUBLISHED = {  # {row: mean and standard deviation of three runs, in the order of PAIRS}
    "kd": (TABLE_1, ((70.66, 0.24), (74.92, 0.28), (72.98, 0.19))),
    "kd_mixup": (TABLE_1, ((71.00, 0.16), (75.33, 0.07), (73.79, 0.18))),
    "kd_cutmix": (TABLE_1, ((70.77, 0.17), (75.34, 0.19), (74.16, 0.18))),
    "kd_pick": (TABLE_2, ((70.99, 0.20), (75.59, 0.22), (74.43, 0.20))),
    "kd_pick_teacher": (TABLE_2, ((70.88, 0.10), (75.46, 0.07), None)),
    "kd_pick_student": (TABLE_2, ((70.84, 0.12), (75.52, 0.06), None)),
}
WORDS = {  # what an argument may be; the first unless told
    "pair": (*PAIRS, "all"), "scale": tuple(SCALES), "teacher": ("trained", "converted"),
}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    scale, trained = SCALES[chosen["scale"]], chosen["teacher"] == "trained"
    shown = [pair for pair in PAIRS if chosen["pair"] in (pair, "all")]
    rows, published = {}, {}
    for pair in shown:
        (teacher, student), built = PAIRS[pair], scale.networks or PAIRS[pair]
        if trained:
            rows[teacher] = _config(scale, built[0], scale.teacher_epochs)
        rows[student] = _config(scale, built[1], scale.epochs)
        published |= {name: defaults.published(ALONE[name], TABLE_1)
                      for name in PAIRS[pair] if name in rows}
        source = f"row:{teacher}" if trained else f"run:runs/teachers/{teacher}"
        for name, fields in _rows(source).items():
            rows[f"{pair}-{name}"] = _config(scale, built[1], scale.epochs, **fields)
        for name, (where, cells) in PUBLISHED.items():
            if cell := cells[list(PAIRS).index(pair)]:
                published[f"{pair}-{name}"] = defaults.published(
                    cell[0], where, top1_std=cell[1], runs=3)
    return defaults.study(
        "What KD shows its student on CIFAR-100", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(), scale=chosen["scale"],
        seeds_of={PAIRS[pair][0]: (0,) for pair in shown if trained},
        published=published if chosen["scale"] == "full" else {},
        curves={f"{pair}-r": defaults.curve("pick_ratio", (f"{pair}-kd_pick",)) for pair in shown},
        comparisons=tuple(defaults.comparison(says.format(pair), where)
                          for pair in shown for says, where in CLAIMS))


def _rows(teacher: str) -> dict[str, dict]:
    """What each row shows its student and what it minimises; spec B8, its weights 0.1 and 0.9."""
    mixtures = {"mixup": 1.0, "cutmix": 0.5}  # how often under cross-entropy
    controls = {
        f"ce_{kind}": {
            "views": {"weak": defaults.view("crop_flip", rows=0),  # mixed from, shown to nobody
                      "mixed": defaults.mixed("weak", kind, probability=probability)},
            "terms": {"ce": defaults.term("cross_entropy")}}
        for kind, probability in mixtures.items()}
    weak = defaults.view("crop_flip")
    taught = {"kd": papers.cutmix_kd(weak)}
    taught |= {f"kd_{kind}": papers.cutmix_kd(weak, 1, kind) for kind in mixtures}
    taught |= {name: papers.cutmix_kd(weak, 2, criterion=criterion)
               for name, criterion in PICKS.items()}
    return controls | {name: {**fields, "teacher": teacher} for name, fields in taught.items()}


def _config(scale: Scale, network: str, epochs: float, **fields) -> ConfigDict:
    """Recipe RD; without fields, cross-entropy under crop and flip."""
    return papers.lone("cifar100", scale.images, defaults.phase(
        **papers.repdistiller(network, epochs, scale.batch),
        model=defaults.model(network, bn_per_view=True),  # separate passes
        **fields))
