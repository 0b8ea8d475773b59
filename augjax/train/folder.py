"""The run folder: who holds it, what was asked for, where it ran, and what came of it."""

from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import json
import os
from pathlib import Path
import platform
import socket
import subprocess
import sys
from typing import Any

import jax

from augjax import check

RESUMABLE = ("mesh", "checkpoint", "log")  # may differ when a run is continued


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds the folder for this process; a second run is refused. A kill lets go of it."""
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise check.ConfigError(
                check.sentence(f"run folder {workdir}", "no other run in it",
                               file.read().strip() or "another run",
                               "wait for it, stop it, or choose another --workdir")
            ) from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def write_json(path: Path, content: Any) -> None:
    """Replaces the file at once or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)


def remember(workdir: Path, config: Mapping[str, Any]) -> None:
    """Stores the config of a new run; refuses to continue one that was asked for something else."""
    path = workdir / "config.json"
    config = json.loads(json.dumps(config))
    if path.exists():
        stored = json.loads(path.read_text())
        different = {
            name: (stored.get(name), value)
            for name, value in _flat({**_flat(stored), **_flat(config)}).items()
            if _flat(stored).get(name) != _flat(config).get(name)
            and name.split(".")[0] not in RESUMABLE
        }
        listing = "; ".join(
            f"{name}: {_flat(stored).get(name)!r} there, {_flat(config).get(name)!r} now"
            for name in sorted(different)
        )
        check.require(not different, f"run folder {workdir}", "the config it was started with",
                      listing, "choose another --workdir, or undo the change")
    else:
        write_json(path, config)


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, Mapping) or not config:
        return {prefix: config}
    items = ((f"{prefix}.{k}" if prefix else str(k), v) for k, v in config.items())
    return {path: leaf for key, value in items for path, leaf in _flat(value, key).items()}


def provenance(workdir: Path, source_text: str) -> None:
    """Adds where and with what this start of the run happens to provenance.json."""
    path = workdir / "provenance.json"
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
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
    here = Path(__file__).resolve().parent
    try:
        asked = ["git", "-C", here, "rev-parse", "HEAD"]
        run = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return run.stdout.strip() if run.returncode == 0 else "unknown"
