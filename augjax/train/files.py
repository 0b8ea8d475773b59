"""Files of a run folder, on a disk or in an object store, by the few acts that both can do.

On a disk files are replaced by renaming and grow by appending. Of a store (gs://, s3://, az://;
fsspec speaks to it) only this is assumed: an object is put whole or not at all, and from then on
is read and listed as it was put. No rename, no append, no lock, no folders.
"""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path, PurePath
import shutil
import time
from typing import Any

from etils import epath
import fsspec

from augjax import check

STORES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # and the package with the client of each
PUT_EVERY_S = 60.0  # a growing object is put whole: when it must be, and else this often


def place(path: str | PurePath) -> Path:
    """The path of a run folder; that of a store is made so that its "gs://" stays.

    Raises ConfigError for a scheme that is not known.
    """
    text = os.fspath(path)
    scheme, is_url, _ = text.partition("://")
    if not is_url:
        return Path(text)
    check.one_of(f"the scheme of {text}", scheme, STORES)
    return epath.Path(text)


def in_store(path: str | PurePath) -> bool:
    """Whether a path lies in an object store."""
    return "://" in os.fspath(path)


def absolute(path: str | PurePath) -> Path:
    """The path in full; a store knows no other."""
    return place(path) if in_store(path) else Path(path).absolute()


def require_disk(path: str | PurePath, what: str) -> Path:
    """The path; raises ConfigError, naming `what` wants it, where it lies in an object store."""
    check.require(not in_store(path), what, "a folder on a disk", f"{os.fspath(path)}",
                  "write to a disk and copy it; run folders alone may lie in a store")
    return Path(path)


class StoreError(check.CheckpointError, OSError):
    """A store that does not answer, or answers with an error. To whom writes it is what a full
    disk is."""


@contextlib.contextmanager
def _spoken(path: PurePath) -> Iterator[tuple[Any, str]]:
    """(client, its name for the path). All but a missing object becomes a StoreError."""
    url = os.fspath(path)
    scheme = url.partition("://")[0]
    try:
        store, name = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = STORES.get(scheme, scheme)
        raise check.ConfigError(check.sentence(
            url, f"the package {package}", "none", f"install it: pip install {package}")) from error
    try:
        store.invalidate_cache()  # others write, too
        yield store, name
    except FileNotFoundError:
        raise
    except Exception as error:  # clients raise errors of their own
        raise StoreError(check.sentence(
            url, "a store that answers", repr(error)[:300],
            "look at the name, the network and your credentials; then start again")) from error


# --- reading -------------------------------------------------------------------------------------


def read(path: PurePath) -> bytes:
    """The content of a file; FileNotFoundError where there is none."""
    if not in_store(path):
        return Path(path).read_bytes()
    with _spoken(path) as (store, name):
        return store.cat_file(name)


def read_text(path: PurePath) -> str:
    """As `read`, decoded."""
    return read(path).decode()


def exists(path: PurePath) -> bool:
    """Whether a file is there. A store that does not answer is a StoreError, never a "no"."""
    if not in_store(path):
        return Path(path).is_file()
    try:
        with _spoken(path) as (store, name):
            return store.info(name)["type"] == "file"
    except FileNotFoundError:
        return False


def names(folder: PurePath) -> list[str]:
    """The files in a folder and its folders, relative to it, sorted; of no folder, none."""
    if not in_store(folder):
        found = [Path(at, name) for at, _, files in os.walk(folder) for name in files]
        return sorted(path.relative_to(folder).as_posix() for path in found)
    try:
        with _spoken(folder) as (store, name):
            start = name.rstrip("/") + "/"
            found = [path for path in store.find(start) if path.startswith(start)]
    except FileNotFoundError:
        return []
    return sorted(path.removeprefix(start) for path in found if not path.endswith("/"))


def folders(folder: PurePath) -> list[str]:
    """The names of the folders right in a folder, sorted; of no folder, none."""
    if in_store(folder):
        return sorted({name.partition("/")[0] for name in names(folder) if "/" in name})
    with contextlib.suppress(FileNotFoundError):
        return sorted(entry.name for entry in Path(folder).iterdir() if entry.is_dir())
    return []


# --- writing -------------------------------------------------------------------------------------


def make_folder(folder: PurePath) -> None:
    """Makes a folder and those it is in; a store has none."""
    if not in_store(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)


def write(path: PurePath, content: str | bytes) -> None:
    """Replaces a file at once or not at all; on the disk for good when this returns."""
    content = content.encode() if isinstance(content, str) else content
    if in_store(path):
        with _spoken(path) as (store, name):
            return store.pipe_file(name, content)
    temporary = Path(path).with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def append(path: PurePath, line: str) -> None:
    """Adds to the end of a file. In a store it is read and put again, so one process alone may."""
    if not in_store(path):
        with open(path, "a") as file:
            file.write(line)
        return
    try:
        before = read(path)
    except FileNotFoundError:
        before = b""
    write(path, before + line.encode())


def remove(path: PurePath) -> None:
    """Removes a file, or a folder with all that is in it, as far as it is there."""
    if not in_store(path):
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(path).unlink()
        return
    for each in [path, *(path / name for name in names(path))]:
        with contextlib.suppress(FileNotFoundError), _spoken(each) as (store, name):
            store.rm_file(name)


def move(folder: PurePath, to: PurePath, last: str) -> None:
    """Gives a folder another name. In a store it is copied and removed; the file `last` is put last
    and removed first, so that it never stands beside less than the whole."""
    if not in_store(folder):
        Path(folder).rename(to)
        return
    for name in _ending(names(folder), last):
        write(to / name, read(folder / name))
    remove(folder / last)
    remove(folder)


def upload(folder: Path, to: PurePath, last: str = "") -> None:
    """Puts every file of a folder on a disk into a store, `last` last."""
    for relative in _ending(names(folder), last):
        with _spoken(to / relative) as (store, name):
            store.put_file(str(folder / relative), name)


def _ending(listed: list[str], last: str) -> list[str]:
    return sorted(listed, key=lambda name: name == last)


def download(folder: PurePath, to: Path) -> None:
    """Copies every file of a folder in a store to a disk."""
    for relative in names(folder):
        (to / relative).parent.mkdir(parents=True, exist_ok=True)
        with _spoken(folder / relative) as (store, name):
            store.get_file(name, str(to / relative))


# --- files that grow -----------------------------------------------------------------------------


def growing(path: PurePath) -> Any:
    """A file to add bytes to: `write` returns how many were taken, `close` ends it."""
    return _Growing(path) if in_store(path) else open(path, "ab", buffering=0)


def sync(file: Any) -> None:
    """Returns when all that was added to a growing file is kept for good, or raises OSError."""
    file.put() if isinstance(file, _Growing) else os.fsync(file.fileno())


class _Growing:
    """An object that is put whole again and again; what is not yet put is lost with the process."""

    def __init__(self, path: PurePath):
        self._path, self._put_at, self._fresh = path, time.monotonic(), False
        try:
            self._content = read(path)
        except FileNotFoundError:
            self._content = b""

    def write(self, content: bytes) -> int:
        self._content, self._fresh = self._content + content, True
        if time.monotonic() - self._put_at > PUT_EVERY_S:
            self._put_at = time.monotonic()  # also where it fails: the next try is as far away
            with contextlib.suppress(OSError):
                self.put()
        return len(content)

    def put(self) -> None:
        if self._fresh:
            write(self._path, self._content)
            self._fresh, self._put_at = False, time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.put()
