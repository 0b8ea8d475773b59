"""The log: rows come once and in order, whatever the disk says; TensorBoard never holds a run."""

import contextlib
import errno
import json
import os
from pathlib import Path
import struct
import sys

import pytest

from augjax.train import metrics

LOSSES = [{"loss": 1.5 - step / 10} for step in range(1, 6)]


def write(log: metrics.Log, steps) -> None:
    for step in steps:
        log.row("train", step, LOSSES[step - 1])


def logged(workdir) -> list[int]:
    return [row["step"] for row in metrics.read(workdir)]


def test_rows_read_back_equal(tmp_path):
    log = metrics.Log(tmp_path, "phase", 0)
    write(log, [1, 2])
    log.row("eval", 2, {"accuracy": 0.1 + 0.2})
    log.close()
    rows = metrics.read(tmp_path)
    assert rows[:2] == [{"phase": "phase", "kind": "train", "step": step, **LOSSES[step - 1]}
                        for step in (1, 2)]
    assert rows[2]["accuracy"] == 0.1 + 0.2


class Full:
    """A file that takes `room` bytes and then refuses."""

    def __init__(self, file):
        self.file, self.room = file, 0

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_row_that_finds_no_room_waits_and_comes_once(tmp_path):
    for room in range(0, 180, 9):  # the disk becomes full in the middle of any row
        workdir = tmp_path / str(room)
        workdir.mkdir()
        log = metrics.Log(workdir, "phase", 0)
        write(log, [1])
        log._file = full = Full(log._file)
        full.room = room
        write(log, [2, 3, 4])
        with pytest.raises(OSError):
            log.flush()
        full.room = 10**6
        write(log, [5])
        log.flush()
        log.close()
        assert logged(workdir) == [1, 2, 3, 4, 5]


def test_tensorboard_without_room_is_left_out(tmp_path):
    log = metrics.Log(tmp_path, "phase", 0)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    log._board._events.write_event = refuse
    write(log, [1, 2, 3])
    log.flush()
    log.close()
    assert logged(tmp_path) == [1, 2, 3]


def test_tensorboard_events_hold_the_rows_and_the_restart(tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    log = metrics.Log(tmp_path, "phase", 7)
    log.row("train", 8, {"loss": 0.25, "ce": 0.5})
    log.close()
    (file,) = (tmp_path / "tensorboard" / "phase").iterdir()
    data, events = file.read_bytes(), []
    while data:  # TFRecord: length, its checksum, the event, its checksum
        (size,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    version, restart, *scalars = events
    assert version.file_version == "brain.Event:2"
    assert (restart.step, restart.session_log.status) == (7, SessionLog.START)
    found = {value.tag: (event.step, value.simple_value)
             for event in scalars for value in event.summary.value}
    assert found == {"train/loss": (8, 0.25), "train/ce": (8, 0.5)}




ROWS = [("a", "train", 2), ("a", "eval", 2), ("a", "train", 4), ("a", "eval", 4), ("b", "train", 2),
        ("b", "eval", 2), ("b", "train", 4)]


@pytest.mark.parametrize("phase, step, kept", [
    (None, 0, 0), ("a", 1, 0), ("a", 2, 1), ("a", 3, 2), ("a", 4, 3), ("b", 1, 4), ("b", 2, 5),
    ("b", 9, 7),
])
def test_cut_back_keeps_what_came_before_the_save(tmp_path, phase, step, kept):
    """A save of step s comes after the training row of s and before its evaluation."""
    lines = [json.dumps({"phase": p, "kind": k, "step": s}) for p, k, s in ROWS]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"phase": "b", "kin')
    metrics.cut_back(tmp_path, ["a", "b"], phase, step)
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(f"{line}\n" for line in lines[:kept])


def test_nobody_has_to_listen(monkeypatch):
    """A connection that was lost takes stderr with it, and the training goes on."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as lost:
        monkeypatch.setattr(sys, "stderr", lost)
        shown = metrics.Progress("student", 9)
        shown.say("a sentence")
        shown.show(3, 1.0, 5.0, 2.0)
        metrics.note(Path("/dev/null/nowhere"), "an event without a place")
        with pytest.raises(BrokenPipeError):
            lost.flush()
        monkeypatch.undo()
        with contextlib.suppress(BrokenPipeError):
            lost.close()


def test_quiet_processes_write_nothing(tmp_path):
    log = metrics.Log(tmp_path, "phase", 0, quiet=True)
    write(log, [1])
    log.flush()
    log.close()
    assert list(tmp_path.iterdir()) == []
