"""Every data set's config takes two steps from what launch.prepare makes of its own files."""

import jax
import pytest
from prepare.archive_maker import COUNTS, files_of, random_splits, write_tar
from prepare.image_maker import scan, tiny_files, write_tree, write_zip

from augjax import recipe, train
from augjax.prepare import prepare
from augjax.prepare.image_layouts import synsets
from test_configs import load, ROOT, trainings


def cifar(dataset):
    def source(folder):
        kind = f"{dataset}-python"
        return write_tar(folder / "in.tar.gz", "in", files_of(kind, random_splits(dataset)))
    return source


def tiny_imagenet(folder):
    return write_zip(folder / "in.zip", tiny_files(classes=200))


def imagenet(folder):
    """ImageNet's classes as folders, an image each."""
    files = {}
    for k, synset in enumerate(synsets()):
        files[f"train/{synset}/{synset}_{k}.JPEG"] = scan(k)
        files[f"val/{synset}/ILSVRC2012_val_{k + 1:08d}.JPEG"] = scan(k + 1)
    return write_tree(folder / "in", files)


@pytest.mark.parametrize("source, counts, path, arg, row", [
    (cifar("cifar10"), COUNTS, "cifar/resnet20.py", "scale=tiny", None),
    (cifar("cifar100"), COUNTS, "cifar/role_wise_bits.py", "scale=tiny", "bits4"),
    (tiny_imagenet, {"train": 400, "validation": 200}, "tiny_imagenet/thrives_pairs.py",
     "scale=tiny", "vgg8"),
    (imagenet, {"train": 1000, "validation": 1000}, "imagenet/efficientnet.py", "b0,scale=tiny",
     None),
], ids=["cifar10", "cifar100", "tiny_imagenet", "imagenet2012"])
def test_two_steps_from_a_prepared_set(tmp_path, source, counts, path, arg, row):
    prepare(source(tmp_path), tmp_path / "sets", counts=counts)
    (config,) = trainings(load(ROOT / "configs" / path).get_config(arg), [row])
    config.data.dir = str(tmp_path / "sets")
    summary = train.run(recipe.build(config), tmp_path / "run", devices=jax.devices()[:1])
    assert summary["phases"]["student"]["steps"] == 2
