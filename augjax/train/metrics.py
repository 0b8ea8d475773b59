"""Rows of numbers: metrics.jsonl, TensorBoard, and the line that moves."""

from collections.abc import Mapping
import contextlib
import json
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

from augjax import check
from augjax.train import files

TIME_FIELDS = ("seconds", "images_per_s")  # equal runs differ in them, and in `saves_failed`


def read(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a line cut off by a kill is left out."""
    return _lines(files.place(workdir) / "metrics.jsonl")


def read_events(workdir: Path) -> list[dict[str, Any]]:
    """The lines of events.jsonl."""
    return _lines(files.place(workdir) / "events.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in files.read_text(path).splitlines() if files.exists(path) else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def cut_back(workdir: Path, phases: list[str], phase: str | None, step: int) -> None:
    """Drops the rows that a restored run will write again.

    A checkpoint at a step is the state after the step's training row and before its evaluation.
    """
    def before(row):
        if phase is None or row["phase"] not in phases:
            return False
        place = phases.index(row["phase"]), row["step"], row["kind"] == "eval"
        return place < (phases.index(phase), step, True)

    path = files.place(workdir) / "metrics.jsonl"
    if files.exists(path):
        kept = [row for row in read(workdir) if before(row)]
        files.write(path, "".join(json.dumps(row) + "\n" for row in kept))


class Log:
    """Appends rows for one phase. Nothing here stops a training run: what finds no room waits.

    In an object store rows are put at every save and else once a minute; TensorBoard's files are
    written to a disk and put at every save.
    """

    def __init__(self, workdir: Path, phase: str, first_step: int, quiet: bool = False):
        self.phase, self.quiet = phase, quiet
        self._waiting = b""
        if not quiet:
            workdir = files.place(workdir)
            self._file = files.growing(workdir / "metrics.jsonl")
            self._board = Board(workdir / "tensorboard" / phase, first_step)

    def row(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Writes one row; `kind` is "train" or "eval"."""
        if self.quiet:
            return
        row = {"phase": self.phase, "kind": kind, "step": step, **values}
        self._waiting += json.dumps(row).encode() + b"\n"
        with contextlib.suppress(OSError):  # the next row, or flush, tries again
            self._write()
        self._board.add({f"{kind}/{name}": value for name, value in values.items()}, step)

    def flush(self) -> None:
        """Returns when every row is on the disk, as it must be before a save commits.

        Raises OSError where the disk is full.
        """
        if not self.quiet:
            self._write()
            files.sync(self._file)
            self._board.flush()

    def close(self) -> None:
        if not self.quiet:
            self._file.close()
            self._board.close()

    def _write(self):
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting):]


class Board:
    """TensorBoard events of one phase; where they cannot be written, they are left out.

    Written here and now: tensorboardX's own writer thread dies of a full disk, and its full queue
    then holds the run.
    """

    def __init__(self, folder: Path, first_step: int):
        with self._giving_up():
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto import event_pb2

            self._event, self._scalar = event_pb2.Event, summary.scalar
            self._folder, self._scratch = folder, None
            if files.in_store(folder):
                self._scratch = tempfile.TemporaryDirectory(prefix="augjax-tensorboard-")
                folder = Path(self._scratch.name)
            files.make_folder(folder)
            self._events = event_file_writer.EventsWriter(str(folder / "events"), f".{os.getpid()}")
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._events.write_event(self._event(step=first_step, session_log=started))

    def add(self, values: Mapping[str, float], step: int) -> None:
        with self._giving_up():
            for name, value in values.items():
                summary = self._scalar(name, value)
                self._events.write_event(
                    self._event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        with self._giving_up():
            self._events.flush()
            self._put()

    def close(self) -> None:
        with self._giving_up():
            self._events.close()
            self._put()
            if self._scratch:
                self._scratch.cleanup()

    def _put(self):
        if self._scratch:
            with contextlib.suppress(OSError):  # the next one puts it all
                files.upload(Path(self._scratch.name), self._folder)

    @contextlib.contextmanager
    def _giving_up(self):
        try:
            yield
        except (ImportError, OSError) as error:
            check.tell(f"augjax: TensorBoard is left out from here on: {error!r}")
            self.add = self.flush = self.close = lambda *_: None


class Progress:
    """student  120/400 30 %  loss 1.234  5,321 images/s  0:42 left"""

    def __init__(self, phase: str, total: int, quiet: bool = False):
        self.phase, self.total, self.quiet = phase, total, quiet
        self._tty = sys.stderr.isatty()

    def show(self, step: int, loss: float, images_per_s: float, seconds_left: float) -> None:
        left = f"{int(seconds_left) // 60}:{int(seconds_left) % 60:02d}"
        self._write(
            f"{self.phase}  {step}/{self.total} {100 * step // self.total} %  loss {loss:.4f}  "
            f"{images_per_s:,.0f} images/s  {left} left", "\r" if self._tty else "\n",
        )

    def say(self, text: str) -> None:
        self._write(f"{self.phase}  {text}", "\n")

    def _write(self, text, end):
        if not self.quiet:
            check.tell(("\r\x1b[K" if self._tty else "") + text, end)


def note(workdir: Path, event: str, **fields: Any) -> None:
    """Adds a line to events.jsonl: starts, compilations, saves, failures. Never cut back."""
    line = json.dumps({"event": event, "time": time.time(), **fields})
    try:
        files.append(files.place(workdir) / "events.jsonl", line + "\n")
    except OSError as error:
        check.tell(f"augjax: could not note {event!r}: {error}")
