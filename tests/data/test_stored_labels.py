"""Labels beside the records: made once, trusted only as long as the records are the same."""

import os

import numpy as np
import pytest

from augjax import data
from augjax.data import records, stored_labels
from launch.benchmarks.input import photographs, write_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_labels, "LARGE", 0)
    records._open.cache_clear()
    return write_folder(
        tmp_path, "birds", {"train": photographs(6), "test": photographs(2)}, ("a", "b"))


@pytest.fixture
def readings(monkeypatch):
    """The splits whose labels were read from their records."""
    found, labels = [], records.Records.labels
    monkeypatch.setattr(
        records.Records, "labels", lambda self: found.append(self.split) or labels(self))
    return found


def opened(folder, anew=True):
    if anew:
        records._open.cache_clear()
    return data.load("birds", folder.parents[1], image_size=8).train.labels.tolist()


def test_labels_are_read_from_the_records_once(folder, readings):
    assert opened(folder) == opened(folder) == opened(folder, anew=False) == [0, 1] * 3
    assert readings == ["train", "test"]
    assert sorted(path.name for path in folder.glob("labels-*")) == [
        "labels-test.npz", "labels-train.npz"]


def test_what_was_stored_of_other_records_is_not_believed(folder, readings):
    opened(folder)
    shard = next(folder.glob("*-train.array_record*"))
    os.utime(shard, ns=(1, 1))
    opened(folder)
    assert readings == ["train", "test", "train"]
    path = folder / "labels-train.npz"
    for content in (b"", path.read_bytes()[:-40], b"not ours"):
        path.write_bytes(content)
        assert opened(folder) == [0, 1] * 3
    with np.load(path) as file:
        np.savez(path, labels=file["labels"][:-1], files=file["files"])
    assert opened(folder) == [0, 1] * 3
    assert readings == ["train", "test"] + ["train"] * 5


def test_a_folder_that_cannot_be_written_to_is_read_each_time(folder, readings, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(stored_labels.tempfile, "mkstemp", refuse)
    assert opened(folder) == opened(folder) == [0, 1] * 3
    assert readings == ["train", "test"] * 2 and not list(folder.glob("labels-*"))


def test_small_sets_leave_no_file(folder, readings, monkeypatch):
    monkeypatch.setattr(stored_labels, "LARGE", 1 << 28)
    opened(folder)
    assert not list(folder.glob("labels-*"))
