"""Batches fed by the host, for sets that do not fit on the device; built on grain."""

from collections.abc import Iterator
from dataclasses import dataclass
import functools

from absl import flags
import grain
import numpy as np

from augjax import check
from augjax.data.epochs import order
from augjax.data.source import Source
from augjax.types import Batch


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """N // B: the last partial batch of an epoch is dropped. Raises ConfigError where that is 0."""
    check.require(
        1 <= batch_size <= len(source), f"batches of {source.name}",
        f"a batch size from 1 to {len(source)}", batch_size,
        "choose a batch no larger than the data",
    )
    return len(source) // batch_size


def batch_indices(source: Source, seed: int, batch_size: int, step: int) -> np.ndarray:
    """Indices [B] int32 of the images that update `step` (from 0) of a phase sees."""
    epoch, place = divmod(int(step), steps_per_epoch(source, batch_size))
    return _order(seed, epoch, len(source))[place * batch_size : (place + 1) * batch_size]


def feed(
    source: Source,
    seed: int,
    batch_size: int,
    first_step: int,
    steps: int,
    part: tuple[int, int] = (0, 1),
    threads: int = 2,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yields the batches of steps first_step .. first_step + steps - 1, as NumPy arrays.

    `batch_size` is global; `part` = (index, count) yields one process's contiguous share of every
    batch, B / count images. What a step sees depends on (seed, batch_size, step) alone, so an
    iterator that starts at any step goes on as one that never stopped. `threads` decode ahead
    in this process, or in each of `workers` child processes if there are any; those import the
    main module anew, so a script that asks for them needs its `if __name__ == "__main__":`.
    """
    steps_per_epoch(source, batch_size)
    index, count = part
    check.require(
        count >= 1 and 0 <= index < count and batch_size % count == 0, "feed",
        f"part = (index, count) with index below count and a count that divides {batch_size}",
        part, "choose a batch size that all processes share evenly",
    )
    check.require(
        first_step >= 0 and steps >= 0, "feed", "first_step and steps from 0 on",
        (first_step, steps), "count steps from 0",
    )
    check.require(
        threads >= 1 and workers >= 0, "feed", "at least 1 thread and 0 workers",
        (threads, workers), "raise threads or workers",
    )
    fetch = _Fetch(source, seed, batch_size, index, count)
    batches = grain.MapDataset.range(first_step, first_step + steps).map(fetch).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    )
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads a flag of its own, also outside app.run
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return (  # copies, because workers hand over shared memory that is to be given back
        Batch(**{name: np.array(value) for name, value in batch.items()}) for batch in batches
    )


@dataclass(frozen=True)
class _Fetch:
    """step -> {image, label, index}: a process's share of the step's batch; can be pickled."""

    source: Source
    seed: int
    batch_size: int
    index: int
    count: int

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        share = self.batch_size // self.count
        indices = batch_indices(self.source, self.seed, self.batch_size, step)
        indices = indices[self.index * share : (self.index + 1) * share]
        return {
            "image": self.source.read(indices),
            "label": self.source.labels[indices],
            "index": indices,
        }


@functools.lru_cache(maxsize=4)  # threads that prefetch stand at most in two neighbouring epochs
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return order(seed, epoch, size)
