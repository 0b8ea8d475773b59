"""A run folder in an object store that refuses to rename, append and lock equals one on a disk."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, exchange, train
from augjax.train import checkpoint, files, folder
from train import fake_store
from train.helpers import (
    assert_equal_trees, assert_every_step_once, rows, saved, three_phases,
)

URL = "gs://bucket/runs/one"
NAMES = ("teacher", "student", "pruned")
ONE = jax.devices()[:1]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A lock that is given up in moments."""
    for name, seconds in (("BEAT_S", 30.0), ("STALE_S", 0.2), ("SETTLE_S", 0.0)):
        monkeypatch.setattr(folder, name, seconds)


@pytest.fixture
def store(tmp_path):
    return fake_store.install(tmp_path / "store")


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("disk")
    train.run(three_phases(), workdir, devices=ONE)
    return workdir


@pytest.fixture(scope="module")
def acts(tmp_path_factory, on_disk):
    """Everything that one undisturbed run has a store do, in its order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "SETTLE_S", 0.0)
        store = fake_store.install(tmp_path_factory.mktemp("acts"))
        train.run(three_phases(), URL, devices=ONE)
        assert_equal_to(on_disk, store.root)
        return list(store.acts)


def assert_equal_to(on_disk: Path, root: Path) -> None:
    """The store's run, copied to a disk file by file, is the run on the disk, bit for bit."""
    copy = root.with_name(root.name + "-copy")
    files.download(files.place(URL), copy)
    assert_every_step_once(copy, three_phases())
    assert rows(on_disk) == rows(copy)
    for name in NAMES:
        assert checkpoint.steps(URL, name)[-1] == checkpoint.steps(on_disk, name)[-1]
        assert_equal_trees(saved(on_disk, name), saved(copy, name))
    ours, theirs = (json.loads((place / "summary.json").read_text()) for place in (on_disk, copy))
    for name in NAMES:
        for field in ("final_accuracy", "nonzero", "frozen"):
            assert ours["phases"][name].get(field) == theirs["phases"][name].get(field)


def until(acts: list, count: int, root: Path) -> None:
    """Makes the store what it was after its first `count` acts: a kill leaves just that."""
    store = fake_store.install(root)
    for act, name, content in acts[:count]:
        if act == "put":
            fake_store.write(root, name, content)
        else:
            store().rm_file(name)
    store.acts.clear()


# --- runs ----------------------------------------------------------------------------------------


def test_the_layout_is_that_of_a_disk(acts, on_disk):
    put = {name.removeprefix("bucket/runs/one/") for act, name, _ in acts if act == "put"}
    kept = {file.relative_to(on_disk).as_posix() for file in on_disk.rglob("*") if file.is_file()}

    def known(names):  # Orbax numbers its data files at random, TensorBoard by time and process
        return {name.partition("/d/")[0] for name in names if "tensorboard" not in name}

    assert known(kept) <= known(put)
    assert any(name.startswith("tensorboard/student/") for name in put)
    digests = [name for name in put if name.endswith("digests.json")]
    assert len(digests) == 9  # 2 + 3 + 2 steps, and two frozen teachers


def test_after_any_act_every_save_that_is_listed_is_whole(acts, tmp_path):
    """Killed after any put or removal: what counts is whole, and nothing half done counts."""
    listed = set()
    until(acts, 0, tmp_path / "store")
    for act, name, content in acts:
        if act == "put":
            fake_store.write(tmp_path / "store", name, content)
        else:
            fake_store.FakeStore().rm_file(name)
        if "/checkpoints/" in name:
            for phase in NAMES:
                for step in checkpoint.steps(URL, phase):
                    if act == "remove" or name.endswith("digests.json"):
                        checkpoint.verify(checkpoint.folder_of(URL, phase, step))
                    listed.add((phase, step))
    assert len(listed) == 7


@pytest.mark.parametrize("kind, place, after", [
    ("put", "student/6/digests.json", 0),  # the put that would have committed a save
    ("remove", "student/3/digests.json", 1),  # an old save is being forgotten
])
def test_killed_and_gone_on_equals_unhurt(acts, on_disk, tmp_path, kind, place, after):
    moment = next(number for number, (act, name, _) in enumerate(acts)
                  if act == kind and name.endswith(place))
    until(acts, moment + after, tmp_path / "store")
    train.run(three_phases(), URL, devices=ONE)
    assert_equal_to(on_disk, tmp_path / "store")


def test_a_process_killed_in_the_middle_of_a_put(on_disk, tmp_path):
    """SIGKILL leaves its lock behind; the process is known to be dead, so nobody waits for it."""
    root = tmp_path / "store"
    place = "checkpoints/student/6/state/manifest.ocdbt"
    done = subprocess.run(
        [sys.executable, fake_store.__file__,
         json.dumps({"folder": str(root), "url": URL, "place": place})],
        check=False, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"})
    assert done.returncode == -signal.SIGKILL
    fake_store.install(root)
    assert files.exists(files.place(URL) / "lock")
    assert any("/student/6/" in name for name in fake_store.names(root))
    assert checkpoint.steps(URL, "student") == [3]
    began = time.monotonic()
    with folder.held(files.place(URL)):
        assert time.monotonic() - began < folder.STALE_S
    train.run(three_phases(), URL, devices=ONE)
    assert_equal_to(on_disk, root)


def test_a_store_that_is_away_for_a_while_is_told_and_nothing_is_lost(on_disk, store):
    """From the second save of the student on, six puts fail."""
    def away(act, name):
        state["away"] |= act == "put" and "/student/6/" in name
        if state["away"] and state["refused"] < 6:
            state["refused"] += 1
            raise ConnectionResetError("away")

    state = {"away": False, "refused": 0}
    store.failing = staticmethod(away)
    train.run(three_phases(), URL, devices=ONE)
    assert state["refused"] == 6 and checkpoint.steps(URL, "student") == [3, 9]
    assert_equal_to(on_disk, store.root)


def test_a_store_that_stays_away_ends_the_run_with_4(on_disk, store):
    def away(act, name):
        if act == "put" and "/student/" in name and "frozen" not in name:
            raise ConnectionResetError("away")

    store.failing = staticmethod(away)
    with pytest.raises(check.CheckpointError, match="away") as caught:
        train.run(three_phases(), URL, devices=ONE)
    assert caught.value.exit_code == 4
    assert checkpoint.steps(URL, "student") == [] and checkpoint.steps(URL, "teacher") == [3, 6]
    assert not files.exists(files.place(URL) / "lock")


def test_an_altered_object_is_refused_and_the_flag_goes_back_one_save(acts, on_disk, tmp_path):
    until(acts, len(acts), tmp_path / "store")
    at = files.place(URL) / "checkpoints" / "pruned" / "6"
    largest = max(files.names(at), key=lambda name: len(files.read(at / name)))
    content = bytearray(files.read(at / largest))
    content[len(content) // 2] ^= 1
    files.write(at / largest, bytes(content))
    for _ in range(2):
        with pytest.raises(check.CheckpointError, match="SHA-256") as caught:
            train.run(three_phases(), URL, devices=ONE)
        assert str(at / largest) in str(caught.value) and str(at).startswith("gs://")
    train.run(three_phases(), URL, devices=ONE, use_previous=True)
    (aside,) = [name for name in files.folders(at.parent) if "altered" in name]
    assert files.read(at.with_name(aside) / largest) == content
    assert_equal_to(on_disk, tmp_path / "store")


def test_a_save_counts_also_where_an_older_one_cannot_be_removed(store):
    def refuse(act, name):
        if act == "remove":
            raise PermissionError("no right to remove")

    writer, state = checkpoint.Writer(URL, keep=1), {"a": jnp.arange(3.0)}
    writer.save("phase", 1, state)
    writer.wait()
    store.failing = staticmethod(refuse)
    writer.save("phase", 2, state)
    writer.wait()
    assert checkpoint.steps(URL, "phase") == [1, 2]
    writer.save("phase", 1, state)  # it would count while it is written over
    with pytest.raises(check.CheckpointError, match="phase/1.*cannot be removed"):
        writer.wait()


def test_a_trained_network_is_read_from_a_store(acts, on_disk, tmp_path):
    until(acts, len(acts), tmp_path / "store")
    made = three_phases()
    found = [train.evaluate_source(
        train.Source("student", str(place), None, "ema", origin=made.phase("student")), made)
        for place in (on_disk, URL)]
    assert found[0] == found[1]


def test_no_answer_sets_no_save_aside(acts, tmp_path):
    until(acts, len(acts), tmp_path / "store")

    def broken(act, name):
        if act == "read" and "/d/" in name:
            raise TimeoutError("no answer")

    fake_store.FakeStore.failing = staticmethod(broken)
    with pytest.raises(files.StoreError):
        checkpoint.set_aside(URL, NAMES)
    assert checkpoint.steps(URL, "pruned") == [3, 6]


# --- networks taken in ---------------------------------------------------------------------------


def test_a_network_is_taken_into_a_store_whole_or_not_at_all(store):
    array = np.ones((2, 3), np.float32)
    taken = exchange.Converted({"name": "resnet8"}, "digits", 3, (), (8, 8, 3), 0,
                               {"a": array}, {"a": array}, {"source": "timm"})

    def full(act, name):
        if act == "put" and name.endswith("digests.json"):
            raise OSError(28, "No space left on device")

    store.failing = staticmethod(full)
    with pytest.raises(check.CheckpointError, match="No space left"):
        exchange.write_run(URL, taken, {"phases": []})
    assert fake_store.names(store.root) == []
    store.failing = staticmethod(lambda act, name: None)
    summary = exchange.write_run(URL, taken, {"phases": []})
    assert json.loads(files.read(files.place(URL) / "summary.json")) == summary
    assert checkpoint.steps(URL, exchange.PHASE) == [0]
    checkpoint.verify(checkpoint.folder_of(URL, exchange.PHASE, 0))
    assert [name for act, name, _ in store.acts if act == "put"][-1].endswith("0/digests.json")
    with pytest.raises(check.ConfigError, match="a folder that is not there yet"):
        exchange.write_run(URL, taken, {"phases": []})
