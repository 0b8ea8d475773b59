"""Role-wise augmentation as rows of a study: searches, what they found replayed, and teaching.

Every function returns a training, a search or a phase as `defaults` has them. Rows that others name
are "teacher" and, for the schedule of a search, the search's own row. Source: role_wise_kd sections
4 and 5; spec P7, P8 and R2.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from augjax import defaults, papers

BITS = (4, 2)
NETWORKS = {"resnet18": "resnet18_role_kd", "alexnet": "alexnet_cifar"}
CUTOUTS = {"cifar10": "autoaugment_cifar", "cifar100": "autoaugment_cifar_cutout8"}
TOYS = {"small": "resnet8", "tiny": "resnet8_tiny"}  # whatever the network
Views = Mapping[str, ConfigDict]
Fields = Mapping[str, Any]


class Scale(NamedTuple):
    epochs: float
    images: int  # 0: all
    reduced: tuple[int, int]  # of a search: training images, images that reward
    search_epochs: float
    search: Fields  # what differs from PBA's
    batch: int = 128


SCALES = {
    "full": Scale(200.0, 0, (4000, 36000), 200.0, {}),
    "small": Scale(4.0, 5000, (1000, 1000), 9.0, {"members": 6}, 64),
    "tiny": Scale(1.0, 32, (32, 20), 2.0, {"members": 2, "interval_epochs": 1}, 16),
}


class Setting(NamedTuple):
    """What all rows of a study share."""

    scale: Scale
    dataset: str
    taps: tuple[str, ...]  # of student and teacher
    project: str = "none"  # "teacher" where their channels differ (spec D13)


# --- trainings and searches ----------------------------------------------------------------------


def train(setting: Setting, **phases: ConfigDict) -> ConfigDict:
    """All images of the study's data set."""
    return defaults.config(
        phases, data={"name": setting.dataset, "limit": setting.scale.images},
        checkpoint={"every_epochs": max(1.0, setting.scale.epochs / 12), "keep": 1})


def search(setting: Setting, phase: ConfigDict, dataset: str = "") -> ConfigDict:
    """PBA on the reduced set of the study's data, or of another data set (spec P5)."""
    images, rewarding = setting.scale.reduced
    return defaults.config(
        {"student": phase},
        data={"name": dataset or setting.dataset, "limit": images, "holdout": rewarding},
        checkpoint={"every_epochs": max(1.0, setting.scale.search_epochs / 12), "keep": 1},
        search=defaults.search(**setting.scale.search))


def plain() -> Views:
    """Crops and flips."""
    return {"train": defaults.view("crop_flip")}


def searched() -> Views:
    """A policy that a search sets, then crops and flips."""
    return {"train": defaults.view("autoaugment_cifar_uncut", defaults.searched())}


def replayed(setting: Setting, row: str) -> Views:
    """What the search of another row found, stretched to the phase's epochs; then crops, flips and
    the cutout of the data set (spec P5)."""
    return {"train": defaults.view(CUTOUTS[setting.dataset], defaults.policy(
        "replay", fill="mean", schedule=f"row:{row}"))}


# --- phases --------------------------------------------------------------------------------------


def whole(setting: Setting, model: str, views: Views, method: str = "", searching: bool = False
          ) -> ConfigDict:
    """Full precision (recipe RW-fp), as long as a training or as a search; taught by a method of
    TAUGHT, or by nobody."""
    epochs = setting.scale.search_epochs if searching else setting.scale.epochs
    return defaults.phase(**{
        **papers.role_wise(epochs, setting.scale.batch),
        "model": defaults.model(model), "views": views, **taught(method, setting, model, epochs)})


def quantised(setting: Setting, model: str, bits: int, views: Views, init: str, method: str = "",
              epochs: float = 0.0, **fields: Any) -> ConfigDict:
    """A phase in `bits` bits that starts from another network (recipe RW-q)."""
    epochs = epochs or setting.scale.epochs
    return defaults.phase(**{
        **papers.role_wise_quantised(epochs, setting.scale.batch),
        "model": defaults.model(model, activation_bits=bits), "views": views, "init": init,
        "transform": {"dorefa": defaults.dorefa(bits)}, **taught(method, setting, model, epochs),
        **fields})


def from_scratch(setting: Setting, model: str, bits: int, views: Views) -> ConfigDict:
    """Nobody's weights and nobody's help: Table 2's vanilla and stage alpha (ambiguities RW19)."""
    return train(setting, student=quantised(setting, model, bits, views, "scratch"))


def low_bit(setting: Setting, model: str, bits: int, views: Views, init: str, method: str
            ) -> ConfigDict:
    """An epoch at rest for BatchNorm's statistics of another network, then the training."""
    settled = quantised(setting, model, bits, views, init, epochs=1.0, trains=("stats/*",))
    return train(setting, settled=settled, student=quantised(
        setting, model, bits, views, "phase:settled", method))


def low_bit_search(setting: Setting, model: str, bits: int, method: str) -> ConfigDict:
    """Stage beta's: it starts from the teacher's weights at once, without an epoch at rest."""
    return search(setting, quantised(setting, model, bits, searched(), "row:teacher", method,
                                     setting.scale.search_epochs))


# --- teaching ------------------------------------------------------------------------------------


def taught(method: str, setting: Setting, model: str, epochs: float) -> Fields:
    """The fields of a phase that learns from "row:teacher" by one of TAUGHT; "": from nobody.

    Distillation counts lambda = 1, for II-KD 0.4, halved thrice; where feature maps are compared
    cross-entropy's gradient cuts it (spec D6, D7). MHGD's attention stays as it is drawn, as in the
    release; its authors trained it alone for 40 epochs before (spec D5), for which our term has
    `pretrain_steps`, in which the student goes on learning from its labels.
    """
    if not method:
        return {}
    own = {"taps": setting.taps, "teacher_taps": setting.taps, "project": setting.project}
    kind, options = TAUGHT[method]
    halved = defaults.schedule("piecewise", epochs=tuple(
        share * epochs for share in (0.3, 0.6, 0.9)), factors=(0.5,) * 3)
    weight = 0.4 if method == "ii_kd" else 1.0
    fields = {"terms": {
        "ce": defaults.term("cross_entropy"),
        "kd": defaults.term(kind, weight, weight_schedule=halved, **(
            own if method in CUT else {}), **options)}}
    if method in CUT:
        fields["combine"] = defaults.combine("clipped")
    return fields | (_mutual(fields["terms"], model) if method == "dml"
                     else {"teacher": "row:teacher"})


def _mutual(terms: Fields, model: str) -> Fields:
    """The teacher learns on, with weight 1, from its labels and its student (spec D8)."""
    own = {"ce_peer": defaults.term("cross_entropy", net="peer"),
           "kd_peer": defaults.term("mutual", net="peer", peers="student", form="both_ways")}
    return {"peers": {"peer": defaults.peer(defaults.model(model), "row:teacher")},
            "terms": {**terms, **own}}


TAUGHT = {  # method: (kind of term, its options), with the release's constants
    "soft": ("hinton", {"tau": 1.0, "tau_square": False, "form": "ce"}),
    "dml": ("mutual", {"peers": "peer", "form": "both_ways"}),
    "rkd": ("rkd", {"distance_weight": 50.0, "angle_weight": 100.0, "tap": "logits",
                    "teacher_tap": "logits", "form": "role_kd"}),
    "mhgd": ("mhgd", {}),
    "kd_svd": ("kd_svd", {}),
    "ii_kd": ("ii_kd", {}),
}
CUT = ("mhgd", "kd_svd", "ii_kd")
