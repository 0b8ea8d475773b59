"""From a ConfigDict to a Recipe: phases in order, ladders unrolled, sources found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from augjax import builders, check, compress, data, defaults, ladder, losses, method, train
from augjax.builders import Pictures
from augjax.search import check_search, checked_fields, Search
from augjax.train import Branches, files, Phase, Recipe, Source
from augjax.types import Edit, Knobs

MOST_EPOCHS = 100_000  # a schedule has a row for each


def build(config: ConfigDict, dataset: data.Dataset | None = None) -> Recipe:
    """The recipe of a config. Raises ConfigError or DataError; touches no device.

    `dataset` stands in for the config's own, as for a dry run, which has no data.
    """
    check.require("search" not in config, "config", "a training run's", "one with a search",
                  "give it to launch.search")
    check.require("phases" in config or "rows" not in config, "config", "a training run's",
                  "a study's", "give it to launch.study")
    return _built(config, dataset)


def _built(config: ConfigDict, dataset: data.Dataset | None) -> Recipe:
    config = _whole(config)
    phases = expanded(config)
    dataset = dataset or load_data(config)
    pictures = Pictures(dataset.name, dataset.classes, dataset.image_shape)
    built = build_phases(phases, pictures)
    return Recipe(
        phases=built, data=dataset, seed=config.seed, resident=config.data.resident,
        workers=config.data.workers,
        fsdp=config.mesh.fsdp, log_every=config.log.every_steps,
        save_epochs=config.checkpoint.every_epochs, keep=config.checkpoint.keep,
        milestones=tuple(config.checkpoint.milestones), deterministic=config.deterministic,
    )


def _whole(config: ConfigDict) -> ConfigDict:
    """A copy of a config in which what is said of all phases is complete and of its type."""
    fields, plain = config.to_dict(), defaults.config({}, {}).to_dict()
    phases = {name: fields.pop(name) for name, block in config.items() if _is_phase(block)}
    search = {"search": fields.pop("search")} if "search" in fields else {}
    fields = check.filled("config", fields, plain, defaults.LISTS)
    size = fields["data"]["image_size"]
    check.require(0 <= size <= 10_000, "config.data.image_size", "0 to 10,000 pixels a side", size,
                  "0 is the data set's own size")
    return ConfigDict(fields | search | phases)


def build_search(config: ConfigDict, dataset: data.Dataset | None = None) -> Search:
    """The search of a config that has a `search` block. Raises ConfigError or DataError."""
    check.require("search" in config, "config of a search", "a block `search`", "none",
                  "add search=defaults.search(...), or train it with launch.train")
    made = Search(_built(config, dataset), **checked_fields(config.to_dict()["search"]))
    check_search(made)
    return made


def as_if_searched(config: Any) -> Any:
    """A joined config (plain data) as it will be once the searches before it are done, to be
    checked: any policy stands for what they find, and what searches is a training like others."""
    if not isinstance(config, dict):
        return config
    if config.get("kind") == "replay" and str(config.get("schedule")).startswith("phase:"):
        return defaults.searched().to_dict()
    if "search" in config and "phases" in config:  # else it is a word of a phase's own
        checked_fields(config["search"])
        config = {name: value for name, value in config.items() if name != "search"}
    return {name: as_if_searched(value) for name, value in config.items()}


def load_data(config: ConfigDict) -> data.Dataset:
    wanted = _whole(config).data
    return data.load(wanted.name, wanted.dir or None, wanted.holdout, wanted.limit or None,
                     wanted.image_size or None, wanted.crop, wanted.draft)


def from_run(workdir: str | Path) -> ConfigDict:
    """The config that a run folder was started with."""
    stored = _stored(workdir, "config.json")
    check.require("made_in" not in stored, f"run folder {workdir}", "a run made from a config",
                  "one made in Python", "rebuild its Recipe in Python")
    stored.pop("search", None)  # what came of it is the winner's network, as any other
    return ConfigDict(stored)


def resize(config: ConfigDict, pixels: int) -> None:
    """Has every network of a config see `pixels` a side; so the data, where they are cropped."""
    check.require(pixels > 0, "image size", "pixels a side", pixels, "write for example 800")
    if config.data.image_size:
        config.data.image_size = pixels
    for phase in config.phases:
        check.require(not config[phase].model.get("scales", ()), "image size",
                      "networks that see one size", f"{phase}'s, with scales of its own",
                      "leave the size as it is")
        config[phase].model.image_size = pixels


# --- phases --------------------------------------------------------------------------------------


def expanded(config: ConfigDict) -> dict[str, ConfigDict]:
    """{phase name: its block}, in order, ladders unrolled: "pruned" becomes "pruned-1", ..."""
    config = _whole(config)
    blocks: dict[str, ConfigDict] = {}
    last = {}  # "phase:pruned" means the last rung
    for name in config.phases:
        check.require(name not in train.RESERVED, "phase name", "a word of your own",
                      f"the reserved word {name!r}", "choose another name")
        block = config[check.one_of("phase", name, [k for k, v in config.items() if _is_phase(v)])]
        block = defaults.filled(name, block)
        for place, field in _source_fields(block):
            for old, new in last.items():
                if place[field] == f"phase:{old}":
                    place[field] = f"phase:{new}"
        rungs = ladder.rungs(name, block)
        blocks |= rungs
        last[name] = list(rungs)[-1]
    return blocks


def _source_fields(block: ConfigDict) -> Iterator[tuple[ConfigDict, str]]:
    """Where a phase names networks that were trained before it."""
    yield from ((block, "init"), (block, "teacher"))
    yield from ((block.onlookers, name) for name in block.onlookers)
    yield from ((peer, "init") for peer in block.peers.values())


def _is_phase(block: Any) -> bool:
    return isinstance(block, ConfigDict) and "terms" in block


def build_phases(blocks: Mapping[str, ConfigDict], pictures: Pictures) -> list[Phase]:
    """The phases of a config, each checked as far as names go."""
    built: dict[str, Phase] = {}
    for name, block in blocks.items():
        with check.refusing(f"phase {name!r}", "fields that fit together", "correct them"):
            built[name] = build_phase(name, block, pictures, built)
    return list(built.values())


def build_phase(name: str, block: ConfigDict, pictures: Pictures, before: Mapping[str, Phase]
                ) -> Phase:
    check.require(0 < block.epochs <= MOST_EPOCHS, f"{name}.epochs", f"more than 0 and at most "
                  f"{MOST_EPOCHS:,}", block.epochs, "a fraction of an epoch will do")
    frozen, init = _frozen(name, block, before), _init(name, block, before)
    learners = {"student": builders.build_net(block.model, pictures)} | {
        peer: builders.build_net(fields.model, pictures) for peer, fields in block.peers.items()}
    onlookers = {who: _trained(source, before).objective.nets[source.learner]
                 for who, source in frozen.items()}
    transform, edits = builders.build_transform(name, block.transform)
    _keep_pruned(name, edits, init, before)
    shown = builders.build_views(name, block, pictures)
    pick, seen = builders.build_pick(name, block)
    knobs = builders.build_knobs(name, block, shown.policies)
    objective = method.Objective(
        nets=learners | onlookers, learners=tuple(learners), views=shown.views(),
        terms={term: builders.build_term(f"{name}.terms.{term}", fields, seen)
               for term, fields in block.terms.items()},
        pick=pick,
        transform=transform, trains=tuple(block.trains),
    )
    builders.check_heard(name, block, frozen)
    return Phase(
        name=name, objective=objective, knobs=knobs, epochs=block.epochs,
        batch_size=block.batch_size, optimizer=builders.build_optimizer(name, block.optimizer),
        init=init, frozen=frozen,
        edits=edits, combine=builders.build_combine(name, block.combine, tuple(block.terms)),
        ema=block.ema or None, accumulate=block.accumulate,
        evaluate_epochs=block.eval.every_epochs,
        evaluate_batch=block.eval.batch_size, branches=_branches(name, block),
        structure=structure(block, knobs, pictures, {
            who: _trained(source, before).structure for who, source in frozen.items()}),
    )


def _branches(name: str, block: ConfigDict) -> Branches | None:
    """The student's BatchNorm sets, or independent networks; weighed by their adaptive ensemble."""
    domains = block.model.domains
    asked = tuple(("student", domain) for domain in range(domains))
    ensembles = [term for term, fields in block.terms.items() if fields.kind == "adaptive_ensemble"]
    if ensembles:
        term = ensembles[0]  # of several, metric_names refuses the second
        fields, views = block.terms[term], [v for v, view in block.views.items() if view.rows]
        views = [view for view in views if view in (fields["views"] or views)]
        own = [block.views[view].domain for view in views]
        nets = fields.get("net", "student")
        if not isinstance(nets, str):
            asked = tuple(zip(nets, own))
        else:
            check.require(len(set(own)) == domains, f"{name}.model.domains",
                          f"{len(set(own))}, as the views {', '.join(views)} have", domains,
                          "give every branch one BatchNorm set, or all together one")
    weights = None if not ensembles else lambda params: losses.ensemble_weights(params[term])
    return Branches(asked, weights) if len(asked) > 1 else None


def _frozen(name: str, block: ConfigDict, before: Mapping[str, Phase]) -> dict[str, Source]:
    """{onlooker: its source}: the teacher, if there is one, and the phase's others."""
    found = {"teacher": parse_source(f"{name}.teacher", block.teacher, block.teacher_weights,
                                     before, defaults.NONE)}
    for who, text in block.onlookers.items():
        check.require(who not in ("student", "teacher", *block.peers), f"{name}.onlookers",
                      "names that no other network has", who, "rename it")
        found[who] = parse_source(f"{name}.onlookers.{who}", text, "raw", before, nothing=None)
    return {who: source for who, source in found.items() if source}


def _init(name: str, block: ConfigDict, before: Mapping[str, Phase]) -> dict[str, Source]:
    """{learner: its source}; who starts from scratch has none."""
    student = parse_source(f"{name}.init", block.init, block.init_weights, before)
    if student:
        student = replace(student, drop=tuple(block.init_drop), fresh=tuple(block.init_fresh))
    for field in ("init_drop", "init_fresh"):
        check.require(bool(student) or not block[field], f"{name}.{field}",
                      "none, as the phase starts from scratch", tuple(block[field]),
                      f"name a source in {name}.init, or leave it out")
    found = {"student": student}
    for peer, fields in block.peers.items():
        check.require(peer not in ("student", "teacher"), f"{name}.peers",
                      "names that no other network has", peer, "rename it")
        found[peer] = parse_source(f"{name}.peers.{peer}.init", fields.init, fields.init_weights,
                                   before)
    return {learner: source for learner, source in found.items() if source}


def _keep_pruned(name: str, edits: Sequence[Edit], init: Mapping[str, Source],
                 before: Mapping[str, Phase]) -> None:
    """Refuses what would bring pruned weights back: no mask, one of a lower sparsity, or one of
    fewer layers, whose own share may have been higher than that of all."""
    def sparsities(edits):
        return [edit.sparsity for edit in edits if isinstance(edit, compress.Pruning)]

    own = sparsities(edits)
    for who, source in init.items():
        least = max(sparsities(_trained(source, before).edits), default=0.0)
        check.require(not (least and source.drop), f"{name}.init_drop", f"none, as {source} is "
                      f"pruned to {least:g}", source.drop, "drop layers before pruning")
        if who == "student" and own:
            check.require(own[0] >= least, f"{name}.transform.mask.sparsity", f"at least {least:g},"
                          f" that of {source}", own[0], "let sparsities rise; what is pruned "
                          "does not come back")
        else:
            check.require(not least or "*" in source.fresh, f"{name}: {who}", f"a mask, as {source}"
                          f" is pruned to {least:g}", "none, and pruned weights would come back",
                          "add transform.mask with that sparsity, or have all weights start anew "
                          'with init_fresh=("*",); a peer has neither: start it from a dense phase')


def _trained(source: Source, before: Mapping[str, Phase]) -> Phase:
    return source.origin or before[source.phase]


def structure(block: ConfigDict, knobs: Knobs, pictures: Pictures, onlookers: Mapping[str, str]
              ) -> str:
    """What a phase's compiled update depends on besides shapes; equal text, equal program.

    All that is turned by knobs or done before the phase begins is left out.
    """
    fields = json.loads(block.to_json())
    for field in ("init", "init_weights", "init_drop", "init_fresh", "teacher", "teacher_weights",
                  "onlookers", "epochs", "repeat", "eval"):
        fields.pop(field)
    for peer in fields["peers"].values():
        peer.pop("init"), peer.pop("init_weights")
    for view in fields["views"].values():
        for knob in ("policy", "alpha", "probability"):
            view.pop(knob, None)  # their numbers are knobs; the rest is in the tree of knobs
        if "erase" in view:  # whether; how often is a knob
            view["erase"]["probability"] = view["erase"]["probability"] > 0
    for term in fields["terms"].values():
        term.pop("weight"), term.pop("weight_schedule")
    for rate in ("learning_rate", "learning_rate_schedule", "base_batch"):
        fields["optimizer"].pop(rate, None)
    for part in fields["transform"].values():
        for edited in ("sparsity", "empty_layers", "bits"):
            part.pop(edited, None)
    numbers = jax.tree.structure(knobs, is_leaf=callable)
    return json.dumps([fields, str(numbers), str(pictures), dict(onlookers)], sort_keys=True)


# --- sources -------------------------------------------------------------------------------------


def parse_source(where: str, text: str, weights: str, before: Mapping[str, Phase],
                 nothing: str | None = "scratch") -> Source | None:
    """phase:NAME | run:DIR[#PHASE[@STEP]] -> Source; `nothing` (scratch or none) -> None."""
    check.one_of(f"{where}_weights", weights, ("raw", "ema"))
    kind, _, rest = text.partition(":")
    if text == nothing:
        return None
    if kind == "phase":
        return Source(check.one_of(where, rest, before or [nothing or "run:DIR"]), weights=weights)
    fix = "write for example phase:teacher"
    if kind == "file":
        fix = "make it a run folder with `python -m launch.convert` and name that"
    elif files.exists(files.place(text) / "config.json"):
        fix = f"write run:{text}"
    check.require(kind == "run" and bool(rest), where,
                  f"{nothing + ', ' if nothing else ''}phase:NAME or run:DIR[#PHASE[@STEP]]",
                  repr(text), fix)
    folder, _, place = rest.partition("#")
    name, _, step = place.partition("@")
    check.require(step in ("",) or step.isdecimal(), where, "a step number after @", step,
                  "write for example run:runs/a#student@2000")
    phases = {phase.name: phase for phase in phases_of_run(folder)}
    name = check.one_of(f"{where}: phase of run {folder}", name or list(phases)[-1], phases)
    return Source(name, folder, int(step) if step else None, weights, origin=phases[name])


def phases_of_run(workdir: str) -> list[Phase]:
    """The phases of another run, rebuilt from its config and without its data."""
    config = from_run(workdir)
    facts = _stored(workdir, "data.json")
    pictures = Pictures(facts["name"], facts["classes"], tuple(facts["image_shape"]))
    return build_phases(expanded(config), pictures)


def _stored(workdir: str | Path, name: str) -> dict[str, Any]:
    """A JSON file of a run folder."""
    path, fix = files.place(workdir) / name, "name a folder that launch.train wrote"
    check.require(files.exists(path), f"run folder {workdir}", f"a {name}", "none", fix)
    with check.refusing(str(path), "the JSON that launch.train wrote", fix):
        return dict(json.loads(files.read_text(path)))
