"""Test accuracy over the number of epochs on CIFAR-100: KD and cross-entropy, augmented and not.

Claim     kd_thrives_on_da, Figures 1 and 3: with crop and flip KD gains from more epochs and
          cross-entropy does not; without them neither gains, and long training does harm
Command   python -m launch.study --config=configs/cifar/thrives_epochs.py:pair=all \\
              --data_dir=DIR --workdir=runs/thrives_epochs
Cost      not measured
Measured  not measured
Rows      "pair=resnet56-resnet20" (Figure 1, unless told), "pair=wrn40_2-wrn16_2",
          "pair=vgg13-vgg8" (Figure 3) or "pair=all"; each row is PAIR-LINE_EPOCHS, each pair a plot
          | "teacher=trained" (by recipe RD, one seed) or "teacher=converted": the paper's,
          RepDistiller's, in runs/teachers/NAME (as its row is called), as made by
          python -m launch.convert --source=repdistiller
Scales    full: recipe RD stretched to 240, 480 and 960 epochs, three seeds | small: ResNet-8 from
          ResNet-20 in place of any pair, 5,000 images, 1, 2 and 4 epochs | tiny: two steps and
          four, for tests

The paper's text names 240, 480 and 960 epochs; which others its plots have cannot be read from the
text copy, nor can their values. Beside our rows therefore stand those that its tables repeat: KD at
240 and 960 (Table 3) and cross-entropy at 240, with crop and flip. The teacher has learnt with crop
and flip in all rows.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, pairs, papers


class Scale(NamedTuple):
    epochs: tuple[float, ...]
    teacher_epochs: float
    images: int  # 0: all
    batch: int
    networks: tuple[str, str] | None  # (teacher, student) in place of every pair


class Line(NamedTuple):
    label: str
    taught: bool
    base: str  # of its view


SCALES = {
    "full": Scale((240.0, 480.0, 960.0), 240.0, 0, 64, None),
    "small": Scale((1.0, 2.0, 4.0), 4.0, 5000, 64, ("resnet20", "resnet8")),
    "tiny": Scale((1.0, 2.0), 1.0, 32, 16, ("resnet8_tiny", "resnet8_tiny")),
}
PAIRS = {pair: pairs.PAIRS[pair] for pair in
         ("resnet56-resnet20", "wrn40_2-wrn16_2", "vgg13-vgg8")}
LINES = {
    "kd": Line("KD, crop and flip", True, "crop_flip"),
    "ce": Line("cross-entropy, crop and flip", False, "crop_flip"),
    "kd_bare": Line("KD, no augmentation", True, "none"),
    "ce_bare": Line("cross-entropy, no augmentation", False, "none"),
}
TABLE = "kd_thrives_on_da, Table 3"
TEACHERS = {"resnet56": 72.34, "wrn_40_2": 75.61, "vgg13": 74.64}
PUBLISHED = {  # {row: {pair: (top-1 of three runs, standard deviation)}}
    "ce_240": {"resnet56-resnet20": (69.06,), "wrn40_2-wrn16_2": (73.26,),
               "vgg13-vgg8": (70.36,)},  # RepDistiller's, without a spread
    "kd_240": {"resnet56-resnet20": (70.66, 0.24), "wrn40_2-wrn16_2": (74.92, 0.28),
               "vgg13-vgg8": (72.98, 0.19)},
    "kd_960": {"resnet56-resnet20": (71.79, 0.29), "wrn40_2-wrn16_2": (75.68, 0.12),
               "vgg13-vgg8": (74.00, 0.34)},
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
        teacher, student = scale.networks or PAIRS[pair]
        name = PAIRS[pair][0]
        if trained:
            rows[name] = _config(scale, teacher, scale.teacher_epochs)
            published[name] = defaults.published(TEACHERS[name], TABLE)
        source = f"row:{name}" if trained else f"run:runs/teachers/{name}"
        for line, (_, taught, base) in LINES.items():
            for epochs in scale.epochs:
                fields = _taught(source) if taught else {}
                rows[_row(pair, line, epochs)] = _config(
                    scale, student, epochs, views={"train": defaults.view(base)}, **fields)
        published |= {f"{pair}-{row}": _published(*cells[pair])
                      for row, cells in PUBLISHED.items()}
    return defaults.study(
        "KD and cross-entropy over the number of epochs on CIFAR-100", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(), scale=chosen["scale"],
        seeds_of={PAIRS[pair][0]: (0,) for pair in shown if trained},
        published=published if chosen["scale"] == "full" else {},
        comparisons=tuple(comparison for pair in shown for comparison in _claims(scale, pair)),
        figures={pair: defaults.figure("epochs", scale.epochs, {
            label: tuple(_row(pair, line, epochs) for epochs in scale.epochs)
            for line, (label, _, _) in LINES.items()}) for pair in shown})


def _row(pair: str, line: str, epochs: float) -> str:
    return f"{pair}-{line}_{epochs:g}"


def _claims(scale: Scale, pair: str) -> list[ConfigDict]:
    """KD with crop and flip gains from the most epochs; the others do not, or lose."""
    source = f"kd_thrives_on_da, Figure {1 if pair == 'resnet56-resnet20' else 3}"
    claims = []
    for line in LINES:
        fewest, most = (_row(pair, line, epochs) for epochs in (scale.epochs[0], scale.epochs[-1]))
        says = f"{most} > {fewest}" if line == "kd" else f"{fewest} > {most}"
        claims.append(defaults.comparison(says, source))
    return claims


def _published(top1: float, std: float | None = None) -> ConfigDict:
    known = {"top1_std": std, "runs": 3} if std else {}
    return defaults.published(top1, TABLE, **known)


def _taught(teacher: str) -> dict:
    return {"teacher": teacher, "terms": {
        "ce": defaults.term("cross_entropy", 0.1), "kd": papers.kl(0.9)}}


def _config(scale: Scale, network: str, epochs: float, **fields) -> ConfigDict:
    """Recipe RD; without fields, cross-entropy under crop and flip."""
    return papers.lone("cifar100", scale.images, defaults.phase(
        **papers.repdistiller(network, epochs, scale.batch), model=defaults.model(network),
        **fields))
