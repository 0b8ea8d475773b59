"""Coarse to fine over a study's optima: which rows of the grid to train next, and what was saved.

The grid's x (magnitudes) are places 0, 1, ... to the search, so they need not be even. A row counts
once all its seeds are done; one whose run failed counts as the worst.
"""

import math
from pathlib import Path

from augjax import check, search, study


def require_optima(planned: study.Study) -> None:
    """Raises ConfigError for a study that has no best magnitude to be found."""
    check.require(bool(planned.optima), "--coarse_to_fine", "a study with `optima`",
                  f"{planned.title!r}, which has none", "leave the flag out: all rows are trained")


def rows_wanted(planned: study.Study, workdir: Path) -> set[str]:
    """The rows that the search wants of every condition, and those without any x; what they need
    besides is found by the study. Empty when the search is done."""
    found = study.states(planned, workdir)
    wanted = set()
    for optimum in planned.optima.values():
        wanted |= {row for row in optimum.without if _measured(planned, row, found) is None}
        for along in optimum.rows:
            places = search.next_magnitudes(_known(planned, along, found), 0, len(along) - 1)
            wanted |= {along[int(place)] for place in places}
    return wanted


def told(planned: study.Study, workdir: Path) -> str:
    """A line for every condition: how many runs were done and saved, and what that lost, which is
    known where the whole grid is measured."""
    found, lines = study.states(planned, workdir), []
    for name, optimum in planned.optima.items():
        for condition, along in zip(optimum.conditions, optimum.rows):
            known = _known(planned, along, found)
            seeds = len(planned.rows[along[0]].seeds)
            line = f"{name}: {optimum.condition_label} {condition:g}: "
            if len(known) == len(along):
                came = search.replayed(known)
                line += (f"of the whole grid coarse to fine takes {came.runs * seeds} of "
                         f"{len(along) * seeds} runs, chooses {optimum.x_label} "
                         f"{optimum.x[int(came.magnitude)]:g} and loses {came.lost:.2f} points")
            else:
                saved = search.runs_saved(known, 0, len(along) - 1, seeds=seeds)
                line += (f"{len(along) * seeds - saved} of {len(along) * seeds} runs, {saved} "
                         "saved; what was lost is not known without them")
            lines.append(line)
    return "\n".join(lines)


def _known(planned: study.Study, along: tuple[str, ...], found: dict) -> dict[float, float]:
    """{place: mean held-out accuracy in percent} of the rows that are measured."""
    accuracies = {float(place): _measured(planned, row, found) for place, row in enumerate(along)}
    return {place: mean for place, mean in accuracies.items() if mean is not None}


def _measured(planned: study.Study, row: str, found: dict) -> float | None:
    """Mean over all seeds; NaN where a run has failed, None where one is still to come."""
    states = [state for run, state in found.items() if run.row == row]
    if any(state.failure for state in states):
        return math.nan
    if not all(state.done for state in states):
        return None
    held = study.held_out(planned, row, found)
    return sum(held.values()) / len(held)
