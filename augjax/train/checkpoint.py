"""Checkpoints that never lie: a step counts once the SHA-256 of its every file stands beside it.

Layout: `<workdir>/checkpoints/<phase>/<step>/` written by Orbax, plus our `digests.json`, written
last. A folder without digests is a save that never finished: it is never listed, and cleared away
when the run starts again. Orbax alone would load a flipped bit without a word.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import hashlib
import json
import os
from pathlib import Path
import shutil
import threading
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from augjax import check, tree

PyTree = Any
DIGESTS = "digests.json"
FROZEN = "frozen"


# --- trees <-> what Orbax stores -----------------------------------------------------------------


def to_nested(state: PyTree) -> dict:
    """Any tree as nested dictionaries of arrays, keyed by the parts of each leaf's path."""
    nested: dict = {}
    for path, leaf in tree.flatten(state).items():
        *parents, name = path.split("/")
        branch = nested
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = leaf
    return nested


def from_nested(template: PyTree, nested: Mapping) -> PyTree:
    """The inverse of `to_nested`, in the structure of `template`."""

    def find(path, _):
        branch = nested
        for part in path.split("/"):
            branch = branch[part]
        return branch

    return tree.map_with_path(find, template)


# --- folders -------------------------------------------------------------------------------------


def folder_of(workdir: Path, phase: str, step: int | str) -> Path:
    """Where a save lies; absolute, as Orbax wants it."""
    return Path(workdir).absolute() / "checkpoints" / phase / str(step)


def steps(workdir: Path, phase: str) -> list[int]:
    """The committed steps of a phase, ascending."""
    folder = folder_of(workdir, phase, "")
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if (entry / DIGESTS).is_file()]
    return sorted(int(name) for name in names if name.isdigit())


def clear_unfinished(workdir: Path) -> list[str]:
    """Removes saves that a kill left half done; returns their names."""
    cleared = []
    for entry in sorted(folder_of(workdir, "", "").glob("*/*")):
        if entry.is_dir() and not (entry / DIGESTS).is_file():
            _remove(entry)
            cleared.append(f"{entry.parent.name}/{entry.name}")
    return cleared


def set_aside(workdir: Path, phases: Sequence[str]) -> list[tuple[str, int | str, str]]:
    """Renames altered saves, newest first, until one is whole: [(phase, save, what is wrong)].

    No step of a phase can go on without the phase's frozen networks, so they share their fate.
    """
    aside = []
    for phase in reversed(phases):
        frozen = folder_of(workdir, phase, FROZEN)
        cause = _fault(frozen) if frozen.is_dir() else ""
        for name in (*reversed(steps(workdir, phase)), *[FROZEN] * bool(cause)):
            folder = folder_of(workdir, phase, name)
            fault = cause or _fault(folder)
            if not fault:
                return aside
            folder.rename(folder.with_name(f"{name}.altered-{time.time_ns()}"))
            aside.append((phase, name, fault))
    return aside


def _fault(folder: Path) -> str:
    try:
        verify(folder)
    except check.CheckpointError as error:
        return str(error)
    return ""


def verify(folder: Path) -> None:
    """Raises CheckpointError, naming the file, unless every file is what was written."""
    try:
        expected = json.loads((folder / DIGESTS).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise check.CheckpointError(
            check.sentence(str(folder), f"a readable {DIGESTS}", repr(error), _USE_PREVIOUS)
        ) from error
    actual = _digests(folder)
    for name in sorted(set(expected) | set(actual)):
        check.require(
            expected.get(name) == actual.get(name), f"checkpoint file {folder / name}",
            f"SHA-256 {expected.get(name, 'none: the file is unknown')}",
            actual.get(name, "no such file"), _USE_PREVIOUS, check.CheckpointError,
        )


_USE_PREVIOUS = (
    "the file was altered or cut off: restore it from a copy, or go back one save with "
    "--use_previous_checkpoint"
)


def _digests(folder: Path) -> dict[str, str]:
    files = (entry for entry in sorted(folder.rglob("*")) if entry.is_file())
    return {
        str(entry.relative_to(folder)): hashlib.sha256(entry.read_bytes()).hexdigest()
        for entry in files
        if entry.name != DIGESTS
    }


# --- saving --------------------------------------------------------------------------------------


class Writer:
    """Saves in the background, one save at a time.

    A failure (a full disk) is kept and raised by the next `wait`, in every process; nothing older
    is touched until a newer save is committed.
    """

    def __init__(self, workdir: Path, keep: int, milestones: tuple[int, ...] = ()):
        self.workdir, self.keep, self.milestones = Path(workdir), keep, milestones
        self._folder: Path | None = None  # of the save under way
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, phase: str, step: int | str, state: PyTree,
             first: Callable[[], None] = lambda: None) -> None:
        """Copies `state` off the devices, then writes in the background.

        `first` is done before anything is written; where it fails, so has the save.
        """
        self.wait()
        self._folder = folder = folder_of(self.workdir, phase, step)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _remove(folder)  # left over from a failed attempt at this very step
            first()
        except OSError as error:
            self._error = error
        if _any_process(self._error is not None):  # Orbax would wait for who is not coming
            return
        try:
            response = ocp.save_async(folder, to_nested(state))
        except Exception as error:  # noqa: BLE001 a full disk shows as any of several errors
            self._error = error
            return
        self._thread = threading.Thread(target=self._finish, args=(response.result, folder, phase))
        self._thread.start()

    def wait(self) -> None:
        """Returns when the save under way is committed; raises CheckpointError if it failed."""
        if self._folder is None:
            return
        self.join()
        folder, error = self._folder, self._error
        self._folder = self._thread = self._error = None
        if not _any_process(error is not None):
            return
        if jax.process_index() == 0:
            _remove(folder)
        raise _failure(error) from error

    def join(self) -> None:
        """Returns when nothing is being written any more, whatever came of it."""
        if self._thread:
            self._thread.join()

    def record(self, write: Callable[[], None]) -> None:
        """Does what must be on the disk before the run goes on; CheckpointError if it is full."""
        self.wait()
        try:
            write()
        except OSError as error:
            raise _failure(error) from error

    def _finish(self, result: Callable[[], Any], folder: Path, phase: str) -> None:
        try:
            result()
            if jax.process_index() == 0:
                commit(folder)
                self._forget(phase)
                clear_unfinished(self.workdir)  # of a failed save, which Orbax may still have fed
        except Exception as error:  # noqa: BLE001
            self._error = error

    def _forget(self, phase: str) -> None:
        kept = steps(self.workdir, phase)
        for step in kept[: -self.keep]:
            if step not in self.milestones:
                _remove(folder_of(self.workdir, phase, step))


def _failure(error: BaseException | None) -> check.CheckpointError:
    got = _first_line(error) if error else "a failure in another process"
    return check.CheckpointError(check.sentence(
        "saving a checkpoint", "a committed step", got,
        "make room on the disk; older steps are intact"))


def _any_process(failed: bool) -> bool:
    if jax.process_count() == 1:
        return failed
    return bool(multihost_utils.process_allgather(np.array(failed)).any())


def _remove(folder: Path) -> None:
    """From the first moment on the folder is no save; what Orbax left beside it goes too."""
    with contextlib.suppress(OSError):
        (folder / DIGESTS).unlink()
    for path in (folder, *folder.parent.glob(f"{folder.name}.orbax-checkpoint-tmp*")):
        shutil.rmtree(path, ignore_errors=True)


def commit(folder: Path) -> None:
    """Writes the digests of everything in the folder: from here on the save counts."""
    text = json.dumps({"files": _digests(folder)}, indent=1)
    temporary = folder.with_name(folder.name + ".digests-tmp")
    try:
        with open(temporary, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / DIGESTS)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:300]


# --- loading -------------------------------------------------------------------------------------


def load(folder: Path, template: PyTree) -> PyTree:
    """Reads the leaves of `template` (ShapeDtypeStructs with shardings) and no others.

    Raises CheckpointError when a file is not what was written, or a leaf is missing or misshapen.
    """
    verify(folder)
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    try:
        with context:
            loaded = from_nested(template, ocp.load(folder, to_nested(template)))
        for path, leaf in tree.flatten(loaded).items():  # what Orbax does not find stays abstract
            if not isinstance(leaf, jax.Array):
                raise KeyError(f"{path} is not there")
        # Orbax spells the sharding of a restored key its own way; the compiled update wants ours.
        return jax.device_put(loaded, jax.tree.map(lambda leaf: leaf.sharding, template))
    except (ValueError, KeyError) as error:
        raise check.CheckpointError(
            check.sentence(str(folder), "the leaves that this config needs", _first_line(error),
                           "it was written by another model or phase")
        ) from error
