"""Writes a trained network into one file that takes pixels, and a card beside it.

python -m launch.export --workdir=DIR [--phase=NAME --step=N --weights=raw|ema --branch=N]
    [--data_dir=DIR] --format=stablehlo|onnx|safetensors --out=FILE

FILE is run again on every test image and kept only if it predicts what the run folder's network
does; FILE.md is its card. In Python, `augjax.exchange.load(FILE)` gives pixels -> logits.
"""

import signal
import sys

from absl import flags

from augjax import builders, check, exchange, recipe, train
from launch import common

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder.")
PHASE = flags.DEFINE_string("phase", "", "Finished phase; the last one if not given.")
STEP = flags.DEFINE_integer("step", 0, "Saved step; the last one if not given.")
WEIGHTS = flags.DEFINE_enum("weights", "raw", ["raw", "ema"], "Which weights.")
BRANCH = flags.DEFINE_string(
    "branch", "0", "Which of several branches: a number, or selected (by held-out images).")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")
DATA_NOTE = flags.DEFINE_string("data_note", "", "For the card, such as 'JPEG copy'.")
FORMAT = flags.DEFINE_enum("format", None, sorted(exchange.FORMATS), "What FILE is.")
OUT = flags.DEFINE_string("out", None, "File to be made.")


def main() -> None:
    for flag in (WORKDIR, FORMAT, OUT):
        check.require(bool(flag.value), f"--{flag.name}", "a value", flag.value, "see --help")
    exchange.require_extra(FORMAT.value)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a half-made file goes too
    config = recipe.from_run(WORKDIR.value)
    if DATA_DIR.value:
        config.data.dir = DATA_DIR.value
    built = recipe.build(config)
    name = PHASE.value or built.phases[-1].name
    phase, block = built.phase(name), recipe.expanded(config)[name]
    learner, domain = asked(phase)
    source = train.Source(name, WORKDIR.value, STEP.value or None, WEIGHTS.value, learner, phase)
    pictures = builders.Pictures(built.data.name, built.data.classes, built.data.image_shape)
    own = block.model if learner == "student" else block.peers[learner].model
    model = builders.describe_net(own, pictures)
    common.cache_compilations()
    found = exchange.export(source, built, model, OUT.value, FORMAT.value, domain,
                            DATA_NOTE.value)
    print(f"{OUT.value}: {name}'s {model['name']}, top-1 {found['accuracy']:.2%}, top-5 "
          f"{found['top5_accuracy']:.2%} of {found['images']:,} test images, predictions as in the "
          f"run folder\n{OUT.value}.md: its card")


def asked(phase: train.Phase) -> tuple[str, int]:
    """(learner, BatchNorm set) of --branch."""
    every = phase.branches.asked if phase.branches else ((phase.objective.learners[0], 0),)
    number = BRANCH.value
    if number == "selected":
        check.require(WEIGHTS.value == "raw" and not STEP.value, "--branch=selected",
                      "raw weights of the last step, by which it was selected",
                      "--weights=ema or --step", "name the branch by its number")
        told = exchange.card.read(WORKDIR.value, "summary.json")["phases"].get(phase.name, {})
        check.require("selected_branch" in told, "--branch=selected",
                      "a finished phase with branches and data.holdout", phase.name,
                      "name the branch by its number")
        number = str(told["selected_branch"])
    check.require(number.isdecimal() and int(number) < len(every), "--branch",
                  f"selected or 0 to {len(every) - 1}", number, "see summary.json")
    return every[int(number)]


if __name__ == "__main__":
    common.run(main)
