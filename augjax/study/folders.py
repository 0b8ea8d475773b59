"""What lies in a study's folder: run folders, and what became of each run."""

from collections.abc import Mapping
import contextlib
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from augjax import check
from augjax.study.plan import Run, Study, Taken
from augjax.train import folder

FAILED = "failed.json"
STUDY = "study.json"


@dataclass(frozen=True)
class State:
    """What became of a run so far."""

    status: str  # done | failed | started | missing
    summary: Mapping[str, Any]  # summary.json of a run that is done
    failure: Mapping[str, Any]  # {exit_code, reason} of one that failed

    @property
    def done(self) -> bool:
        return self.status == "done"


def folder_of(workdir: Path, run: Run) -> Path:
    """Where a run lies: a run folder as launch.train makes it."""
    return Path(workdir) / "runs" / run.row / str(run.seed)


def config_of(study: Study, run: Run, workdir: Path) -> dict[str, Any]:
    """The training config of a run, other rows' networks as run:DIR#PHASE."""
    def place(need: Taken) -> str:
        return f"run:{folder_of(workdir, need.run)}#{need.phase}{need.step}"

    return study.config(run, place)


def state_of(study: Study, run: Run, workdir: Path) -> State:
    """Read from the run's files alone: a run is done when its summary has every phase."""
    place = folder_of(workdir, run)
    summary, failure = _read(place / "summary.json"), _read(place / FAILED)
    if set(study.rows[run.row].phases) <= set(summary.get("phases", ())):
        return State("done", summary, {})
    if failure:
        return State("failed", {}, failure)
    return State("started" if (place / "config.json").exists() else "missing", {}, {})


def states(study: Study, workdir: Path) -> dict[Run, State]:
    """{run: what became of it}, in order of need."""
    return {run: state_of(study, run, workdir) for run in study.runs}


def note_failure(workdir: Path, run: Run, exit_code: int, reason: str) -> None:
    """Keeps why a run failed, beside what it left."""
    place = folder_of(workdir, run)
    place.mkdir(parents=True, exist_ok=True)
    folder.write_json(place / FAILED, {"exit_code": exit_code, "reason": reason})


def forget_failure(workdir: Path, run: Run) -> None:
    with contextlib.suppress(FileNotFoundError):
        (folder_of(workdir, run) / FAILED).unlink()


def check_folders(study: Study, workdir: Path) -> None:
    """Raises ConfigError where a run was begun with another config than it has now."""
    for run in study.runs:
        if (folder_of(workdir, run) / "config.json").exists():
            folder.remember(folder_of(workdir, run), config_of(study, run, workdir))


def remember(workdir: Path, config: Mapping[str, Any], config_source: str, command: str) -> None:
    """Writes study.json, from which `--run`, `--table` and a continuation need no config file."""
    content = {"command": command, "config": config, "config_source": config_source}
    folder.write_json(Path(workdir) / STUDY, content)


def recall(workdir: Path) -> dict[str, Any]:
    """study.json: {command, config, config_source}. Raises ConfigError where there is none."""
    path, fix = Path(workdir) / STUDY, "give --config to begin a study there"
    check.require(path.is_file(), f"study folder {workdir}", f"a {STUDY}", "none", fix)
    content = _read(path)
    lacking = [field for field in ("command", "config", "config_source") if field not in content]
    check.require(not lacking, str(path), "what launch.study wrote there",
                  f"no {', '.join(lacking)}", fix)
    return content


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of a study's folder; {} where there is none."""
    if not path.is_file():
        return {}
    with check.refusing(str(path), "the JSON that launch.study or launch.train wrote",
                        "bring it back, or move it away"):
        return dict(json.loads(path.read_text()))
