"""What a source of images is, once it has been recognised: the record that every layout yields.

Known data sets have known counts; others are only asked to have an image in every class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from augjax import check


class Place(NamedTuple):
    """Where encoded bytes lie: a file, a piece of a file (a tar's member), or a zip's member."""

    path: str
    offset: int = 0
    size: int = -1  # bytes; -1 is to the end
    member: str = ""

    def __str__(self) -> str:
        piece = f" at byte {self.offset}" if self.offset else ""
        return f"{self.path}: {self.member}{piece}" if self.member else self.path


class Item(NamedTuple):
    """One image of a source."""

    name: str  # stored as `file_name`
    label: int
    place: Place


class Records(NamedTuple):
    """One tfrecord file of examples, copied in its order."""

    path: str
    count: int


class Wanted(NamedTuple):
    """How an image is stored: as "jpeg" or "png", of which size, capped to which short side."""

    encoding: str
    size: tuple[int, int] | None = None  # (height, width) where all are equal
    short_side: int | None = None  # pixels


@dataclass(frozen=True)
class ImageSet:
    """A recognised source. `splits`: {split: its images, or its tfrecord files}.

    `told` are sentences about what lies there and is none of its images.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    wanted: Wanted
    splits: Mapping[str, Sequence[Item] | Sequence[Records]]
    features: tfds.features.FeaturesDict
    told: tuple[str, ...] = ()


class Known(NamedTuple):
    """A published data set: TFDS's version of it, its number of classes, and {split: images}."""

    version: str
    classes: int
    counts: Mapping[str, int]


KNOWN = {
    "cifar10": Known("3.0.2", 10, {"train": 50_000, "test": 10_000}),
    "cifar100": Known("3.0.2", 100, {"train": 50_000, "test": 10_000}),
    "imagenet2012": Known("5.1.0", 1000, {"train": 1_281_167, "validation": 50_000}),
    "tiny_imagenet": Known("1.0.0", 200, {"train": 100_000, "validation": 10_000}),
}


def of_images(
    name: str, version: str, class_names: Sequence[str], wanted: Wanted,
    splits: Mapping[str, Sequence[Item]], told: Sequence[str] = (),
) -> ImageSet:
    """An ImageSet whose examples have the features of TFDS's imagenet2012."""
    size = wanted.size or (None, None)
    features = tfds.features.FeaturesDict({
        "file_name": tfds.features.Text(),
        "image": tfds.features.Image(shape=(*size, 3), encoding_format=wanted.encoding),
        "label": tfds.features.ClassLabel(names=list(class_names)),
    })
    return ImageSet(name, version, tuple(class_names), wanted, splits, features, tuple(told))


def require_counts(
    what: str, sizes: np.ndarray, names: Sequence[str], count: int | None,
    fix: str = "fetch the source again",
) -> None:
    """Raises DataError unless [K] images per class add up to `count`, equally where K divides it.

    A `count` of None is unknown; then, and where K does not divide it, none of the K `names` may
    be empty.
    """
    classes, total = len(sizes), int(sizes.sum())
    check.require(
        count in (None, total), what, f"{count} images", total, fix, check.DataError
    )
    if count is not None and count % classes == 0:
        wrong, expected = np.flatnonzero(sizes * classes != count), count // classes
    else:
        wrong, expected = np.flatnonzero(sizes == 0), "some"
    check.require(
        not len(wrong), what, f"{expected} images for each label",
        ", ".join(f"{sizes[k]} for {names[k]}" for k in wrong[:8]), fix, check.DataError,
    )
