"""Pairs of a teacher and a student under KD and CRD, with CutMix, picked CutMix and long runs.

The study behind Tables 3 and 4 of kd_thrives_on_da, for the data set and the numbers of either.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from augjax import data, defaults, papers

PAIRS = {  # name: (teacher, student)
    "vgg13-vgg8": ("vgg13", "vgg8"),
    "wrn40_2-wrn16_2": ("wrn_40_2", "wrn_16_2"),
    "resnet56-resnet20": ("resnet56", "resnet20"),
    "resnet32x4-resnet8x4": ("resnet32x4", "resnet8x4"),
    "vgg13-mobilenetv2": ("vgg13", "mobilenetv2_cifar"),
    "resnet50-vgg8": ("resnet50_cifar", "vgg8"),
    "resnet32x4-shufflenetv2": ("resnet32x4", "shufflenetv2_cifar"),
}


class Method(NamedTuple):
    """What a row does to its student."""

    rows: int = 0  # of CutMix, of an image; of two, the pick keeps half
    crd: bool = False
    longer: bool = False


METHODS = {  # {}: the epochs of a long run
    "kd": Method(),
    "kd_{}": Method(longer=True),
    "kd_cutmix": Method(rows=1),
    "kd_pick": Method(rows=2),
    "kd_pick_{}": Method(rows=2, longer=True),
    "crd": Method(crd=True),
    "crd_pick": Method(rows=2, crd=True),
    "crd_pick_{}": Method(rows=2, crd=True, longer=True),
}


class Table(NamedTuple):
    """A table of the paper."""

    source: str
    dataset: str
    pad: int  # pixels on each side that a crop may lack
    longer: int  # epochs of a long run
    alone: Mapping[str, float]  # {network: top-1 that nobody taught}
    published: Mapping[str, Sequence[Any]]  # {pair: (top-1, deviation) or None, as METHODS}
    claims: Sequence[str]  # of a pair {0}, as comparisons say it


class Scale(NamedTuple):
    """How much of it is done."""

    epochs: float
    longer: float
    images: int  # 0: all
    batch: int
    negatives: int  # of CRD
    toy: str  # in place of every network


SCALES = ("full", "tiny")


def study(table: Table, title: str, claim: str, pair: str, scale: str, trained: bool = True
          ) -> ConfigDict:
    """The study of one pair or of "all": rows are PAIR-METHOD, and every network alone by its name.

    Three seeds; the teachers have one. `trained` False takes them from runs/teachers/NAME.
    """
    size = {"full": Scale(240.0, float(table.longer), 0, 64, 16384, ""),
            "tiny": Scale(1.0, 1.0, 32, 16, 8, "resnet8_tiny")}[scale]
    pairs = {name: nets for name, nets in PAIRS.items() if pair in (name, "all")}
    rows, published = {}, {}
    for name, (teacher, student) in pairs.items():
        for network in (teacher, student) if trained else (student,):
            rows[network] = _alone(table, size, network)
            published[network] = defaults.published(table.alone[network], table.source)
        source = f"row:{teacher}" if trained else f"run:runs/teachers/{teacher}"
        for (called, method), cell in zip(METHODS.items(), table.published[name], strict=True):
            row = f"{name}-{called.format(table.longer)}"
            rows[row] = _taught(table, size, student, source, method)
            if cell:
                published[row] = defaults.published(
                    cell[0], table.source, top1_std=cell[1], runs=3)
    return defaults.study(
        title, rows, claim=claim, scale=scale,
        seeds_of={teacher: (0,) for teacher, _ in pairs.values() if trained},
        published=published if scale == "full" else {},
        comparisons=tuple(defaults.comparison(says.format(name), table.source)
                          for name in pairs for says in table.claims))


def _taught(table, size, student, teacher, method):
    """CRD + KD has weights of its own, and sees weak views alone (spec B8, KT8)."""
    ce, kd = (1.0, 1.0) if method.crd else (0.1, 0.9)
    fields = papers.cutmix_kd(defaults.view("crop_flip", pad=table.pad), method.rows, ce=ce, kd=kd)
    if method.crd:
        images = size.images or len(data.described(table.dataset).train)
        fields["terms"]["crd"] = defaults.term("crd", 0.8, ("weak",), images=images,
                                               negatives=size.negatives)
    network = size.toy or student
    epochs = size.longer if method.longer else size.epochs
    return papers.lone(table.dataset, size.images, defaults.phase(
        **papers.repdistiller(network, epochs, size.batch), **fields, teacher=teacher,
        model=defaults.model(network, bn_per_view=True)))  # the paper's separate passes


def _alone(table, size, name):
    """A teacher, or a student that nobody teaches: cross-entropy under crop and flip."""
    network = size.toy or name
    return papers.lone(table.dataset, size.images, defaults.phase(
        **papers.repdistiller(network, size.epochs, size.batch), model=defaults.model(network),
        views={"train": defaults.view("crop_flip", pad=table.pad)}))
