"""Rows of numbers: metrics.jsonl, TensorBoard, and the line that moves."""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

TIME_FIELDS = ("seconds", "images_per_s")  # the only fields in which equal runs may differ


def read(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a line cut off by a kill is left out."""
    return _lines(Path(workdir) / "metrics.jsonl")


def read_events(workdir: Path) -> list[dict[str, Any]]:
    """The lines of events.jsonl."""
    return _lines(Path(workdir) / "events.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
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

    path = Path(workdir) / "metrics.jsonl"
    if path.exists():
        kept = [row for row in read(workdir) if before(row)]
        temporary = path.with_name("metrics.jsonl.tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(temporary, path)


class Log:
    """Appends rows for one phase. Nothing here may stop a training run."""

    def __init__(self, workdir: Path, phase: str, first_step: int, quiet: bool = False):
        self.phase, self.quiet = phase, quiet
        self._file = None if quiet else open(Path(workdir) / "metrics.jsonl", "a")
        self._board = None if quiet else _tensorboard(Path(workdir) / "tensorboard" / phase, first_step)

    def row(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Writes one row; `kind` is "train" or "eval"."""
        if self.quiet:
            return
        row = {"phase": self.phase, "kind": kind, "step": step, **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in values.items() if self._board else ():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Returns when every row is on the disk, as it must be before a save commits."""
        if not self.quiet:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self.quiet:
            self._file.close()
            if self._board:
                self._board.close()


def _tensorboard(folder: Path, first_step: int):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step, flush_secs=30)


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
            sys.stderr.write(("\r\x1b[K" if self._tty else "") + text + end)
            sys.stderr.flush()


def note(workdir: Path, event: str, **fields: Any) -> None:
    """Adds a line to events.jsonl: starts, compilations, saves, failures. Never cut back."""
    line = json.dumps({"event": event, "time": time.time(), **fields})
    try:
        with open(Path(workdir) / "events.jsonl", "a") as file:
            file.write(line + "\n")
    except OSError as error:
        print(f"augjax: could not note {event!r}: {error}", file=sys.stderr)
