"""Searches for an augmentation policy as PBA does: a population trains, follows and explores.

python -m launch.search --config=configs/x.py --workdir=runs/x [--config.search.members=8 ...]
                                             schedule.json, its plot and the winner's network
python -m launch.search --plot=schedule.json --out=schedule.png

Started again, a search goes on from its last save, bit for bit. Training replays what it found: a
policy of kind "replay" with schedule=runs/x/schedule.json. A published log (pba's or
role_wise_kd's) is plotted and replayed as well. The best magnitude for each sparsity is found by
launch.study --coarse_to_fine.
"""

import json
from pathlib import Path

from absl import flags

from augjax import check, parts, recipe, search
from augjax.train import files
from launch import common, config_file

CONFIG = config_file.flag("config", "Config file, with overrides.")
WORKDIR = flags.DEFINE_string("workdir", None, "Search folder, new or to be continued.")
PLOT = flags.DEFINE_string("plot", "", "Plot this schedule.json or published log; search nothing.")
PREVIOUS = flags.DEFINE_bool(
    "use_previous_checkpoint", False, "Go back to the last whole save if the latest was altered.")
OUT = flags.DEFINE_string("out", "schedule.png", "Where --plot writes.")


def main() -> None:
    if PLOT.value:
        check.require(OUT.value.endswith(".png"), "--out", "a .png file", repr(OUT.value),
                      "name one")
        out = common.writable(files.require_disk(OUT.value, "--out"), "--out")
        return print(search.plot_schedule(parts.read_schedule(PLOT.value), out))
    check.require(CONFIG.value is not None and bool(WORKDIR.value), "launch.search",
                  "--config and --workdir", "less", "see --help")
    config = CONFIG.value
    config_file.require_kind(config, "search")
    built = recipe.build_search(config)  # every name is checked before a device is touched
    if config.deterministic:
        common.repeat_exactly()
    common.cache_compilations()
    file = Path(flags.FLAGS["config"].config_filename.split(":")[0])
    summary = search.run(built, WORKDIR.value, json.loads(config.to_json()), file.read_text(),
                         use_previous=PREVIOUS.value)
    (name, phase), = summary["phases"].items()
    print(f"\nwinner's {name}: {phase['holdout_accuracy']:.2%} of held-out, "
          f"{phase['final_accuracy']:.2%} of test images; {phase['device_hours']:.3g} device-hours"
          f"\n{WORKDIR.value}/schedule.json")


if __name__ == "__main__":
    common.run(main)
