"""Which saves of a run are there, whether they are what was written, and whose they are.

A folder counts as a save by its `digests.json`. One without is ours, and may go, where a file of
its name plus `.writing` lies beside it; any other is somebody's copy, and is never removed.
"""

from collections.abc import Sequence
import contextlib
import hashlib
import json
from pathlib import Path
import time

from augjax import check
from augjax.train import files

DIGESTS = "digests.json"  # of a save: {"files": {name: SHA-256}}; without it a folder is none
FROZEN = "frozen"  # in place of a step: the frozen networks of a phase
WRITING = ".writing"  # ends the name of the file beside a folder that is no save yet, or no more
ORBAX = ".orbax-checkpoint-tmp"  # in the name of a folder that Orbax has not finished


def folder_of(workdir: str | Path, phase: str, step: int | str) -> Path:
    """Where a save lies; absolute, as Orbax wants it."""
    return files.absolute(workdir) / "checkpoints" / phase / str(step)


def steps(workdir: str | Path, phase: str) -> list[int]:
    """The committed steps of a phase, ascending."""
    found = [name.split("/") for name in files.names(folder_of(workdir, phase, ""))]
    names = [parts[0] for parts in found if parts[1:] == [DIGESTS]]
    return sorted(int(name) for name in names if name.isdigit())


def claim(folder: Path) -> None:
    """Makes room for a new save and marks the folder as ours until `settle`.

    Raises OSError where what lies there cannot be removed, or is not ours to remove.
    """
    if is_stray(folder):
        raise OSError(f"{folder} has no {DIGESTS} and was not written by this run: move it away")
    remove(folder)
    if files.exists(folder / DIGESTS):  # it would count while it is written over
        raise OSError(f"{folder / DIGESTS} cannot be removed")
    files.write(_mark(folder), "")


def settle(folder: Path) -> None:
    """Takes the mark away: the folder is a save, or is gone."""
    files.remove(_mark(folder))


def _mark(folder: Path) -> Path:
    return folder.with_name(folder.name + WRITING)


def _is_settled(folder: Path) -> bool:
    """Whether a folder is a save, or gone."""
    return files.exists(folder / DIGESTS) or not files.names(folder)


def is_stray(folder: Path) -> bool:
    """Whether a folder has files, but neither digests nor our mark."""
    ours = ORBAX in folder.name or files.exists(_mark(folder)) or files.exists(folder / DIGESTS)
    return not ours and bool(files.names(folder))


def strays(workdir: str | Path) -> list[str]:
    """What stands among the saves and is none, as "phase/name": copies that lost their digests."""
    top = folder_of(workdir, "", "")
    return [f"{phase}/{name}" for phase in files.folders(top)
            for name in files.folders(top / phase) if is_stray(top / phase / name)]


def clear_unfinished(workdir: str | Path) -> list[str]:
    """Removes saves that a kill left half done; returns their names."""
    cleared, top = [], folder_of(workdir, "", "")
    for phase in files.folders(top):
        for name in files.folders(top / phase):
            folder = top / phase / name
            if not files.exists(folder / DIGESTS) and not is_stray(folder):
                remove(folder)
                cleared.append(f"{phase}/{name}")
        for name in files.names(top / phase):
            marked, mark, _ = name.partition(WRITING)
            if mark and "/" not in name and _is_settled(top / phase / marked):
                with contextlib.suppress(OSError):
                    files.remove(top / phase / name)
    return cleared


def set_aside(workdir: str | Path, phases: Sequence[str]) -> list[tuple[str, int | str, str]]:
    """Renames altered saves, newest first, until one is whole: [(phase, save, what is wrong)].

    No step of a phase can go on without the phase's frozen networks, so they share their fate.
    """
    aside = []
    for phase in reversed(phases):
        frozen = folder_of(workdir, phase, FROZEN)
        cause = _fault(frozen) if files.names(frozen) else ""
        for name in (*reversed(steps(workdir, phase)), *[FROZEN] * bool(cause)):
            folder = folder_of(workdir, phase, name)
            fault = cause or _fault(folder)
            if not fault:
                return aside
            files.move(folder, folder.with_name(f"{name}.altered-{time.time_ns()}"), DIGESTS)
            aside.append((phase, name, fault))
    return aside


def _fault(folder: Path) -> str:
    try:
        verify(folder)
    except files.StoreError:
        raise  # nobody knows what is in there
    except check.CheckpointError as error:
        return str(error)
    return ""


def verify(folder: Path, copy: Path | None = None) -> None:
    """Raises CheckpointError, naming the file, unless every file is what was written.

    `copy`: where the files of a folder in a store have been copied to, if they have.
    """
    copy = copy or folder
    try:
        expected = json.loads(files.read_text(copy / DIGESTS))["files"]
    except files.StoreError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise check.CheckpointError(
            check.sentence(str(folder), f"a readable {DIGESTS}", repr(error), _USE_PREVIOUS)
        ) from error
    actual = _digests(copy)
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
    names = [name for name in files.names(folder) if name != DIGESTS]
    return {name: hashlib.sha256(files.read(folder / name)).hexdigest() for name in names}


def remove(folder: Path) -> None:
    """From the first moment on the folder is no save; what Orbax left beside it goes too."""
    with contextlib.suppress(OSError):  # a full disk has no room for the mark
        if files.names(folder):
            files.write(_mark(folder), "")
    with contextlib.suppress(OSError):
        files.remove(folder / DIGESTS)
        files.remove(folder)
        for name in files.folders(folder.parent):
            if name.startswith(folder.name + ORBAX):
                files.remove(folder.parent / name)
        if _is_settled(folder):
            settle(folder)


def commit(folder: Path) -> None:
    """Writes the digests of everything in a folder: from here on the save counts."""
    files.write(folder / DIGESTS, json.dumps({"files": _digests(folder)}, indent=1))
