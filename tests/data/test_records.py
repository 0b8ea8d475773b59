"""Prepared folders: the real CIFAR-10, and what is said of missing and broken ones."""

import io
import json
import pickle
import shutil

from array_record.python.array_record_module import ArrayRecordReader
from prepare.archive_maker import COUNTS, files_of, random_splits, write_tar
import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from augjax import check, data
from augjax.data import prepared, records
from augjax.prepare import prepare
from launch.benchmarks.input import photographs, write_folder


@pytest.fixture
def small(tmp_path):
    """A data_dir of the test's own with a small cifar10 of 100 + 100 images."""
    files = files_of("cifar10-binary", random_splits("cifar10"))
    source = write_tar(tmp_path / "source", "in", files)
    prepare(source, tmp_path / "sets", counts=COUNTS)
    return tmp_path / "sets"


def test_real_cifar_counts_and_names(cifar_dir):
    cifar = data.load("cifar10", cifar_dir, holdout=5000)
    assert np.bincount(cifar.train.labels).tolist() == [4500] * 10
    assert np.bincount(cifar.holdout.labels).tolist() == [500] * 10
    assert np.bincount(cifar.test.labels).tolist() == [1000] * 10
    assert cifar.class_names[::9] == ("airplane", "truck") and cifar.image_shape == (32, 32, 3)


def test_real_cifar_pixels_are_those_of_tfds(cifar_dir):
    test = data.load("cifar10", cifar_dir).test
    theirs = tfds.data_source("cifar10", data_dir=cifar_dir, split="test")
    indices = np.array([0, 9999, 17, 5000, 17])
    images = test.read(indices)
    for image, index in zip(images, indices):
        np.testing.assert_array_equal(image, theirs[index]["image"])
        assert test.labels[index] == theirs[index]["label"]


def test_an_image_is_decoded_once(cifar_dir, monkeypatch):
    records._open.cache_clear()
    decoded, decode = [], records.Records._decode
    monkeypatch.setattr(
        records.Records, "_decode", lambda self, p, e: decoded.append(int(p)) or decode(self, p, e)
    )
    test = data.load("cifar10", cifar_dir).test
    few = data.subset(test, [5, 3, 700])
    for _ in range(2):
        images, _ = data.resident(few)
    assert sorted(decoded) == [3, 5, 700]
    whole, labels = data.resident(data.load("cifar10", cifar_dir).test)
    again, _ = data.resident(data.load("cifar10", cifar_dir).test)
    assert sorted(decoded) == list(range(10_000)) and np.shares_memory(whole, again)
    np.testing.assert_array_equal(images, whole[[5, 3, 700]])
    np.testing.assert_array_equal(few.labels, labels[[5, 3, 700]])


def test_feed_from_records_equals_resident(small):
    train = data.tfds_images("cifar10", small).train
    batches = list(data.feed(train, 0, 32, 1, 4))
    images, labels = data.resident(train)
    for batch in batches:
        np.testing.assert_array_equal(batch.image, images[batch.index])
        np.testing.assert_array_equal(batch.label, labels[batch.index])


def test_a_source_survives_pickling(small):
    train = data.subset(data.tfds_images("cifar10", small).train, [4, 2])
    data.resident(train)
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(again.read([0, 1]), train.read([0, 1]))


@pytest.mark.parametrize("there, got", [
    (None, "which does not exist"), ((), "which is empty"), (("mnist",), "which holds mnist"),
    (("cifar100/1.0",), "which holds 1.0"),
])
def test_missing_data_say_what_is_there_and_what_to_run(tmp_path, there, got):
    root = tmp_path / "sets"
    for folder in there or ():
        (root / folder).mkdir(parents=True)
    if there == ():
        root.mkdir()
    with pytest.raises(check.DataError) as caught:
        data.load("cifar100", root)
    assert str(root / "cifar100") in str(caught.value) and got in str(caught.value)
    assert (f"python -m launch.prepare --source=cifar-100-python.tar.gz --data_dir={root}"
            in str(caught.value))
    assert caught.value.exit_code == 3


def test_tfrecord_is_named(small):
    path = small / "cifar10/3.0.2/dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(check.DataError, match="3.0.2 as tfrecord. Run `python -m launch.prepare"):
        data.tfds_images("cifar10", small)


def test_the_newest_version_is_read(small):
    shutil.copytree(small / "cifar10/3.0.2", small / "cifar10/3.0.10")
    assert prepared.prepared_folder("cifar10", small).name == "3.0.10"


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_broken_metadata_are_named(small, file):
    path = small / "cifar10/3.0.2" / file
    path.write_text(path.read_text()[:200])
    with pytest.raises(check.DataError, match="3.0.2"):
        data.tfds_images("cifar10", small)


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_cut_file_is_named(small, kept):
    path = small / "cifar10/3.0.2/cifar10-test.array_record-00000-of-00001"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(check.DataError, match=f"{path.name}: expected 100 records"):
        data.tfds_images("cifar10", small)


def test_a_flipped_byte_does_not_pass_silently(small):
    path = small / "cifar10/3.0.2/cifar10-test.array_record-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[100_000] ^= 255
    path.write_bytes(content)
    with pytest.raises(check.DataError, match="cifar10 test"):
        data.resident(data.tfds_images("cifar10", small).test)


def test_a_damaged_record_is_named_with_its_file(tmp_path):
    """The 13th of two files of eight, whose labels are read before all else."""
    folder = write_folder(tmp_path, "birds", {"train": photographs(8), "test": photographs(8)},
                          ("a", "b"))
    parts = [folder / f"birds-train.array_record-{k:05d}-of-00002" for k in (0, 1)]
    (folder / "birds-train.array_record-00000-of-00001").rename(parts[0])
    shutil.copy(parts[0], parts[1])
    info = json.loads((folder / "dataset_info.json").read_text())
    next(split for split in info["splits"] if split["name"] == "train")["shardLengths"] = [8, 8]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    content = bytearray(parts[1].read_bytes())
    content[len(content) * 9 // 16] ^= 255
    parts[1].write_bytes(content)
    reader, broken = ArrayRecordReader(str(parts[1])), []
    for number in range(8):
        try:
            reader.read([number])
        except Exception:  # array_record raises many kinds
            broken.append(8 + number)
    assert len(broken) == 1
    sentence = f"birds train record {broken[0]} in .*/{parts[1].name}: expected a readable record"
    with pytest.raises(check.DataError, match=sentence):
        data.load("birds", tmp_path, image_size=8)


def png(shape, dtype=np.uint8):
    encoded = io.BytesIO()
    Image.fromarray(np.zeros(shape, dtype)).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.mark.parametrize("image, label, sentence", [
    (png((32, 32, 3)), 10, "expected a label in 0..9, got 10"),
    (png((32, 32, 3)), -1, "expected a label in 0..9, got -1"),
    (png((16, 32, 3)), 3, r"expected an image \[32, 32, 3\] of uint8, got \[16, 32, 3\]"),
    (png((32, 32)), 3, r"got \[32, 32, 1\]"),
    (png((32, 32, 3))[:60], 3, r"expected an image \[32, 32, 3\]"),
    (b"no image", 3, "8 bytes of no known kind"),
])
def test_a_wrong_record_is_named(small, monkeypatch, image, label, sentence):
    examples = records.Records._examples

    def spoilt(self, positions):
        found = examples(self, positions)
        for position, example in zip(positions, found):
            if position == 42:
                example.features.feature["image"].bytes_list.value[0] = image
                example.features.feature["label"].int64_list.value[0] = label
        return found

    monkeypatch.setattr(records.Records, "_examples", spoilt)
    with pytest.raises(check.DataError, match=r"cifar10 \w+ record 42.*" + sentence):
        data.resident(data.tfds_images("cifar10", small).test)
