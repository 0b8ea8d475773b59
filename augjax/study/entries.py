"""What a study says beside its rows: what was published and claimed, and what its plots show.

Every entry is a block of a config whose fields `defaults` lists; here they become records, each
field of its type and every row one that the study has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import re
from typing import Any

from augjax import check
from augjax.study.compare import Claim, parse_claim
from augjax.study.optimum import Optimum

NAME = re.compile(r"[\w-]{1,60}")  # letters take up to 4 bytes, names of files at most 255
PUBLISHED = {"top1": float, "source": str, "top1_std": float, "top5": float, "runs": int}
COMPARISON = {"says": str, "source": str}
CURVE = {"metric": str, "rows": tuple[str, ...]}
FIGURE = {"x_label": str, "x": tuple[float, ...], "lines": Mapping}
OPTIMUM = {
    "x_label": str, "x": tuple[float, ...], "condition_label": str,
    "conditions": tuple[float, ...], "rows": tuple[tuple[str, ...], ...],
    "without": tuple[str, ...],
}
DRAWN = ("rows", "epochs")  # the plots of every study
WORDS = ("phase", "kind")  # of a row of metrics.jsonl; all else are numbers
FARTHEST = 1e100  # from 0, on an axis

Rows = Mapping[str, Mapping[str, Any]]  # {row: its training config}


@dataclass(frozen=True)
class Figure:
    """Lines of rows over a number that they vary."""

    x_label: str
    x: tuple[float, ...]
    lines: Mapping[str, tuple[str, ...]]  # {line: a row for each x}


@dataclass(frozen=True)
class Curve:
    """A metric of the training rows of metrics.jsonl over epochs."""

    metric: str
    rows: tuple[str, ...]


def check_name(what: str, name: str, becomes: str = "file") -> None:
    """Raises ConfigError for a name that no file or folder should have."""
    check.require(bool(NAME.fullmatch(name)), what, "up to 60 letters, digits, - and _", repr(name),
                  f"it becomes the name of a {becomes}")


def published(row: str, given: Any, rows: Rows) -> Mapping[str, Any]:
    """Published numbers of a row, in percent, and their source."""
    check.one_of("published", row, rows)
    numbers = _fields(f"published.{row}", given, PUBLISHED, needed=("top1", "source"))
    check.require(1 < numbers["top1"] <= 100, f"published.{row}.top1", "accuracy in percent",
                  numbers["top1"], "write 70.66 for 0.7066; an error rate is 100 minus it")
    return numbers


def comparison(number: int, given: Any, rows: Rows) -> tuple[Claim, str]:
    """(what is claimed, where)."""
    entry = _fields(f"comparisons.{number}", given, COMPARISON)
    claim = parse_claim(entry["says"])
    _check_rows(f"row of the comparison {entry['says']!r}", (claim.better, claim.worse), rows)
    return claim, entry["source"]


def curve(name: str, given: Any, rows: Rows) -> Curve:
    """A metric over epochs."""
    check_name("curve name", name)
    entry = _fields(f"curves.{name}", given, CURVE)
    check.require(entry["metric"] not in WORDS, f"curves.{name}.metric", "one that is a number",
                  repr(entry["metric"]), "write for example loss or accuracy")
    _check_rows(f"curves.{name}.rows", entry["rows"], rows)
    return Curve(entry["metric"], tuple(entry["rows"]))


def figure(name: str, given: Any, rows: Rows) -> Figure:
    """Accuracy over what rows vary."""
    check_name("figure name", name)
    entry = _fields(f"figures.{name}", given, FIGURE)
    x = _axis(f"figures.{name}.x", entry["x"])
    for line, along in entry["lines"].items():
        where = f"figures.{name}.lines.{line}"
        check.typed(where, along, tuple[str, ...])
        check.require(len(along) == len(x), where, f"a row for each of {len(x)} x", along,
                      "name as many")
        _check_rows(where, along, rows)
    lines = {line: tuple(along) for line, along in entry["lines"].items()}
    return Figure(entry["x_label"], x, lines)


def optimum(name: str, given: Any, rows: Rows) -> Optimum:
    """The grid of rows that the best of is chosen from."""
    check_name("name of an optimum", name)
    entry = _fields(f"optima.{name}", given, OPTIMUM)
    x = _axis(f"optima.{name}.x", entry["x"])
    conditions = _axis(f"optima.{name}.conditions", entry["conditions"])
    grid, without = tuple(map(tuple, entry["rows"])), tuple(entry["without"])
    check.require(0 < len(x) == len(set(x)), f"optima.{name}.x", "different numbers, at least one",
                  x, "each is a choice")
    shape = [len(along) for along in grid]
    check.require(shape == [len(x)] * len(conditions), f"optima.{name}.rows",
                  f"{len(conditions)} conditions of {len(x)} rows", shape, "name a row for each")
    check.require(len(without) in (0, len(conditions)), f"optima.{name}.without",
                  f"none or {len(conditions)} rows", without, "name a row for each condition")
    named = (*(row for along in grid for row in along), *without)
    _check_rows(f"optima.{name}.rows", named, rows)
    for row in named:
        require_holdout(row, rows[row], f"optima.{name} chooses")
    return Optimum(entry["x_label"], x, entry["condition_label"], conditions, grid, without)


def require_holdout(row: str, config: Mapping[str, Any], who: str) -> None:
    """Raises ConfigError for a row that holds out no images, where they choose."""
    held = config["data"]["holdout"]
    check.require(held > 0, f"data.holdout of row {row!r}", f"images to choose by, as {who}", held,
                  "nothing may be chosen on test images: hold out training images")


def check_plots(figures: Mapping, curves: Mapping, optima: Mapping) -> None:
    """Raises ConfigError where two plots would be one file."""
    names = [*DRAWN, *figures, *curves, *optima, *(f"{name}_best" for name in optima)]
    twice = sorted({name for name in names if names.count(name) > 1})
    check.require(not twice, "figures, curves and optima",
                  f"different names, none of them {' or '.join(DRAWN)}", ", ".join(twice),
                  "rename one: each is the name of a plot")


def _fields(what: str, given: Any, kinds: Mapping[str, Any], needed: Sequence[str] | None = None
            ) -> Mapping[str, Any]:
    """A block whose fields are known and of their types; all are `needed` unless told."""
    check.typed(what, given, Mapping)
    for field, value in given.items():
        check.typed(f"{what}.{field}", value, kinds[check.one_of(f"field of {what}", field, kinds)])
    missing = [field for field in (kinds if needed is None else needed) if field not in given]
    check.require(not missing, what, f"the fields {', '.join(kinds if needed is None else needed)}",
                  f"none called {', '.join(missing)}", "use the builder in augjax.defaults")
    return given


def _axis(what: str, numbers: Sequence[float]) -> tuple[float, ...]:
    """Numbers that a plot can have on an axis."""
    farthest = max(numbers, key=abs, default=0)
    check.require(abs(farthest) <= FARTHEST, what, f"numbers from -{FARTHEST:g} to {FARTHEST:g}",
                  f"{farthest:g}", "no plot can show it")
    return tuple(numbers)


def _check_rows(what: str, names: Sequence[str], rows: Rows) -> None:
    for row in names:
        check.one_of(what, row, rows)
