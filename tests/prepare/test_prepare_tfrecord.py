"""TFDS folders of tfrecord files are copied example by example; damage is named and located."""

import io

from image_maker import crop, encoded, example, scan, tfds_folder, tfrecord
import numpy as np
from PIL import Image
import pytest
from tensorboardX.crc32c import _crc32c as slow_crc32c
from tensorboardX.record_writer import masked_crc32c, RecordWriter
import tensorflow_datasets as tfds

from augjax import check, data
from augjax.prepare import target_folder, tfrecords
from augjax.prepare.crc32c import crc32c, masked
from augjax.prepare.image_layouts import synsets
from augjax.prepare import prepare

COUNTS = {"train": 30, "test": 10}
F = tfds.features


def cifar_source(root, examples=None, suffix="tfrecord"):
    """A cifar10 of 30 + 10 images in 3 + 1 files, as TFDS prepares it."""
    names = [f"class {k}" for k in range(10)]
    features = {"id": F.Text(), "image": F.Image(shape=(32, 32, 3)),
                "label": F.ClassLabel(names=names)}
    examples = examples or [example(k % 10, encoded(crop(k, 32, 32), "PNG"), id=f"train_{k:05d}")
                            for k in range(40)]
    shards = {"train": [examples[:10], examples[10:20], examples[20:30]], "test": [examples[30:]]}
    return tfds_folder(root / "tfds/cifar10/3.0.2", features, shards, suffix), examples


# RFC 3720, appendix B.4, and the check value of the catalogues of CRCs
@pytest.mark.parametrize("content, value", [
    (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E), (bytes(range(31, -1, -1)), 0x113FDB5C), (b"", 0),
])
def test_published_checksums(content, value):
    assert crc32c(content) == value


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 129, 1000, 4097])
def test_checksums_of_any_length(size):
    content = np.random.default_rng(size).bytes(size)
    assert crc32c(content) == slow_crc32c(content)
    assert crc32c(bytes(size) + content) == slow_crc32c(bytes(size) + content)


def test_the_mask_is_tfrecords():
    assert masked(crc32c(b"augjax")) == masked_crc32c(b"augjax")


def test_tensorboards_own_files_are_read(tmp_path):
    writer = RecordWriter(str(tmp_path / "a"))
    for content in (b"one", b"", bytes(1000)):
        writer.write(content)
    writer.close()
    assert list(tfrecords.read_records(str(tmp_path / "a"))) == [b"one", b"", bytes(1000)]


@pytest.mark.parametrize("below", ["", "cifar10", "cifar10/3.0.2"])
def test_cifar10_is_copied_unchanged(tmp_path, below):
    _, examples = cifar_source(tmp_path)
    target = prepare(tmp_path / "tfds" / below, tmp_path / "sets", counts=COUNTS)
    assert target == tmp_path / "sets/cifar10/3.0.2"
    ours = data.tfds_images("cifar10", tmp_path / "sets")
    images, labels = data.resident(ours.train)
    builder = tfds.builder("cifar10", data_dir=tmp_path / "sets")
    assert builder.info.splits["train"].shard_lengths == [10, 10, 10]
    raw = builder.as_data_source(deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    assert [raw["train"][k] for k in range(30)] == examples[:30]
    assert [raw["test"][k] for k in range(10)] == examples[30:]
    np.testing.assert_array_equal(images[11], crop(11, 32, 32))
    assert labels.tolist() == [k % 10 for k in range(30)]
    assert prepare(tmp_path / "tfds", tmp_path / "sets", counts=COUNTS) == target


def test_imagenet_keeps_its_order_and_can_be_capped(tmp_path):
    names = list(synsets())
    features = {"image": F.Image(encoding_format="jpeg"), "label": F.ClassLabel(names=names),
                "file_name": F.Text()}
    small, large = scan(0), encoded(crop(1, 128, 96))
    examples = [example(k, large if k == 5 else small, file_name=f"{name}_1.JPEG")
                for k, name in enumerate(names)]
    unlabelled = [example(-1, small, file_name="ILSVRC2012_test_00000001.JPEG")]
    shards = {"train": [examples[:400], examples[400:]], "validation": [examples],
              "test": [unlabelled]}
    tfds_folder(tmp_path / "tfds/imagenet2012/5.1.0", features, shards)
    target = prepare(tmp_path / "tfds", tmp_path / "sets", short_side=64,
                     counts={"train": 1000, "validation": 1000})
    builder = tfds.builder_from_directory(target)
    assert sorted(builder.info.splits) == ["train", "validation"]
    assert builder.info.features["label"].names == names
    assert builder.info.features["image"].shape == (None, None, 3)
    raw = builder.as_data_source(
        "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    assert all(raw[k] == examples[k] for k in (0, 4, 6, 399, 400, 999))
    capped = tfds.data_source("imagenet2012", data_dir=tmp_path / "sets", split="train")[5]
    assert capped["image"].shape == (85, 64, 3) and capped["label"] == 5
    assert target_folder.summary(target)["encoded_anew"] == {"scaled down": 2}


# --- damage --------------------------------------------------------------------------------------


def spoil(path, offset, content=b"\xff"):
    data_bytes = bytearray(path.read_bytes())
    data_bytes[offset : offset + len(content)] = content
    path.write_bytes(data_bytes)


def test_damaged_records_are_all_named_with_their_place(tmp_path):
    folder, examples = cifar_source(tmp_path)
    names = [folder / f"cifar10-train.tfrecord-0000{k}-of-00003" for k in range(3)]
    third = sum(len(content) + 16 for content in examples[:2])
    spoil(names[0], third + 40)  # in the third record's content
    spoil(names[1], 0)  # in the first record's length
    names[2].write_bytes(names[2].read_bytes()[:-3])
    with pytest.raises(check.DataError) as caught:
        prepare(folder, tmp_path / "sets", counts=COUNTS)
    text = str(caught.value)
    assert f"{names[0]}, record 2 at byte {third}: its checksum differs" in text
    assert f"{names[1]}, record 0 at byte 0: its length is damaged" in text
    assert f"{names[2]}, record 9 at byte " in text and "the file ends" in text
    assert not (tmp_path / "sets/cifar10/3.0.2").exists()


@pytest.mark.parametrize("content, sentence", [
    (lambda png: example(10, png), "label 10 of 10 classes"),
    (lambda png: example(-1, png), "label -1 of 10 classes"),
    (lambda png: example(1, png[:-40]), "record 3"),
    (lambda png: example(1, encoded(crop(0, 31, 32), "PNG")), "it is 31 x 32"),
    (lambda png: b"no example", "record 3"),
    (lambda png: b"", "0 images and 0 labels"),
])
def test_bad_examples_are_named(tmp_path, content, sentence):
    examples = cifar_source(tmp_path / "good")[1]
    examples[3] = content(encoded(crop(0, 32, 32), "PNG"))
    folder, _ = cifar_source(tmp_path, examples)
    with pytest.raises(check.DataError, match="1 that do not: .*0-of-00003, record 3 ") as e:
        prepare(folder, tmp_path / "sets", counts=COUNTS)
    assert sentence in str(e.value)


def test_bad_records_may_be_left_out(tmp_path):
    folder, examples = cifar_source(tmp_path)
    spoil(folder / "cifar10-train.tfrecord-00000-of-00003", 40)
    target = prepare(folder, tmp_path / "sets", counts=COUNTS, skip_bad=True)
    info = tfds.builder_from_directory(target).info
    assert info.splits["train"].shard_lengths == [9, 10, 10]
    assert "record 0 at byte 0" in (target / "skipped.txt").read_text()
    assert target_folder.summary(target)["skipped"] == 1


def test_a_file_that_cannot_be_read_is_a_fault_of_the_source(tmp_path, monkeypatch):
    folder, _ = cifar_source(tmp_path)

    def refusing(path, mode):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(tfrecords, "open", refusing, raising=False)
    with pytest.raises(check.DataError, match="4 that do not: .*-00000-of-00003 .*denied"):
        prepare(folder, tmp_path / "sets", counts=COUNTS)


def test_what_the_metadata_say_must_be_there(tmp_path):
    folder, examples = cifar_source(tmp_path)
    with pytest.raises(check.DataError, match="train: expected 50000 images, got 30"):
        prepare(folder, tmp_path / "sets")
    path = folder / "cifar10-train.tfrecord-00001-of-00003"
    path.write_bytes(tfrecord(examples[10:19]))
    with pytest.raises(check.DataError, match="9 records where its metadata say 10"):
        prepare(folder, tmp_path / "sets", counts=COUNTS)
    path.write_bytes(tfrecord([*examples[10:19], examples[10]]))
    with pytest.raises(check.DataError, match="3 images for each label, got 4 for class 0, 2"):
        prepare(folder, tmp_path / "sets", counts=COUNTS)
    path.unlink()
    with pytest.raises(check.DataError, match="got none named cifar10-train.tfrecord-00001"):
        prepare(folder, tmp_path / "sets", counts=COUNTS)


def test_other_folders_of_tfds_are_refused(tmp_path):
    folder, _ = cifar_source(tmp_path)
    with pytest.raises(check.ConfigError, match="another folder than the tfrecord files have"):
        prepare(folder, tmp_path / "tfds", counts=COUNTS)
    prepared = prepare(folder, tmp_path / "sets", counts=COUNTS)
    with pytest.raises(check.DataError, match="expected tfrecord files, got array_record"):
        prepare(prepared, tmp_path / "more", counts=COUNTS)
    (folder / "features.json").write_text("{")
    with pytest.raises(check.DataError, match="TFDS metadata of a set with `image` and `label`"):
        prepare(folder, tmp_path / "more", counts=COUNTS)


def test_a_grey_jpeg_of_tfds_stays_as_it_is(tmp_path):
    """TFDS copies grey JPEGs of ImageNet; so does a copy of its records."""
    features = {"image": F.Image(encoding_format="jpeg"), "label": F.ClassLabel(names=["a", "b"])}
    grey = [example(k, encoded(crop(k, 40, 30), mode="L")) for k in range(2)]
    tfds_folder(tmp_path / "tfds/mine/1.0.0", features, {"train": [grey], "test": [grey]})
    target = prepare(tmp_path / "tfds/mine/1.0.0", tmp_path / "sets")
    row = tfds.builder_from_directory(target).as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()})[1]
    assert Image.open(io.BytesIO(row["image"])).mode == "L"
