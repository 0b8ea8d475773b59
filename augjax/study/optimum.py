"""Which magnitude suits which sparsity: chosen on held-out images, told on the test images.

Any number that rows vary may take magnitude's place (`x`), any other sparsity's (`condition`).
Source: augmentation_in_compression section IV-A (optimal and maximal magnitude), spec C3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from scipy.special import stdtrit

from augjax.study.compare import SHARE, spread

Accuracies = Mapping[int, float]  # {seed: percent}


@dataclass(frozen=True)
class Optimum:
    """A grid of rows: one for each condition and x, and one for each condition without any x."""

    x_label: str
    x: tuple[float, ...]
    condition_label: str
    conditions: tuple[float, ...]
    rows: tuple[tuple[str, ...], ...]  # [condition][x]
    without: tuple[str, ...] = ()  # [condition], or none


def choose(wanted: Optimum, holdout: Callable[[str], Accuracies],
           test: Callable[[str], Accuracies]) -> dict[str, Any]:
    """{x_label, condition_label, at: a choice for each condition, fit}, as plain data.

    A choice: the x with the highest mean accuracy on held-out images (the lowest of equals), its
    accuracy there and on the test images ({n, mean, std}); the same seed by seed; the largest x
    that is no worse there than no x at all (None where none is, or nothing to compare with); how
    many cells of the grid are measured. `holdout` and `test` give a row's accuracy by seed, and
    no test accuracy has a part in a choice. `fit` is `line` through the choices of all seeds.
    """
    at = [_choice(wanted, number, holdout, test) for number in range(len(wanted.conditions))]
    points = [(choice["condition"], x) for choice in at for x in choice["best_of_seed"].values()]
    return {"x_label": wanted.x_label, "condition_label": wanted.condition_label, "at": at,
            "fit": line(points)}


def _choice(wanted, number, holdout, test):
    rows = dict(zip(wanted.x, wanted.rows[number]))
    found = {x: held for x, row in rows.items() if (held := holdout(row))}
    mean = {x: sum(held.values()) / len(held) for x, held in found.items()}
    seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
    best = _highest(mean)
    plain = holdout(wanted.without[number]) if wanted.without else {}
    floor = sum(plain.values()) / len(plain) if plain else math.inf
    return {
        "condition": wanted.conditions[number],
        "measured": len(found), "of": len(rows),
        "best": best,
        "holdout": spread(list(found[best].values())) if found else None,
        "test": spread(list(test(rows[best]).values())) if found else None,
        "best_of_seed": {str(seed): _highest({x: held[seed] for x, held in found.items()})
                         for seed in seeds},
        "maximal": max((x for x, value in mean.items() if value >= floor), default=None),
    }


def _highest(values: Mapping[float, float]) -> float | None:
    """Where the highest value is; of equal ones the lowest place."""
    return min(values, key=lambda x: (-values[x], x), default=None)


def line(points: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    """Least squares y = intercept + slope x, with 95 % intervals (Student's t, n - 2 degrees).

    {intercept, slope, intercept_interval, slope_interval, residual_std, n}; None for fewer than
    three points or a single x.
    """
    x, y = np.array(points, float).reshape(-1, 2).T
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    middle, width = x.mean(), np.sum((x - x.mean()) ** 2)
    if width == 0:  # x so near to each other that their squares vanish
        return None
    slope = float(np.sum((x - middle) * y) / width)
    intercept = float(y.mean() - slope * middle)
    residual = float(np.sqrt(np.sum((y - intercept - slope * x) ** 2) / (len(x) - 2)))
    reach = float(stdtrit(len(x) - 2, (1 + SHARE) / 2)) * residual
    errors = {"slope": reach / math.sqrt(width),
              "intercept": reach * math.sqrt(1 / len(x) + middle**2 / width)}
    values = {"slope": slope, "intercept": intercept}
    return {
        **{name: round(value, 6) for name, value in values.items()},
        **{f"{name}_interval": (round(values[name] - error, 6), round(values[name] + error, 6))
           for name, error in errors.items()},
        "residual_std": round(residual, 6), "n": len(x),
    }
