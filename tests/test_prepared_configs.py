"""Every data set's config takes two steps from what launch.prepare makes of its own files, and
every layout of these files gives the same images and labels."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from prepare.archive_maker import class_names, COUNTS, files_of, random_splits, write_tar
from prepare.image_maker import (
    encoded, example, imagenet_files, imagenet_tars, scan, tfds_folder, tiny_files,
    validation_names, write_tree, write_zip,
)
import tensorflow_datasets as tfds

from augjax import data, recipe, train
from augjax.data.cropped import Cut, evaluation_crop
from augjax.prepare import prepare
from augjax.prepare.image_layouts import synsets
from test_configs import load, ROOT, trainings

F = tfds.features
SMALL = {"train": 1000, "validation": 1000}  # an image of each of ImageNet's classes


def archive(kind):
    """A CIFAR archive of random images."""
    def source(folder):
        return write_tar(folder / "in", "in", files_of(kind, random_splits(kind.split("-")[0])))
    return source


def cifar_records(dataset):
    """The same images as TFDS leaves them."""
    def source(folder):
        names, shards = class_names(dataset), {}
        for split, content in random_splits(dataset).items():
            shards[split] = [[
                example(int(label), encoded(image, "PNG"), id=f"{split}_{k:05d}")
                for k, (image, label) in enumerate(zip(content.images, content.labels["label"]))]]
        features = {"id": F.Text(), "image": F.Image(shape=(32, 32, 3)),
                    "label": F.ClassLabel(names=names["label"])}
        return tfds_folder(folder / dataset / "3.0.2", features, shards)
    return source


def tiny_folder(annotated):
    return lambda folder: write_tree(folder / "in", tiny_files(annotated, classes=200))


def imagenet_records(folder):
    """ImageNet as TFDS leaves it."""
    features = {"image": F.Image(encoding_format="jpeg"), "label": F.ClassLabel(names=synsets()),
                "file_name": F.Text()}
    shards = {"train": [[example(k, scan(k), file_name=f"{synset}_{k}.JPEG")
                         for k, synset in enumerate(synsets())]],
              "validation": [[example(k, scan(k + 1), file_name=name)
                              for k, name in enumerate(validation_names())]]}
    return tfds_folder(folder / "imagenet2012/5.1.0", features, shards)


@dataclass(frozen=True)
class Kind:
    """A config, and the layouts in which people have its data set; it trains from the first."""

    layouts: dict
    counts: dict
    path: str
    arg: str = "scale=tiny"
    row: str | None = None
    image_size: int | None = None


KINDS = {
    "cifar10": Kind(
        {"python": archive("cifar10-python"), "binary": archive("cifar10-binary"),
         "tfrecord": cifar_records("cifar10")}, COUNTS, "cifar/resnet20.py"),
    "cifar100": Kind(
        {"python": archive("cifar100-python"), "binary": archive("cifar100-binary"),
         "tfrecord": cifar_records("cifar100")}, COUNTS, "cifar/role_wise_bits.py", row="bits4"),
    "tiny_imagenet": Kind(
        {"zip": lambda folder: write_zip(folder / "in", tiny_files(classes=200)),
         "folder": tiny_folder(True), "val by folders": tiny_folder(False)},
        {"train": 400, "validation": 200}, "tiny_imagenet/thrives_pairs.py", row="vgg8"),
    "imagenet2012": Kind(
        {"folders": lambda folder: write_tree(folder / "in", imagenet_files(flat=False)),
         "tars": lambda folder: imagenet_tars(folder / "in"), "tfrecord": imagenet_records},
        SMALL, "imagenet/efficientnet.py", "b0,scale=tiny", image_size=16),
}


def two_steps(name, kind, root):
    """Trains from root/sets/NAME in the kind's config, on one device."""
    (config,) = trainings(load(ROOT / "configs" / kind.path).get_config(kind.arg), [kind.row])
    config.data.name, config.data.dir = name, str(root / "sets")
    summary = train.run(recipe.build(config), root / f"run-{name}", devices=jax.devices()[:1])
    return summary["phases"]["student"]["steps"]


def images(name, folder, image_size):
    """{split: its sorted pairs of label and pixels}, as configs read them."""
    found = data.load(name, folder, image_size=image_size)
    return {split: sorted((int(label), image.tobytes()) for label, image in
                          zip(source.labels, source.read(np.arange(len(source)))))
            for split, source in (("train", found.train), ("test", found.test))}


@pytest.mark.parametrize("name", KINDS)
def test_two_steps_from_a_prepared_set_and_equal_images_in_every_layout(tmp_path, name):
    kind, seen = KINDS[name], {}
    for number, (layout, source) in enumerate(kind.layouts.items()):
        (root := tmp_path / str(number)).mkdir()
        prepare(source(root), root / "sets", counts=kind.counts)
        seen[layout] = images(name, root / "sets", kind.image_size)
    first, *others = seen.values()
    assert len(first["train"]) == kind.counts["train"] and all(other == first for other in others)
    assert two_steps(name, kind, tmp_path / "0") == 2


def test_two_steps_from_a_tree_of_ones_own(tmp_path):
    """With ImageNet's images and number of classes, so that one compiled program takes both."""
    prepare(write_tree(tmp_path / "in", imagenet_files(flat=False)), tmp_path / "sets", "photos")
    kind = KINDS["imagenet2012"]
    seen = images("photos", tmp_path / "sets", kind.image_size)
    for split, shift in (("train", 0), ("test", 1)):
        assert seen[split] == [(k, evaluation_crop(scan(k + shift), Cut(kind.image_size)).tobytes())
                               for k in range(1000)]
    assert two_steps("photos", kind, tmp_path) == 2
