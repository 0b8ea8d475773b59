"""Trains a config's phases, or goes on where the run folder stopped.

python -m launch.train --config=configs/quickstart.py --workdir=runs/quickstart [--config.a.b=c ...]

With --dry_run nothing is trained and no data are needed: every phase's update is compiled, for the
devices at hand or for TPUs that are not there (--topology=v5e:4x4), and what it needs is printed.
"""

import json
from pathlib import Path

from absl import flags
import jax

from augjax import check, data, recipe, train
from augjax.data.named import FACTS
from launch import common, config_file

CONFIG = config_file.flag("config", "Config file, with overrides.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder, new or to be continued.")
PREVIOUS = flags.DEFINE_bool(
    "use_previous_checkpoint", False, "Go back to the last whole save if the latest was altered.")
ADOPT = flags.DEFINE_list(
    "adopt_checkpoint", [], "PHASE/STEP of copied saves that lost their digests: they count again.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Compile and count, without data; train nothing.")
TOPOLOGY = flags.DEFINE_string("topology", "", "TPUs to compile a dry run for, such as v5e:4x4.")
PHASE = flags.DEFINE_string("phase", "", "The phase of a dry run; all of them if not given.")
PROFILE = flags.DEFINE_bool("profile", False, "Write a JAX trace of a few steps of each phase.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "Address of process 0, HOST:PORT.")
PROCESSES = flags.DEFINE_integer("num_processes", 1, "How many processes take part.")
PROCESS = flags.DEFINE_integer("process_id", 0, "Which of them this is.")


def main() -> None:
    if DRY_RUN.value:
        return dry_run()
    for flag in (TOPOLOGY, PHASE):
        check.require(not flag.value, f"--{flag.name}", "--dry_run beside it", "none",
                      "add --dry_run")
    check.require(CONFIG.value is not None, "launch.train", "--config", "none",
                  "name a config file, such as configs/quickstart.py")
    check.require(bool(WORKDIR.value), "launch.train", "--workdir", "none",
                  "name a run folder, new or to be continued")
    config = CONFIG.value
    config_file.require_kind(config, "train")
    built = recipe.build(config)  # every name is checked before a device is touched
    if config.deterministic:
        common.repeat_exactly()
    common.cache_compilations()
    common.join_processes(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    file = Path(common.flags.FLAGS["config"].config_filename.split(":")[0])
    summary = train.run(
        built, WORKDIR.value, json.loads(config.to_json()), file.read_text(),
        use_previous=PREVIOUS.value, adopt=ADOPT.value, profile=PROFILE.value,
    )
    if jax.process_index() == 0:
        print(f"\n{train.table(summary)}\n\nrun folder: {WORKDIR.value}")


def dry_run() -> None:
    """Prints what every phase needs: parameters, operations, bytes of one device."""
    check.require(CONFIG.value is not None, "launch.train --dry_run", "--config", "none",
                  "see --help")
    config = CONFIG.value
    config_file.require_kind(config, "train")
    name, size = config.data.name, config.data.image_size or None
    known = data.described(name, size) if name in FACTS else None  # people's own are read
    built = recipe.build(config, known)
    common.cache_compilations()
    mesh = train.topology_mesh(TOPOLOGY.value) if TOPOLOGY.value else train.make_mesh()
    print(train.needs_table(train.needs(built, mesh, PHASE.value)))


if __name__ == "__main__":
    common.run(main)
