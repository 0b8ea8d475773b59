"""Turns images as people have them into a data set that augjax and TFDS read, without TensorFlow.

python -m launch.prepare --source=cifar-10-python.tar.gz --data_dir=DIR        (or its folder)
python -m launch.prepare --source=ILSVRC2012 --data_dir=DIR                    (train/ and val/, or
                                    ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, in it)
python -m launch.prepare --source=tiny-imagenet-200.zip --data_dir=DIR         (or its folder)
python -m launch.prepare --source=photos --dataset=flowers --data_dir=DIR      (photos/train/CLASS/*
                                    and photos/val/CLASS/*; a folder, a .zip or a plain .tar;
                                    val may be valid, validation or test)
python -m launch.prepare --source=~/tensorflow_datasets/imagenet2012/5.1.0 --data_dir=DIR
                                    (a TFDS folder of tfrecord files)

Writes DIR/NAME/VERSION as array_record. Original bytes are kept, but what is no RGB JPEG (grey,
CMYK or PNG among JPEGs) is encoded anew at quality 95 and counted; a tree of PNG alone stays PNG,
and TFDS's examples are copied unchanged. --short_side=N scales larger images down. --image_size=N
says that every image is N x N: they are then read whole instead of cropped, and may lie on the
device, as CIFAR's. Every image is decoded once; bad ones are named at the end, and --skip_bad
leaves them out. Files of a tree that are passed over are counted, hidden ones aside, and class
folders without images named. Interrupted, the same command goes on where it was; on a whole folder
it verifies every checksum, refuses it if names or sizes of the source's files have changed since,
and tells if only their times have. Nothing is extracted.

Cost: CIFAR-10 took 20 s and 1 GB of memory on two cores. Of photographs of 500 x 375 and 99 kB, a
core copied 613 a second and scaled down 216 to --short_side=256 (CPU time on a busy machine), from
which ImageNet takes 0.6 or 1.7 hours divided by the cores, if disks keep up (not measured); its
list of files takes 0.9 GB, each worker 0.2 GB.
"""

import functools
import os
import signal

from absl import flags, logging

from augjax import check
from augjax.prepare import target_folder
from augjax.prepare import prepare
from launch import common

SOURCE = flags.DEFINE_string("source", None, "Archive or folder of images; see the kinds above.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets to write into.")
DATASET = flags.DEFINE_string(
    "dataset", None, "Name for a tree of images; or which set, where the source holds several."
)
SHORT_SIDE = flags.DEFINE_integer(
    "short_side", None,
    "Scale larger images down to this short side, in pixels, as JPEG of quality 95 or, a tree of "
    "PNG, as PNG."
)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None,
    "Pixels a side of every image of a tree: they are then read whole, as CIFAR's, never cropped."
)
SKIP_BAD = flags.DEFINE_bool(
    "skip_bad", False, "Leave out images that do not decode and list them in skipped.txt."
)
WORKERS = flags.DEFINE_integer(
    "workers", len(os.sched_getaffinity(0)), "Processes that decode; 1 is this one."
)


def main() -> None:
    from augjax.train import files  # here, as the workers that decode import this file, too

    for flag in (SOURCE, DATA_DIR):
        check.require(bool(flag.value), f"--{flag.name}", "a path", flag.value,
                      "run `python -m launch.prepare --source=ARCHIVE --data_dir=DIR`")
    files.require_disk(DATA_DIR.value, "--data_dir")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both clear up behind them
    logging.set_verbosity(logging.WARNING)  # TFDS tells of every file it opens
    try:
        target = prepare(
            SOURCE.value, DATA_DIR.value, DATASET.value, short_side=SHORT_SIDE.value,
            image_size=IMAGE_SIZE.value, skip_bad=SKIP_BAD.value, workers=WORKERS.value,
            told=functools.partial(print, flush=True),
        )
    except KeyboardInterrupt:
        raise check.Preempted("stopped; whole shards, if any, are kept") from None
    for line in target_folder.told(target):
        print(line)
    print(f"ready: {target}")


if __name__ == "__main__":
    common.run(main)
