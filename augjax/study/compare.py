"""Mean, spread, and whether a difference is one: the numbers under a table."""

from collections.abc import Sequence
from dataclasses import dataclass
import math
import re
import statistics

from scipy.special import stdtrit

from augjax import check

SHARE = 0.95  # of intervals that hold the true mean
CLAIM = re.compile(r"([\w-]+) > ([\w-]+)(?: ([+-]) (\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Claim:
    """That row `better` has a higher top-1 than row `worse` plus `points` (percent)."""

    better: str
    worse: str
    points: float = 0.0

    def __str__(self) -> str:
        margin = f" {'+' if self.points > 0 else '-'} {abs(self.points):g}" if self.points else ""
        return f"{self.better} > {self.worse}{margin}"


def parse_claim(text: str) -> Claim:
    """"kd > plain", or with a margin in points, "pruned > dense - 1.5". Raises ConfigError."""
    found = CLAIM.fullmatch(text)
    check.require(bool(found), "comparison", "ROW > ROW, or ROW > ROW - POINTS", repr(text),
                  "write for example 'kd > plain' or 'pruned > dense - 1.5'")
    better, worse, sign, points = found.groups()
    return Claim(better, worse, float(f"{sign}{points}") if points else 0.0)


def spread(values: Sequence[float]) -> dict[str, float | int | None] | None:
    """{n, mean, std}; the sample standard deviation, None for one value; None for no value."""
    if not values:
        return None
    std = round(statistics.stdev(values), 6) if len(values) > 1 else None
    return {"n": len(values), "mean": round(statistics.fmean(values), 6), "std": std}


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean by Student's t with n - 1 degrees; None below two values."""
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = float(stdtrit(len(values) - 1, (1 + SHARE) / 2)) * error
    mean = statistics.fmean(values)
    return round(mean - reach, 6), round(mean + reach, 6)


def verdict(differences: Sequence[float], points: float = 0.0) -> str:
    """Whether differences exceed `points`: met, not met, undecided or not measured (DESIGN 9).

    met if the whole interval of their mean does, not met if none of it does.
    """
    if not differences:
        return "not measured"
    within = interval(differences)
    if within is None or within[0] <= points < within[1]:
        return "undecided"
    return "met" if within[0] > points else "not met"


def direction(differences: Sequence[float], points: float = 0.0) -> str:
    """On which side of `points` the mean lies, whatever its spread."""
    if not differences:
        return "not measured"
    mean = round(statistics.fmean(differences), 6)
    return "as claimed" if mean > points else "against it" if mean < points else "equal"
