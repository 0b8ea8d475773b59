"""The parts by name: one plain dict for every kind of part that a config may name.

Who adds a loss, a policy, a pick or a quantiser adds its row here; `builders` calls what it finds
with the fields of the config's block. A Python user needs none of this.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from augjax import augment, check, compress, losses, method, models, schedule
from augjax.augment.pba_policies import COUNTS
from augjax.method import Combine, Pick
from augjax.types import Edit, Term, Transform


def replay_file(schedule: str, epochs: int, counts: Sequence[float] = COUNTS, fill: Any = 128,
                interpolation: str = "nearest", searched_epochs: int = 200) -> Any:
    """`augment.replay` of a schedule.json or a published log, stretched to the phase's epochs; of a
    log, which does not carry it, `searched_epochs` says how long its search was."""
    found = read_schedule(schedule, searched_epochs)
    return augment.replay(found, epochs, counts, fill, interpolation)


def read_schedule(place: str, searched_epochs: int = 200) -> dict[str, Any]:
    """The schedule in a file, a schedule.json or a published log, or of a search's run:DIR."""
    kind, _, folder = place.partition(":")
    path = Path(folder.partition("#")[0], "schedule.json") if kind == "run" else Path(place)
    check.require(path.is_file(), "policy.schedule", "a schedule.json that a search wrote",
                  place or "none", "name the file, or run:DIR of the search")
    with check.refusing(str(path), "a text", "name a schedule.json that a search wrote"):
        return augment.parse_schedule(path.read_text(), searched_epochs)


def points_of(block: ConfigDict, places: str, numbers: str) -> dict[float, float]:
    """{place: number} from two fields of a schedule; ConfigError for a place twice."""
    at, given = tuple(block[places]), tuple(block[numbers])
    check.require(len(at) == len(given) == len({*at}), f"schedule {block.kind!r}", f"as many "
                  f"{numbers} as {places}, none of these twice", f"{at} and {given}", "give pairs")
    return dict(zip(at, given))


TERMS: dict[str, Callable[..., Term]] = {
    "cross_entropy": losses.cross_entropy,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "hinton": losses.hinton,
    "teacher_disagreement": losses.teacher_disagreement,
    "topk_kl": losses.topk_kl,
    "dkd": losses.dkd,
    "mutual": losses.mutual,
    "rkd": losses.rkd,
    "similarity": losses.similarity,
    "attention": losses.attention,
    "hint": losses.hint,
    "kd_svd": losses.kd_svd,
    "mhgd": losses.mhgd,
    "ii_kd": losses.ii_kd,
    "crd": losses.crd,
    "adaptive_ensemble": losses.adaptive_ensemble,
}
COMBINES: dict[str, Callable[..., Combine]] = {
    "weighted_sum": lambda: method.weighted_sum, "clipped": method.clipped}
CRITERIA: dict[str, Callable[[float], Any]] = {  # of a temperature, which entropies do not have
    "kl": losses.kl_criterion,
    "teacher_entropy": lambda tau: losses.entropy_criterion("teacher"),
    "student_entropy": lambda tau: losses.entropy_criterion("student"),
}
POLICIES: dict[str, Callable[..., Any]] = {
    "randaugment": augment.randaugment,
    "ranged_randaugment": augment.ranged_randaugment,
    "trivial_augment": augment.trivial_augment,
    "autoaugment": augment.autoaugment,
    "outliers": augment.outliers,
    "pba": augment.pba,
    "replay": replay_file,
}
TRANSFORMS: dict[str, tuple[Callable[..., Edit], Callable[[], Transform]]] = {
    "dorefa": (compress.quantise_to, lambda: compress.dorefa(models.FULL_PRECISION)),
    "mask": (compress.prune_to, compress.mask),  # what is pruned is seen as 0: a new row goes above
}
MIXES = {"mixup": augment.mixup, "cutmix": augment.cutmix}
PAIRS = {"whole_batch": augment.whole_batch, "per_device": augment.per_device}
SCHEDULES: dict[str, Callable[[float, Any], Any]] = {
    "constant": lambda value, s: value,
    "linear": lambda value, s: schedule.linear(value, s.stop),
    "cosine": lambda value, s: schedule.cosine(value, s.stop, s.warmup_epochs),
    "piecewise": lambda value, s: schedule.piecewise(
        value, points_of(s, "epochs", "factors"), s.warmup_epochs),
    "exponential": lambda value, s: schedule.exponential(
        value, s.factor, s.every_epochs, s.warmup_epochs),
    "table": lambda value, s: schedule.table(points_of(s, "epochs", "points")),
}


def pick_top(criterion: str, views: tuple[str, ...], share: float, name: str, scoring: str,
             rule: str, tau: float) -> Pick:
    """`method.top` by a named criterion: CutMix-pick (spec B8)."""
    score = CRITERIA[check.one_of("pick.criterion", criterion, CRITERIA)](tau)
    return method.top(score, tuple(views), share, name, scoring, rule)


def pick_best(view: str, ce_weight: float, kl_weight: float, tau: float, scoring: str) -> Pick:
    """`method.best` by what the teacher knows and the student does not (spec B9)."""
    return method.best(losses.teacher_filter(ce_weight, kl_weight, tau), view, scoring)


PICKS: dict[str, Callable[..., Pick]] = {
    "keep_all": method.keep_all, "top": pick_top, "teacher_filter": pick_best}
