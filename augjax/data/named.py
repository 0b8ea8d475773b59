"""From a data set's name in a config to the data set."""

import dataclasses
from pathlib import Path

import numpy as np

from augjax import check
from augjax.data import embedded, records
from augjax.data.source import Dataset, Held, limited, read_only, Source
from augjax.data.source import holdout as split_holdout


def load(
    name: str,
    data_dir: str | Path | None = None,
    holdout: int = 0,
    limit: int | None = None,
    image_size: int | None = None,
) -> Dataset:
    """The named data set, one of READERS.

    `holdout` images are carved class-stratified out of the training images (seed 0), then `limit`
    keeps a class-stratified subset of that many of the rest (so every limit shares one holdout);
    the test images always stay whole. `image_size` may only be chosen for digits, whose own is 16;
    a network resizes what it is given.
    """
    read = READERS[check.one_of("data set", name, READERS)]
    dataset = read(data_dir, image_size)
    check.require(
        holdout >= 0, "data.holdout", "a number of images from 0 on", holdout, "choose 0 for none"
    )
    train, held = split_holdout(dataset.train, holdout) if holdout else (dataset.train, None)
    if limit is not None:
        train = limited(train, limit)
    return dataclasses.replace(dataset, train=train, holdout=held)


def _digits(data_dir, image_size):
    del data_dir  # they come with scikit-learn
    return embedded.digits() if image_size is None else embedded.digits(image_size)


def _cifar(name, classes):
    def read(data_dir, image_size):
        check.require(
            image_size in (None, 32), name, "image_size=32 or none", image_size,
            "leave it out: a network resizes what it is given",
        )
        check.require(
            data_dir is not None, name, "a data_dir", "none",
            f"pass the folder given to `python -m launch.prepare --source={records.ARCHIVES[name]} "
            "--data_dir=DIR`",
        )
        dataset = records.tfds_images(name, data_dir)
        got = (dataset.classes, dataset.image_shape)
        check.require(
            got == (classes, (32, 32, 3)), f"{name} in {data_dir}",
            f"{classes} classes of images (32, 32, 3)", f"{got[0]} classes of images {got[1]}",
            "prepare it with launch.prepare", check.DataError,
        )
        return dataset

    return read


def described(name: str, image_size: int | None = None) -> Dataset:
    """The named data set's shape without its images, for programs that are compiled and never run.

    `image_size` is the side of what is fed, for data sets whose images are cropped to any.
    """
    classes, size, count = FACTS[check.one_of("data set", name, FACTS)]
    names = tuple(str(k) for k in range(classes))
    shape = (image_size or size,) * 2 + (3,)
    nothing = Held(np.zeros((0, *shape), np.uint8))
    labels = read_only(np.zeros(count, np.int32))
    train = Source(name, names, shape, labels, nothing, np.arange(count, dtype=np.int32))
    return Dataset(name, names, shape, train, train)


FACTS = {  # classes, pixels a side, training images
    "digits": (10, 16, 1437),
    "cifar10": (10, 32, 50_000),
    "cifar100": (100, 32, 50_000),
    "tiny_imagenet": (200, 64, 100_000),
    "imagenet2012": (1000, 224, 1_281_167),
}
READERS = {
    "digits": _digits,
    "cifar10": _cifar("cifar10", 10),
    "cifar100": _cifar("cifar100", 100),
}
