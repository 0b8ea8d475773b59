"""Published archives become data sets bit for bit, or leave nothing behind."""

import os
from pathlib import Path
import pickle
import subprocess
import sys
import types

from archive_maker import (
    COUNTS, FOLDERS, KINDS, class_names, files_of, random_splits, write_folder, write_tar,
)
import numpy as np
import pytest
import tensorflow_datasets as tfds

from augjax import check, data
from augjax.prepare import cifar_sets as module
from augjax.prepare.archives import Split
from augjax.prepare import prepare
from augjax.prepare.unpickle import load_plain

ROOT = Path(__file__).resolve().parents[2]


def assert_holds(data_dir, dataset, splits):
    """Our reader, tfds.builder and tfds.data_source all see the splits as they were."""
    ours = data.tfds_images(dataset, data_dir)
    assert list(ours.class_names) == class_names(dataset)["label"]
    builder = tfds.builder(dataset, data_dir=data_dir)
    for name, split in splits.items():
        assert builder.info.splits[name].num_examples == len(split.images)
        images, labels = data.resident(getattr(ours, name))
        np.testing.assert_array_equal(images, split.images)
        np.testing.assert_array_equal(labels, split.labels["label"])
        theirs = tfds.data_source(dataset, data_dir=data_dir, split=name)
        for index in (0, 57, len(split.images) - 1):
            example = theirs[index]
            np.testing.assert_array_equal(example["image"], split.images[index])
            assert example["id"].decode() == f"{name}_{index:05d}"
            for feature, values in split.labels.items():
                assert example[feature] == values[index]
    assert builder.info.features["label"].names == class_names(dataset)["label"]


@pytest.mark.parametrize("packed", [True, False], ids=["tar", "folder"])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(tmp_path, kind, packed):
    dataset = KINDS[kind].dataset
    splits = random_splits(dataset)
    files = files_of(kind, splits)
    if packed:
        source = write_tar(tmp_path / f"{kind}.tar.gz", FOLDERS[kind], files)
    else:
        source = write_folder(tmp_path / FOLDERS[kind], files)
    target = prepare(source, tmp_path / "sets", counts=COUNTS)
    assert target == tmp_path / "sets" / dataset / "3.0.2"
    assert [path.name for path in target.parent.iterdir()] == ["3.0.2"]
    assert_holds(tmp_path / "sets", dataset, splits)


def test_both_versions_give_the_same_bytes(tmp_path):
    written = []
    for kind in ("cifar10-binary", "cifar10-python"):
        source = write_folder(tmp_path / kind / "in", files_of(kind, random_splits("cifar10")))
        target = prepare(source, tmp_path / kind / "out", counts=COUNTS)
        written.append({path.name: path.read_bytes() for path in target.iterdir()})
    assert written[0] == written[1]


def test_real_pixels(tmp_path, cifar_dir):
    cifar, splits = data.load("cifar10", cifar_dir), {}
    for name in ("train", "test"):
        images, labels = data.resident(data.limited(getattr(cifar, name), 100))
        splits[name] = Split(images, {"label": labels.astype(np.int64)})
    files = files_of("cifar10-python", splits)
    source = write_tar(tmp_path / "a.tar.gz", "cifar-10-batches-py", files)
    prepare(source, tmp_path / "sets", counts=COUNTS)
    assert_holds(tmp_path / "sets", "cifar10", splits)


def test_a_folder_of_both_sets_needs_to_be_told_which(tmp_path):
    for kind in ("cifar10-binary", "cifar100-binary"):
        files = files_of(kind, random_splits(KINDS[kind].dataset))
        write_folder(tmp_path / "both" / FOLDERS[kind], files)
    with pytest.raises(check.ConfigError, match=r"got cifar10 \(binary\), cifar100 \(binary\)"):
        prepare(tmp_path / "both", tmp_path / "sets", counts=COUNTS)
    target = prepare(tmp_path / "both", tmp_path / "sets", "cifar100", counts=COUNTS)
    assert target.parent.name == "cifar100"
    with pytest.raises(check.ConfigError, match="Did you mean 'cifar100' or 'cifar10'"):
        prepare(tmp_path / "both", tmp_path / "sets", "cifar1000", counts=COUNTS)


def test_what_is_there_is_verified_or_refused(tmp_path):
    source = write_folder(tmp_path / "in", files_of("cifar100-binary", random_splits("cifar100")))
    target = prepare(source, tmp_path / "sets", counts=COUNTS)
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    assert prepare(source, tmp_path / "sets", counts=COUNTS) == target
    assert before == {path: path.stat().st_mtime_ns for path in target.iterdir()}
    other = files_of("cifar100-binary", random_splits("cifar100", seed=1))
    with pytest.raises(check.DataError, match="exists and its content.*got other ones. Move it"):
        prepare(write_folder(tmp_path / "other", other), tmp_path / "sets", counts=COUNTS)
    assert before == {path: path.stat().st_mtime_ns for path in target.iterdir()}


# --- broken sources: one sentence, nothing left --------------------------------------------------


def cut(files):
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    return "test_batch.bin: expected whole records of 3073 bytes, got 307299 bytes"


def missing(files):
    del files["data_batch_3.bin"]
    return "got none named data_batch_3.bin"


def few(files):
    files["data_batch_3.bin"] = files["data_batch_3.bin"][3073:]
    return "train, label: expected 100 images, got 99"


def uneven(files):
    first = files["test_batch.bin"][0]
    files["test_batch.bin"] = bytes([(first + 1) % 10]) + files["test_batch.bin"][1:]
    return "test, label: expected 10 images for each label, got 9 for "


def label(files):
    files["test_batch.bin"] = bytes([10]) + files["test_batch.bin"][1:]
    return "test record [0]: expected a label in 0..9, got [10]"


def names(files):
    files["batches.meta.txt"] = b"one\ntwo\n"
    return "batches.meta.txt: expected 10 class names, got ['one', 'two']"


def nothing(files):
    files.clear()
    files["a.txt"] = b""
    return "or a tree (folder, .zip or .tar) of train/CLASS/* and val/CLASS/*, got a.txt"


@pytest.mark.parametrize("spoil", [cut, missing, few, uneven, label, names, nothing])
def test_a_broken_source_is_refused(tmp_path, spoil):
    files = files_of("cifar10-binary", random_splits("cifar10"))
    sentence = spoil(files)
    source = write_folder(tmp_path / "in", files)
    with pytest.raises(check.DataError) as caught:
        prepare(source, tmp_path / "sets", counts=COUNTS)
    assert sentence in str(caught.value)
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_tar_is_refused(tmp_path, share):
    files = files_of("cifar10-python", random_splits("cifar10"))
    source = write_tar(tmp_path / "a.tar.gz", "cifar-10-batches-py", files)
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(check.DataError, match="a.tar.gz: expected a whole.* .tar"):
        prepare(source, tmp_path / "sets", counts=COUNTS)
    assert not (tmp_path / "sets").exists()


def test_published_counts_are_asked_for_by_default(tmp_path):
    source = write_folder(tmp_path / "in", files_of("cifar10-binary", random_splits("cifar10")))
    with pytest.raises(check.DataError, match="expected 50000 images, got 100"):
        prepare(source, tmp_path / "sets")


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    source = write_folder(tmp_path / "in", files_of("cifar10-binary", random_splits("cifar10")))
    record, written = module._record, []

    def failing(name, image, labels):
        written.append(name)
        if len(written) > 120:  # in the second split
            raise error
        return record(name, image, labels)

    monkeypatch.setattr(module, "_record", failing)
    with pytest.raises(check.CheckpointError if isinstance(error, OSError) else KeyboardInterrupt):
        prepare(source, tmp_path / "sets", counts=COUNTS)
    assert not (tmp_path / "sets").exists()


def test_a_disk_that_fills_leaves_nothing(tmp_path):
    """The kernel itself refuses to let a file grow beyond 100 kB."""
    source = write_folder(tmp_path / "in", files_of("cifar10-binary", random_splits("cifar10")))
    code = f"""if True:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        from augjax import check
        from augjax.prepare import prepare
        try:
            prepare({str(source)!r}, {str(tmp_path / "sets")!r}, counts={COUNTS})
        except check.CheckpointError as error:
            print(error)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "expected a place to write" in done.stdout and "free space" in done.stdout.lower(), done
    assert not (tmp_path / "sets").exists()


def test_too_little_space_is_seen_before_writing(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "in", files_of("cifar10-binary", random_splits("cifar10")))
    full = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: full)
    with pytest.raises(check.CheckpointError, match="0 MiB free"):
        prepare(source, tmp_path / "sets", counts=COUNTS)
    assert not (tmp_path / "sets").exists()


# --- pickles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol_are_read(protocol):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = {b"data": pixels, b"labels": [1, 2, 3], b"batch_label": b"one"}
    found = load_plain(pickle.dumps(content, protocol), "f")
    np.testing.assert_array_equal(found["data"], pixels)
    assert found["labels"] == [1, 2, 3] and bytes(found["batch_label"]) == b"one"
    by_columns = load_plain(pickle.dumps({b"data": np.asfortranarray(pixels)}, protocol), "f")
    np.testing.assert_array_equal(by_columns["data"], pixels)


PYTHON_2 = (  # what Python 2's cPickle wrote: str keys and str bytes, no _codecs
    b"\x80\x02}q\x01(U\x04dataq\x02"
    b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
    b"(K\x01K\x01K\x04\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x00\xff\x80\x07tb"
    b"U\x06labelsq\x08]q\tK\x06au."
)


def test_a_python_2_pickle_is_read():
    found = load_plain(PYTHON_2, "data_batch_1")
    assert found["data"].tolist() == [[0, 255, 128, 7]] and found["labels"] == [6]


class Payload:
    def __init__(self, function, *arguments):
        self.reply = (function, arguments)

    def __reduce__(self):
        return self.reply


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, np.load, getattr, open])
def test_a_payload_is_refused_and_creates_no_file(tmp_path, function, protocol):
    mark = tmp_path / "mark"
    argument = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    harmful = pickle.dumps({b"data": Payload(function, argument)}, protocol)
    files = files_of("cifar10-python", random_splits("cifar10")) if protocol == 2 else None
    with pytest.raises(check.DataError, match="a pickle that asks for"):
        load_plain(harmful, "data_batch_1")
    if files:
        source = write_folder(tmp_path / "in", files | {"data_batch_4": harmful})
        with pytest.raises(check.DataError, match="nothing in this one was run"):
            prepare(source, tmp_path / "sets", counts=COUNTS)
    assert not mark.exists() and not (tmp_path / "sets").exists()


@pytest.mark.parametrize("content", [
    {b"data": np.zeros(3, np.float32)}, {b"data": np.array([print], object)}, [1, 2],
    {b"data": np.zeros(3, np.uint16)},
])
def test_other_content_is_refused(content):
    with pytest.raises(check.DataError, match="plain data and uint8 arrays"):
        load_plain(pickle.dumps(content, 2), "f")


@pytest.mark.parametrize("data_bytes", [b"", b"\x80\x02}", PYTHON_2[:150], b"garbage"])
def test_a_broken_pickle_is_refused(data_bytes):
    with pytest.raises(check.DataError, match="f: expected a pickled dictionary"):
        load_plain(data_bytes, "f")


# --- the command ---------------------------------------------------------------------------------


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "launch.prepare", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )


def test_the_command_ends_with_its_exit_code(tmp_path):
    source = write_folder(tmp_path / "in", files_of("cifar10-binary", random_splits("cifar10")))
    wanted = [
        (2, "--source: expected a path", ()),
        (2, "Unknown command line flag 'sauce", ("--sauce=x",)),
        (3, "not there", (f"--source={tmp_path}/none", f"--data_dir={tmp_path}/sets")),
        (3, "expected 50000 images", (f"--source={source}", f"--data_dir={tmp_path}/sets")),
    ]
    for code, sentence, arguments in wanted:
        done = run(*arguments)
        assert done.returncode == code and sentence in done.stderr, done
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "sets").exists()
