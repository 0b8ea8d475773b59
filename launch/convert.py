"""Turns published weights into a run folder: a teacher, a start, or something to evaluate.

python -m launch.convert --source=timm --model=resnet50 --weights=model.safetensors --workdir=DIR

Sources: timm, torchvision, repdistiller (safetensors files) and flax (the ResNet-50 of its ImageNet
example: a msgpack file or an Orbax folder). With --data_dir the accuracy on some test images is
measured at once. A network of your own classes needs their images, prepared by launch.prepare; its
logits stand in the order of the names of their folders, as torchvision's ImageFolder has them:

python -m launch.convert --source=torchvision --model=resnet18 --weights=my.safetensors \\
    --data=photos --data_dir=DATA --workdir=DIR

Then `python -m launch.evaluate --workdir=DIR`, --config.student.init=run:DIR, or a teacher, to whom
a term must listen:

python -m launch.train --config=configs/cifar/resnet20.py --config.student.teacher=run:DIR \\
    --config.student.terms='{"ce": {"kind": "cross_entropy"}, "kd": {"kind": "hinton"}}' \\
    --config.data.name=photos --config.data.dir=DATA --config.data.image_size=32 \\
    --config.data.resident=False --workdir=STUDENT
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
import json
from pathlib import Path
import signal
import sys

from absl import flags
from ml_collections import ConfigDict

from augjax import check, data, defaults, exchange, recipe, train
from launch import common

SOURCE = flags.DEFINE_string("source", None, "timm, torchvision, repdistiller or flax.")
MODEL = flags.DEFINE_string("model", None, "The model's name there; timm's may carry its .tag.")
WEIGHTS = flags.DEFINE_string("weights", None, "A .safetensors file (flax: its checkpoint).")
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder to be made.")
DATA = flags.DEFINE_string("data", "", "Data set that it tells apart, if not the source's own.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Where that data set lies: to measure accuracy, and to know your own classes.")
MEAN = flags.DEFINE_list("mean", [], "Three numbers, of pixels / 255; else the source's own.")
STD = flags.DEFINE_list("std", [], "Three numbers, of pixels / 255; else the source's own.")
RESOLUTION = flags.DEFINE_integer("resolution", 0, "Pixels a side that it sees; else its own.")
PROBE = 1000  # test images, as many of each class


def main() -> None:
    for flag in (SOURCE, MODEL, WEIGHTS, WORKDIR):
        check.require(bool(flag.value), f"--{flag.name}", "a value", flag.value, "see --help")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a half-made folder goes too
    exchange.require_new(WORKDIR.value)
    converted = exchange.convert(
        SOURCE.value, MODEL.value, WEIGHTS.value, DATA.value or None, numbers(MEAN), numbers(STD),
        RESOLUTION.value, DATA_DIR.value or None)
    config = config_of(converted, DATA_DIR.value)
    probe = probe_of(config) if DATA_DIR.value else None
    common.cache_compilations()
    summary = exchange.write_run(WORKDIR.value, converted, json.loads(config.to_json()), probe)
    print(told(converted, summary["phases"][exchange.PHASE]))


def numbers(flag: flags.FlagHolder) -> tuple[float, ...]:
    try:
        return tuple(map(float, flag.value))
    except ValueError as error:
        raise check.ConfigError(check.sentence(
            f"--{flag.name}", "numbers", flag.value, "write 0.5,0.5,0.5")) from error


def config_of(converted: exchange.Converted, data_dir: str = "") -> ConfigDict:
    """What rebuilds the network, and trains nothing; as many images as it sees at once fit into a
    few GB."""
    at_once = 512 if converted.model["image_size"] <= 64 else 64
    return defaults.config(
        phases={exchange.PHASE: defaults.phase(
            model=defaults.model(**converted.model), batch_size=1,
            eval={"batch_size": at_once})},
        data={"name": converted.data, "dir": data_dir, "image_size": converted.cut,
              "resident": not converted.cut},
    )


def probe_of(config: ConfigDict) -> Callable[[Path], Mapping[str, float]]:
    """Measures the accuracy on test images, which are found here and now."""
    built = recipe.build(config)
    images = data.limited(built.data.test, min(PROBE, len(built.data.test)))
    judged = replace(built, data=replace(built.data, test=images))

    def probe(folder: Path) -> dict[str, float]:
        source = train.Source(exchange.PHASE, str(folder), origin=judged.phases[0])
        found = train.evaluate_source(source, judged)
        return {"probe_accuracy": found["accuracy"], "probe_images": found["images"],
                "probe_top5_accuracy": found["top5_accuracy"]}

    return probe


def told(converted: exchange.Converted, facts: Mapping[str, float]) -> str:
    """What was made, on a few lines."""
    model, origin = converted.model, converted.origin
    accuracy = f"accuracy {exchange.NOT_MEASURED}: give --data_dir"
    if facts["probe_accuracy"] != exchange.NOT_MEASURED:
        accuracy = (f"top-1 {facts['probe_accuracy']:.2%}, top-5 {facts['probe_top5_accuracy']:.2%}"
                    f" of {facts['probe_images']:,} test images of {converted.data}")
    side = model["image_size"]
    return (
        f"{origin['source']}'s {origin['model']}: {facts['parameters']:,} parameters, "
        f"{converted.classes} classes ({converted.data})\n"
        f"sees {side}x{side} pixels, mean {model['mean']}, std {model['std']}\n"
        f"{accuracy}\nrun folder: {WORKDIR.value}")


if __name__ == "__main__":
    common.run(main)
