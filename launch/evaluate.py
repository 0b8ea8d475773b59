"""Evaluates a saved phase on every test image, from its run folder alone.

python -m launch.evaluate --workdir=DIR [--phase=NAME --step=N --data_dir=DIR --image_size=PIXELS]

--image_size tests at another resolution than was trained at (circumventing_outliers: B8 at 800).
"""

import json

from absl import flags

from augjax import check, recipe, train
from augjax.train import checkpoint
from launch import common

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder.")
PHASE = flags.DEFINE_string("phase", "", "Phase to evaluate; the last one if not given.")
STEP = flags.DEFINE_integer("step", 0, "Saved step; the last one if not given.")
WEIGHTS = flags.DEFINE_enum("weights", "raw", ["raw", "ema"], "Which weights.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 0, "Pixels a side; those of the run if not given.")


def main() -> None:
    check.require(bool(WORKDIR.value), "launch.evaluate", "--workdir", "none", "name a run folder")
    config = recipe.from_run(WORKDIR.value)
    if DATA_DIR.value:
        config.data.dir = DATA_DIR.value
    if IMAGE_SIZE.value:
        recipe.resize(config, IMAGE_SIZE.value)
    built = recipe.build(config)
    common.cache_compilations()
    name = PHASE.value or built.phases[-1].name
    phase = built.phase(name)
    step = STEP.value or max(checkpoint.steps(WORKDIR.value, name), default=None)
    source = train.Source(name, WORKDIR.value, step, WEIGHTS.value, origin=phase)
    result = train.evaluate_source(source, built)
    print(json.dumps({"phase": name, "step": step, **result}))
    print(f"{name}: top-1 {result['accuracy']:.2%}, top-5 {result['top5_accuracy']:.2%} "
          f"of {result['images']:,} test images")


if __name__ == "__main__":
    common.run(main)
