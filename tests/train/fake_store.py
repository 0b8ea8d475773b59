"""An object store for tests: whole objects, put at once, in a folder on the disk that nobody else
looks at. It refuses to rename, append and lock, and tells what was asked of it.

`install(folder)` has gs:// and s3:// speak to it in this process. As a program it is a run to be
killed: `python fake_store.py '{"folder": "objects", "url": "gs://bucket/run", "place": "x/y"}'`
trains `helpers.three_phases` in the URL and sends itself SIGKILL in the middle of the put of an
object whose name ends with `place`, or, with `killed_at`, after a training row. With `port` and
`process` it is one of two.
"""

import hashlib
import json
import os
from pathlib import Path
import signal
import sys

import fsspec

SCHEMES = ("gs", "gcs", "s3")
HEARTBEAT_S = 10


class Refused(Exception):
    """What no store can do; no OSError, which a run might live with."""


class FakeStore(fsspec.AbstractFileSystem):
    """Objects are files named by the SHA-256 of their names, so that there are no folders."""

    protocol = SCHEMES
    cachable = False
    root: Path  # where the objects are
    acts: list[tuple[str, str, bytes]] = []  # ("put" or "remove", name, content), as they came
    failing = staticmethod(lambda act, name: None)  # may raise, before anything is done

    # --- what a store does

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self._put(path, value)

    def put_file(self, lpath, rpath, callback=None, mode="overwrite", **kwargs):
        self._put(rpath, Path(lpath).read_bytes())

    def cat_file(self, path, start=None, end=None, **kwargs):
        type(self).failing("read", self._strip_protocol(path))
        return self._object(path)["content"][start:end]

    def get_file(self, rpath, lpath, callback=None, outfile=None, **kwargs):
        Path(lpath).write_bytes(self.cat_file(rpath))

    def info(self, path, **kwargs):
        type(self).failing("info", self._strip_protocol(path))
        found = self._object(path)
        return {"name": found["name"], "size": len(found["content"]), "type": "file"}

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **kwargs):
        type(self).failing("find", self._strip_protocol(path))
        names = [self._read(file)["name"] for file in self.root.iterdir() if file.suffix != ".tmp"]
        return sorted(name for name in names if name.startswith(self._strip_protocol(path)))

    def rm_file(self, path):
        name = self._strip_protocol(path)
        type(self).failing("remove", name)
        self._object(path)
        self._file(name).unlink()
        self.acts.append(("remove", name, b""))

    # --- what it does not

    def _refuse(self, *args, **kwargs):
        raise Refused(f"a store cannot do this: {args}")

    mv = move = rename = cp_file = copy = touch = mkdir = makedirs = ls = _refuse
    _open = open = lock = _refuse  # whole objects alone

    # --- where they are

    def _put(self, path, content):
        name = self._strip_protocol(path)
        type(self).failing("put", name)
        write(self.root, name, bytes(content))
        self.acts.append(("put", name, bytes(content)))

    def _object(self, path):
        file = self._file(self._strip_protocol(path))
        if not file.exists():
            raise FileNotFoundError(path)
        return self._read(file)

    def _file(self, name):
        return self.root / hashlib.sha256(name.encode()).hexdigest()

    def _read(self, file):
        head, _, content = file.read_bytes().partition(b"\n")
        return {"name": json.loads(head), "content": content}


def write(root: Path, name: str, content: bytes) -> None:
    """Puts an object; whoever lists or reads meanwhile sees the old one or the new."""
    file = root / hashlib.sha256(name.encode()).hexdigest()
    temporary = file.with_name(f"{file.name}-{os.getpid()}.tmp")
    temporary.write_bytes(json.dumps(name).encode() + b"\n" + content)
    os.replace(temporary, file)


def install(folder: Path) -> type[FakeStore]:
    """Has every gs:// and s3:// of this process speak to the objects in `folder`."""
    folder.mkdir(exist_ok=True)
    FakeStore.root, FakeStore.failing = folder, staticmethod(lambda act, name: None)
    FakeStore.acts.clear()
    for scheme in SCHEMES:
        fsspec.register_implementation(scheme, FakeStore, clobber=True)
    return FakeStore


def names(folder: Path) -> list[str]:
    """The names of all objects, bucket first."""
    install_root, FakeStore.root = FakeStore.root, folder
    try:
        return FakeStore().find("")
    finally:
        FakeStore.root = install_root


def _kill(place: str):
    def at(act, name):
        if act == "put" and name.endswith(place):
            os.kill(os.getpid(), signal.SIGKILL)
    return at


def _main(folder: str, url: str, place: str = "", port: int = 0, process: int = 0,
          killed_at: tuple[str, int] | None = None) -> None:
    sys.path[:0] = [str(Path(__file__).resolve().parents[up]) for up in (1, 2)]
    import conftest  # noqa: F401 the compile cache
    import jax

    jax.config.update("jax_num_cpu_devices", 1)
    if port:
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, process,
                                   heartbeat_timeout_seconds=HEARTBEAT_S)
    from augjax import train
    from augjax.train import folder as run_folder
    from augjax.train import metrics
    from train.helpers import three_phases

    if place:
        install(Path(folder)).failing = staticmethod(_kill(place))
    else:
        install(Path(folder))
    run_folder.STALE_S, run_folder.SETTLE_S = 0.2, 0.0
    row = metrics.Log.row

    def struck(log, kind, step, values):
        row(log, kind, step, values)
        if killed_at and [log.phase, step] == list(killed_at):
            os.kill(os.getpid(), signal.SIGKILL)

    metrics.Log.row = struck
    alone = dict(log_every=2)
    one_of_two = dict(log_every=1, resident=False)  # the host feeds each its share of every batch
    train.run(three_phases(**(one_of_two if port else alone)), url)


if __name__ == "__main__":
    _main(**json.loads(sys.argv[1]))
