"""From a block of a config to the part that it asks for, each checked; names are those of `parts`.

Errors name the field by its path in the config. A Python user needs none of this.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
import inspect
import math
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from augjax import augment, check, compress, data, defaults, exchange, models, parts, train
from augjax.defaults import NONE
from augjax.method import Combine, Pick
from augjax.types import chain, Clock, Edit, Knobs, Net, on_views, Term, Transform

FIELDS_OF = {"sgd": ("momentum", "nesterov"), "adam": ("b1", "b2", "eps")}  # others: `options`
DTYPES = ("float32", "bfloat16")


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
        kind = check.one_of(f"{where}.kind", fields.kind, ("augmented", *parts.MIXES))
        if kind != "augmented":
            pairs = parts.PAIRS[check.one_of(f"{where}.pairs", fields.pairs, parts.PAIRS)]
            sources[view] = augment.Mixed(fields.of, parts.MIXES[kind], pairs)
            policies[view] = augment.beta_mixing(fields.alpha, fields.probability)
            continue
        layers = ()
        policy = fields.policy.get("kind", "")
        if check.one_of(f"{where}.policy.kind", policy, (*parts.POLICIES, NONE)) != NONE:
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
    builder = parts.POLICIES[options.pop("kind")]
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
    builder = parts.TERMS[check.one_of(f"{where}.kind", kind, parts.TERMS)]
    term = call(where, builder, _tuples(options))
    for view in seen:  # of those that the pick leaves
        check.one_of(f"{where}.views", view, views)
    return on_views(term, seen) if seen else term


def build_combine(name: str, block: ConfigDict | str, terms: tuple[str, ...]) -> Combine:
    """The combine of a phase; a bare name is a block without fields."""
    options = {"kind": block} if isinstance(block, str) else block.to_dict()
    kind = check.one_of(f"{name}.combine.kind", options.pop("kind", ""), parts.COMBINES)
    for term in options.get("task", ()):
        check.one_of(f"{name}.combine.task", term, terms)
    return call(f"{name}.combine", parts.COMBINES[kind], _tuples(options))


def build_pick(name: str, block: ConfigDict) -> tuple[Pick, tuple[str, ...]]:
    """The pick of a phase, and the views that terms may look at after it."""
    options = block.pick.to_dict()
    kind = check.one_of(f"{name}.pick.kind", options.pop("kind", ""), parts.PICKS)
    views = tuple(block.views)
    for view in (*options.get("views", ()), *filter(None, [options.get("view")])):
        check.one_of(f"{name}.pick: view", view, views)
    check.require(block.teacher != NONE or not _asks_teacher(block.pick), f"{name}.pick",
                  "a teacher, which its criterion asks", "none", "name one in the phase's teacher")
    made = call(f"{name}.pick", parts.PICKS[kind], options)
    if kind != "top":
        return made, views
    return made, (*(view for view in views if view not in options["views"]), options["name"])


def _asks_teacher(pick: Mapping[str, Any]) -> bool:
    return pick["kind"] != "keep_all" and pick.get("criterion") != "student_entropy"


def check_heard(name: str, block: ConfigDict, onlookers: Iterable[str]) -> None:
    """Refuses a term that listens to a teacher where there is none, and a frozen network that
    neither a term nor the pick names: it would teach nothing.

    A term names the networks that it listens to by its arguments; one whose arguments name none
    (somebody's own) may listen to any.
    """
    networks = {"student", "teacher", *block.peers, *block.onlookers}
    named = ["teacher"] if _asks_teacher(block.pick) else []
    for term, fields in block.terms.items():
        heard = [value for value in _arguments(fields) if value in networks]
        check.require(block.teacher != NONE or "teacher" not in heard, f"{name}.terms.{term}",
                      "a teacher, to whom it listens", "none",
                      f"set {name}.teacher to run:DIR or phase:NAME")
        named += heard or networks
    terms = '{"ce": {"kind": "cross_entropy"}, "kd": {"kind": "hinton"}}'
    for who in onlookers:
        check.require(who in named, f"{name}: {who}", "a term or a pick that listens to it",
                      f"the terms {', '.join(block.terms)}",
                      f"add one, for example --config.{name}.terms='{terms}', or leave it out")


def _arguments(fields: ConfigDict) -> Iterator[Any]:
    """What a term's builder is called with, its defaults among them, tuples unrolled."""
    for option, known in inspect.signature(parts.TERMS[fields.kind]).parameters.items():
        value = fields.get(option, known.default)
        yield from value if isinstance(value, (list, tuple)) else [value]


def build_transform(name: str, block: ConfigDict) -> tuple[Transform, tuple[Edit, ...]]:
    """What weights pass through on their way into the network, and what is done to the start.

    The parts of parts.TRANSFORMS are chained in its order; dorefa and a mask are one, the last.
    """
    where = f"{name}.transform"
    for part in block:
        check.one_of(where, part, parts.TRANSFORMS)
    edits = tuple(call(f"{where}.{part}", edit, block[part].to_dict())
                  for part, (edit, _) in parts.TRANSFORMS.items() if part in block)
    made = {part: transform() for part, (_, transform) in parts.TRANSFORMS.items() if part in block}
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
    kind = check.one_of(f"{where}.{scalar}_schedule.kind", moves.kind, parts.SCHEDULES)
    return parts.SCHEDULES[kind](float(fields[scalar]), moves)


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
    with check.refusing(where, "fields that it can work with", "correct them"), check.placed(where):
        return function(**options)
