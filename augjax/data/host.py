"""Batches fed by the host, for sets that do not fit on the device.

Threads are grain's, worker processes those of `workers`.
"""

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass
import functools
import os
import traceback
from typing import Any

import numpy as np

from augjax import check
from augjax.data import workers as processes
from augjax.data.cropped import Cropped
from augjax.data.epochs import order
from augjax.data.source import Source
from augjax.types import Batch

BAD_SHARE = 0.001  # of the images that a process reads in an epoch; above it something is wrong
# with the data as a whole (a copy cut short, a decoder missing), not with single images
_NEIGHBOURS = 100  # images in a row that may be bad before the search for a sound one ends
_FEW = 4096  # images; a set this small is read sooner than workers have started
_THREADS = 16  # that decode for evaluation; batches wait in memory, one for each


def _say(sentence: str) -> None:
    check.tell(f"augjax: {sentence}")


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """N // B: the last partial batch of an epoch is dropped. Raises ConfigError where that is 0."""
    check.require(
        1 <= batch_size <= len(source), f"batches of {source.name}",
        f"a batch size from 1 to {len(source)}", batch_size,
        "choose a batch no larger than the data",
    )
    return len(source) // batch_size


def batch_indices(source: Source, seed: int, batch_size: int, step: int) -> np.ndarray:
    """Indices [B] int32 of the images that update `step` (from 0) of a phase sees.

    Raises ConfigError as `steps_per_epoch`.
    """
    epoch, place = divmod(int(step), steps_per_epoch(source, batch_size))
    return _order(seed, epoch, len(source))[place * batch_size : (place + 1) * batch_size]


def workers_for(source: Source) -> int:
    """How many worker processes `feed` wants: a core each for many images of any size, else 0."""
    cut = isinstance(source.reader, Cropped) and len(source) > _FEW
    return _cores() if cut else 0


def feed(
    source: Source,
    seed: int,
    batch_size: int,
    first_step: int,
    steps: int,
    part: tuple[int, int] = (0, 1),
    threads: int = 2,
    workers: int = 0,
    told: Callable[[str], None] = _say,
) -> Iterator[Batch]:
    """Yields the batches of steps first_step .. first_step + steps - 1, as NumPy arrays.

    `batch_size` is global; `part` = (index, count) yields one process's contiguous share of every
    batch, B / count images. What a step sees depends on (seed, batch_size, step) alone, so an
    iterator that starts at any step goes on as one that never stopped. `threads` decode ahead in
    this process, or `workers` child processes instead if there are any; those import the main
    module anew, so a script that asks for them needs its `if __name__ == "__main__":`.

    Images of any size are cropped at random by (seed, epoch, index). One that cannot be read is
    replaced, index and label included, by the next of the source that can; `told` is given the
    sentence that names it, when its batch is due. Raises DataError where more than BAD_SHARE of an
    epoch's images (and more than one) are bad, and where a worker dies, with its traceback; and
    ConfigError for a batch that is larger than the data or that `part` does not divide, and for
    counts below their least.
    """
    epoch_steps = steps_per_epoch(source, batch_size)
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
    if workers:
        batches = processes.batches(fetch, range(first_step, first_step + steps),
                                    (batch_size // count, *source.image_shape), workers)
    else:
        batches = _by_threads(fetch, first_step, steps, threads, 2 * threads)
    allowed = _allowed(epoch_steps * batch_size // count)
    return _watched(batches, first_step, epoch_steps, allowed, source.name, told)


def in_order(
    source: Source,
    batch_size: int,
    part: tuple[int, int] = (0, 1),
    threads: int | None = None,
    told: Callable[[str], None] = _say,
) -> Iterator[Batch]:
    """Yields every image once, in order, as NumPy arrays; `part` as in `feed`.

    The last batch is filled up with rows of index -1, which count for nothing; so does an image
    that cannot be read, which `told` is given and DataError ends as in `feed`. Images of any size
    are decoded ahead by `threads`, a core each if not told otherwise.
    """
    count = -(-len(source) // batch_size)
    fetch = _FetchInOrder(source, batch_size, *part)
    if threads is None:
        threads = min(_cores(), count, _THREADS) if isinstance(source.reader, Cropped) else 0
    batches = _by_threads(fetch, 0, count, threads, threads)
    return _watched(batches, 0, count, _allowed(len(source) // part[1]), source.name, told)


def _by_threads(fetch, first, count, threads, ahead):
    """A grain iterator over fetch(first), fetch(first + 1), ..."""
    import grain  # two seconds of imports that worker processes can do without

    return iter(grain.MapDataset.range(first, first + count).map(fetch).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)))


@dataclass(frozen=True)
class _Fetch:
    """step -> {image, label, index, bad}: a process's share of its batch; can be pickled."""

    source: Source
    seed: int
    batch_size: int
    index: int
    count: int

    def __call__(self, step: int, rows: slice = slice(None)) -> dict[str, Any]:
        share = self.batch_size // self.count
        indices = batch_indices(self.source, self.seed, self.batch_size, step)
        indices = indices[self.index * share : (self.index + 1) * share][rows]
        epoch = int(step) // steps_per_epoch(self.source, self.batch_size)
        images, indices, bad = training_images(self.source, indices, self.seed, epoch)
        return {"image": images, "label": self.source.labels[indices], "index": indices, "bad": bad}


def training_images(
    source: Source, indices: np.ndarray, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """[n] int32 -> (images [n, H, W, C] uint8, the indices they have [n], what is said of bad ones)

    An image of any size that cannot be read gives its place to the next one in the source.
    """
    if not isinstance(source.reader, Cropped):
        return source.read(indices), indices, []

    def crops(indices):
        return source.reader.cut(
            source.positions[indices], lambda place: (seed, epoch, int(indices[place])))

    images, wrong = crops(indices)
    taken = indices.copy()
    for place, sentence in wrong.items():
        for after in range(1, _NEIGHBOURS + 1):
            other = (indices[place : place + 1] + after) % len(source)
            image, still_wrong = crops(other)
            if not still_wrong:
                break
        check.require(not still_wrong, source.name, f"a sound image among {_NEIGHBOURS} in a row",
                      f"none; the first: {sentence}", "prepare the data again", check.DataError)
        images[place], taken[place] = image[0], other[0]
    return images, taken, list(wrong.values())


@dataclass(frozen=True)
class _FetchInOrder:
    """number -> {image, label, index, bad}: a process's share of a batch of the whole source."""

    source: Source
    batch_size: int
    index: int
    count: int

    def __call__(self, number: int) -> dict[str, Any]:
        share, last = self.batch_size // self.count, len(self.source) - 1
        first = int(number) * self.batch_size + self.index * share
        places = np.arange(first, first + share)
        index = np.where(places <= last, places, -1).astype(np.int32)
        clipped = np.minimum(places, last)
        images, wrong = _evaluation_images(self.source, clipped, int((index >= 0).sum()))
        index[list(wrong)] = -1
        return {"image": images, "label": self.source.labels[clipped], "index": index,
                "bad": list(wrong.values())}


def _evaluation_images(source, indices, real):
    """(images, {place: sentence}); only the first `real` images of any size are decoded."""
    if not isinstance(source.reader, Cropped):
        return source.read(indices), {}
    images, wrong = np.zeros((len(indices), *source.image_shape), np.uint8), {}
    if real:
        images[:real], wrong = source.reader.cut(source.positions[indices[:real]])
    return images, wrong


def _watched(batches, first_step, epoch_steps, allowed, name, told) -> Iterator[Batch]:
    """The batches; bad images are told and counted, an epoch at a time."""
    with contextlib.closing(batches):
        bad, step = 0, first_step
        while batch := _next(batches, name):
            bad = 0 if step % epoch_steps == 0 else bad
            step += 1
            for sentence in batch.pop("bad"):
                told(sentence)
                bad += 1
            check.require(
                bad <= allowed, name, f"at most {allowed} images an epoch that cannot be read",
                f"{bad}; the last: {sentence.rstrip('.')}" if bad else 0, "prepare the data again",
                check.DataError,
            )
            yield Batch(**batch)


def _next(iterator: Any, name: str) -> dict[str, Any] | None:
    """The next batch, or None at the end; what goes wrong behind it as a DataError."""
    try:
        return next(iterator, None)
    except check.AugjaxError:
        raise
    except Exception as error:  # in a thread or a worker, whose own traceback is its cause
        told = "".join(traceback.format_exception(error)).rstrip()
        raise check.DataError(check.sentence(
            f"feeding {name}", "batches", f"{type(error).__name__}: {error}",
            f"its traceback says where\n{told}")) from error


def _allowed(images: int) -> int:
    return max(1, int(BAD_SHARE * images))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(maxsize=4)  # threads that prefetch stand at most in two neighbouring epochs
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return order(seed, epoch, size)
