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


def constant(value: float) -> Schedule:
    """The same value throughout."""
    return lambda clock: np.full(np.shape(clock.step), value, np.float32)


def linear(start: float, stop: float) -> Schedule:
    """From `start` at the phase's first update towards `stop` at its end."""
    return lambda clock: np.float32(start + (stop - start) * np.asarray(clock.progress))


def cosine(start: float, stop: float = 0.0, warmup_epochs: float = 0.0) -> Schedule:
    """Half a cosine from `start` to `stop` over the phase, after a linear rise from 0."""

    def value(clock):
        falling = stop + (start - stop) * 0.5 * (1 + np.cos(np.pi * np.asarray(clock.progress)))
        return np.float32(falling * _warmup(clock, warmup_epochs))

    return value


def piecewise(value: float, factors: Mapping[float, float], warmup_epochs: float = 0.0) -> Schedule:
    """`value`, multiplied by each factor from its epoch on: {epoch: factor}."""
    check.require(
        all(epoch >= 0 for epoch in factors),
        "piecewise schedule", "epochs >= 0", sorted(factors), "give {epoch: factor}",
    )

    def scaled(clock):
        result = np.full(np.shape(clock.epoch), value, np.float64)
        for epoch, factor in sorted(factors.items()):
            result = np.where(np.asarray(clock.epoch) >= epoch, result * factor, result)
        return np.float32(result * _warmup(clock, warmup_epochs))

    return scaled


def table(points: Mapping[float, float]) -> Schedule:
    """Linear interpolation between {epoch: value}, constant outside."""
    check.require(len(points) > 0, "table schedule", "at least one point", points,
                  "give {epoch: value}")
    epochs = sorted(points)
    return lambda clock: np.float32(np.interp(clock.epoch, epochs, [points[e] for e in epochs]))


def _warmup(clock, epochs):
    return np.minimum(1.0, np.asarray(clock.epoch) / epochs) if epochs else 1.0
