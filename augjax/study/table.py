"""What came of a study, as plain data: table.json. All accuracies are in percent."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
import json
from pathlib import Path
from typing import Any

from augjax.study import compare, folders
from augjax.study.folders import State
from augjax.study.optimum import choose
from augjax.study.plan import Run, Study

TIME_FIELDS = ("device_hours",)  # the only fields in which equal studies may differ
TOLD = {  # by the study's weights: the first of these that a phase has
    "raw": ("final_accuracy",), "ema": ("ema_accuracy",),
    "selected": ("selected_accuracy", "final_accuracy"),  # without branches it is its only one
}
HELD = {
    "raw": ("holdout_accuracy",), "ema": ("ema_holdout_accuracy",),
    "selected": ("selected_holdout_accuracy", "holdout_accuracy"),
}
TOP5_ABOVE = 5  # classes; below, every answer is among the five


def gather(study: Study, workdir: str | Path, command: str = "") -> dict[str, Any]:
    """The table as it stands, from the run folders alone; runs that are missing are said to be.

    {title, claim, scale, weights, command, rows, comparisons, data, maps, hardware, versions,
    commits, device_hours}; `maps` are those that magnitudes are of (DESIGN section 7). A row: its
    runs that are done (n, seeds), top-1, top-5 and best epoch as {n, mean, std}, what was
    published, and every run that is not in the numbers and why.
    """
    found = folders.states(study, Path(workdir))
    done = {run: state for run, state in found.items() if state.done}
    made = {run: folders.folder_of(Path(workdir), run) for run in done}
    data = _unique(_data(made[run], study.data_note) for run in done)
    starts = [start for run in done for start in _starts(made[run])]
    rows = [_row(study, name, found, many=all(one["classes"] > TOP5_ABOVE for one in data))
            for name in study.rows]
    hardware = Counter(state.summary["hardware"] for state in done.values())
    return {
        "title": study.title, "claim": study.claim, "scale": study.scale, "weights": study.weights,
        "command": command,
        "rows": rows,
        "comparisons": [_comparison(study, claim, source, found)
                        for claim, source in study.comparisons],
        "optima": {
            name: choose(wanted, lambda row: held_out(study, row, found),
                         lambda row: _top1(study, row, found))
            for name, wanted in study.optima.items()},
        "data": data,
        "maps": sorted({name for row in study.rows.values() for name in _maps(row.config)}),
        "hardware": {kind: hardware[kind] for kind in sorted(hardware)},
        "versions": {name: sorted({start["versions"].get(name, "none") for start in starts})
                     for name in sorted({name for start in starts for name in start["versions"]})},
        "commits": sorted({start["git_commit"] for start in starts}),
        "device_hours": round(sum(row["device_hours"] for row in rows), 5),
    }


def _maps(block: Any) -> Iterator[str]:
    """The magnitude maps that a config names, wherever."""
    if isinstance(block, Mapping):
        yield from [block["map"]] if isinstance(block.get("map"), str) else []
        for part in block.values():
            yield from _maps(part)


def _row(study: Study, name: str, found: Mapping[Run, State], many: bool) -> dict[str, Any]:
    row = study.rows[name]
    mine = {run.seed: state for run, state in found.items() if run.row == name}
    done = {seed: mine[seed].summary["phases"] for seed in row.seeds if mine[seed].done}
    kept = [phases[row.report] for phases in done.values()]

    def over_seeds(*fields: str, phase: str = row.report) -> dict[str, Any] | None:
        return compare.spread([_percent(_first(phases[phase], fields)) for phases in done.values()])

    return {
        "row": name, "phase": row.report, "n": len(done), "of": len(row.seeds),
        "seeds": list(done),
        "top1": over_seeds(*TOLD[study.weights]),
        "top1_of_seed": {str(seed): value for seed, value in _top1(study, name, found).items()},
        "top5": over_seeds("top5_accuracy") if many else None,
        "best_top1": over_seeds("best_accuracy"),
        "published": study.published.get(name),
        "parameters": _mean(kept, lambda phase: phase["parameters"]),
        "nonzero": _mean(kept, lambda phase: phase["nonzero"]),
        "bits": _mean(kept, lambda phase: phase["bits"]),
        "device_hours": round(sum(phase["device_hours"] for phases in done.values()
                                  for phase in phases.values()), 5),
        "other_phases": {phase: over_seeds("final_accuracy", phase=phase)
                         for phase in row.phases if phase != row.report},
        "branches": _branches({seed: phases[row.report] for seed, phases in done.items()}),
        "not_counted": {str(seed): _why(study, Run(name, seed), found) for seed in row.seeds
                        if not mine[seed].done},
    }


def _branches(done: Mapping[int, Mapping]) -> dict[str, Any] | None:
    """The accuracy of every branch and of their ensemble, {n, mean, std}, each branch's weight in
    it (mean) and which one each seed selected; None for a row without branches."""
    found = {seed: phase for seed, phase in done.items() if "branches" in phase}
    if not found:
        return None
    by_branch = list(zip(*(phase["branches"] for phase in found.values())))
    weighed = [branches for branches in by_branch if all("weight" in one for one in branches)]
    told = [phase["ensemble_accuracy"] for phase in found.values() if "ensemble_accuracy" in phase]
    return {
        "accuracy": [compare.spread([_percent(one["accuracy"]) for one in branches])
                     for branches in by_branch],
        "weight": [_mean(branches, lambda one: one["weight"]) for branches in weighed],
        "ensemble": compare.spread([_percent(share) for share in told]),
        "selected_of_seed": {str(seed): phase["selected_branch"] for seed, phase in found.items()
                             if "selected_branch" in phase},
    }


def _why(study: Study, run: Run, found: Mapping[Run, State]) -> dict[str, Any]:
    """Why a run is not among the numbers."""
    state = found[run]
    lacking = [f"{other} ({found[other].status})" for other in study.needed(run)
               if not found[other].done]
    begin = f"not begun, needs {', '.join(lacking)}" if lacking else "not begun"
    reasons = {"missing": begin, "started": "begun, not finished"}
    return {"status": state.status, "reason": reasons.get(state.status), **state.failure}


def _comparison(study: Study, claim: compare.Claim, source: str, found: Mapping[Run, State]
                ) -> dict[str, Any]:
    """Both rows at the seeds that both have: the differences, seed by seed."""
    sides = [_top1(study, row, found) for row in (claim.better, claim.worse)]
    seeds = [seed for seed in sides[0] if seed in sides[1]]
    differences = [sides[0][seed] - sides[1][seed] for seed in seeds]
    theirs = [study.published.get(row, {}).get("top1") for row in (claim.better, claim.worse)]
    return {
        "says": str(claim), "source": source, "seeds": seeds,
        "published_difference": None if None in theirs else round(theirs[0] - theirs[1], 6),
        "difference": compare.spread(differences),
        "interval": compare.interval(differences),
        "direction": compare.direction(differences, claim.points),
        "verdict": compare.verdict(differences, claim.points),
    }


def _top1(study: Study, row: str, found: Mapping[Run, State]) -> dict[int, float]:
    return _of_seeds(study, row, found, TOLD[study.weights])


def held_out(study: Study, row: str, found: Mapping[Run, State]) -> dict[int, float]:
    """{seed: accuracy in percent on held-out images} of a row's runs that are done."""
    return _of_seeds(study, row, found, HELD[study.weights])


def _of_seeds(study: Study, row: str, found: Mapping[Run, State], fields: tuple[str, ...]
              ) -> dict[int, float]:
    """{seed: percent} of the phase that counts, of the runs that are done."""
    return {run.seed: _percent(_first(state.summary["phases"][study.rows[row].report], fields))
            for run, state in found.items() if run.row == row and state.done}


def _first(phase: Mapping[str, Any], fields: tuple[str, ...]) -> float:
    """The first of the fields that a phase's summary has."""
    return phase[next((field for field in fields if field in phase), fields[0])]


def _percent(share: float) -> float:
    return round(100 * share, 6)


def _mean(phases: list[Mapping], number: Callable[[Mapping], float]) -> float | None:
    return round(sum(map(number, phases)) / len(phases), 3) if phases else None


def _unique(things: Iterable[Mapping]) -> list[Mapping]:
    return [json.loads(text) for text in dict.fromkeys(map(json.dumps, things))]


def _data(place: Path, note: str) -> dict[str, Any]:
    facts = json.loads((place / "data.json").read_text())
    return {"name": facts["name"], "note": note, "classes": facts["classes"],
            "image_shape": facts["image_shape"], "images": facts["images"]}


def _starts(place: Path) -> list[dict[str, Any]]:
    """Where and with what a run was begun and continued."""
    return json.loads((place / "provenance.json").read_text())["starts"]
