"""From a ConfigDict to a Recipe: the only place that turns names into parts.

Every table here is a plain dict from a config's name to the function that builds the part. Who
adds an op, a loss, a model or an optimiser adds its row; a Python user needs none of this.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
import inspect
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from augjax import augment, check, compress, data, defaults, losses, method, models, schedule, train
from augjax.train import Phase, Recipe, Source
from augjax.types import chain, Clock, Edit, Knobs, Net, on_views, Start, Term, Transform

TERMS: dict[str, Callable[..., Term]] = {
    "cross_entropy": losses.cross_entropy,
    "hinton": losses.hinton,
}
COMBINES = {"weighted_sum": method.weighted_sum}
PICKS = {"keep_all": method.keep_all}
POLICIES = {"randaugment": augment.randaugment}
BASES: dict[str, Callable[[int], tuple]] = {
    "none": lambda pad: (),
    "flip": lambda pad: (augment.flip,),
    "crop": lambda pad: (augment.pad_crop(pad),),
    "crop_flip": lambda pad: (augment.pad_crop(pad), augment.flip),
}
SCHEDULES: dict[str, Callable[[float, Any], Any]] = {
    "constant": lambda value, s: value,
    "linear": lambda value, s: schedule.linear(value, s.stop),
    "cosine": lambda value, s: schedule.cosine(value, s.stop, s.warmup_epochs),
    "piecewise": lambda value, s: schedule.piecewise(value, _points(s, "factors"), s.warmup_epochs),
    "table": lambda value, s: schedule.table(_points(s, "points")),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
STATISTICS = {  # mean and standard deviation per channel of pixels / 255 (spec B1)
    "digits": ((0.3050,) * 3, (0.3755,) * 3),
    "cifar10": ((0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)),
    "cifar100": ((0.50707516, 0.48654887, 0.44091784), (0.26733429, 0.25643846, 0.27615047)),
}
REPEATED = {  # what a ladder may vary, and where it stands in a phase
    "sparsity": lambda phase: [phase.transform.mask],
    "magnitude": lambda phase: [view.policy for view in phase.views.values()],
}


@dataclass(frozen=True)
class Pictures:
    """What a network must know of its data."""

    name: str
    classes: int
    image_shape: tuple[int, int, int]


def build(config: ConfigDict) -> Recipe:
    """The recipe of a config. Raises ConfigError or DataError; touches no device."""
    phases = expanded(config)
    dataset = load_data(config)
    pictures = Pictures(dataset.name, dataset.classes, dataset.image_shape)
    built = build_phases(phases, pictures)
    return Recipe(
        phases=built, data=dataset, seed=config.seed, resident=config.data.resident,
        fsdp=config.mesh.fsdp, log_every=config.log.every_steps,
        save_epochs=config.checkpoint.every_epochs, keep=config.checkpoint.keep,
        milestones=tuple(config.checkpoint.milestones),
    )


def load_data(config: ConfigDict) -> data.Dataset:
    wanted = config.data
    return data.load(wanted.name, wanted.dir or None, wanted.holdout, wanted.limit or None,
                     wanted.image_size or None)


def from_run(workdir: str | Path) -> ConfigDict:
    """The config that a run folder was started with."""
    path = Path(workdir) / "config.json"
    check.require(path.is_file(), f"run folder {workdir}", "a config.json", "none",
                  "name a folder that launch.train wrote")
    stored = json.loads(path.read_text())
    check.require("made_in" not in stored, f"run folder {workdir}", "a run made from a config",
                  "one made in Python", "rebuild its Recipe in Python")
    return ConfigDict(stored)


# --- phases --------------------------------------------------------------------------------------


def expanded(config: ConfigDict) -> dict[str, ConfigDict]:
    """{phase name: its block}, in order, ladders unrolled: "pruned" becomes "pruned-1", ..."""
    blocks: dict[str, ConfigDict] = {}
    last = {}  # "phase:pruned" means the last rung
    for name in config.phases:
        check.require(name not in train.RESERVED, "phase name", "a word of your own",
                      f"the reserved word {name!r}", "choose another name")
        block = config[check.one_of("phase", name, [k for k, v in config.items() if _is_phase(v)])]
        block = _merged(name, block)
        for field in ("init", "teacher"):
            for old, new in last.items():
                if block[field] == f"phase:{old}":
                    block[field] = f"phase:{new}"
        rungs = _rungs(name, block)
        blocks |= rungs
        last[name] = list(rungs)[-1]
    return blocks


def _rungs(name: str, block: ConfigDict) -> dict[str, ConfigDict]:
    ladder = {key: tuple(values) for key, values in block.repeat.items()}
    if not ladder:
        return {name: block}
    lengths = {key: len(values) for key, values in ladder.items()}
    check.require(len(set(lengths.values())) == 1, f"{name}.repeat", "lists of one length", lengths,
                  "give every rung a value of each")
    rungs: dict[str, ConfigDict] = {}
    for rung in range(next(iter(lengths.values()))):
        copy = ConfigDict(block.to_dict())
        for key, values in ladder.items():
            for place in REPEATED[check.one_of(f"{name}.repeat", key, REPEATED)](copy):
                place[key] = float(values[rung])
        if rungs:
            copy.init = f"phase:{list(rungs)[-1]}"
        rungs[f"{name}-{rung + 1}"] = copy
    return rungs


def _is_phase(block: Any) -> bool:
    return isinstance(block, ConfigDict) and "terms" in block


def _merged(name: str, block: ConfigDict) -> ConfigDict:
    """A copy of the block in which every field exists; unknown fields are refused."""
    known = defaults.phase()
    for field in block:
        check.one_of(f"field of phase {name!r}", field, known)
    copy = ConfigDict(block.to_dict())
    for field in known:
        if field not in copy:
            copy[field] = known[field]
    return copy


def build_phases(blocks: Mapping[str, ConfigDict], pictures: Pictures) -> list[Phase]:
    """The phases of a config, each checked as far as names go."""
    built: dict[str, Phase] = {}
    for name, block in blocks.items():
        built[name] = build_phase(name, block, pictures, built)
    return list(built.values())


def build_phase(name: str, block: ConfigDict, pictures: Pictures, before: Mapping[str, Phase]
                ) -> Phase:
    teacher = parse_source(f"{name}.teacher", block.teacher, block.teacher_weights, before)
    init = parse_source(f"{name}.init", block.init, block.init_weights, before)
    nets = {"student": build_net(block.model, pictures)}
    if teacher:
        trained = teacher.origin or before[teacher.phase]
        nets["teacher"] = trained.objective.nets[teacher.learner]
    transform, edits = build_transform(name, block.transform)
    knobs, pipelines, domains = build_views(name, block)
    objective = method.Objective(
        nets=nets, learners=("student",), views=augment.make(pipelines, domains),
        terms={term: build_term(f"{name}.terms.{term}", fields, tuple(block.views))
               for term, fields in block.terms.items()},
        pick=PICKS[check.one_of(f"{name}.pick", block.pick, PICKS)](),
        transform=transform, trains=tuple(block.trains),
    )
    return Phase(
        name=name, objective=objective, knobs=knobs, epochs=block.epochs,
        batch_size=block.batch_size, optimizer=build_optimizer(name, block.optimizer),
        init={"student": init} if init else {}, frozen={"teacher": teacher} if teacher else {},
        edits=edits, combine=COMBINES[check.one_of(f"{name}.combine", block.combine, COMBINES)],
        ema=block.ema or None, evaluate_epochs=block.eval.every_epochs,
        evaluate_batch=block.eval.batch_size,
        structure=structure(block, knobs, pictures, teacher, before),
    )


def structure(block: ConfigDict, knobs: Knobs, pictures: Pictures, teacher: Source | None,
              before: Mapping[str, Phase]) -> str:
    """What a phase's compiled update depends on besides shapes; equal text, equal program.

    All that is turned by knobs or done before the phase begins is left out.
    """
    fields = json.loads(block.to_json())
    for field in ("init", "init_weights", "teacher", "teacher_weights", "epochs", "repeat", "eval"):
        fields.pop(field)
    for view in fields["views"].values():
        view.pop("policy")  # its numbers are knobs; the rest is in their tree
    for term in fields["terms"].values():
        term.pop("weight"), term.pop("weight_schedule")
    for rate in ("learning_rate", "learning_rate_schedule"):
        fields["optimizer"].pop(rate)
    for part in fields["transform"].values():
        part.pop("sparsity", None)
    taught = (teacher.origin or before[teacher.phase]).structure if teacher else None
    numbers = jax.tree.structure(knobs, is_leaf=callable)
    return json.dumps([fields, str(numbers), str(pictures), taught], sort_keys=True)


# --- parts ---------------------------------------------------------------------------------------


def build_net(block: ConfigDict, pictures: Pictures) -> Net:
    options = block.to_dict()
    name, bn_images = options.pop("name"), options.pop("bn_images")
    dtype = DTYPES[check.one_of("model.dtype", options.pop("dtype"), DTYPES)]
    mean, std = STATISTICS[check.one_of("statistics of data set", pictures.name, STATISTICS)]
    return models.build(name, pictures.classes, pictures.image_shape, mean=mean, std=std,
                        bn_images=bn_images or None, dtype=dtype, **options)


def build_views(name: str, block: ConfigDict) -> tuple[Knobs, dict, dict]:
    """(knobs, {view: pipeline}, {view: domain}) of a phase."""
    pipelines, policies, domains = {}, {}, {}
    for view, fields in block.views.items():
        where = f"{name}.views.{view}"
        layers = BASES[check.one_of(f"{where}.base", fields.base, BASES)](fields.pad)
        kind = check.one_of(f"{where}.policy.kind", fields.policy.kind, (*POLICIES, defaults.NONE))
        if kind != defaults.NONE:
            policies[view] = build_policy(f"{where}.policy", fields.policy, block.epochs)
            layers = (*layers, augment.apply_policy)
        pipelines[view], domains[view] = augment.pipeline(*layers), fields.domain
    weights = {term: scheduled(f"{name}.terms.{term}", fields, "weight")
               for term, fields in block.terms.items()}
    rate = scheduled(f"{name}.optimizer", block.optimizer, "learning_rate")
    return Knobs(policies, weights, rate), pipelines, domains


def build_policy(where: str, block: ConfigDict, epochs: float) -> Any:
    """A policy whose scheduled numbers are schedules until the host evaluates them.

    It is also built with the lowest and the highest value that each schedule reaches, so that a
    number outside its range is refused here and not in the middle of a phase.
    """
    options = block.to_dict()
    builder = POLICIES[options.pop("kind")]
    moving = [field.removesuffix("_schedule") for field in options if field.endswith("_schedule")]
    for scalar in moving:
        options[scalar] = scheduled(where, block, scalar)
        del options[f"{scalar}_schedule"]
    progress = np.linspace(0, 1, 1001)
    clock = Clock(np.arange(1001), progress * epochs, progress)
    for scalar in moving:
        if callable(options[scalar]):
            reached = options[scalar](clock)
            for extreme in (reached.min(), reached.max()):
                call(where, builder, {**options, scalar: float(extreme)})
    return call(where, builder, options)


def build_term(where: str, block: ConfigDict, views: tuple[str, ...]) -> Term:
    options = block.to_dict()
    kind, seen = options.pop("kind"), tuple(options.pop("views"))
    options.pop("weight"), options.pop("weight_schedule", None)
    term = call(where, TERMS[check.one_of(f"{where}.kind", kind, TERMS)], options)
    for view in seen:
        check.one_of(f"{where}.views", view, views)
    return on_views(term, seen) if seen else term


def build_transform(name: str, block: ConfigDict) -> tuple[Transform, tuple[Edit, ...]]:
    """The chain of weight edits of a phase, and what is done to the start: pruning to a target."""
    for part in block:
        check.one_of(f"{name}.transform", part, ("mask",))
    if "mask" not in block:
        return chain(), ()
    target, scope = block.mask.sparsity, block.mask.get("scope", "global")
    check.require(0 <= target < 1, f"{name}.transform.mask.sparsity", "a share in [0, 1)", target,
                  "0.6 prunes 60 % of the weights")
    check.one_of(f"{name}.transform.mask.scope", scope, ("global", "per_layer"))

    def prune(start: Start) -> Start:
        masks = compress.prune_l1(start.params, start.transform["mask"], target, scope)
        return replace(start, transform={**start.transform, "mask": masks})

    return chain(mask=compress.mask()), (prune,)


def build_optimizer(name: str, block: ConfigDict) -> Any:
    builder = train.OPTIMIZERS[check.one_of(f"{name}.optimizer.kind", block.kind, train.OPTIMIZERS)]
    own = inspect.signature(builder).parameters
    options = {key: value for key, value in block.to_dict().items() if key in own}
    return builder(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


def scheduled(where: str, block: ConfigDict, scalar: str) -> Any:
    """A number, or the schedule that starts from it."""
    moves = block.get(f"{scalar}_schedule", defaults.schedule())
    kind = check.one_of(f"{where}.{scalar}_schedule.kind", moves.kind, SCHEDULES)
    return SCHEDULES[kind](float(block[scalar]), moves)


def call(where: str, function: Callable, options: Mapping[str, Any]) -> Any:
    """Calls a builder with a block's fields; a field it does not know is named."""
    for field in options:
        check.one_of(f"field of {where}", field, inspect.signature(function).parameters)
    return function(**options)


def _points(block: ConfigDict, name: str) -> dict[float, float]:
    """{epoch: number} from two fields of a schedule."""
    epochs, numbers = tuple(block["epochs"]), tuple(block[name])
    check.require(len(epochs) == len(numbers), f"schedule {block.kind!r}",
                  f"as many {name} as epochs", f"{epochs} and {numbers}", "give pairs")
    return dict(zip(epochs, numbers))


# --- sources -------------------------------------------------------------------------------------


def parse_source(where: str, text: str, weights: str, before: Mapping[str, Phase]) -> Source | None:
    """scratch, none -> None | phase:NAME | run:DIR[#PHASE[@STEP]] -> Source."""
    check.one_of(f"{where}_weights", weights, ("raw", "ema"))
    kind, _, rest = text.partition(":")
    if text in ("scratch", defaults.NONE):
        return None
    if kind == "phase":
        return Source(check.one_of(where, rest, before or ["scratch"]), weights=weights)
    check.require(kind == "run" and bool(rest), where,
                  "scratch, phase:NAME or run:DIR[#PHASE[@STEP]]", repr(text),
                  "write for example phase:teacher")
    folder, _, place = rest.partition("#")
    name, _, step = place.partition("@")
    check.require(step in ("",) or step.isdigit(), where, "a step number after @", step,
                  "write for example run:runs/a#student@2000")
    phases = {phase.name: phase for phase in phases_of_run(folder)}
    name = check.one_of(f"{where}: phase of run {folder}", name or list(phases)[-1], phases)
    return Source(name, folder, int(step) if step else None, weights, origin=phases[name])


def phases_of_run(workdir: str) -> list[Phase]:
    """The phases of another run, rebuilt from its config and without its data."""
    config = from_run(workdir)
    facts = json.loads((Path(workdir) / "data.json").read_text())
    pictures = Pictures(facts["name"], facts["classes"], tuple(facts["image_shape"]))
    return build_phases(expanded(config), pictures)
