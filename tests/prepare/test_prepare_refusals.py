"""Sources that are none, names that are taken, archives cut off, and images that are bad."""

import bz2
import gzip
import lzma
import os
from pathlib import Path
import subprocess

from image_maker import (
    contents, encoded, flower_files, make, scan, tar_of, tiny_files, write_tree, write_zip,
)
import numpy as np
import pytest
import tensorflow_datasets as tfds

from augjax import check
from augjax.prepare import image_bytes, image_places, target_folder
from augjax.prepare import prepare


@pytest.mark.parametrize("name, sentence", [
    (None, "--dataset: expected a name for these images, got none. Choose one, such as"),
    ("cifar10", "got 'cifar10'. Choose another"),
    ("Flowers!", "a new name of small letters"),
    ("../flowers", "a new name of small letters"),
])
def test_a_tree_needs_a_name_of_its_own(tmp_path, name, sentence):
    source = write_tree(tmp_path / "in", flower_files())
    with pytest.raises(check.ConfigError, match=sentence):
        prepare(source, tmp_path / "sets", name)
    assert not (tmp_path / "sets").exists()


TWO = {"train/a/x.jpg": b"", "train/b/x.jpg": b""}


@pytest.mark.parametrize("files, sentence", [
    ({}, "got an empty folder"),
    ({"notes.txt": b""}, "ILSVRC2012_img_train.tar and .*, got notes.txt"),
    ({"train/x.jpg": b""}, "got train/x.jpg"),
    (TWO, "in test, beside train, got none. Put"),
    (TWO | {"val/x.jpg": b""}, "got none; beside train: val. Put"),
    (TWO | {"val/a/x.jpg": b"", "validation/a/x.jpg": b""}, "val and validation. Keep one of them"),
    (TWO | {"val/c/x.jpg": b""}, "val: expected classes among the 2 known ones"),
    (TWO | {"Eval/a/x.jpg": b""}, "beside train: Eval. Rename Eval to val"),
    (TWO | {"VAL/a/x.jpg": b""}, "beside train: VAL. Rename VAL to val"),
    ({path.replace("train", "Training"): b"" for path in TWO}, "Rename Training to train"),
    ({f"{split}/images/x.jpg": b"" for split in ("train", "val")} | {"train/labels/x.txt": b""},
     "in, train: expected images in two class folders or more, got images alone"),  # of boxes
])
def test_other_folders_are_refused(tmp_path, files, sentence):
    (tmp_path / "in").mkdir()
    write_tree(tmp_path / "in", files)
    with pytest.raises(check.DataError, match=sentence):
        prepare(tmp_path / "in", tmp_path / "sets", "flowers")
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize("flat", [False, True], ids=["train", "flat"])
def test_the_way_to_held_out_images_can_be_pasted(tmp_path, flat):
    files = {path.replace("val/", "train/").replace("train/", "" if flat else "train/"): data
             for path, data in flower_files().items()}
    source = write_tree(tmp_path / "my photos", files)
    with pytest.raises(check.DataError) as caught:
        prepare(source, tmp_path / "sets", "flowers")
    _, command, end = str(caught.value).split("`")
    assert end == "."
    subprocess.run(["bash", "-c", command], check=True)
    target = prepare(source, tmp_path / "sets", "flowers")
    assert target_folder.told(target) == ["train: 20 images", "validation: 4 images"]


def test_of_a_packed_tree_it_is_the_way_of_the_unpacked(tmp_path):
    files = {f"photos/{path.removeprefix('train/')}": data for path, data in flower_files().items()
             if path.startswith("train/")}
    (tmp_path / "in.tar").write_bytes(tar_of(files))
    for source in (write_zip(tmp_path / "in.zip", files), tmp_path / "in.tar"):
        with pytest.raises(check.DataError, match="unpack it and put some images .*`cd FOLDER && "):
            prepare(source, tmp_path / "sets", "flowers")


@pytest.mark.parametrize("name", [b"gr\xf6\xdfe", b"x\ny", b" a", b"a ", b"x\xe2\x80\xa8y"])
def test_a_class_is_a_line_of_text(tmp_path, name):
    """As TFDS's list of them; "x\\ny" would be two, and " a" be a once more."""
    name = os.fsdecode(name)
    files = {f"{split}/{each}/0.jpg": scan(0) for split in ("train", "val") for each in ("a", name)}
    with pytest.raises(check.DataError, match="train: expected class folders named in") as caught:
        prepare(write_tree(tmp_path / "in", files), tmp_path / "sets", "flowers")
    assert f"got {ascii(name)}. Rename" in str(caught.value)
    assert not (tmp_path / "sets").exists()


def test_a_folder_that_may_not_be_read_is_no_broken_download(tmp_path, monkeypatch):
    source, scandir = write_tree(tmp_path / "in", flower_files()), os.scandir

    def refusing(path):
        if str(path).endswith("iris"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(check.DataError, match="denied: '.*train/iris'. See to their permissions"):
        prepare(source, tmp_path / "sets", "flowers")


def test_the_wrong_name_for_a_known_set_is_refused(tmp_path):
    source = write_tree(tmp_path / "in", tiny_files(classes=2))
    with pytest.raises(check.ConfigError, match="expected 'tiny_imagenet', which .* holds"):
        prepare(source, tmp_path / "sets", "imagenet2012")


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_truncated_archive_is_refused(tmp_path, kind, share):
    path, files = tmp_path / f"photos.{kind}", flower_files()
    path.write_bytes(tar_of(files)) if kind == "tar" else write_zip(path, files)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(check.DataError, match="photos.* expected a whole"):
        prepare(path, tmp_path / "sets", "flowers")


def test_a_tar_cut_off_within_a_tar_is_refused(tmp_path):
    inner = tar_of({"n01440764_1.JPEG": scan(0)})
    whole = {"n01440764.tar": inner, "n01443537.tar": tar_of({"n01443537_1.JPEG": scan(1)})}
    (tmp_path / "whole.tar").write_bytes(tar_of(whole))
    (tmp_path / "cut.tar").write_bytes(tar_of(whole | {"n01440764.tar": inner[:600]}))
    for file in ("whole.tar", "cut.tar"):
        place = image_places.list_tar(tmp_path / file)["n01440764.tar"]
        if file == "whole.tar":
            found = image_places.list_tar(tmp_path / file, place.offset, place.size)
            assert image_places.read(found["n01440764_1.JPEG"]) == scan(0)
            continue
        with pytest.raises(check.DataError, match="n01440764_1.JPEG goes beyond the end"):
            image_places.list_tar(tmp_path / file, place.offset, place.size)


def test_sixteen_bits_are_refused(tmp_path):
    deep = encoded(np.arange(900, dtype=np.uint16).reshape(30, 30), "PNG")
    write_tree(tmp_path / "in", flower_files(form="PNG") | {"train/iris/deep.png": deep})
    with pytest.raises(check.DataError, match=r"deep.png \(it is PNG in I;16, not of 8 bits"):
        prepare(tmp_path / "in", tmp_path / "sets", "flowers")


@pytest.mark.parametrize("name", ["flowers", None])
@pytest.mark.parametrize("kind", [gzip, bz2, lzma])
def test_a_compressed_tar_of_images_is_refused(tmp_path, kind, name):
    (tmp_path / "in.tar.gz").write_bytes(kind.compress(tar_of(flower_files())))
    with pytest.raises(check.DataError, match="(?i) unpack its compression first"):
        prepare(tmp_path / "in.tar.gz", tmp_path / "sets", name)


@pytest.mark.parametrize("above", ["../../outside", "/tmp/absolute"])
def test_a_member_of_a_tar_or_zip_cannot_reach_outside(tmp_path, above):
    files = {f"{above}/{path}": data for path, data in flower_files().items()}
    (tmp_path / "in.tar").write_bytes(tar_of(files))
    write_zip(tmp_path / "in.zip", files)
    for source in ("in.tar", "in.zip"):
        prepare(tmp_path / source, tmp_path / source[3:], "flowers")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in.tar", "in.zip", "tar", "zip"} and not Path("/tmp/absolute").exists()
    assert not (tmp_path.parent / "outside").exists()
    assert not (tmp_path.parent.parent / "outside").exists()


@pytest.mark.parametrize("below", ["", "sets", "train/iris"])
def test_prepared_sets_do_not_lie_in_the_source(tmp_path, below):
    source = write_tree(tmp_path / "in", flower_files())
    with pytest.raises(check.ConfigError, match="--data_dir: expected a folder outside of .*in"):
        prepare(source, source / below, "flowers")
    assert not (source / "flowers").exists()


# --- bad images ----------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    """18 + 6 photographs, which make 5 + 2 shards."""
    write_tree(tmp_path / "in", flower_files())
    return tmp_path


def spoil(root):
    """Writes three bad images; returns them as they were."""
    files = flower_files()
    bad = {
        "train/iris/0.jpg": files["train/iris/0.jpg"][:900],
        "train/rose/3.jpg": b"",
        "val/rose/6.jpg": b"\xff\xd8" + bytes(500),
    }
    write_tree(root / "in", bad)
    return {path: files[path] for path in bad}


def test_bad_images_are_all_named_and_can_be_mended(source, monkeypatch):
    whole = contents(make(source, "whole"))
    files = spoil(source)
    with pytest.raises(check.DataError) as caught:
        make(source)
    text = str(caught.value)
    assert "3 that do not: " in text and "in/train/iris/0.jpg (image file is truncated" in text
    assert "in/train/rose/3.jpg (0 bytes of no known kind)" in text and "skip_bad" in text
    assert "in/val/rose/6.jpg (502 bytes of no known kind)" in text and " at 0x" not in text
    assert not (source / "sets/flowers/1.0.0").exists()
    write_tree(source / "in", files)
    redone, example = [], image_bytes.example
    monkeypatch.setattr(image_bytes, "example", lambda *a: redone.append(a) or example(*a))
    assert contents(make(source)) == whole and 7 < len(redone) < 15  # three shards of seven


def test_bad_images_can_be_left_out(source):
    spoil(source)
    target = make(source, skip_bad=True)
    assert {split.name: split.num_examples for split in
            tfds.builder_from_directory(target).info.splits.values()} == {
        "train": 16, "validation": 5}
    listed = (target / "skipped.txt").read_text().splitlines()
    assert len(listed) == 3 and any("train/iris/0.jpg (image file is trunc" in x for x in listed)
    assert target_folder.told(target) == [
        "train: 16 images", "validation: 5 images", "left out: 3 images, see skipped.txt"]
    assert make(source, skip_bad=True) == target
    with pytest.raises(check.DataError, match="images that decode, got 3 that do not, see skipped"):
        make(source)


def test_of_many_bad_images_twenty_are_named(tmp_path):
    files = flower_files(images=10)
    write_tree(tmp_path / "in", {path: b"no image" for path in files})
    with pytest.raises(check.DataError, match="36 that do not: .* and 16 more. Replace") as caught:
        prepare(tmp_path / "in", tmp_path / "sets", "flowers")
    assert str(caught.value).count(".jpg") == 20


def test_a_class_may_not_lose_all_its_images(source):
    for path in (source / "in/train/iris").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(check.DataError, match="train: .* got 0 for iris. Replace the 6 left out: "):
        make(source, skip_bad=True)


def test_nor_a_split(source):
    for path in (source / "in/val").rglob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(check.DataError, match="validation: expected some images, got none. Re"):
        make(source, skip_bad=True)
    assert not (source / "sets/flowers/1.0.0").exists()


def test_names_in_no_known_letters_are_told(source, capsys):
    """Of a file that is left out and of a class folder without images, of German systems of old."""
    bad, empty = (os.fsdecode(name) for name in (b"\xea.jpg", b"gr\xf6"))
    write_tree(source / "in", {f"train/iris/{bad}": b"no image", f"train/{empty}/": b""})
    target = make(source, skip_bad=True)
    assert b"train/iris/\xea.jpg (8 bytes" in (target / "skipped.txt").read_bytes()
    assert r"no images: train/gr\udcf6" in capsys.readouterr().out
