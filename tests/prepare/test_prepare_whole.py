"""A whole folder is verified; it stays where its source was touched, and is no other source's."""

import json
import os
import shutil

from image_maker import crop, encoded, flower_files, make, tar_of, write_tree, write_zip
import pytest

from augjax import check
from augjax.prepare import shard_files, target_folder


@pytest.fixture
def source(tmp_path):
    """18 + 6 photographs, which make 5 + 2 shards."""
    write_tree(tmp_path / "in", flower_files())
    return tmp_path


def test_checksums_are_those_of_the_files(source):
    target = make(source)
    sums = json.loads((target / "checksums.json").read_text())["sha256"]
    assert {*sums} == {path.name for path in target.iterdir()} - {"checksums.json"}
    assert all(shard_files.sha256(target / file) == value for file, value in sums.items())


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_whole_folder_is_verified(source, harm):
    target = make(source)
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    assert make(source) == target
    assert before == {path: path.stat().st_mtime_ns for path in target.iterdir()}
    shard = target / "flowers-train.array_record-00003-of-00005"
    content = shard.read_bytes()
    if harm == "remove":
        shard.unlink()
    else:
        shard.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if harm == "flip" else b""))
    with pytest.raises(check.DataError, match="other bytes in flowers-train.array_record-00003-of"):
        make(source)
    shutil.rmtree(target)
    target.mkdir()
    with pytest.raises(check.DataError, match="exists and its content.*Move it away"):
        make(source)


@pytest.mark.parametrize("packing", ["folder", "zip", "tar"])
def test_a_whole_folder_of_a_touched_source_is_accepted_and_one_of_another_refused(
        source, capsys, packing):
    """Every byte of the source may have been copied, as to a faster disk; then its times differ."""
    target, files = make(source), flower_files()
    capsys.readouterr()
    assert make(source) == target and capsys.readouterr().out == "classes: 3\n"
    (source / "in").rename(source / "before")

    def packed(files):
        path = source / "in"
        if packing == "folder":
            write_tree(path, files)
            os.utime(path / "train/iris/0.jpg", ns=(1, 1))
        elif packing == "zip":
            write_zip(path, files)
        else:
            path.write_bytes(tar_of(files))

    packed(files)
    assert make(source) == target
    told = capsys.readouterr().out
    assert f"{target} has the names and sizes of the source, whose files were touched" in told
    assert "if images were changed, move it away" in told
    packed(files | {"val/iris/6.jpg": encoded(crop(99))})
    with pytest.raises(check.DataError, match="exists and its content: .*got other sizes of files"):
        make(source)
    packed(files | {"val/iris/6.jpg": encoded(crop(99)), "val/iris/9.jpg": encoded(crop(99))})
    with pytest.raises(check.DataError, match="other names, labels or options and sizes of files"):
        make(source)


def test_another_byte_in_a_zip_is_told(source, capsys):
    """At the same size and time: its directory has the CRC."""
    (source / "in").rename(source / "moved")
    files = flower_files()
    write_zip(source / "in", files)
    make(source)
    content = files["train/iris/0.jpg"]
    write_zip(source / "in", files | {"train/iris/0.jpg": content[:-3] + b"x" + content[-2:]})
    capsys.readouterr()
    make(source)
    assert "if images were changed" in capsys.readouterr().out


def test_a_whole_folder_of_before_knows_of_names_alone(source, capsys):
    target = make(source)
    content = target_folder.summary(target)
    del content["sizes"], content["times"]
    (target / "checksums.json").write_text(json.dumps(content))
    os.utime(source / "in/train/iris/0.jpg", ns=(1, 1))
    assert make(source) == target and "touched" not in capsys.readouterr().out
