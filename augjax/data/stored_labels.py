"""Labels kept beside the records, which hold them between the images: ImageNet's are 140 GB.

A split's first opening reads every record once and leaves `labels-SPLIT.npz` in its folder; later
ones read that, as long as the files of the split are those it was made from.
"""

from collections.abc import Callable
import contextlib
import os
from pathlib import Path
import tempfile

import numpy as np

LARGE = 1 << 28  # bytes of records from which on labels are worth a file of their own

File = tuple[str, int, int]  # name, bytes, time of its last change in ns


def read(
    folder: Path, split: str, files: tuple[File, ...], count: int, labels: Callable[[], np.ndarray]
) -> np.ndarray:
    """[count] int32: the labels stored in `folder`, or those that `labels()` reads from `files`.

    What was read is stored; where the folder cannot be written to, it is read at every start.
    """
    if sum(size for _, size, _ in files) < LARGE:
        return labels()
    path = folder / f"labels-{split}.npz"
    made_from = np.array([f"{name} {size} {changed}" for name, size, changed in files])
    stored = _stored(path, made_from)
    if stored is not None and stored.shape == (count,):
        return stored
    found = labels()
    with contextlib.suppress(OSError):
        _store(path, found, made_from)
    return found


def is_one(path: Path) -> bool:
    """Whether this file is one of ours, finished or not."""
    return path.name.lstrip(".").startswith("labels-") and ".npz" in path.name


def _stored(path: Path, made_from: np.ndarray) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            labels, files = file["labels"], file["files"]
    except Exception:  # not there, cut off, or not ours: they are read again
        return None
    return labels if np.array_equal(files, made_from) and labels.dtype == np.int32 else None


def _store(path: Path, labels: np.ndarray, made_from: np.ndarray) -> None:
    number, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            np.savez(file, labels=labels.astype(np.int32), files=made_from)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
