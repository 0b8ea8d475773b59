"""From a data set's name in a config to the data set.

A prepared folder is read by its name, with no row here. A data set that augjax knows has a row in
each of three tables, at the end of this file:

    READERS     (data_dir, cut) -> Dataset: the folder of `launch.prepare` or None, and what
                `image_size` asks for or None
    FACTS       classes, pixels a side, training images: a dry run then needs no images
    STATISTICS  mean and deviation of the channels, of pixels / 255; without it ImageNet's
"""

from collections.abc import Callable
import dataclasses
from pathlib import Path

import numpy as np

from augjax import check
from augjax.data import embedded, prepared, records
from augjax.data.cropped import Cut
from augjax.data.source import Dataset, Held, limited, read_only, Source
from augjax.data.source import holdout as split_holdout


def load(
    name: str,
    data_dir: str | Path | None = None,
    holdout: int = 0,
    limit: int | None = None,
    image_size: int | None = None,
    crop: str = "resnet",
    draft: bool = False,
) -> Dataset:
    """The named data set: one of READERS, or whatever is prepared as data_dir/NAME/VERSION.

    `holdout` images are carved class-stratified out of the training images (seed 0), then `limit`
    keeps a class-stratified subset of that many of the rest (so every limit shares one holdout);
    the test images always stay whole: those of the split `test`, or `validation` where there is
    none. `image_size` is the side of digits, and of what is cut out of images of any size, by the
    rule `crop` and with `draft` (`cropped.Cut`); a network resizes what it is given.

    Raises ConfigError for an unknown name, a missing `data_dir`, an `image_size` that these images
    lack or cannot have, an unknown crop of images of any size, and a holdout or limit that leaves
    too few; DataError where nothing is prepared, or what is there is broken or another data set.
    """
    cut = Cut(image_size, crop, draft) if image_size is not None else None
    dataset = _reader(name, data_dir)(data_dir, cut)
    check.require(
        holdout >= 0, "data.holdout", "a number of images from 0 on", holdout, "choose 0 for none"
    )
    train, held = split_holdout(dataset.train, holdout) if holdout else (dataset.train, None)
    if limit is not None:
        train = limited(train, limit)
    return dataclasses.replace(dataset, train=train, holdout=held)


Reading = Callable[[str | Path | None, Cut | None], Dataset]


def _reader(name: str, data_dir: str | Path | None) -> Reading:
    """That of READERS, or of a prepared folder of this name; else what is known and there."""
    if name in READERS:
        return READERS[name]
    there = _there(data_dir)
    if name not in there:
        try:
            check.one_of(f"data set ({_told(data_dir, there)})", name, {*READERS, *there})
        except check.ConfigError as error:
            own = f" One of your own needs {PLACE}, the folder given to launch.prepare."
            raise check.ConfigError(f"{error}{own if not there else ''}") from None
    return lambda data_dir, cut: records.tfds_images(
        name, data_dir, cut, prepared.evaluation_split(name, data_dir))


def _there(data_dir: str | Path | None) -> list[str]:
    """The names under `data_dir` that hold prepared data sets."""
    if data_dir is None:
        return []
    found = Path(data_dir).expanduser().glob("*/*/dataset_info.json")
    return sorted({path.parent.parent.name for path in found})


def _told(data_dir: str | Path | None, there: list[str]) -> str:
    """Where people's own were looked for, and what was found."""
    if data_dir is None:
        return "none of your own, as data.dir is not set"
    missing = "" if Path(data_dir).expanduser().is_dir() else ", which is no folder"
    return f"prepared in {data_dir}{missing}: {', '.join(there) or 'nothing'}"


def _digits(data_dir: str | Path | None, cut: Cut | None) -> Dataset:
    del data_dir  # they come with scikit-learn
    return embedded.digits(cut.size) if cut else embedded.digits()


def _known(name: str, test: str) -> Reading:
    """Reads a prepared set whose classes, and size where there is one, are known."""
    classes, size, _ = FACTS[name]

    def read(data_dir, cut):
        one_size = name not in OF_ANY_SIZE
        check.require(
            not one_size or cut is None or cut.size == size, name, f"image_size={size} or none",
            cut and cut.size, "leave it out: a network resizes what it is given",
        )
        check.require(
            data_dir is not None, name, "a data_dir", "none",
            f"set {PLACE} to the folder given to `python -m launch.prepare --source="
            f"{prepared.ARCHIVES.get(name, 'PATH')} --data_dir=DIR`",
        )
        dataset = records.tfds_images(name, data_dir, cut, test)
        expected = (classes, (size if one_size else cut.size,) * 2 + (3,))
        got = (dataset.classes, dataset.image_shape)
        check.require(
            got == expected, f"{name} in {data_dir}",
            f"{expected[0]} classes of images {expected[1]}",
            f"{got[0]} classes of images {got[1]}", "prepare it with launch.prepare",
            check.DataError,
        )
        return dataset

    return read


def described(name: str, image_size: int | None = None) -> Dataset:
    """The named data set's shape without its images, for programs that are compiled and never run.

    `image_size` is the side of what is fed, for data sets whose images are cropped to any.
    Raises ConfigError for a name without a row in FACTS.
    """
    classes, size, count = FACTS[check.one_of("data set", name, FACTS)]
    names = tuple(str(k) for k in range(classes))
    shape = (image_size or size,) * 2 + (3,)
    nothing = Held(np.zeros((0, *shape), np.uint8))
    labels = read_only(np.zeros(count, np.int32))
    train = Source(name, names, shape, labels, nothing, np.arange(count, dtype=np.int32))
    return Dataset(name, names, shape, train, train)


def statistics_of(name: str, channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a data set's channels, of pixels / 255; of people's own sets
    ImageNet's, of which grey images have the average. Source: spec B1."""
    known = STATISTICS.get(name, IMAGENET)
    if len(known[0]) == channels:
        return known
    return tuple((sum(of) / len(of),) * channels for of in known)


PLACE = ("data.dir (--config.data.dir=DIR; of a study --data_dir=DIR; in Python the argument "
         "data_dir)")
FACTS = {  # classes, pixels a side, training images
    "digits": (10, 16, 1437),
    "cifar10": (10, 32, 50_000),
    "cifar100": (100, 32, 50_000),
    "tiny_imagenet": (200, 64, 100_000),
    "imagenet2012": (1000, 224, 1_281_167),
}
OF_ANY_SIZE = ("imagenet2012",)
READERS = {
    "digits": _digits,
    "cifar10": _known("cifar10", "test"),
    "cifar100": _known("cifar100", "test"),
    "tiny_imagenet": _known("tiny_imagenet", "validation"),
    "imagenet2012": _known("imagenet2012", "validation"),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STATISTICS = {
    "digits": ((0.3050,) * 3, (0.3755,) * 3),
    "cifar10": ((0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)),
    "tiny_imagenet": IMAGENET,
    "imagenet2012": IMAGENET,
    # PBA's, for RepDistiller's (.5071, .4867, .4408), (.2675, .2565, .2761): within 0.07 % of a std
    "cifar100": ((0.50707516, 0.48654887, 0.44091784), (0.26733429, 0.25643846, 0.27615047)),
}
