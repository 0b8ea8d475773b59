"""Checkpoints that never lie: a step counts once the SHA-256 of its every file stands beside it.

Layout: `<workdir>/checkpoints/<phase>/<step>/` written by Orbax, plus our `digests.json`, written
last. A folder without digests is never listed; one that this run left unfinished is cleared away
when it starts again, and a copy that lost its digests stops the run until it is adopted or moved
away. Orbax alone would load a flipped bit without a word.

In an object store the layout is the same. Orbax itself would rename there or bring a client of its
own, so it writes to a folder on the disk of process 0, from which every file is put into the store,
the digests last; what is read is copied to a disk of each process first.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
from pathlib import Path
import tempfile
import threading
from types import SimpleNamespace
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as v0
import orbax.checkpoint.experimental.v1 as ocp

from augjax import check, tree
from augjax.train import files, sharding
from augjax.train.saves import (
    claim, clear_unfinished as clear_unfinished, commit as commit, DIGESTS, folder_of as folder_of,
    FROZEN as FROZEN, is_stray, remove, set_aside as set_aside, settle, steps as steps,
    strays as strays, verify as verify,
)

PyTree = Any


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


# --- saving --------------------------------------------------------------------------------------


class Writer:
    """Saves in the background, one save at a time.

    A failure (a full disk) is kept and raised by the next `wait`, in every process; nothing older
    is touched until a newer save is committed.
    """

    def __init__(self, workdir: str | Path, keep: int, milestones: tuple[int, ...] = ()):
        self.workdir, self.keep, self.milestones = files.place(workdir), keep, milestones
        self._folder: Path | None = None  # of the save under way
        self._thread: threading.Thread | None = None
        self._written = threading.Event()
        self._error: BaseException | None = None

    def save(self, phase: str, step: int | str, state: PyTree,
             first: Callable[[], None] = lambda: None) -> None:
        """Copies `state` off the devices, then writes in the background.

        `first` is done before anything is written; where it fails, so has the save.
        """
        self.wait()
        self._folder = folder = folder_of(self.workdir, phase, step)
        try:
            files.make_folder(folder.parent)
            if jax.process_index() == 0:
                claim(folder)
            first()
        except OSError as error:
            self._error = error
        if _any_process(self._error is not None):  # Orbax would wait for who is not coming
            return
        try:
            result = _begin(folder, to_nested(state))
        except Exception as error:  # noqa: BLE001 a full disk shows as any of several errors
            self._error = error
            return
        self._written.clear()
        self._thread = threading.Thread(target=self._finish, args=(result, folder, phase))
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
        if jax.process_index() == 0 and not is_stray(folder):
            remove(folder)
        raise _failure(error) from error

    def join(self) -> None:
        """Returns when nothing is being written any more, whatever came of it."""
        if self._thread:
            self._written.wait()  # Ctrl-C in `join` has CPython before 3.13 take it for gone
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
                if not files.in_store(folder):
                    commit(folder)
                with contextlib.suppress(OSError):  # the save counts, whatever becomes of others
                    settle(folder)
                    self._forget(phase)
                    clear_unfinished(self.workdir)  # of a failed save that Orbax may still have fed
        except Exception as error:  # noqa: BLE001
            self._error = error
        finally:
            self._written.set()

    def _forget(self, phase: str) -> None:
        kept = steps(self.workdir, phase)
        for step in kept[: -self.keep]:
            if step not in self.milestones:
                remove(folder_of(self.workdir, phase, step))


def _failure(error: BaseException | None) -> check.CheckpointError:
    got = _first_line(error).rstrip(".") if error else "a failure in another process"
    fix = "see to the store" if isinstance(error, files.StoreError) else "make room on the disk"
    return check.CheckpointError(check.sentence(
        "saving a checkpoint", "a committed step", got, f"{fix}; older steps are intact"))


def _any_process(failed: bool) -> bool:
    if jax.process_count() == 1:
        return failed
    return bool(multihost_utils.process_allgather(np.array(failed)).any())


def _begin(folder: Path, state: PyTree) -> Callable[[], Any]:
    """Copies `state` off the devices; what is returned ends when every file lies in `folder`, and
    in a store, where Orbax cannot write by itself, also the digests."""
    if not files.in_store(folder):
        return ocp.save_async(folder, state).result
    state = jax.tree.map(_whole, state)
    if jax.process_index() > 0:
        return lambda: None
    scratch = Path(tempfile.mkdtemp(prefix="augjax-save-"))
    save = ocp.save_async if jax.process_count() == 1 else _save_alone
    response = save(scratch / folder.name, state)

    def finish() -> None:
        try:
            response.result()
            commit(scratch / folder.name)
            files.upload(scratch / folder.name, folder, last=DIGESTS)
        finally:
            files.remove(scratch)

    return finish


def _save_alone(folder: Path, state: PyTree) -> SimpleNamespace:
    """As `ocp.save_async`, by one process of many: v1 wants all of them at every save, v0 does not.
    The files are the same, and v1 reads them."""
    from orbax.checkpoint._src.metadata.array_metadata_store import Store  # of the keys' types

    arrays = v0.type_handlers.ArrayHandler(
        use_replica_parallel=False, array_metadata_store=Store())  # else each writes a share
    only = v0.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    unchecked = SimpleNamespace(validate_all_array_metadatas=lambda found: None)  # of the others
    handler = v0.PyTreeCheckpointHandler(
        multiprocessing_options=only, array_metadata_validator=unchecked,
        type_handler_registry=v0.type_handlers.create_type_handler_registry((jax.Array, arrays)))
    writer = v0.AsyncCheckpointer(v0.CompositeCheckpointHandler(
        composite_options=v0.CompositeOptions(multiprocessing_options=only), state=handler),
        multiprocessing_options=only)
    writer.save(folder, args=v0.args.Composite(state=v0.args.PyTreeSave(state)))

    def result() -> None:
        try:
            writer.wait_until_finished()
        finally:
            writer.close()

    return SimpleNamespace(result=result)


def _whole(leaf: jax.Array) -> jax.Array:
    """The leaf with all of it in this process; all processes must ask."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    whole = sharding.replicated(leaf.sharding.mesh)
    return jax.jit(lambda leaf: leaf, out_shardings=whole)(leaf)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:300]


# --- loading -------------------------------------------------------------------------------------


def load(folder: Path, template: PyTree) -> PyTree:
    """Reads the leaves of `template` (ShapeDtypeStructs with shardings) and no others.

    Raises CheckpointError when a file is not what was written, or a leaf is missing or misshapen.
    """
    with _on_disk(folder) as copy:
        verify(folder, copy)
        return _read(folder, copy, template)


def adopt(folder: Path, template: PyTree) -> None:
    """Gives a copy that lost its digests new ones, after reading all of `template` from it.

    A changed bit cannot be seen any more. Raises CheckpointError where a leaf is missing,
    misshapen or unreadable, and ConfigError where there is no such copy.
    """
    check.require(is_stray(folder), f"to adopt {folder}", f"a folder without {DIGESTS}",
                  "a save" if files.exists(folder / DIGESTS) else "none that somebody copied",
                  "name it as PHASE/STEP, or leave the flag out")
    with _on_disk(folder) as copy:
        _read(folder, copy, template)
    commit(folder)


def _read(folder: Path, copy: Path, template: PyTree) -> PyTree:
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    if jax.process_count() > 1:  # each reads its own part, and waits for nobody
        context.multiprocessing.primary_host = jax.process_index()
        context.multiprocessing.active_processes = {jax.process_index()}
    try:
        with context:
            loaded = from_nested(template, ocp.load(copy, to_nested(template)))
        for path, leaf in tree.flatten(loaded).items():  # what is not found stays abstract
            if not isinstance(leaf, jax.Array):
                raise KeyError(f"{path} is not there")
        # Orbax spells the sharding of a key its own way; the compiled update wants ours.
        return jax.device_put(loaded, jax.tree.map(lambda leaf: leaf.sharding, template))
    except (OSError, ValueError, KeyError) as error:
        raise check.CheckpointError(check.sentence(
            str(folder), "the leaves that this config needs", _first_line(error),
            "it was written by another model or phase, or cut off")) from error


@contextlib.contextmanager
def _on_disk(folder: Path) -> Iterator[Path]:
    """The folder, or a copy of it on this process's disk."""
    if not files.in_store(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="augjax-load-") as scratch:
        files.download(folder, Path(scratch))
        yield Path(scratch)
