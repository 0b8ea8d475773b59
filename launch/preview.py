"""Draws what a student sees: operations by levels, or the batch of a config's update.

python -m launch.preview --config=configs/quickstart.py --out=sheet.png [--phase=NAME --batch=N]
python -m launch.preview --config=configs/cifar/distillation.py --row=kd --data_dir=DIR --out=s.png
python -m launch.preview --ops=torchvision --out=sheet.png [--size=32]

With --config every view of the batch, below the pictures as they are (those of any size as the host
crops them), with the operations that the policy drew and, where images were mixed, what of whom.
Keys, order and knobs are those of the run: of a study's row, those of the first of its seeds.
"""

from dataclasses import replace
import json

from absl import flags
from ml_collections import ConfigDict
import numpy as np

from augjax import augment, check, recipe, study
from augjax.train import files, Recipe
from augjax.train.phases import check_recipe
from launch import common, config_file, sheets, studies

CONFIG = config_file.flag("config", "Config file, with overrides.")
OUT = flags.DEFINE_string("out", None, "PNG to write.")
ROW = flags.DEFINE_string("row", "", "Row of the config, where it is a study.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data of a study's rows lie.")
PHASE = flags.DEFINE_string("phase", "", "Phase of the config; the last one if not given.")
BATCH = flags.DEFINE_integer("batch", 0, "Which update's batch, from 0.")
IMAGES = flags.DEFINE_integer("images", 8, "How many images of the batch to draw.")
OPS = flags.DEFINE_string("ops", "", "Magnitude map whose operations to draw, config or not.")
SIZE = flags.DEFINE_integer("size", 32, "Side in pixels of the picture for --ops without --config.")


def main() -> None:
    planned = planned_study()
    check_flags()
    out = common.writable(files.require_disk(OUT.value, "--out"), "--out")
    if OPS.value:
        check.one_of("--ops", OPS.value, augment.MAPS)
        sheet = sheets.of_operations(OPS.value, picture(planned))
    else:
        built = checked(planned)
        name = PHASE.value or built.phases[-1].name
        check.one_of("--phase", name, [phase.name for phase in built.phases])
        common.cache_compilations()
        sheet = sheets.of_batch(built, built.phase(name), BATCH.value, IMAGES.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)
    print(f"{out}: {sheet.width} x {sheet.height} pixels")


def check_flags() -> None:
    """Raises ConfigError for what cannot be drawn, before anything is computed."""
    check.require(
        bool(OPS.value) or CONFIG.value is not None, "launch.preview", "--config or --ops",
        "neither", "name a config file, or a magnitude map such as --ops=torchvision",
    )
    check.require(
        bool(OUT.value) and OUT.value.endswith(".png"), "--out", "a file that ends in .png",
        OUT.value, "write for example --out=sheet.png",
    )
    for flag, lowest in ((BATCH, 0), (IMAGES, 1), (SIZE, 4)):
        check.require(
            flag.value >= lowest, f"--{flag.name}", f"a number from {lowest} on", flag.value,
            "choose such a number",
        )
    check.require(SIZE.value <= 512, "--size", "at most 512 pixels", SIZE.value, "choose less")


# --- whose batch ---------------------------------------------------------------------------------


def planned_study() -> study.Study | None:
    """The study of --config, which has the row that --row names; None where it is a training's.

    Raises ConfigError for another command's config, and for a row that is missing or too much.
    """
    config = CONFIG.value
    if config is None or "phases" in config or "search" in config or "rows" not in config:
        got = "none" if config is None else "a training's"
        for flag, fix in ((ROW, "leave --row out"), (DATA_DIR, "write --config.data.dir instead")):
            check.require(not flag.value, f"--{flag.name}", "a study's --config beside it", got,
                          fix)
        if config is not None:
            config_file.require_kind(config, "train")
        return None
    planned = studies.parsed(studies.located(json.loads(config.to_json()), DATA_DIR.value))
    check.one_of("--row (as --config is one for launch.study)", ROW.value, planned.rows)
    return planned


def checked(planned: study.Study | None) -> Recipe:
    """The recipe of --config or of its --row. Raises ConfigError for what could not be trained."""
    if planned is None:
        built = recipe.build(CONFIG.value)
        check_recipe(built, common.ONE_DEVICE)
        return built
    run, row = of_row(planned), planned.rows[ROW.value]
    check.require("search" not in row.config, f"--row={ROW.value}", "one that trains under a "
                  "policy", "one for launch.search, whose members have many", "preview another")
    check.require(recipe.as_if_searched(row_config(planned)) == row_config(planned),
                  f"--row={ROW.value}", "one whose policy is known", "one that replays what "
                  "another row finds", "override its policy's schedule by the schedule.json that "
                  "the search wrote")
    built = recipe.build(ConfigDict(recipe.as_if_searched(planned.joined(run))))
    sized = [phase if phase.name in row.phases else  # the others' images are theirs to have
             replace(phase, batch_size=len(built.data.train), accumulate=1)
             for phase in built.phases]
    check_recipe(replace(built, phases=sized), common.ONE_DEVICE)
    return replace(built, phases=[phase for phase in built.phases if phase.name in row.phases])


def of_row(planned: study.Study) -> study.Run:
    """The run of --row at the first of its seeds."""
    return study.Run(ROW.value, planned.rows[ROW.value].seeds[0])


def row_config(planned: study.Study) -> dict:
    """The training config of --row, as plain data."""
    return planned.config(of_row(planned), lambda need: f"phase:{need.run}/{need.phase}")


def picture(planned: study.Study | None) -> np.ndarray:
    """What --ops is drawn on: the config's first training image, or scikit-learn's flower."""
    if CONFIG.value is None:
        return sheets.flower(SIZE.value)
    config = CONFIG.value if planned is None else ConfigDict(row_config(planned))
    return recipe.load_data(config).train.read([0])[0]


if __name__ == "__main__":
    common.run(main)
