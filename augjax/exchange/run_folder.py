"""A network taken in becomes a run folder that every command accepts, whole or not at all."""

from collections.abc import Callable, Mapping
import contextlib
import json
from pathlib import Path
import shutil
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp

from augjax import check, tree
from augjax.exchange.convert import Converted
from augjax.train import checkpoint, files, folder

PHASE, STEP = "converted", 0  # no step of ours has touched it
LEARNER = "student"  # what sources in configs look for
NOT_MEASURED = "not measured"


def write_run(
    workdir: str | Path,
    converted: Converted,
    config: Mapping[str, Any],
    probe: Callable[[Path], Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Writes the run folder and returns its summary.

    Args:
      workdir: must not exist.
      config: what rebuilds the network, with one phase called PHASE (`defaults.config`).
      probe: measures the network in a run folder: {probe_accuracy, ...} for summary.json.

    Everything is written beside `workdir` and renamed once it is complete; for an object store, on
    a disk and put there. Raises ConfigError where it exists, CheckpointError where it cannot be
    written; then nothing is left of it.
    """
    workdir = require_new(workdir)
    if files.in_store(workdir):
        return _put(workdir, converted, config, probe)
    made = [path for path in (workdir.parent, *workdir.parent.parents) if not path.exists()]
    try:
        workdir.parent.mkdir(parents=True, exist_ok=True)
        return _write_beside(workdir, converted, config, probe)
    except OSError as error:
        raise check.CheckpointError(check.sentence(
            str(workdir), "a place to write", error, "free space there or choose another --workdir"
        )) from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty: it holds what was asked for
                path.rmdir()


def require_new(workdir: str | Path) -> Path:
    """The path in full; raises ConfigError where there is anything of this name."""
    if files.in_store(workdir):
        workdir = files.place(workdir)
        there = bool(files.names(workdir))
    else:
        workdir = Path(workdir).expanduser().absolute()
        there = workdir.exists()
    check.require(not there, f"--workdir {workdir}", "a folder that is not there yet",
                  "one that is", "choose another, or remove it")
    return workdir


def _write_beside(workdir, converted, config, probe):
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves((converted.params, converted.stats)))
    free = shutil.disk_usage(workdir.parent).free
    if free < needed:
        raise OSError(f"{free >> 20} MiB free where {needed >> 20} MiB are needed")
    partial = Path(tempfile.mkdtemp(prefix=f".{workdir.name}.partial-", dir=workdir.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner may enter
        summary = _fill(partial, converted, config, probe)
        partial.rename(workdir)
        return summary
    except BaseException:
        _remove(partial)
        raise


def _put(workdir, converted, config, probe):
    with tempfile.TemporaryDirectory(prefix="augjax-convert-") as scratch:
        summary = _fill(Path(scratch), converted, config, probe)
        last = checkpoint.folder_of(scratch, PHASE, STEP) / checkpoint.DIGESTS  # of the only save
        try:
            files.upload(Path(scratch), workdir, last.relative_to(scratch).as_posix())
        except BaseException:
            with contextlib.suppress(OSError):
                files.remove(workdir)
            raise
        return summary


def _fill(partial, converted, config, probe):
    """All of the run folder; returns its summary."""
    _write_files(partial, converted, config)
    measured = probe(partial) if probe else {"probe_accuracy": NOT_MEASURED}
    summary = {
        "data": converted.data, "seed": 0, "hardware": folder.hardware(),
        "phases": {PHASE: {**measured, **_size(converted)}},
    }
    folder.write_json(partial / "summary.json", summary)
    return summary


def _remove(partial: Path) -> None:
    """Removes it for good: after a failed save Orbax's threads may go on writing for a moment."""
    gone = 0
    for _ in range(100):
        shutil.rmtree(partial, ignore_errors=True)
        time.sleep(0.1)
        gone = 0 if partial.exists() else gone + 1
        if gone == 10:
            return


def _write_files(partial: Path, converted: Converted, config: Mapping[str, Any]) -> None:
    folder.write_json(partial / "config.json", json.loads(json.dumps(config)))
    named = {"class_names": list(converted.class_names)} if converted.class_names else {}
    folder.write_json(partial / "data.json", {
        "name": converted.data, "classes": converted.classes, **named,
        "image_shape": list(converted.image_shape),
    })
    folder.provenance(partial, "")
    known = json.loads((partial / "provenance.json").read_text())
    folder.write_json(partial / "provenance.json", {**known, "weights": dict(converted.origin)})
    writer = checkpoint.Writer(partial, keep=1)
    try:
        writer.save(PHASE, STEP, jax.tree.map(jnp.asarray, {
            "params": {"nets": {LEARNER: converted.params}},
            "stats": {LEARNER: converted.stats},
        }))
        writer.wait()
    finally:
        writer.join()


def _size(converted: Converted) -> dict[str, Any]:
    """As `train.summary` has it of trained phases; nothing is masked here."""
    numbers = tree.count(converted.params)
    return {"parameters": numbers, "nonzero": numbers, "sparsity": 0.0, "bits": 32}
