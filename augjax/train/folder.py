"""The run folder: who holds it, what was asked for, where it ran, and what came of it."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import fcntl
import json
import os
from pathlib import Path
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from typing import Any
import uuid

import jax
from jax.experimental import multihost_utils
import numpy as np

from augjax import check
from augjax.train import files

# What may differ when a run is continued. Data may lie elsewhere: `remember_data` looks at them.
RESUMABLE = ("mesh", "checkpoint", "log", "data.dir", "data.workers")
TOLD = 8  # differences between data, of which a thousand class names make as many


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds the folder for this process; a second run is refused. A kill lets go of it, in a store
    after STALE_S."""
    if files.in_store(workdir):
        with _kept_fresh(workdir):
            yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / "lock", "a+")
    except OSError as error:
        raise check.CheckpointError(check.sentence(
            f"run folder {workdir}", "a place to write", error, "choose another --workdir"
        )) from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise _taken(workdir, file.read().strip() or "another run") from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _taken(workdir: Path, holder: str) -> check.ConfigError:
    return check.ConfigError(
        check.sentence(f"run folder {workdir}", "no other run in it", holder,
                       "wait for it, stop it, or choose another --workdir"))


# A store has no locks. An object says who is in the folder and changes while they live; where it
# stays as it is for STALE_S, they are gone, whatever the clocks of two machines say. It is advice:
# without compare-and-swap, two that begin within moments of each other may both find it free. Each
# looks again after SETTLE_S and the one that wrote first gives way; slower than that, both are in.
BEAT_S, STALE_S, SETTLE_S = 20.0, 60.0, 1.0


@contextlib.contextmanager
def _kept_fresh(workdir: Path) -> Iterator[None]:
    path = workdir / "lock"
    own = {"pid": os.getpid(), "host": socket.gethostname(), "token": uuid.uuid4().hex}
    _wait_until_free(workdir, path)
    files.write(path, json.dumps(own))
    time.sleep(SETTLE_S)
    if (holder := _holder(path)).get("token") != own["token"]:
        raise _taken(workdir, _who(holder))
    done = threading.Event()

    def beat():
        beats = 0
        while not done.wait(BEAT_S):
            with contextlib.suppress(OSError):  # a store that is away for a moment
                if _holder(path).get("token") != own["token"]:
                    check.tell(f"augjax: another run has taken {workdir} over; stop one of the two")
                    return
                beats += 1
                files.write(path, json.dumps({**own, "beats": beats}))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            if _holder(path).get("token") == own["token"]:
                files.remove(path)


def _wait_until_free(workdir: Path, path: Path) -> None:
    """Returns when nobody is in the folder; raises ConfigError when somebody is alive in it."""
    seen = _holder(path)
    if not seen or _died_here(seen):
        return
    check.tell(f"augjax: {workdir} was last held by {_who(seen)}; waiting up to {STALE_S:.0f} s to "
               "see whether they live")
    until = time.monotonic() + STALE_S
    while time.monotonic() < until:
        time.sleep(STALE_S / 20)
        now = _holder(path)
        if not now:
            return
        if now != seen:
            raise _taken(workdir, _who(now))


def _holder(path: Path) -> dict[str, Any]:
    try:
        return json.loads(files.read(path))
    except (FileNotFoundError, ValueError):
        return {}


def _who(holder: Mapping[str, Any]) -> str:
    return f"pid {holder.get('pid', '?')} on {holder.get('host', 'a host of no name')}"


def _died_here(holder: Mapping[str, Any]) -> bool:
    """Whether it was a process of this machine that is no more."""
    if holder.get("host") != socket.gethostname() or not holder.get("pid"):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def write_json(path: Path, content: Any) -> None:
    """Replaces the file at once or not at all."""
    files.write(path, json.dumps(content, indent=2) + "\n")


def remember(workdir: Path, config: Mapping[str, Any]) -> None:
    """Stores the config of a new run; refuses to continue one that was asked for something else."""
    path = workdir / "config.json"
    if not files.exists(path) or not _begun(workdir):
        return write_json(path, config)
    different = [told for name, told in _differences(json.loads(files.read_text(path)), config)
                 if not _resumable(name)]
    check.require(not different, f"run folder {workdir}", "the config it was started with",
                  _few(different), "choose another --workdir, or undo the change")


def remember_data(workdir: Path, facts: Mapping[str, Any]) -> None:
    """Stores what a new run's data are. Raises DataError where those of a run that goes on are
    others; what an older version did not store is not compared."""
    path = workdir / "data.json"
    if not files.exists(path) or not _begun(workdir):
        return write_json(path, facts)
    there = json.loads(files.read_text(path))
    known = there.keys() & facts.keys()
    different = [told for _, told in _differences(
        *(_numbered({name: of[name] for name in known}) for of in (there, facts)))]
    check.require(
        not different, f"run folder {workdir}", "the data it was started with", _few(different),
        "bring them back (data.dir may name another place), or choose another --workdir",
        check.DataError)


def require_agreed(config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raises ConfigError in every process where one has another config or other data than the
    first: each trains on its share of the batches that its own seed and labels make."""
    if jax.process_count() == 1:
        return
    here = {"config": config, "data": _numbered(facts)}
    own = np.frombuffer(json.dumps(here).encode(), np.uint8)
    first = multihost_utils.broadcast_one_to_all(
        np.resize(own, int(multihost_utils.broadcast_one_to_all(np.array(own.size)))))
    mine = ("config.data.dir", "config.data.workers")  # may be each process's own
    different = [told for name, told in _differences(
        json.loads(np.asarray(first, np.uint8).tobytes()), here, "in process 0", "here")
        if name not in mine]
    others = np.flatnonzero(multihost_utils.process_allgather(np.array(len(different))))
    check.require(
        not others.size, "processes", "one config and the same data in all of them",
        _few(different) or f"others in process {', '.join(map(str, others))}, which says what",
        "start each with the same flags")


def _begun(workdir: Path) -> bool:
    """Whether there is a save to go on from, whole or not. A start that was refused, or found no
    memory, leaves none: its rows are cut back, and what it froze is frozen anew."""
    return any(re.match(r"checkpoints/[^/]+/\d+/", name) for name in files.names(workdir))


def _numbered(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of data with a place for each class name, so that the one that differs is told."""
    return {**facts, "class_names": dict(enumerate(facts.get("class_names") or ()))}


def _resumable(name: str) -> bool:
    return any(f"{name}.".startswith(f"{field}.") for field in RESUMABLE)


def _few(told: Sequence[str]) -> str:
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return "; ".join(told[:TOLD]) + more


def _differences(stored: Mapping[str, Any], now: Mapping[str, Any], where: str = "there",
                 other: str = "now") -> list[tuple[str, str]]:
    """[(dotted name, what is there and what is wanted)], by name."""
    there, here = _flat(stored), _flat(json.loads(json.dumps(now)))
    return [(name, f"{name}: {there.get(name)!r} {where}, {here.get(name)!r} {other}")
            for name in sorted({**there, **here}) if there.get(name) != here.get(name)]


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, Mapping) or not config:
        return {prefix: config}
    items = ((f"{prefix}.{k}" if prefix else str(k), v) for k, v in config.items())
    return {path: leaf for key, value in items for path, leaf in _flat(value, key).items()}


def provenance(workdir: Path, source_text: str) -> None:
    """Adds where and with what this start of the run happens to provenance.json."""
    path = workdir / "provenance.json"
    starts = json.loads(files.read_text(path))["starts"] if files.exists(path) else []
    starts.append({
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": versions(),
        "backend": jax.default_backend(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "host": platform.machine(),
        "git_commit": _git_commit(),
    })
    write_json(path, {"starts": starts, "config_source": source_text})


def hardware() -> str:
    """One line for tables: "2 x cpu, 2 cores"."""
    kinds = [device.device_kind for device in jax.devices()]
    return f"{len(kinds)} x {kinds[0]}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib import metadata

    names = ("augjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "dm-pix", "numpy")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _git_commit() -> str:
    """That of this checkout, with "-dirty" where files were changed since. Outside one, as in a
    package that lies in somebody else's: AUGJAX_COMMIT, set by tpu_pod.sh, or "unknown"."""
    here = Path(__file__).resolve()
    said = ""
    for words in (["ls-files", "--error-unmatch", here.name],
                  ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]):
        try:
            said = subprocess.run(["git", "-C", here.parent, *words], capture_output=True,
                                  text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return os.environ.get("AUGJAX_COMMIT", "unknown")
    return said.strip()
