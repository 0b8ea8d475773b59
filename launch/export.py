"""Writes a trained network into one file that takes pixels, and a card beside it.

python -m launch.export --workdir=DIR [--phase=NAME --step=N --weights=raw|ema --data_dir=DIR]
    --format=stablehlo|safetensors --out=FILE

FILE is run again on every test image and kept only if it predicts what the run folder's network
does; FILE.md is its card. In Python, `augjax.exchange.load(FILE)` gives pixels -> logits.
"""

import signal
import sys
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from augjax import check, exchange, parts, recipe, train
from launch import common

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder.")
PHASE = flags.DEFINE_string("phase", "", "Finished phase; the last one if not given.")
STEP = flags.DEFINE_integer("step", 0, "Saved step; the last one if not given.")
WEIGHTS = flags.DEFINE_enum("weights", "raw", ["raw", "ema"], "Which weights.")
DOMAIN = flags.DEFINE_integer("domain", 0, "Which BatchNorm set.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")
DATA_NOTE = flags.DEFINE_string("data_note", "", "For the card, such as 'JPEG copy'.")
FORMAT = flags.DEFINE_enum("format", None, sorted(exchange.FORMATS), "What FILE is.")
OUT = flags.DEFINE_string("out", None, "File to be made.")
TRAINING = ("domains", "bn_per_view", "bn_images", "remat")  # say nothing of one BatchNorm set


def main() -> None:
    for flag in (WORKDIR, FORMAT, OUT):
        check.require(bool(flag.value), f"--{flag.name}", "a value", flag.value, "see --help")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a half-made file goes too
    config = recipe.from_run(WORKDIR.value)
    if DATA_DIR.value:
        config.data.dir = DATA_DIR.value
    built = recipe.build(config)
    name = PHASE.value or built.phases[-1].name
    source = train.Source(name, WORKDIR.value, STEP.value or None, WEIGHTS.value,
                          origin=built.phase(name))
    model = described(recipe.expanded(config)[name].model, built)
    common.cache_compilations()
    found = exchange.export(source, built, model, OUT.value, FORMAT.value, DOMAIN.value,
                            DATA_NOTE.value)
    print(f"{OUT.value}: {name}'s {model['name']}, top-1 {found['accuracy']:.2%}, top-5 "
          f"{found['top5_accuracy']:.2%} of {found['images']:,} test images, predictions as in the "
          f"run folder\n{OUT.value}.md: its card")


def described(block: ConfigDict, built: train.Recipe) -> dict[str, Any]:
    """What `exchange.network` builds the network of a config's model block from."""
    pictures = parts.Pictures(built.data.name, built.data.classes, built.data.image_shape)
    options = {key: value for key, value in block.to_dict().items() if key not in TRAINING}
    height, width, channels = built.data.image_shape
    size, (mean, std) = options.pop("image_size"), parts.statistics_of(pictures)
    return options | {
        "classes": built.data.classes, "image_shape": (size or height, size or width, channels),
        "mean": tuple(options["mean"]) or mean, "std": tuple(options["std"]) or std,
    }


if __name__ == "__main__":
    common.run(main)
