"""Where images come from: random access to a split, and what a data set is made of."""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from augjax import check
from augjax.data.epochs import stratified


class Reader(Protocol):
    """What stands behind a Source: images by position, decoded on demand or once and for all."""

    def read(self, positions: np.ndarray) -> np.ndarray:
        """[n] int -> [n, H, W, C] uint8, decoded now."""

    def keep(self, positions: np.ndarray) -> np.ndarray:
        """The same pixels, each image decoded at most once in this process."""


@dataclass(frozen=True)
class Held:
    """A Reader of images that already lie in memory: [N, H, W, C] uint8."""

    images: np.ndarray

    def read(self, positions: np.ndarray) -> np.ndarray:
        return self.images[positions]

    def keep(self, positions: np.ndarray) -> np.ndarray:
        whole = np.array_equal(positions, np.arange(len(self.images)))
        return read_only(self.images) if whole else self.images[positions]


@dataclass(frozen=True, eq=False)
class Source:
    """Random access to one split. An image's index is its place in this source, 0..len-1."""

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (H, W, C)
    labels: np.ndarray  # [N] int32, read-only
    reader: Reader
    positions: np.ndarray  # [N] int32, where image i of this source lies in the reader

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """[n] int, each in 0..len-1 -> images [n, H, W, C] uint8, a copy of the caller's own.

        Raises ConfigError for an index outside, DataError for an image that cannot be read.
        """
        indices = np.asarray(indices, np.int64)
        _require_inside(self, indices)
        return self.reader.read(self.positions[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set: images to learn from, to test on, and to choose by (carved from train)."""

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (H, W, C)
    train: Source
    test: Source
    holdout: Source | None = None

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)


def from_arrays(
    name: str, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Source:
    """A Source over arrays: images [N, H, W, C] uint8, labels [N] of integers in 0..K-1.

    `class_names` are K. Raises DataError, naming `name`, for arrays of another shape or type and
    for a label outside.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    check.require(
        images.dtype == np.uint8 and images.ndim == 4, name, "images [N, H, W, C] of uint8",
        f"{list(images.shape)} of {images.dtype}", "pass pixels 0..255, channels last",
        check.DataError,
    )
    check.require(
        labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer), name,
        f"{len(images)} integer labels", f"{list(labels.shape)} of {labels.dtype}",
        "pass one label for every image", check.DataError,
    )
    require_labels(name, labels, len(class_names))
    return Source(
        name=name,
        class_names=tuple(class_names),
        image_shape=images.shape[1:],
        labels=read_only(labels.astype(np.int32)),
        reader=Held(images),
        positions=np.arange(len(images), dtype=np.int32),
    )


def subset(source: Source, indices: Sequence[int] | np.ndarray) -> Source:
    """The images of `indices` [n], in that order; their indices become 0..n-1.

    Raises ConfigError for an index outside 0..len-1.
    """
    indices = np.asarray(indices, np.int64)
    _require_inside(source, indices)
    return dataclasses.replace(
        source,
        labels=read_only(source.labels[indices]),
        positions=source.positions[indices],
    )


def holdout(source: Source, count: int, seed: int = 0) -> tuple[Source, Source]:
    """Splits class-stratified into (train, holdout of `count` images), both in source order.

    Raises ConfigError unless every class has images on both sides.
    """
    chosen = np.zeros(len(source), bool)
    if 0 <= count <= len(source):
        chosen[stratified(source.labels, count, seed)] = True
    present = np.unique(source.labels)
    both = all(
        np.array_equal(np.unique(source.labels[side]), present) for side in (chosen, ~chosen)
    )
    check.require(
        both, f"holdout of {source.name}",
        f"a count that leaves each of {len(present)} classes images on both sides",
        f"{count} of {len(source)} images",
        f"choose a count from {len(present)} to well below {len(source)}",
    )
    return subset(source, np.flatnonzero(~chosen)), subset(source, np.flatnonzero(chosen))


def limited(source: Source, count: int, seed: int = 0) -> Source:
    """A fixed, class-stratified subset of `count` images, in source order.

    Raises ConfigError unless there are as many, and at least one.
    """
    check.require(
        1 <= count <= len(source), f"limit of {source.name}", f"1 to {len(source)} images", count,
        "ask for no more images than there are",
    )
    return subset(source, stratified(source.labels, count, seed))


def resident(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """All of a source: images [N, H, W, C] uint8 and labels [N] int32, not to be written to.

    Every image is decoded at most once in a process, however often it is asked for. Raises
    ConfigError where images of any size are cropped anew every epoch, DataError for an image that
    cannot be read.
    """
    return source.reader.keep(source.positions), source.labels


def require_labels(name: str, labels: np.ndarray, classes: int) -> None:
    """Raises DataError that names the first record whose label lies outside 0..K-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise check.DataError(check.sentence(
            f"{name} record {wrong[0]}", f"a label in 0..{classes - 1}", int(labels[wrong[0]]),
            "prepare the data again from an intact archive",
        ))


def read_only(array: np.ndarray) -> np.ndarray:
    """A view of the same numbers that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def _require_inside(source: Source, indices: np.ndarray) -> None:
    inside = indices.ndim == 1 and bool(np.all((indices >= 0) & (indices < len(source))))
    check.require(
        inside, source.name, f"a list of indices in 0..{len(source) - 1}",
        f"{list(indices.shape)} from {indices.min(initial=0)} to {indices.max(initial=0)}",
        "index images by their place in this source",
    )
