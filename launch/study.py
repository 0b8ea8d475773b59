"""Trains every run of a study that is not done, and writes its table.

python -m launch.study --config=configs/x.py --workdir=runs/x [--config.rows.kd.student.epochs=1]
python -m launch.study --workdir=runs/x           goes on with it; so does the line above
python -m launch.study --workdir=runs/x --table   the table of what is done so far
python -m launch.study --config=... --workdir=... --list | --slurm
                                                  a line for each run, or a script of SLURM arrays

Runs lie in WORKDIR/runs/ROW/SEED, each a run folder for launch.evaluate. On one device they are
trained one after the other in this process; on several, each by a process of its own. With
--members=12, runs that differ in arrays alone (seed, magnitude, sparsity, weights) train as one
population of up to so many, stacked on all devices: for accelerators and small networks. With
--coarse_to_fine only those rows are trained that find the study's optima (the best magnitude for
every sparsity), in fewer runs than the grid has; what was saved is told. A run that
fails stays in the table with its reason, and the study ends with its exit code; 75: start it again.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
import functools
import json
import os
from pathlib import Path
import shlex
import subprocess
import sys
from typing import Any

from absl import flags
import jax
from ml_collections import config_flags, ConfigDict

from augjax import check, data, recipe, search, study
from augjax.data.named import FACTS
from augjax.train import files, folder, Phase
from augjax.train.phases import check_recipe
from launch import coarse, common, config_file, studies

CONFIG = config_file.flag("config", "Study config, with overrides.")
WORKDIR = flags.DEFINE_string("workdir", None, "Study folder, new or to be continued.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data of every row lie.")
RETRY = flags.DEFINE_bool("retry", False, "Train again what failed by NaN or infinity.")
TABLE = flags.DEFINE_bool("table", False, "Write the table of what is done; train nothing.")
MEMBERS = flags.DEFINE_integer(
    "members", 1, "Train up to so many runs that differ in arrays alone as one stacked population.",
    lower_bound=1)
COARSE = flags.DEFINE_bool(
    "coarse_to_fine", False, "Train only what finds the optima of the study, coarse to fine.")
LIST = flags.DEFINE_bool("list", False, "Print a command for each run that is not done.")
SLURM = flags.DEFINE_bool("slurm", False, "Print a script that queues every run not done.")
RUN = flags.DEFINE_string("run", "", "Train this run alone, ROW/SEED, of a study that was begun.")
LEASH = flags.DEFINE_bool("leash", False, "Stop when standard input ends, as runs of a study do.")
ROOT = Path(__file__).resolve().parents[1]
ASK = "import jax; print(jax.default_backend(), jax.local_device_count())"
VISIBLE = {"gpu": "CUDA_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}


def main() -> None:
    check.require(bool(WORKDIR.value), "launch.study", "--workdir", "none", "name a folder")
    modes = [flag.name for flag in (TABLE, LIST, SLURM, RUN) if flag.value]
    check.require(len(modes) <= 1, "launch.study", "one of --table, --list, --slurm, --run",
                  modes, "choose one")
    workdir = files.require_disk(WORKDIR.value, "launch.study --workdir").absolute()
    if RUN.value:
        return train_alone(workdir)
    if TABLE.value:
        content = study.recall(workdir)
        return show(studies.parsed(content["config"]), workdir, content["command"])
    content = wanted() if CONFIG.value is not None else recalled(workdir)
    planned = studies.parsed(content["config"])
    if COARSE.value:
        coarse.require_optima(planned)
    listing = LIST.value or SLURM.value
    datasets = load_data(planned, described=FACTS if listing else ())
    check_rows(planned, datasets)
    with folder.held(workdir):
        study.check_folders(planned, workdir)
        study.remember(workdir, **content)
        if listing:
            return print(listed(planned, workdir))
        try:
            train(planned, workdir, datasets, content["config_source"])
        finally:
            show(planned, workdir, content["command"])
    code = study.exit_code(planned, workdir)
    if code:
        common.leave(code)


# --- what is asked for ---------------------------------------------------------------------------


def wanted() -> dict[str, Any]:
    """The study of --config as study.json keeps it."""
    config_file.require_kind(CONFIG.value, "study")
    config = studies.located(json.loads(CONFIG.value.to_json()), DATA_DIR.value)
    flag = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(flag)
    command = ["python", "-m", "launch.study", f"--config={flag.config_filename}",
               *(f"--config.{field}={value}" for field, value in overrides.items()),
               *([f"--data_dir={DATA_DIR.value}"] if DATA_DIR.value else [])]
    source = Path(flag.config_filename.split(":")[0]).read_text()
    return {"config": config, "config_source": source, "command": shlex.join(command)}


def recalled(workdir: Path) -> dict[str, Any]:
    """The study that was begun there, whose data may lie in another place by now."""
    content = study.recall(workdir)
    return {**content, "config": studies.located(content["config"], DATA_DIR.value)}


def load_data(planned: study.Study, described: Collection[str] = ()) -> dict[str, data.Dataset]:
    """{`key_of` a config: its data set}, each read once, without those that a description will do
    for. Raises DataError before any run."""
    configs = {key_of(row.config): row.config for row in planned.rows.values()
               if row.config["data"]["name"] not in described}
    return {key: recipe.load_data(ConfigDict(config)) for key, config in configs.items()}


def key_of(config: dict[str, Any]) -> str:
    """Equal for configs that read the same data."""
    return json.dumps(config["data"], sort_keys=True)


def check_rows(planned: study.Study, datasets: dict[str, data.Dataset]) -> None:
    """Raises ConfigError for a row that could not begin, on any devices; touches none.

    A row is checked with the phases of other rows that it needs, whose sizes are theirs to fit.
    """
    nets: dict[Any, Mapping] = {}  # {structure: networks}
    for run in {run.row: run for run in planned.runs}.values():
        config = ConfigDict(recipe.as_if_searched(planned.joined(run)))
        known = datasets.get(key_of(planned.rows[run.row].config)) or data.described(
            config.data.name, config.data.image_size or None)
        try:
            built = recipe.build(config, known)
            phases = [sharing(phase, nets) if phase.name in planned.rows[run.row].phases else
                      replace(sharing(phase, nets), batch_size=len(known.train), accumulate=1)
                      for phase in built.phases]
            check_recipe(replace(built, phases=phases), common.ONE_DEVICE)
        except check.AugjaxError as error:
            raise type(error)(f"row {run.row!r}: {error}") from error


def sharing(phase: Phase, nets: dict[Any, Mapping]) -> Phase:
    """The phase with the networks of the first of its structure: JAX traces each of them once."""
    mine = nets.setdefault(phase.structure, phase.objective.nets)
    return replace(phase, objective=replace(phase.objective, nets=mine))


# --- training ------------------------------------------------------------------------------------


def train(planned: study.Study, workdir: Path, datasets: dict[str, data.Dataset],
          source_text: str) -> None:
    """Trains what is not done: here, or by a process for each device where there are several."""
    backend, count = devices_at_hand()
    visible = os.environ.get(VISIBLE.get(backend, ""))
    places = study.seats(backend, count, planned.devices_per_run, visible)
    if places and MEMBERS.value == 1 and not COARSE.value:
        jax.config.update("jax_platforms", "cpu")  # the devices belong to the runs' processes
        return study.train_side_by_side(planned, workdir, places, starter(workdir), RETRY.value)
    prepare(planned)
    here = dict(build=builder(datasets), source_text=source_text, retry=RETRY.value,
                members=MEMBERS.value)
    if not COARSE.value:
        return study.train_here(planned, workdir, **here)
    before: set[str] = set()
    while (rows := coarse.rows_wanted(planned, workdir)) != before:  # else what they need failed
        study.train_here(planned, workdir, **here, rows=rows)
        before = rows
    print(f"\n{coarse.told(planned, workdir)}")


def devices_at_hand() -> tuple[str, int]:
    """(backend, how many), asked in another process: this one may not take them."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1
    asked = subprocess.run([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True,
                           check=False)
    check.require(asked.returncode == 0, "devices", "a JAX that finds them", "an error, see above",
                  "repair the installation, or set JAX_PLATFORMS=cpu")
    backend, count = asked.stdout.split()[-2:]
    return backend, int(count)


def train_alone(workdir: Path) -> None:
    """--run: one run, as a task of a cluster or for a study that has several devices."""
    content = recalled(workdir)
    planned = studies.parsed(content["config"])
    run = planned.run(RUN.value)
    lacking = [str(need) for need in planned.needed(run)
               if not study.state_of(planned, need, workdir).done]
    check.require(not lacking, f"run {run}", "the runs it needs to be done",
                  f"{', '.join(lacking)} not done", "train them first", check.CheckpointError)
    if LEASH.value:
        study.leash(sys.stdin)
    if study.state_of(planned, run, workdir).done:
        return print(f"{run} is done")
    prepare(planned)
    code, reason = study.train_one(planned, run, workdir, builder({}), content["config_source"])
    if code:
        print(f"\n{reason}", file=sys.stderr)
        common.leave(code)
    print(f"{run} is done: {study.folder_of(workdir, run)}")


def prepare(planned: study.Study) -> None:
    if any(row.config["deterministic"] for row in planned.rows.values()):
        common.repeat_exactly()
    common.cache_compilations()


def builder(datasets: dict[str, data.Dataset]) -> study.Build:
    """From a run's config to its recipe or its search, on data that all runs share."""
    def build(config):
        block, dataset = ConfigDict(config), datasets.get(key_of(config))
        if "search" in config:
            return functools.partial(search.run, recipe.build_search(block, dataset))
        return recipe.build(block, dataset)

    return build


def starter(workdir: Path) -> study.Start:
    def start(run, seat, log):
        with open(log, "a") as file:
            return subprocess.Popen(
                [*command_of(workdir), f"--run={run}", "--leash"], cwd=ROOT, stdin=subprocess.PIPE,
                stdout=file, stderr=file, env={**os.environ, **seat})
    return start


# --- what is shown -------------------------------------------------------------------------------


def show(planned: study.Study, workdir: Path, command: str) -> None:
    study.report(planned, workdir, command)
    print(f"\n{(workdir / 'table.md').read_text()}\nstudy folder: {workdir}")


def listed(planned: study.Study, workdir: Path) -> str:
    if SLURM.value:
        return study.slurm(planned, workdir, command_of(workdir), ROOT, RETRY.value)
    return study.lines(planned, workdir, command_of(workdir), RETRY.value)


def command_of(workdir: Path) -> list[str]:
    return [sys.executable, "-m", "launch.study", f"--workdir={workdir}"]


if __name__ == "__main__":
    common.run(main)
