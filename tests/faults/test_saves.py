"""Killed at every file operation of a save: what is left on the disk is never a lie.

Before each operation that Python does on the folder (Orbax's threads included), and now and then in
between, the folder is copied as it stands: what SIGKILL at that instant leaves, because the page
cache outlives the process. The real signal, in real processes, is tests/train/test_killed.py.
"""

import builtins
import os
from pathlib import Path
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax.train import checkpoint
from train.helpers import assert_equal_trees, saved

OPERATIONS = (
    *((os, name) for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "open", "fsync")),
    (builtins, "open"))
STATES = {step: {"a": jnp.arange(1000.0) * step, "b": {"c": jnp.int32(step)}}
          for step in (1, 2, 3, 4)}
INSTANTS = 20  # that the issue asks for


class Camera:
    """Copies `folder` to `album`/0, 1, ... before every file operation and every few ms."""

    def __init__(self, folder: Path, album: Path):
        self.folder, self.album = folder, album
        self.one_at_a_time, self.mine = threading.RLock(), threading.local()
        self.tries, self.shots = 0, {}  # {folder: before which operation}
        self.done = threading.Event()

    def shoot(self, before: str) -> None:
        if getattr(self.mine, "busy", False):
            return
        self.mine.busy = True
        try:
            with self.one_at_a_time:
                self.tries += 1
                to = self.album / str(self.tries)
                shutil.copytree(self.folder, to)
                self.shots[to] = before
        except OSError:  # a file went away while it was copied: no instant that ever was
            pass
        finally:
            self.mine.busy = False

    def watch(self, monkeypatch, owner, name: str) -> None:
        function = getattr(owner, name)

        def watched(*args, **kwargs):
            self.shoot(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    def now_and_then(self) -> None:
        while not self.done.wait(0.002):
            self.shoot("in between")


def write(workdir: Path, step: int, keep: int = 2) -> None:
    writer = checkpoint.Writer(workdir, keep=keep)
    writer.save("phase", step, STATES[step])
    writer.wait()


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """(folders as a kill left them, before which operation each) of saving step 3 over 1 and 2."""
    workdir, shots = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("album")
    write(workdir, 1)
    write(workdir, 2)
    camera = Camera(workdir, shots)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in OPERATIONS:
            camera.watch(patch, owner, name)
        between = threading.Thread(target=camera.now_and_then)
        between.start()
        try:
            write(workdir, 3)
        finally:
            camera.done.set()
            between.join()
    return list(camera.shots), list(camera.shots.values())


def contents(folder: Path) -> tuple:
    return tuple((str(path.relative_to(folder)), path.is_file() and path.read_bytes())
                 for path in sorted(folder.rglob("*")))


@pytest.fixture(scope="module")
def different(album):
    """Those that differ from the one before."""
    kept, last = [], None
    for folder in album[0]:
        now = contents(folder)
        if now != last:
            kept.append(folder)
        last = now
    return kept


def test_a_save_has_many_instants(album, different):
    """Otherwise what follows would say little."""
    folders, before = album
    assert len(folders) > 2 * INSTANTS and len(different) >= INSTANTS
    assert {"mkdir", "replace", "fsync", "unlink"} <= set(before)
    states = {tuple(checkpoint.steps(folder, "phase")) for folder in folders}
    assert states == {(1, 2), (1, 2, 3), (2, 3)}


def test_only_whole_saves_are_ever_listed(album):
    for folder in album[0]:
        steps = checkpoint.steps(folder, "phase")
        assert steps[-1] >= 2 and len(steps) >= 2
        for step in steps:
            checkpoint.verify(checkpoint.folder_of(folder, "phase", step))


def test_the_latest_is_restored_and_what_is_half_done_goes(different, tmp_path):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), STATES[1])
    cleared = 0
    for number, shot in enumerate(different):
        folder = shutil.copytree(shot, tmp_path / str(number))
        steps = checkpoint.steps(folder, "phase")
        cleared += bool(checkpoint.clear_unfinished(folder))
        assert checkpoint.steps(folder, "phase") == steps
        left = [entry for entry in (folder / "checkpoints/phase").iterdir() if entry.is_dir()]
        assert sorted(entry.name for entry in left) == [str(step) for step in steps]
        loaded = checkpoint.load(checkpoint.folder_of(folder, "phase", steps[-1]), like)
        assert np.array_equal(loaded["a"], STATES[steps[-1]]["a"])
    assert cleared > INSTANTS / 2


def test_the_next_save_of_that_step_succeeds(different, tmp_path):
    """Without clearing first: a leftover of the same step is in nobody's way (openpi#566)."""
    unfinished = [shot for shot in different if 3 not in checkpoint.steps(shot, "phase")]
    for number, shot in enumerate(unfinished[:: max(1, len(unfinished) // INSTANTS)]):
        folder = shutil.copytree(shot, tmp_path / str(number))
        write(folder, 3)
        assert checkpoint.steps(folder, "phase") == [2, 3]
        flat = {"a": np.asarray(STATES[3]["a"]), "b/c": np.asarray(STATES[3]["b"]["c"])}
        assert_equal_trees(saved(folder, "phase", 3), flat)
        assert not list((folder / "checkpoints/phase").glob("3.orbax*"))


def test_a_flipped_bit_in_a_copy_would_be_seen(different, tmp_path):
    """The mutant of this file: an album of lies is told apart."""
    folder = shutil.copytree(different[-1], tmp_path / "lie")
    step = checkpoint.steps(folder, "phase")[-1]
    file = next(path for path in sorted(checkpoint.folder_of(folder, "phase", step).rglob("*"))
                if path.is_file() and path.stat().st_size and path.name != checkpoint.DIGESTS)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(checkpoint.check.CheckpointError):
        test_only_whole_saves_are_ever_listed(([folder], []))


def test_a_slow_disk_delays_the_save_and_not_the_training(tmp_path, monkeypatch):
    """Row 28: every fsync takes long; `save` comes back at once and the step is whole later."""
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (time.sleep(0.5), fsync(file)))
    writer = checkpoint.Writer(tmp_path, keep=1)
    writer.save("phase", 1, STATES[1])
    assert checkpoint.steps(tmp_path, "phase") == []
    writer.wait()
    assert checkpoint.steps(tmp_path, "phase") == [1]
