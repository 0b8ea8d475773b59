"""A phase that is run once per entry of its `repeat`, each rung from the last, and the values that
follow from a rung's sparsity."""

from ml_collections import ConfigDict

from augjax import check, defaults, parts, schedule

REPEATED = {  # what a ladder may vary, where it stands in a phase, and how it gets there
    "sparsity": (lambda phase: [phase.transform.mask] if "mask" in phase.transform else [],
                 "add transform.mask"),
    "magnitude": (lambda phase: [view.policy for view in phase.views.values()
                                 if "magnitude" in view.get("policy", ())],
                  "give a view a policy that has one"),
}
OF_ITS_OWN = ("sparsity", "table")  # schedules that do not look at the scalar beside them


def rungs(name: str, block: ConfigDict) -> dict[str, ConfigDict]:
    """{"pruned-1": its block, ...}, or {name: block} without a ladder; schedules of sparsities have
    become values. What the first rung takes from its source, the later ones take whole.

    Raises ConfigError for a ladder of what the phase has not or decides otherwise.
    """
    made = dict(_unrolled(name, block))
    for rung, phase in made.items():
        sparsity = phase.transform.get("mask", {}).get("sparsity", 0.0)
        check.typed(f"{rung}.transform.mask.sparsity", sparsity, float)
        _set_by_sparsity(rung, phase, sparsity)
    return made


def _unrolled(name, block):
    ladder = {key: tuple(values) for key, values in block.repeat.items()}
    if not ladder:
        yield name, block
        return
    lengths = {key: len(values) for key, values in ladder.items()}
    check.require(0 not in lengths.values() and len(set(lengths.values())) == 1, f"{name}.repeat",
                  "lists of one length", lengths, "give every rung a value of each")
    for rung in range(next(iter(lengths.values()))):
        phase = ConfigDict(block.to_dict())
        for key, values in ladder.items():
            for place in _places(name, key, phase):
                place[key] = float(values[rung])
        if rung:
            phase.update({"init": f"phase:{name}-{rung}", "init_drop": (), "init_fresh": ()})
        yield f"{name}-{rung + 1}", phase


def _places(name, key, phase):
    """The blocks of a phase in which a ladder varies `key`, and nothing else decides it."""
    where = f"{name}.repeat.{key}"
    find, fix = REPEATED[check.one_of(f"{name}.repeat", key, REPEATED)]
    found = find(phase)
    check.require(bool(found), where, f"a phase with a {key}", "none", fix)
    for place in found:
        moves = place.get(f"{key}_schedule")
        kind = moves.get("kind") if isinstance(moves, ConfigDict) else None
        check.require(kind not in OF_ITS_OWN, where, f"no {key}_schedule that has values itself",
                      f"one of kind {kind!r}", "leave one of the two out")
    return found


def _set_by_sparsity(where, block, sparsity):
    """Gives every scalar whose schedule is of sparsities its value, for good."""
    for field in tuple(block):
        place = f"{where}.{field}"
        if not isinstance(block[field], ConfigDict):
            continue
        if not field.endswith("_schedule") or block[field].get("kind") != "sparsity":
            _set_by_sparsity(place, block[field], sparsity)
            continue
        moves = check.filled(place, block[field].to_dict(), defaults.schedule(), defaults.LISTS)
        points = parts.points_of(ConfigDict(moves), "sparsities", "points")
        block[field.removesuffix("_schedule")] = schedule.at_sparsity(points, sparsity, place)
        block[field] = defaults.schedule()
