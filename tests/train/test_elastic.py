"""A run goes on with other devices and other processes: the batch and the order of the data stay.

Losses and weights agree to the rounding of sums in another order (`assert_equal_to_rounding`: 2e-4
of a row, 1e-3 of a weight); the images' indices, their pixels and the masks exactly.
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from augjax import check, train, tree
from augjax.train import checkpoint, files, folder, metrics, sharding, start, stop
from laws.test_devices import assert_equal_to_rounding
from train import fake_store
from train.helpers import assert_every_step_once, saved, three_phases
from train.test_processes import forget_counts

URL = "gs://bucket/runs/elastic"
LIMIT_S = 120


def made(**options):
    return three_phases(log_every=1, **options)


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    train.run(made(), workdir, devices=jax.devices()[:1])
    return workdir


def stopped_at(monkeypatch, steps: int, workdir, devices: int, **options) -> None:
    """Trains until the run has made `steps` steps, counted over its phases."""
    with monkeypatch.context() as patch:
        patch.setattr(stop.Stop, "due", lambda stop, step: step == steps)
        with pytest.raises(check.Preempted):
            train.run(made(**options), workdir, devices=jax.devices()[:devices])


def test_a_save_of_eight_devices_is_the_same_bits_on_any_number(tmp_path, monkeypatch):
    stopped_at(monkeypatch, 6 + 5, tmp_path, 8, fsdp=True)
    place, there = checkpoint.folder_of(tmp_path, "student", 5), saved(tmp_path, "student")
    for count in (8, 4, 2, 1):
        mesh = sharding.make_mesh(jax.devices()[:count])
        with jax.set_mesh(mesh):
            like = start.all_shapes(made(fsdp=count > 1), mesh)["student"].state
            leaves = tree.flatten(checkpoint.load(place, like))
        assert any(leaf.sharding.num_devices == count for leaf in leaves.values())
        for path, leaf in there.items():
            found = leaves[path]
            found = jax.random.key_data(found) if path == "key" else found
            np.testing.assert_array_equal(found, leaf, err_msg=f"{path} on {count}")


def test_from_eight_devices_to_four_to_one(on_one, tmp_path, monkeypatch):
    stopped_at(monkeypatch, 6 + 5, tmp_path, 8, fsdp=True)  # in the student
    stopped_at(monkeypatch, 6 + 9 + 2, tmp_path, 4, resident=False)  # in the pruned one, host-fed
    train.run(made(), tmp_path, devices=jax.devices()[:1])
    assert checkpoint.steps(tmp_path, "student")[-1] == 9
    starts = [event for event in metrics.read_events(tmp_path) if event["event"] == "phase"]
    assert [(start["phase"], start["step"]) for start in starts] == [
        ("teacher", 0), ("student", 0), ("student", 5), ("pruned", 0), ("pruned", 2)]
    assert [start["devices"] for start in starts] == [8, 8, 4, 4, 1]
    student = [row for row in metrics.read(tmp_path) if row["phase"] == "student"]
    hours = sum(row["seconds"] * (8 if row["step"] <= 5 else 4) for row in student) / 3600
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["phases"]["student"]["device_hours"] == pytest.approx(hours, abs=6e-6)
    assert_every_step_once(tmp_path, made())
    forget_counts(tmp_path)
    assert_equal_to_rounding(on_one, tmp_path)


# --- processes -----------------------------------------------------------------------------------


def pair(place: Path, *of_each: Mapping) -> list[subprocess.Popen]:
    """Two processes that train in URL, in the store at `place`; their output in PLACE-0.log, ..."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    running = []
    for number, options in enumerate(of_each):
        wanted = {"folder": str(place), "url": URL, "port": port, "process": number, **options}
        with open(f"{place}-{number}.log", "wb") as log:
            running.append(subprocess.Popen(
                [sys.executable, fake_store.__file__, json.dumps(wanted)], stdout=log,
                stderr=subprocess.STDOUT, env=environment))
    return running


def test_one_of_two_processes_is_killed_and_one_goes_on(on_one, tmp_path, monkeypatch):
    """One process begins, two go on from its save until one of them is killed; the other stops
    within JAX's heartbeat and says who is missing; one process ends the run. In a store, where
    process 0 alone writes; the host feeds every batch, from the global step on."""
    monkeypatch.setattr(folder, "STALE_S", 0.2)
    monkeypatch.setattr(folder, "SETTLE_S", 0.0)
    store = fake_store.install(tmp_path / "store")
    stopped_at(monkeypatch, 6 + 3, URL, 1, resident=False)
    assert checkpoint.steps(URL, "student") == [3]
    running = pair(store.root, {}, {"killed_at": ("student", 8)})
    try:
        assert running[1].wait(LIMIT_S) == -signal.SIGKILL
        killed = time.monotonic()
        assert running[0].wait(LIMIT_S) != 0
        assert time.monotonic() - killed < 3 * fake_store.HEARTBEAT_S
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)  # SIGTERM no longer ends them
            process.wait()
    log = Path(f"{store.root}-0.log").read_text()
    assert re.search(r"tasks are unhealthy .*\n(.*task:)?1\n", log)
    assert checkpoint.steps(URL, "student") == [3, 6]
    train.run(made(resident=False), URL, devices=jax.devices()[:1])
    copy = tmp_path / "copy"
    files.download(files.place(URL), copy)
    starts = [event for event in metrics.read_events(copy) if event["event"] == "phase"]
    assert [(start["phase"], start["step"]) for start in starts] == [
        ("teacher", 0), ("student", 0), ("student", 3), ("student", 6), ("pruned", 0)]
    provenance = json.loads((copy / "provenance.json").read_text())["starts"]
    assert [start["processes"] for start in provenance] == [1, 2, 1]
    assert_every_step_once(copy, made())
    assert_equal_to_rounding(on_one, copy)
