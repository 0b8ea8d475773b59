"""What a study is: rows, each a whole training config, times seeds, and which run needs which."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
import functools
import re
from typing import Any

from augjax import check
from augjax.study import entries
from augjax.study.compare import Claim
from augjax.study.entries import Curve, Figure
from augjax.study.optimum import Optimum

FIELDS = {
    "title": str, "claim": str, "scale": str, "rows": Mapping, "seeds": tuple[int, ...],
    "seeds_of": Mapping, "report": str, "report_of": Mapping, "weights": str,
    "published": Mapping, "comparisons": tuple, "figures": Mapping, "curves": Mapping,
    "optima": Mapping, "data_note": str, "devices_per_run": int,
}
SCALES = ("full", "small", "tiny")
WEIGHTS = ("raw", "ema", "selected")
READ = ("phases", "deterministic", "data.name", "data.image_size", "data.holdout")  # of a row
SOURCE = re.compile(r"row:([\w-]+)(?:/(\d+))?(?:#([\w-]+)(@\d+)?)?")
SOURCES = "row:NAME[/SEED][#PHASE[@STEP]]"


@dataclass(frozen=True, order=True)
class Run:
    """One training run of a study; its folder is runs/ROW/SEED."""

    row: str
    seed: int

    def __str__(self) -> str:
        return f"{self.row}/{self.seed}"


@dataclass(frozen=True)
class Row:
    """A training config as plain data, the names of its phases, and which of them counts."""

    config: Mapping[str, Any]
    phases: tuple[str, ...]
    report: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Taken:
    """The network of another run that a config asks for."""

    run: Run
    phase: str
    step: str = ""  # "@2000", or the last one saved


@dataclass(frozen=True)
class Study:
    """Rows times seeds, what was published of them, and what is claimed."""

    title: str
    claim: str
    scale: str  # full | small | tiny
    weights: str  # raw | ema | selected
    rows: Mapping[str, Row]
    published: Mapping[str, Mapping[str, Any]]  # {row: numbers in percent and their source}
    comparisons: tuple[tuple[Claim, str], ...]  # (what is claimed, where)
    figures: Mapping[str, Figure]
    curves: Mapping[str, Curve]
    optima: Mapping[str, Optimum]
    data_note: str
    devices_per_run: int

    @functools.cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every run after those that it needs; all rows at one seed before the next seed."""
        return tuple(_in_order_of_need(self))

    @functools.cached_property
    def sources(self) -> dict[Run, dict[str, Taken]]:
        """{run: {source as its config writes it: what it stands for}}."""
        texts = {name: _sources(row.config) for name, row in self.rows.items()}
        return {Run(name, seed): {text: taken(self, Run(name, seed), text) for text in texts[name]}
                for name, row in self.rows.items() for seed in row.seeds}

    def run(self, text: str) -> Run:
        """The run called ROW/SEED."""
        return {str(run): run for run in self.runs}[
            check.one_of("--run", text, [str(run) for run in self.runs])]

    def needed(self, run: Run) -> list[Run]:
        """The runs that must be done before this one."""
        return sorted({need.run for need in self.sources[run].values()})

    def with_needs(self, rows: Collection[str]) -> set[Run]:
        """The runs of some rows, and all that these need."""
        wanted = [run for run in self.runs if run.row in rows]
        for run in wanted:  # it grows
            wanted.extend(need for need in self.needed(run) if need not in wanted)
        return set(wanted)

    def level(self, run: Run) -> int:
        """0 for a run that needs none, else one more than the highest that it needs."""
        return max((self.level(other) + 1 for other in self.needed(run)), default=0)

    def config(self, run: Run, place: Callable[[Taken], str]) -> dict[str, Any]:
        """The training config of a run; `place` writes where another run's network lies."""
        found = {text: place(need) for text, need in self.sources[run].items()}
        return _replaced(self.rows[run.row].config, found) | {"seed": run.seed}

    def joined(self, run: Run) -> dict[str, Any]:
        """One training config of what a run needs and then the run itself, to be checked as one.

        Phases of other runs are called ROW/SEED/PHASE, and come first.
        """
        whole = self.config(run, lambda need: f"phase:{need.run}/{need.phase}")
        before = {}
        for other in self.needed(run):
            theirs, row = self.joined(other), self.rows[other.row]
            mine = (*row.config["phases"], *row.phases)
            theirs = _replaced(theirs, {f"phase:{name}": f"phase:{other}/{name}" for name in mine})
            before |= {name if "/" in name else f"{other}/{name}": theirs[name]
                       for name in theirs["phases"]}
        return {**whole, **before, "phases": [*before, *whole["phases"]]}


def parse(config: Mapping[str, Any], phases_of: Callable[[Mapping[str, Any]], tuple[str, ...]]
          ) -> Study:
    """The study that a config describes (fields: `defaults.study`); `config` is plain data.

    `phases_of` names the phases of a training config, ladders unrolled. Raises ConfigError for a
    name that nothing has, a source that leads nowhere and rows that need each other.
    """
    for field, value in config.items():
        check.typed(field, value, FIELDS[check.one_of("field of the study", field, FIELDS)])
    missing = [field for field in FIELDS if field not in config]
    check.require(not missing, "study", f"the fields {', '.join(FIELDS)}",
                  f"none called {', '.join(missing)}",
                  "use defaults.study; a study begun by an older augjax ends with that one")
    check.one_of("scale", config["scale"], SCALES)
    check.one_of("weights", config["weights"], WEIGHTS)
    rows = _rows(config, phases_of)
    configs = {name: row.config for name, row in rows.items()}

    def made(field: str, make: Callable) -> dict[str, Any]:
        return {name: make(name, given, configs) for name, given in config[field].items()}

    study = Study(
        title=config["title"], claim=config["claim"], scale=config["scale"],
        weights=config["weights"], rows=rows,
        published=made("published", entries.published),
        comparisons=tuple(entries.comparison(number, given, configs)
                          for number, given in enumerate(config["comparisons"])),
        figures=made("figures", entries.figure), curves=made("curves", entries.curve),
        optima=made("optima", entries.optimum),
        data_note=config["data_note"], devices_per_run=config["devices_per_run"],
    )
    entries.check_plots(study.figures, study.curves, study.optima)
    check.require(study.devices_per_run >= 1, "devices_per_run", "1 or more",
                  study.devices_per_run, "one device a run is the rule")
    _ = study.runs  # finds what leads nowhere and what goes in a circle
    return study


# --- rows ----------------------------------------------------------------------------------------


def _rows(config: Mapping[str, Any], phases_of: Callable) -> dict[str, Row]:
    given = config["rows"]
    check.require(len(given) > 0, "rows", "at least one", "none", "name a training config")
    for field in ("seeds_of", "report_of"):
        for name in config[field]:
            check.one_of(field, name, given)
    rows = {}
    for name, block in given.items():
        entries.check_name("row name", name, "folder")
        _require_whole(name, block)
        phases = tuple(phases_of(block))
        if config["weights"] == "selected":
            entries.require_holdout(name, block, "weights = selected chooses a branch")
        report = check.one_of(f"phase that counts in row {name!r} (report, report_of)",
                              config["report_of"].get(name, config["report"]), phases)
        if config["weights"] == "ema":
            _require_average(name, block, report)
        rows[name] = Row(config=block, phases=phases, report=report, seeds=_seeds(name, config))
    return rows


def _require_whole(name: str, block: Any) -> None:
    """Refuses a row that lacks what a study itself reads of it."""
    parts = block if isinstance(block, Mapping) else {}
    data = parts.get("data") if isinstance(parts.get("data"), Mapping) else {}
    known = {*parts, *(f"data.{field}" for field in data)}
    lacking = [field for field in READ if field not in known]
    check.require(not lacking, f"row {name!r}", "a whole training config, as defaults.config makes "
                  "it", f"none of {', '.join(lacking)}", "build it with defaults.config")


def _require_average(name: str, block: Mapping[str, Any], report: str) -> None:
    """Refuses a row without averaged weights where these count; a ladder's rungs are NAME-1, ..."""
    phase = block.get(report) or block.get(report.rpartition("-")[0], {})
    ema = phase.get("ema", 0)
    check.require(ema > 0, f"{report}.ema of row {name!r}", "a decay, as weights = ema reports "
                  "averaged weights", ema, "write for example 0.9999, or let raw weights count")


def _seeds(name: str, config: Mapping[str, Any]) -> tuple[int, ...]:
    given = config["seeds_of"].get(name, config["seeds"])
    check.typed(f"seeds of row {name!r}", given, tuple[int, ...])
    seeds = tuple(given)
    known = all(0 <= seed < 2**32 for seed in seeds)
    check.require(known and 0 < len(seeds) == len(set(seeds)), f"seeds of row {name!r}",
                  "different whole numbers from 0 to 2^32 - 1", seeds,
                  "write for example (0, 1, 2)")
    return seeds


# --- who needs whom ------------------------------------------------------------------------------


def taken(study: Study, run: Run, text: str) -> Taken:
    """What a source row:NAME[/SEED][#PHASE[@STEP]] of a run stands for.

    Without a seed it is the run's own; a row that has but one seed lends that to all.
    """
    where = f"source in row {run.row!r}"
    parts = SOURCE.fullmatch(text)
    check.require(bool(parts), where, SOURCES, repr(text), "write for example row:teacher")
    name, seed, phase, step = parts.groups()
    row = study.rows[check.one_of(where, name, study.rows)]
    wanted = int(seed) if seed else row.seeds[0] if len(row.seeds) == 1 else run.seed
    check.require(wanted in row.seeds, f"{where}, {text!r}",
                  f"a seed of row {name!r}, {row.seeds}", wanted,
                  f"add it to that row's seeds, or write row:{name}/{row.seeds[0]}")
    phase = check.one_of(f"{where}: phase of row {name!r}", phase or row.phases[-1], row.phases)
    return Taken(Run(name, wanted), phase, step or "")


def _in_order_of_need(study: Study) -> Iterator[Run]:
    placed: set[Run] = set()

    def place(run: Run, path: tuple[Run, ...]) -> Iterator[Run]:
        check.require(run not in path, "sources of rows", "no run that needs itself",
                      " needs ".join(map(str, (*path[path.index(run):], run)))
                      if run in path else "", "let one of them begin from scratch")
        if run not in placed:
            for other in study.needed(run):
                yield from place(other, (*path, run))
            placed.add(run)
            yield run

    for seed in dict.fromkeys(seed for row in study.rows.values() for seed in row.seeds):
        for name, row in study.rows.items():
            if seed in row.seeds:
                yield from place(Run(name, seed), ())


def _sources(config: Any) -> list[str]:
    """Every text "row:..." anywhere in a config."""
    if isinstance(config, Mapping):
        return [text for value in config.values() for text in _sources(value)]
    if isinstance(config, (list, tuple)):
        return [text for value in config for text in _sources(value)]
    return [config] if isinstance(config, str) and config.startswith("row:") else []


def _replaced(config: Any, new: Mapping[str, str]) -> Any:
    if isinstance(config, Mapping):
        return {name: _replaced(value, new) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_replaced(value, new) for value in config]
    return new.get(config, config) if isinstance(config, str) else config
