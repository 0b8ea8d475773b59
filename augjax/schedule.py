"""Schedules: functions of a phase's clock, evaluated on the host, whose values are traced knobs.

A schedule is `(clock) -> value` with `clock.step` (updates done), `clock.epoch` (fractional) and
`clock.progress` (0..1 over the phase); step, epoch and progress may be arrays of equal shape.
Because only values reach the compiled update, another schedule compiles nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from augjax import check
from augjax.types import Clock

Schedule = Callable[[Clock], Any]

EARLY = 1e-6  # of an epoch: far less than a step, more than what 3 * 0.1 and 0.3 differ by


def constant(value: float) -> Schedule:
    """The same value throughout."""
    return lambda clock: np.full(np.shape(clock.step), value, np.float32)


def linear(start: float, stop: float) -> Schedule:
    """From `start` at the phase's first update towards `stop` at its end."""
    return lambda clock: np.float32(start + (stop - start) * np.asarray(clock.progress))


def cosine(start: float, stop: float = 0.0, warmup_epochs: float = 0.0) -> Schedule:
    """Half a cosine from `start` to `stop` over the phase, times a linear rise from 0 to 1 over its
    first `warmup_epochs`: with these it never reaches `start`."""

    def value(clock):
        falling = stop + (start - stop) * 0.5 * (1 + np.cos(np.pi * np.asarray(clock.progress)))
        return np.float32(falling * _warmup(clock, warmup_epochs))

    return value


def exponential(value: float, factor: float = 0.97, every_epochs: float = 2.4,
                warmup_epochs: float = 0.0) -> Schedule:
    """A staircase: `value`, times `factor` once more after every `every_epochs`.

    Its stairs count from the phase's first update; those inside a warm-up, which rises linearly
    from 0 to `value`, are not seen. Raises ConfigError unless factor and epochs are positive.
    Source: EfficientNet, spec M3 (tensorflow/tpu, efficientnet/utils.py).
    """
    check.require(factor > 0, "exponential schedule", "a factor above 0", factor, "0.97 is common")
    check.require(every_epochs > 0, "exponential schedule", "every_epochs above 0", every_epochs,
                  "say after how many epochs the factor applies")

    def scaled(clock):
        epoch = np.asarray(clock.epoch)
        result = value * factor ** np.floor((epoch + EARLY) / every_epochs)
        if warmup_epochs:
            result = np.where(epoch < warmup_epochs - EARLY, value * epoch / warmup_epochs, result)
        return np.float32(result)

    return scaled


def piecewise(value: float, factors: Mapping[float, float], warmup_epochs: float = 0.0) -> Schedule:
    """`value`, multiplied by each factor once its epochs are over: {epochs done: factor}.

    {150: 0.1} first acts in the 151st epoch: RepDistiller's "after 150, active from the next
    epoch" (spec, recipe RD; its code compares epochs counted from 1 by `epoch > 150`).
    """
    check.require(
        all(epoch >= 0 for epoch in factors),
        "piecewise schedule", "epochs >= 0", sorted(factors), "give {epoch: factor}",
    )

    def scaled(clock):
        result = np.full(np.shape(clock.epoch), value, np.float64)
        for epoch, factor in sorted(factors.items()):
            result = np.where(np.asarray(clock.epoch) >= epoch - EARLY, result * factor, result)
        return np.float32(result * _warmup(clock, warmup_epochs))

    return scaled


def table(points: Mapping[float, float]) -> Schedule:
    """Linear interpolation between {epoch: value}, constant outside."""
    check_points("table", points, "epoch")
    return lambda clock: np.float32(_between(points, clock.epoch))


def at_sparsity(points: Mapping[float, float], sparsity: float,
                what: str = "sparsity schedule") -> float:
    """Linear interpolation between {sparsity: value}: spec C3's magnitudes.

    Raises ConfigError, as of `what`, for a sparsity beyond the first or the last point.
    """
    check_points("sparsity", points, "sparsity")
    least, most = min(points), max(points)
    check.require(least <= sparsity <= most, what, f"points that cover sparsity {sparsity:g}",
                  f"points from {least:g} to {most:g}", "add one for it")
    return float(_between(points, sparsity))


def check_points(kind: str, points: Mapping[float, float], what: str) -> None:
    """Raises ConfigError where there is nothing to interpolate between."""
    check.require(len(points) > 0, f"{kind} schedule", "at least one point", points,
                  f"give {{{what}: value}}")


def _between(points, at):
    known = sorted(points)
    return np.interp(at, known, [points[place] for place in known])


def _warmup(clock, epochs):
    return np.minimum(1.0, np.asarray(clock.epoch) / epochs) if epochs else 1.0
