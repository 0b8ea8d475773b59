"""The best magnitude in fewer runs than the whole grid: coarse, then ever finer around the best.

Pure control logic: `next_magnitudes` says what to measure next, given what has been measured, so a
search is resumed by asking again. A magnitude is a knob, so all runs share one compiled update.
The whole grid is that of augmentation_in_compression, 0..30 (spec C3).
"""

from collections.abc import Mapping
import math
from typing import NamedTuple

from augjax import check

POINTS = 5  # of the coarse grid, ends included

Measured = Mapping[float, float]  # {magnitude: mean held-out accuracy over the seeds}


class Replayed(NamedTuple):
    """What a search would have done on a grid that was measured as a whole."""

    magnitude: float  # its choice
    runs: int  # of one seed each
    lost: float  # accuracy of the grid's best minus that of the choice, in the table's unit


def next_magnitudes(
    measured: Measured, low: float, high: float, points: int = POINTS, finest: float = 1
) -> tuple[float, ...]:
    """The magnitudes to measure next, rising; () when the search is done. Never one twice.

    First `points` places evenly over low..high, in steps of `finest`; then, around the best so far
    (the lowest of equals), the places at half the spacing on either side, and so on until the
    spacing is `finest`. Asked while some of what it last asked is missing, it gives the missing.
    What was measured besides is used; in the end the best of all has measured neighbours.

    Exact, the lowest of equals, where accuracy rises to its maximum, be that one place or a
    plateau, and falls after it. Two magnitudes side by side may be equal below the maximum; a wider
    plateau there can hide it, from this and from any search that leaves places out.

    Raises ConfigError for a range that is no whole number of steps, and for other magnitudes in it.
    """
    last = _steps(low, high, finest)
    check.require(isinstance(points, int) and points >= 2, "points of a coarse grid",
                  "a whole number from 2 on", points, "5 do for 0..30")
    score = _at_places(measured, low, finest, last)
    asked, wanted = set(), _coarse(last, points)
    spacing = max((after - place for place, after in zip(wanted, wanted[1:])), default=0)
    while True:
        missing = [place for place in wanted if place not in score]
        if missing:
            return tuple(low + place * finest for place in missing)
        asked.update(wanted)
        if spacing <= 1:
            break
        spacing = -(-spacing // 2)
        wanted = _beside({place: score[place] for place in asked}, spacing, last)
    missing = [place for place in _beside(score, 1, last) if place not in score]
    return tuple(low + place * finest for place in missing)


def best(measured: Measured) -> float:
    """The magnitude with the highest accuracy, the lowest of equals; a failed run's NaN is last.

    Raises ConfigError where nothing was measured.
    """
    check.require(len(measured) > 0, "best magnitude", "at least one that was measured", "none",
                  "measure those of `next_magnitudes`")
    return min(measured, key=lambda magnitude: (-_number(measured[magnitude]), magnitude))


def runs_saved(
    measured: Measured, low: float, high: float, finest: float = 1, seeds: int = 1
) -> int:
    """How many runs the whole grid of low..high would have had more, `seeds` to a magnitude."""
    last = _steps(low, high, finest)
    return seeds * (last + 1 - len(_at_places(measured, low, finest, last)))


def replayed(table: Measured, points: int = POINTS, finest: float = 1) -> Replayed:
    """What the search would have chosen on a grid that was measured wholly, and what it lost.

    Raises ConfigError for a table with gaps.
    """
    low, high = min(table, default=0), max(table, default=0)
    check.require(
        runs_saved(table, low, high, finest) == 0, "table of a whole grid",
        f"every magnitude from {low} to {high} in steps of {finest}", sorted(table),
        "measure the others, too",
    )
    at = {round((magnitude - low) / finest): magnitude for magnitude in table}
    measured: dict[float, float] = {}
    while wanted := next_magnitudes(measured, low, high, points, finest):
        for magnitude in wanted:
            own = at[round((magnitude - low) / finest)]  # the table's spelling of the same number
            measured[own] = table[own]
    choice = best(measured)
    return Replayed(choice, len(measured), table[best(table)] - table[choice])


def _coarse(last, points):
    """Rising places from 0 to `last`, evenly, halves rounded up."""
    gaps = points - 1
    return sorted({(2 * number * last + gaps) // (2 * gaps) for number in range(points)})


def _beside(score, spacing, last):
    """The places on either side of the best, as far as they are in the range."""
    middle = best(score)
    return [place for place in (middle - spacing, middle + spacing) if 0 <= place <= last]


def _steps(low, high, finest):
    """How many steps of `finest` the range has."""
    check.require(finest > 0 and low <= high, "range of magnitudes", "low to high in steps above 0",
                  (low, high, finest), "RandAugment's is 0 to 30 in steps of 1")
    last = round((high - low) / finest)
    check.require(math.isclose(last * finest, high - low, rel_tol=1e-9, abs_tol=1e-9),
                  "range of magnitudes", "a whole number of the finest steps", (low, high, finest),
                  "choose a step that divides the range")
    return last


def _at_places(measured, low, finest, last):
    """{place 0..last: accuracy}."""
    found = {}
    for magnitude, accuracy in measured.items():
        place = round((magnitude - low) / finest)
        check.require(
            0 <= place <= last and math.isclose(low + place * finest, magnitude, abs_tol=1e-9),
            "measured magnitude", f"{low} to {low + last * finest} in steps of {finest}", magnitude,
            "give only those of this range",
        )
        found[place] = accuracy
    return found


def _number(accuracy):
    return -math.inf if math.isnan(accuracy) else accuracy
