"""Which saves of a run are there, and whether they are what was written."""

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


def folder_of(workdir: str | Path, phase: str, step: int | str) -> Path:
    """Where a save lies; absolute, as Orbax wants it."""
    return files.absolute(workdir) / "checkpoints" / phase / str(step)


def steps(workdir: str | Path, phase: str) -> list[int]:
    """The committed steps of a phase, ascending."""
    found = [name.split("/") for name in files.names(folder_of(workdir, phase, ""))]
    names = [parts[0] for parts in found if parts[1:] == [DIGESTS]]
    return sorted(int(name) for name in names if name.isdigit())


def clear_unfinished(workdir: str | Path) -> list[str]:
    """Removes saves that a kill left half done; returns their names."""
    cleared, top = [], folder_of(workdir, "", "")
    for phase in files.folders(top):
        for name in files.folders(top / phase):
            if not files.exists(top / phase / name / DIGESTS):
                remove(top / phase / name)
                cleared.append(f"{phase}/{name}")
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
    with contextlib.suppress(OSError):
        files.remove(folder / DIGESTS)
        files.remove(folder)
        for name in files.folders(folder.parent):
            if name.startswith(f"{folder.name}.orbax-checkpoint-tmp"):
                files.remove(folder.parent / name)


def commit(folder: Path) -> None:
    """Writes the digests of everything in a folder on a disk: from here on the save counts."""
    files.write(folder / DIGESTS, json.dumps({"files": _digests(folder)}, indent=1))
