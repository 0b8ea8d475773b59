"""The parts by name: from a block of a config to the function that builds what it says.

Every table is a plain dict. Who adds an op, a loss, a model or an optimiser adds its row; a Python
user needs none of this.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import inspect
import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from augjax import (
    augment, check, compress, data, defaults, exchange, losses, method, models, schedule, train)
from augjax.augment.pba_policies import COUNTS
from augjax.defaults import NONE
from augjax.method import Combine, Pick
from augjax.types import chain, Clock, Edit, Knobs, Net, on_views, Term, Transform


def replay_file(schedule: str, epochs: int, counts: Sequence[float] = COUNTS, fill: Any = 128,
                interpolation: str = "nearest") -> Any:
    """`augment.replay` of a schedule.json or a published log, stretched to the phase's epochs."""
    return augment.replay(read_schedule(schedule), epochs, counts, fill, interpolation)


def read_schedule(place: str) -> dict[str, Any]:
    """The schedule in a file, a schedule.json or a published log, or of a search's run:DIR."""
    kind, _, folder = place.partition(":")
    path = Path(folder.partition("#")[0], "schedule.json") if kind == "run" else Path(place)
    check.require(path.is_file(), "policy.schedule", "a schedule.json that a search wrote",
                  place or "none", "name the file, or run:DIR of the search")
    with check.refusing(str(path), "a text", "name a schedule.json that a search wrote"):
        text = path.read_text()
    read = augment.schedule_of_log if text.startswith("[") else augment.parse_schedule
    return read(text)


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
FIELDS_OF = {"sgd": ("momentum", "nesterov"), "adam": ("b1", "b2", "eps")}  # others: `options`
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
DTYPES = ("float32", "bfloat16")


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


@dataclass(frozen=True)
class Pictures:
    """What a network must know of its data."""

    name: str
    classes: int
    image_shape: tuple[int, int, int]


def describe_net(block: ConfigDict, pictures: Pictures) -> dict[str, Any]:
    """What `exchange.network` builds the network of a model block from, as plain data."""
    options = block.to_dict()
    check.one_of("model.dtype", options["dtype"], DTYPES)
    size, (height, width, channels) = options.pop("image_size", 0), pictures.image_shape
    mean, std = (tuple(options.get(field, ())) or known for field, known in zip(
        ("mean", "std"), data.statistics_of(pictures.name, channels)))
    return options | {
        "classes": pictures.classes, "image_shape": (size or height, size or width, channels),
        "mean": mean, "std": std, "bn_images": options["bn_images"] or None,
    }


def build_net(block: ConfigDict, pictures: Pictures) -> Net:
    with check.refusing(f"model {block.name!r}", "options that it can work with", "correct them"):
        return exchange.network(describe_net(block, pictures))


@dataclass(frozen=True)
class Shown:
    """What a phase's views are made of, and the knobs that they take."""

    sources: Mapping[str, Any]  # {view: pipeline or Mixed}
    policies: Mapping[str, Any]
    domains: Mapping[str, int]
    rows: Mapping[str, int]

    def views(self) -> Any:
        return augment.make(self.sources, self.domains, self.rows)


def build_views(name: str, block: ConfigDict, pictures: Pictures) -> Shown:
    """The views of a phase: pipelines around a policy, and mixtures of other views."""
    sources, policies = {}, {}
    for view, fields in block.views.items():
        where = f"{name}.views.{view}"
        kind = check.one_of(f"{where}.kind", fields.kind, ("augmented", *MIXES))
        if kind != "augmented":
            pairs = PAIRS[check.one_of(f"{where}.pairs", fields.pairs, PAIRS)]
            sources[view] = augment.Mixed(fields.of, MIXES[kind], pairs)
            policies[view] = augment.beta_mixing(fields.alpha, fields.probability)
            continue
        layers = ()
        policy = fields.policy.get("kind", "")
        if check.one_of(f"{where}.policy.kind", policy, (*POLICIES, NONE)) != NONE:
            policies[view] = build_policy(f"{where}.policy", fields.policy, block.epochs, pictures)
            layers = (augment.apply_policy,)
        base = augment.BASES[check.one_of(f"{where}.base", fields.base, augment.BASES)]
        layers = base(fields.pad, mean_fill(pictures), layers)
        erase = fields.get("erase")
        if erase and erase.probability:
            policies[view] = call(
                f"{where}.erase", augment.with_erasing,
                {"probability": erase.probability, "policy": policies.get(view)})
            layers = (*layers, augment.random_erasing(None, mean_fill(pictures)))
        sources[view] = augment.pipeline(*layers)
    return Shown(sources, policies, {view: fields.domain for view, fields in block.views.items()},
                 {view: fields.rows for view, fields in block.views.items()})


def build_knobs(name: str, block: ConfigDict, policies: Mapping[str, Any]) -> Knobs:
    """All that may be turned without compiling anything, schedules included."""
    weights = {term: scheduled(f"{name}.terms.{term}", fields, "weight")
               for term, fields in block.terms.items()}
    return Knobs(policies, weights, build_rate(name, block))


def build_rate(name: str, block: ConfigDict) -> Any:
    """The learning rate or its schedule; all of it is per `base_batch` images where one is set."""
    rate = scheduled(f"{name}.optimizer", block.optimizer, "learning_rate")
    base = block.optimizer.get("base_batch", 0)
    check.require(base >= 0, f"{name}.optimizer.base_batch", "images, or 0 for none", base,
                  "256 is common")
    lowest, _ = reached(rate, block.epochs)
    check.require(lowest >= 0, f"{name}.optimizer.learning_rate", "0 or more, at any time", lowest,
                  "a negative rate climbs")
    times = block.batch_size / base if base else 1.0
    return (lambda clock: np.float32(times * rate(clock))) if callable(rate) else times * rate


def build_policy(where: str, block: ConfigDict, epochs: float, pictures: Pictures) -> Any:
    """A policy whose scheduled numbers are schedules until the host evaluates them.

    It is also built with the lowest and the highest value that each schedule reaches, so that a
    number outside its range is refused here and not in the middle of a phase.
    """
    options = block.to_dict()
    builder = POLICIES[options.pop("kind")]
    if options.get("fill") == "mean":
        options["fill"] = mean_fill(pictures)
    if "epochs" in inspect.signature(builder).parameters:
        options["epochs"] = math.ceil(epochs)
    moving = [field.removesuffix("_schedule") for field in options if field.endswith("_schedule")]
    for scalar in moving:
        options[scalar] = scheduled(where, block, scalar)
        del options[f"{scalar}_schedule"]
    for scalar in moving:
        for extreme in reached(options[scalar], epochs):
            call(where, builder, {**options, scalar: extreme})
    return call(where, builder, options)


def mean_fill(pictures: Pictures) -> tuple[int, ...]:
    """The data set's mean as a pixel."""
    return augment.mean_fill(data.statistics_of(pictures.name, pictures.image_shape[-1])[0])


def build_term(where: str, block: ConfigDict, views: tuple[str, ...]) -> Term:
    options = block.to_dict()
    kind, seen = options.pop("kind"), tuple(options.pop("views"))
    options.pop("weight"), options.pop("weight_schedule", None)
    builder = TERMS[check.one_of(f"{where}.kind", kind, TERMS)]
    term = call(where, builder, _tuples(options))
    for view in seen:  # of those that the pick leaves
        check.one_of(f"{where}.views", view, views)
    return on_views(term, seen) if seen else term


def build_combine(name: str, block: ConfigDict | str, terms: tuple[str, ...]) -> Combine:
    """The combine of a phase; a bare name is a block without fields."""
    options = {"kind": block} if isinstance(block, str) else block.to_dict()
    kind = check.one_of(f"{name}.combine.kind", options.pop("kind", ""), COMBINES)
    for term in options.get("task", ()):
        check.one_of(f"{name}.combine.task", term, terms)
    return call(f"{name}.combine", COMBINES[kind], _tuples(options))


def build_pick(name: str, block: ConfigDict) -> tuple[Pick, tuple[str, ...]]:
    """The pick of a phase, and the views that terms may look at after it."""
    options = block.pick.to_dict()
    kind = check.one_of(f"{name}.pick.kind", options.pop("kind", ""), PICKS)
    views = tuple(block.views)
    for view in (*options.get("views", ()), *filter(None, [options.get("view")])):
        check.one_of(f"{name}.pick: view", view, views)
    check.require(kind == "keep_all" or block.teacher != NONE
                  or options.get("criterion") == "student_entropy", f"{name}.pick",
                  "a teacher, which its criterion asks", "none", "name one in the phase's teacher")
    made = call(f"{name}.pick", PICKS[kind], options)
    if kind != "top":
        return made, views
    return made, (*(view for view in views if view not in options["views"]), options["name"])


def build_transform(name: str, block: ConfigDict) -> tuple[Transform, tuple[Edit, ...]]:
    """What weights pass through on their way into the network, and what is done to the start.

    The parts of TRANSFORMS are chained in its order; dorefa and a mask are one, the last.
    """
    where = f"{name}.transform"
    for part in block:
        check.one_of(where, part, TRANSFORMS)
    edits = tuple(call(f"{where}.{part}", edit, block[part].to_dict())
                  for part, (edit, _) in TRANSFORMS.items() if part in block)
    made = {part: transform() for part, (_, transform) in TRANSFORMS.items() if part in block}
    if not {"dorefa", "mask"} <= set(made):
        return chain(**made), edits
    before = chain(**{part: made[part] for part in made if part not in ("dorefa", "mask")})
    last = compress.within_mask(models.FULL_PRECISION)
    return Transform(lambda params: before.init(params) | last.init(params),
                     lambda params, state: last.apply(before.apply(params, state), state)), edits


def build_optimizer(name: str, block: ConfigDict) -> Any:
    """The optimiser by its kind. What is set and not read by that kind is refused."""
    where, plain = f"{name}.optimizer", defaults.optimizer().to_dict()
    for field in block:
        check.one_of(f"field of {where}", field, plain)
    fields = {**plain, **block.to_dict()}
    kind = check.one_of(f"{where}.kind", fields["kind"], {*train.OPTIMIZERS, *train.OPTAX})
    mine, options = FIELDS_OF.get(kind, ()), fields["options"]
    instead = "" if mine else f", or try {where}.options={{...}}"
    for field in sorted({field for own in FIELDS_OF.values() for field in own} - {*mine}):
        check.require(fields[field] == plain[field], f"{where}.{field}",
                      f"the default, {plain[field]}, as {kind!r} does not read it", fields[field],
                      "leave it as it is" + instead)
    check.require(not (mine and options), f"{where}.options", f"none, as {kind!r} has its fields "
                  f"{', '.join(mine)} beside it", options, "set those")
    given = _tuples({field: fields[field] for field in (
        *mine, "weight_decay", "decay", "clip_norm")})
    if kind not in train.OPTIMIZERS:
        return train.from_optax(kind, _tuples(options), **given)
    builder = train.OPTIMIZERS[kind]
    for option in options:
        check.one_of(f"field of {where}.options", option,
                     set(inspect.signature(builder).parameters) - set(given))
    return builder(**given, **options)


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists alone."""
    return {name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()}


def scheduled(where: str, block: ConfigDict, scalar: str) -> Any:
    """A number, or the schedule that starts from it."""
    fields = block.to_dict()
    check.typed(f"{where}.{scalar}", fields.get(scalar), float)
    moves = ConfigDict(check.filled(f"{where}.{scalar}_schedule", fields.get(
        f"{scalar}_schedule", {}), defaults.schedule(), defaults.LISTS))
    kind = check.one_of(f"{where}.{scalar}_schedule.kind", moves.kind, SCHEDULES)
    return SCHEDULES[kind](float(fields[scalar]), moves)


def reached(moves: Any, epochs: float) -> tuple[float, float]:
    """The lowest and the highest number of what `scheduled` made, over its epochs."""
    if not callable(moves):
        return moves, moves
    progress = np.linspace(0, 1, 1001)
    numbers = moves(Clock(np.arange(1001), progress * epochs, progress))
    return float(numbers.min()), float(numbers.max())


def call(where: str, function: Callable, options: Mapping[str, Any]) -> Any:
    """Calls a builder with a block's fields; a field it does not know is named."""
    known = inspect.signature(function).parameters
    for field, value in options.items():
        check.typed(f"{where}.{check.one_of(f'field of {where}', field, known)}", value,
                    known[field].annotation)
    with check.refusing(where, "fields that it can work with", "correct them"):
        return function(**options)


def points_of(block: ConfigDict, places: str, numbers: str) -> dict[float, float]:
    """{place: number} from two fields of a schedule."""
    at, given = tuple(block[places]), tuple(block[numbers])
    check.require(len(at) == len(given), f"schedule {block.kind!r}",
                  f"as many {numbers} as {places}", f"{at} and {given}", "give pairs")
    return dict(zip(at, given))
