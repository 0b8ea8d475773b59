"""Where images come from and in which order (DESIGN sections 5 and 6).

>>> from augjax import data
>>> dataset = data.load("digits", holdout=100)
>>> images, labels = data.resident(dataset.train)     # [1337, 16, 16, 3] uint8, [1337] int32
>>> batches = data.feed(dataset.train, seed=0, batch_size=64, first_step=0, steps=20)

`augjax.prepare` turns archives, image folders and tfrecords into what `tfds_images` reads. Images
of any size are cropped by `cropped` and `random_resized_crop` as they are fed.
"""

from augjax.data.embedded import digits
from augjax.data.epochs import order, stratified
from augjax.data.host import batch_indices, feed, in_order, steps_per_epoch, workers_for
from augjax.data.named import described, READERS, load, statistics_of
from augjax.data.records import tfds_images
from augjax.data.source import (
    Dataset, Source, from_arrays, holdout, limited, resident, subset,
)

__all__ = [
    "READERS", "Dataset", "Source", "batch_indices", "described",
    "digits", "feed", "from_arrays", "holdout", "in_order",
    "limited", "load", "order", "resident", "statistics_of", "steps_per_epoch",
    "stratified", "subset", "tfds_images", "workers_for",
]
