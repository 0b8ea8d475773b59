"""Population based augmentation: a policy of 30 entries, and the schedule of such policies.

An entry is an operation with a probability and a level; each of the 15 operations has two. A
schedule is a readable file of policies by epoch; replayed, it turns knobs of one compiled update.
Source: Ho et al. 2019; spec P1, P2, P6.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import check
from augjax.augment import calls, maps
from augjax.augment.engine import Program
from augjax.augment.rows import GREY
from augjax.types import Clock, record, static

COPIES = 2  # entries of every operation: first all operations once, then all again
COUNTS = (0.2, 0.3, 0.5, 0.0)  # P2: the chances of at most 0, 1, 2, 3 operations
VERSION = 1


@record
class PopulationPolicy:
    """See `pba`, which checks what it is given."""

    probabilities: Any  # [E] float32, or a schedule of them
    levels: Any  # [E] float32, or a schedule of them
    counts: Any  # [L + 1] float32, the chances of at most 0..L operations
    ops: tuple[str, ...] = static()  # entry e has operation e mod len(ops)
    map: str = static()
    fill: calls.Fill = static()
    interpolation: str = static()

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> Program:
        """keys [B] -> a Program for images [B, H, W, C] of `image_shape` (H, W, C).

        A walk through the shuffled entries, taking those that fire until the count is used up,
        takes the first ones of a random order of the entries that fire. So every entry gets a
        random place, and the firing entries of the lowest places are taken, lowest first.
        """
        maps.check_level(maps.map_named(self.map), self.levels)
        probabilities, levels = jnp.asarray(self.probabilities), jnp.asarray(self.levels)
        counts = jnp.asarray(self.counts)
        entries, layers = probabilities.shape[-1], counts.shape[-1] - 1
        bits = calls.random_bits(keys, (2, entries))  # [2, B, E]
        fires = calls.uniform(bits[0]) < probabilities
        place = (bits[1] >> 1).astype(jnp.int32)  # [B, E]; the largest int32 says "not fired"
        place = jnp.where(fires, place, jnp.iinfo(jnp.int32).max)
        more = calls.random_bits(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), (4, layers))
        most = calls.uniform(more[3, :, 0])[:, None] >= jnp.cumsum(counts)[:-1]  # [B, L]
        taken, applies = [], []
        for layer in range(layers):
            entry = jnp.argmin(place, -1)  # [B]
            fired = jnp.take_along_axis(place, entry[:, None], -1)[:, 0]
            applies.append((fired < jnp.iinfo(jnp.int32).max) & most[:, layer])
            taken.append(entry)
            here = jnp.arange(entries) == entry[:, None]
            place = jnp.where(here, jnp.iinfo(jnp.int32).max, place)
        entry = jnp.stack(taken, -1)  # [B, L]
        draws = maps.Draws(sign=more[0], x=more[1], y=more[2])
        return calls.program(
            self, self.ops, entry % len(self.ops), levels[entry], jnp.stack(applies, -1), draws,
            image_shape,
        )


def pba(
    probabilities: Any,
    levels: Any,
    counts: Sequence[float] = COUNTS,
    ops: tuple[str, ...] = maps.PBA_OPS,
    map: str = "autoaugment",
    fill: int | Sequence[int] = GREY,
    interpolation: str = "nearest",
) -> PopulationPolicy:
    """PBA's policy: at most `count` operations per image, `count` drawn from `counts`.

    probabilities   [30] in [0, 1]: of `ops` in their order, then of `ops` again; a schedule, too
    levels          [30] levels of the map, 0..9 in PBA; a schedule, too
    counts          the chances of at most 0, 1, 2, ... operations, which sum to 1; chances of 0 at
                    the end are left out, so that no layer is done for nothing

    The entries are shuffled for every image and walked through: each is done with its probability
    until the count is used up; there is no second walk. PBA fills with the data set's mean. All
    three arrays are traced. Raises ConfigError. Source: spec P1, P2.
    """
    chosen = calls.check_manner(map, interpolation)
    for name in ops:
        check.one_of(f"operation of map {map!r}", name, chosen.ops)
    for what, value in (("probabilities", probabilities), ("levels", levels)):
        if not callable(value):
            _check_length(f"{what} of a PBA policy", np.shape(value), COPIES * len(ops))
    calls.check_probability("probabilities of a PBA policy", probabilities)
    maps.check_level(chosen, levels)
    if not isinstance(counts, jax.Array):
        counts = _checked_counts(counts)
    return PopulationPolicy(
        calls.number(probabilities), calls.number(levels), counts, tuple(ops), map,
        calls.colour_of(fill), interpolation,
    )


def _checked_counts(counts):
    """[L + 1] float32 without zeros at the end, L at least 1."""
    calls.check_probability("counts of a PBA policy", counts)
    check.require(
        len(counts) > 1 and abs(sum(counts) - 1) < 1e-6, "counts of a PBA policy",
        "chances of at most 0, 1, ... operations that sum to 1", list(counts),
        "PBA's are (0.2, 0.3, 0.5, 0.0)",
    )
    last = max(2, 1 + max(count for count, chance in enumerate(counts) if chance > 0))
    return np.float32(counts[:last])


def _check_length(what, shape, length):
    check.require(
        shape == (length,), what, f"[{length}] numbers, {COPIES} for each operation",
        list(shape), "give all operations once, then all again",
    )


# --- a schedule of policies ----------------------------------------------------------------------


def replay(
    schedule: Mapping[str, Any],
    epochs: int,
    counts: Sequence[float] = COUNTS,
    fill: int | Sequence[int] = GREY,
    interpolation: str = "nearest",
) -> PopulationPolicy:
    """A policy whose numbers are functions of the host's clock: those of the epoch's segment.

    `schedule` is what a schedule.json of a search holds:

        {"version": 1, "map": "autoaugment", "ops": [15 names], "epochs": 200, "segments":
         [{"epochs": 12, "probabilities": [30 numbers], "levels": [30 numbers]}, ...],
         "lineage": ...}

    Over another number of `epochs` every segment's length is multiplied by epochs / schedule's
    epochs, its integer part kept, and the last segment fills the rest. Raises ConfigError.
    Source: spec P6.
    """
    check_schedule(schedule)
    check.require(
        isinstance(epochs, int) and epochs >= 1, "epochs of replay", "a whole number from 1 on",
        epochs, "give the number of epochs of the phase",
    )
    segments = schedule["segments"]
    lengths = stretched([segment["epochs"] for segment in segments], epochs)
    at = np.repeat(np.arange(len(segments)), lengths)  # [epochs] the segment of every epoch

    def of_epoch(field):
        table = np.float32([segment[field] for segment in segments])[at]  # [epochs, E]

        def value(clock: Clock) -> np.ndarray:
            epoch = np.asarray(clock.epoch).astype(np.int32)
            return table[np.clip(epoch, 0, epochs - 1)]

        return value

    return pba(
        of_epoch("probabilities"), of_epoch("levels"), counts, tuple(schedule["ops"]),
        schedule["map"], fill, interpolation,
    )


def stretched(lengths: Sequence[int], epochs: int) -> list[int]:
    """Segment lengths in epochs, for another total: integer parts, the last fills up. Spec P6."""
    total = sum(lengths)
    scaled = [length * epochs // total for length in lengths]
    return [*scaled[:-1], epochs - sum(scaled[:-1])]


def check_schedule(schedule: Any) -> None:
    """Raises ConfigError that names the field of a schedule that is missing or wrong."""
    _check_fields("schedule", schedule, ("version", "map", "ops", "epochs", "segments"))
    check.require(
        schedule["version"] == VERSION, "schedule: version", VERSION, schedule["version"],
        "search again, or write the file as this version does",
    )
    chosen = maps.map_named(schedule["map"])
    check.require(
        isinstance(schedule["ops"], (list, tuple)) and len(schedule["ops"]) > 0, "schedule: ops",
        "a list of operations", schedule["ops"], "name the operations in the entries' order",
    )
    for name in schedule["ops"]:
        check.one_of(f"schedule: operation of map {chosen.name!r}", name, chosen.ops)
    check.require(
        isinstance(schedule["segments"], (list, tuple)) and len(schedule["segments"]) > 0,
        "schedule: segments", "at least one", schedule["segments"], "give a segment per policy",
    )
    for number, segment in enumerate(schedule["segments"]):
        _check_segment(f"schedule: segments[{number}]", segment, chosen, len(schedule["ops"]))
    lengths = [segment["epochs"] for segment in schedule["segments"]]
    check.require(
        sum(lengths) == schedule["epochs"] and sum(lengths) > 0, "schedule: epochs of all segments",
        f"a sum of {schedule['epochs']}, the schedule's epochs", f"{sum(lengths)}",
        "correct the lengths or the total",
    )


def _check_segment(where, segment, chosen, operations):
    _check_fields(where, segment, ("epochs", "probabilities", "levels"))
    check.require(
        isinstance(segment["epochs"], int) and segment["epochs"] >= 0, f"{where}.epochs",
        "a whole number from 0 on", segment["epochs"], "count whole epochs",
    )
    for field, highest in (("probabilities", 1.0), ("levels", chosen.highest)):
        try:
            numbers = np.asarray(segment[field], np.float64)
        except (TypeError, ValueError):
            numbers = np.empty(0)
        _check_length(f"{where}.{field}", numbers.shape, COPIES * operations)
        calls.check_inside(f"{where}.{field}", numbers, 0.0, highest, "stay inside the range")


def _check_fields(where, block, fields):
    check.require(
        isinstance(block, Mapping), where, "fields and values", type(block).__name__,
        "give what a search's schedule.json holds",
    )
    missing = [field for field in fields if field not in block]
    check.require(
        not missing, where, f"the fields {', '.join(fields)}", f"no {', '.join(missing)}",
        "add what is missing",
    )
