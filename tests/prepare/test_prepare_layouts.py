"""ImageNet, Tiny-ImageNet and class trees, as folders, tars and zips, become one kind of folder."""

import io
import os
from pathlib import Path

from image_maker import (
    crop, encoded, flower_files, imagenet_files, imagenet_tars, scan, tar_of, tile, tiny_files,
    validation_names, write_tree, write_zip,
)
import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from augjax import check, data
from augjax.prepare import image_layouts, image_places, target_folder, source_kinds
from augjax.prepare.image_layouts import synsets
from augjax.prepare.image_sets import ImageSet
from augjax.prepare import prepare

TINY = {"train": 40, "validation": 20}
SMALL = {"train": 1000, "validation": 1000}  # an image for each class of imagenet2012
RAW = {"image": tfds.decode.SkipDecoding()}


def stored(data_dir: Path, name: str, split: str) -> dict[str, tuple[int, bytes]]:
    """{file_name: (label, encoded image)} as tfds.data_source gives them."""
    source = tfds.data_source(name, data_dir=data_dir, split=split, decoders=RAW)
    rows = [source[index] for index in range(len(source))]
    assert len({row["file_name"] for row in rows}) == len(rows)
    return {row["file_name"].decode(): (int(row["label"]), row["image"]) for row in rows}


def listing_of(files: dict[str, bytes], folder: Path) -> dict[str, image_places.Place]:
    return image_places.list_folder(write_tree(folder, files))


def class_tree(listing: dict[str, image_places.Place], name: str | None) -> ImageSet:
    return image_layouts.class_tree("x", listing, image_layouts.classes_of(listing), name)


# --- any class-per-folder tree -------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["folder", "folder in a folder", "zip", "tar"])
def test_a_tree_keeps_its_bytes(tmp_path, packed):
    files = flower_files() | {"train/iris/.DS_Store": b"", "train/iris/._1.jpg": b"", "a.txt": b""}
    if packed == "folder in a folder":
        write_tree(tmp_path / "in" / "photos", files)
    elif packed == "folder":
        write_tree(tmp_path / "in", files)
    elif packed == "zip":
        write_zip(tmp_path / "in", {f"photos/{path}": data for path, data in files.items()})
    else:
        (tmp_path / "in").write_bytes(tar_of({f"./photos/{k}": v for k, v in files.items()}))
    target = prepare(tmp_path / "in", tmp_path / "sets", "flowers")
    assert target == tmp_path / "sets/flowers/1.0.0"
    for split, folder, count in (("train", "train", 18), ("validation", "val", 6)):
        found = stored(tmp_path / "sets", "flowers", split)
        assert len(found) == count
        for name, (label, image) in found.items():
            assert image == files[f"{folder}/{name}"]
            assert ("aster", "iris", "rose")[label] == name.split("/")[0]
    features = tfds.builder_from_directory(target).info.features
    assert features["image"].shape == (None, None, 3)
    assert features["image"].encoding_format == "jpeg"
    assert features["label"].names == ["aster", "iris", "rose"]
    assert sorted(features) == ["file_name", "image", "label"]
    decoded = tfds.data_source("flowers", data_dir=tmp_path / "sets", split="train")[0]
    pixels = np.asarray(Image.open(io.BytesIO(files[f"train/{decoded['file_name'].decode()}"])))
    np.testing.assert_array_equal(decoded["image"], pixels)
    assert os.listdir(tmp_path / "sets/flowers") == ["1.0.0"]  # no partial folder


def test_every_packing_gives_the_same_shards(tmp_path):
    files, sums = flower_files(), []
    write_tree(tmp_path / "a", files)
    write_zip(tmp_path / "b", dict(reversed(files.items())))
    (tmp_path / "c").write_bytes(tar_of(files))
    for source in "abc":
        target = prepare(tmp_path / source, tmp_path / f"sets-{source}", "flowers", shard_images=7)
        sums.append(target_folder.summary(target)["sha256"])
    assert sums[0] == sums[1] == sums[2] and "flowers-train.array_record-00002-of-00003" in sums[0]


def test_slices_of_a_split_are_mixed(tmp_path):
    write_tree(tmp_path / "in", flower_files(images=20))
    prepare(tmp_path / "in", tmp_path / "sets", "flowers", shard_images=7)
    labels = [row["label"] for row in
              tfds.data_source("flowers", data_dir=tmp_path / "sets", split="train[:20]")]
    assert sorted(labels) != labels and set(labels) == {0, 1, 2}


def test_a_tree_of_png_stays_lossless(tmp_path):
    files = flower_files(form="PNG")
    files["train/rose/palette.png"] = encoded(crop(1, 30, 30), "PNG", mode="P")
    files["train/rose/alpha.png"] = encoded(crop(2, 30, 30), "PNG", mode="RGBA")
    target = prepare(write_tree(tmp_path / "in", files), tmp_path / "sets", "flowers")
    found = stored(tmp_path / "sets", "flowers", "train")
    assert found["rose/0.png"][1] == files["train/rose/0.png"]
    for name in ("palette", "alpha"):
        image = Image.open(io.BytesIO(found[f"rose/{name}.png"][1]))
        before = Image.open(io.BytesIO(files[f"train/rose/{name}.png"])).convert("RGB")
        assert image.format == "PNG" and image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), np.asarray(before))
    assert tfds.builder_from_directory(target).info.features["image"].encoding_format == "png"
    assert target_folder.summary(target)["encoded_anew"] == {"PNG in P": 1, "PNG in RGBA": 1}


def test_what_is_no_rgb_jpeg_becomes_one_and_is_counted(tmp_path):
    pixels = crop(3, 50, 70)
    files = flower_files() | {
        "train/iris/grey.jpg": encoded(pixels, mode="L"),
        "train/iris/cmyk.jpg": encoded(pixels, mode="CMYK"),
        "train/iris/png.jpg": encoded(pixels, "PNG"),  # as n02105855_2933.JPEG of ImageNet
        "train/iris/other.bmp": encoded(pixels, "BMP"),
    }
    target = prepare(write_tree(tmp_path / "in", files), tmp_path / "sets", "flowers")
    found = stored(tmp_path / "sets", "flowers", "train")
    for name in ("grey.jpg", "cmyk.jpg", "png.jpg", "other.bmp"):
        image = Image.open(io.BytesIO(found[f"iris/{name}"][1]))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (70, 50)), name
        before = np.asarray(Image.open(io.BytesIO(files[f"train/iris/{name}"])).convert("RGB"))
        assert np.abs(np.asarray(image).astype(int) - before).mean() < 6, name
    assert target_folder.summary(target)["encoded_anew"] == {
        "BMP in RGB": 1, "JPEG in CMYK": 1, "JPEG in L": 1, "PNG in RGB": 1}


def test_a_short_side_is_capped_and_small_images_are_kept(tmp_path):
    files = flower_files() | {"train/iris/large.jpg": encoded(crop(0, 150, 200)),
                              "train/iris/tall.jpg": encoded(crop(0, 201, 100))}
    target = prepare(write_tree(tmp_path / "in", files), tmp_path / "sets", "flowers",
                     short_side=64)
    found = stored(tmp_path / "sets", "flowers", "train")
    sizes = {name: Image.open(io.BytesIO(image)).size for name, (_, image) in found.items()}
    assert sizes["iris/large.jpg"] == (85, 64) and sizes["iris/tall.jpg"] == (64, 129)
    assert found["iris/0.jpg"][1] == files["train/iris/0.jpg"]
    assert target_folder.summary(target)["encoded_anew"] == {"scaled down": 2}
    expected = Image.fromarray(np.asarray(Image.open(io.BytesIO(files["train/iris/large.jpg"]))))
    expected = expected.resize((85, 64), Image.Resampling.BICUBIC)
    got = np.asarray(Image.open(io.BytesIO(found["iris/large.jpg"][1]))).astype(int)
    assert np.abs(got - np.asarray(expected)).mean() < 3
    with pytest.raises(check.DataError, match="exists and its content: .* the same options, got"):
        prepare(tmp_path / "in", tmp_path / "sets", "flowers")


def test_images_of_one_size_are_read_whole_and_may_lie_on_the_device(tmp_path):
    pixels = [crop(number, 24, 24) for number in range(8)]
    files = {f"{split}/{name}/{number}.png": encoded(pixels[4 * k + number], "PNG")
             for split in ("train", "val") for k, name in enumerate(("a", "b"))
             for number in range(4)}
    options = {"dataset": "icons", "image_size": 24}
    prepare(write_tree(tmp_path / "in", files), tmp_path / "sets", **options)
    found = data.load("icons", tmp_path / "sets")
    assert found.image_shape == (24, 24, 3)
    images, labels = data.resident(found.train)
    assert sorted(image.tobytes() for image in images) == sorted(one.tobytes() for one in pixels)
    assert sorted(labels) == [0] * 4 + [1] * 4
    (tmp_path / "in/train/a/4.png").write_bytes(encoded(crop(9, 24, 25), "PNG"))
    with pytest.raises(check.DataError, match=r"a/4.png \(it is 24 x 25, not \(24, 24\)\)"):
        prepare(tmp_path / "in", tmp_path / "again", **options)


@pytest.mark.parametrize("options, told", [
    ({"image_size": 0}, "--image_size: expected the pixels a side of every image, got 0"),
    ({"image_size": 40, "short_side": 32}, "--short_side: expected none where all images are"),
])
def test_a_size_that_cannot_be_is_refused(tmp_path, options, told):
    with pytest.raises(check.ConfigError, match=told):
        prepare(write_tree(tmp_path / "in", flower_files()), tmp_path / "sets", "flowers",
                **options)


def test_a_published_set_has_its_own_size(tmp_path):
    write_zip(tmp_path / "tiny.zip", tiny_files())
    with pytest.raises(check.ConfigError, match="expected a tree of your own images, got tiny"):
        prepare(tmp_path / "tiny.zip", tmp_path / "sets", image_size=64)


def test_validation_and_test_stand_beside_each_other(tmp_path):
    files = flower_files()
    files |= {path.replace("val/", "test/"): data for path, data in files.items() if "val/" in path}
    found = class_tree(listing_of(files, tmp_path / "a"), "flowers")
    assert {split: len(items) for split, items in found.splits.items()} == {
        "train": 18, "validation": 6, "test": 6}
    files = {path: data for path, data in files.items() if "val/" not in path}
    found = class_tree(listing_of(files, tmp_path / "b"), "flowers")
    assert list(found.splits) == ["train", "validation"]


def test_class_folders_may_be_links(tmp_path):
    files = write_tree(tmp_path / "real", flower_files())
    for split in ("train", "val"):
        (tmp_path / "in" / split).mkdir(parents=True)
        for folder in (files / split).iterdir():
            (tmp_path / "in" / split / folder.name).symlink_to(folder)
    found = source_kinds.recognise(tmp_path / "in", "flowers")
    assert len(found.splits["train"]) == 18


# --- Tiny-ImageNet -------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["folder", "zip", "val by folders"])
def test_tiny_imagenet(tmp_path, packed):
    files = tiny_files(packed != "val by folders")
    if packed == "zip":
        source = write_zip(tmp_path / "tiny-imagenet-200.zip",
                           {f"tiny-imagenet-200/{path}": data for path, data in files.items()})
    else:
        source = write_tree(tmp_path / "tiny-imagenet-200", files)
    target = prepare(source, tmp_path / "sets", counts=TINY)
    assert target == tmp_path / "sets/tiny_imagenet/1.0.0"
    info = tfds.builder_from_directory(target).info
    assert info.features["image"].shape == (64, 64, 3)
    assert info.features["label"].names == sorted(f"n{k:05d}" for k in range(20))
    train = stored(tmp_path / "sets", "tiny_imagenet", "train")
    validation = stored(tmp_path / "sets", "tiny_imagenet", "validation")
    assert validation["val_0.JPEG"] == (19, tile(1))  # wnids.txt begins with the last
    assert train["n00010_1.JPEG"] == (10, tile(19))
    grey = Image.open(io.BytesIO(train["n00014_0.JPEG"][1]))
    assert grey.mode == "RGB" and target_folder.summary(target)["encoded_anew"]["JPEG in L"] == 3
    row = tfds.data_source("tiny_imagenet", data_dir=tmp_path / "sets", split="validation")[7]
    assert row["image"].shape == (64, 64, 3)


def test_tiny_imagenets_counts_and_sizes_are_checked(tmp_path):
    source = write_tree(tmp_path / "in", tiny_files())
    with pytest.raises(check.DataError, match="train: expected 100000 images, got 40"):
        prepare(source, tmp_path / "sets")
    (source / "val/images/val_0.JPEG").unlink()
    with pytest.raises(check.DataError, match="expected val/images/val_0.JPEG, which its annot"):
        prepare(source, tmp_path / "sets", counts=TINY)
    write_tree(source, {"val/images/val_0.JPEG": encoded(crop(0, 64, 63))})
    with pytest.raises(check.DataError, match=r"1 that do not: .*val_0.JPEG \(it is 64 x 63, not"):
        prepare(source, tmp_path / "sets", counts=TINY)


def test_a_line_of_annotations_without_tabs_is_named(tmp_path):
    files = tiny_files()
    lines = files["val/val_annotations.txt"].decode().splitlines()
    lines[2:3] = ["", lines[2].replace("\t", " ")]
    source = write_tree(tmp_path / "in", files | {
        "val/val_annotations.txt": "\n".join(lines).encode()})
    with pytest.raises(check.DataError, match="val_annotations.txt, line 4: expected a file and "):
        prepare(source, tmp_path / "sets", counts=TINY)


# --- ImageNet ------------------------------------------------------------------------------------


def test_imagenet_from_its_tars(tmp_path):
    source = imagenet_tars(tmp_path / "in")
    target = prepare(source, tmp_path / "sets", counts=SMALL)
    assert target == tmp_path / "sets/imagenet2012/5.1.0"
    train = stored(tmp_path / "sets", "imagenet2012", "train")
    validation = stored(tmp_path / "sets", "imagenet2012", "validation")
    for k, (synset, name) in enumerate(zip(synsets(), validation_names())):
        assert train[f"{synset}_{k}.JPEG"] == (k, scan(k))
        assert validation[name] == (k, scan(k + 1))
    info = tfds.builder("imagenet2012", data_dir=tmp_path / "sets").info
    assert info.features["label"].int2str(0) == "n01440764"
    assert info.features["label"].names == list(synsets()) == sorted(synsets())
    assert info.features["image"].shape == (None, None, 3)


@pytest.mark.parametrize("layout", ["val by folders", "flat, as Kaggle has it"])
def test_imagenet_from_its_folders(tmp_path, layout):
    root = tmp_path / "in"
    write_tree(root / "ILSVRC/Data/CLS-LOC" if "Kaggle" in layout else root,
               imagenet_files(flat="flat" in layout))
    found = source_kinds.recognise(root, None)
    assert (found.name, found.version, found.class_names) == ("imagenet2012", "5.1.0", synsets())
    for split, shift in (("train", 0), ("validation", 1)):
        items = sorted(found.splits[split], key=lambda item: item.label)
        assert [item.label for item in items] == list(range(1000))
        assert image_places.read(items[7].place) == scan(7 + shift)
    assert [item.name for item in items] == list(validation_names())


def test_imagenets_classes_and_counts_are_checked(tmp_path):
    files = imagenet_files(flat=True)
    listing = listing_of(files, tmp_path / "in")
    with pytest.raises(check.DataError, match="train: expected 1281167 images, got 1000"):
        prepare(tmp_path / "in", tmp_path / "sets")
    fewer = {path: place for path, place in listing.items() if "train/n01440764" not in path}
    with pytest.raises(check.DataError, match="class folders of imagenet2012, got none for n01440"):
        class_tree(fewer, "imagenet2012")
    with pytest.raises(check.ConfigError, match="--dataset: expected a name for these images"):
        class_tree(fewer, None)
    strange = listing | {"val/photo.JPEG": listing[f"val/{validation_names()[0]}"]}
    with pytest.raises(check.DataError, match="00050000.JPEG, got photo.JPEG"):
        class_tree(strange, None)


def test_half_of_imagenets_tars_is_refused(tmp_path):
    write_tree(tmp_path / "in", {"ILSVRC2012_img_train.tar": tar_of({"n01440764.tar": b""})})
    with pytest.raises(check.DataError, match="got none named ILSVRC2012_img_val.tar. Put both"):
        prepare(tmp_path / "in", tmp_path / "sets")
    with pytest.raises(check.DataError, match="Give --source=.*/in"):
        prepare(tmp_path / "in/ILSVRC2012_img_train.tar", tmp_path / "sets")
