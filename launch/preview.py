"""Draws what a student sees: operations by levels, or the batch of a config's update.

python -m launch.preview --config=configs/quickstart.py --out=sheet.png [--phase=NAME --batch=N]
python -m launch.preview --ops=torchvision --out=sheet.png [--size=32]

With --config every view of the batch, below the pictures as they are, with the operations that the
policy drew and, where images were mixed, what of whom. Keys, order and knobs are those of the run.
"""

from absl import flags
import numpy as np

from augjax import augment, check, recipe
from augjax.train import files
from augjax.train.phases import check_recipe
from launch import common, config_file, sheets

CONFIG = config_file.flag("config", "Config file, with overrides.")
OUT = flags.DEFINE_string("out", None, "PNG to write.")
PHASE = flags.DEFINE_string("phase", "", "Phase of the config; the last one if not given.")
BATCH = flags.DEFINE_integer("batch", 0, "Which update's batch, from 0.")
IMAGES = flags.DEFINE_integer("images", 8, "How many images of the batch to draw.")
OPS = flags.DEFINE_string("ops", "", "Magnitude map whose operations to draw, config or not.")
SIZE = flags.DEFINE_integer("size", 32, "Side in pixels of the picture for --ops without --config.")


def main() -> None:
    check_flags()
    out = common.writable(files.require_disk(OUT.value, "--out"), "--out")
    if OPS.value:
        check.one_of("--ops", OPS.value, augment.MAPS)
        sheet = sheets.of_operations(OPS.value, picture())
    else:
        built = recipe.build(CONFIG.value)
        name = PHASE.value or built.phases[-1].name
        check.one_of("--phase", name, [phase.name for phase in built.phases])
        check_recipe(built, common.ONE_DEVICE)
        common.cache_compilations()
        sheet = sheets.of_batch(built, built.phase(name), BATCH.value, IMAGES.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)
    print(f"{out}: {sheet.width} x {sheet.height} pixels")


def check_flags() -> None:
    """Raises ConfigError for what cannot be drawn, before anything is computed."""
    if CONFIG.value is not None:
        config_file.require_kind(CONFIG.value, "train")
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


def picture() -> np.ndarray:
    """What --ops is drawn on: the config's first training image, or scikit-learn's flower."""
    if CONFIG.value is None:
        return sheets.flower(SIZE.value)
    return recipe.load_data(CONFIG.value).train.read([0])[0]


if __name__ == "__main__":
    common.run(main)
