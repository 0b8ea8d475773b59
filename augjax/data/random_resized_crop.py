"""Which part of an image of any size is seen: boxes for training and evaluation. Source: spec B1.

A box is (top, left, height, width) in pixels. What is drawn is a function of (seed, epoch, index),
never of the order of calls, so processes, workers and restarts change nothing.
"""

import math

import numpy as np

from augjax import check

TRIES = 10
AREA = (0.08, 1.0)  # share of the image
ASPECT = (3 / 4, 4 / 3)  # width over height
_CROPS = 1  # last counter word of Philox; epochs' orders use 0

Box = tuple[int, int, int, int]


def crop_bits(seed: int, epoch: int, index: int) -> np.ndarray:
    """What image `index` of a data set draws in an epoch: [22] uint64 from Philox's raw stream."""
    check.require(
        0 <= seed < 2**64 and epoch >= 0 and index >= 0, "random crop",
        "seed, epoch and index from 0 on", (seed, epoch, index), "count from 0",
    )
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, index, 0, _CROPS], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(2 * TRIES + 2)


def random_box(bits: np.ndarray, height: int, width: int) -> Box:
    """torchvision's random-resized crop of an image: [22] uint64 random bits -> a box.

    A share of the area from 0.08 to 1, width over height log-uniformly from 3/4 to 4/3, up to ten
    tries; then the centre at the nearest allowed shape. TensorFlow's EfficientNet has the same
    ranges, but draws the aspect and then the height uniformly.
    Source: torchvision.transforms.RandomResizedCrop.get_params.
    """
    _check_size(height, width)
    uniform = ((np.asarray(bits, np.uint64) >> np.uint64(11)) * 2.0**-53).tolist()  # of 53 bits
    low, high = (math.log(ratio) for ratio in ASPECT)
    for share, shape in zip(uniform[:TRIES], uniform[TRIES : 2 * TRIES], strict=True):
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * share)
        aspect = math.exp(low + (high - low) * shape)
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            top = int(uniform[-2] * (height - tall + 1))
            return top, int(uniform[-1] * (width - wide + 1)), tall, wide
    tall, wide = height, width
    if width / height < ASPECT[0]:
        tall = round(width / ASPECT[0])
    elif width / height > ASPECT[1]:
        wide = round(height * ASPECT[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def resnet_boxes(height: int, width: int, size: int) -> tuple[Box, Box]:
    """((0, 0, height, width) after resizing, the central box of `size` in it).

    The short side becomes 8/7 of `size`, so 256 for 224.
    Source: torchvision's Resize(256), which truncates the long side, and CenterCrop(224).
    """
    _check_size(height, width)
    short = round(size * 8 / 7)
    longer = int(short * max(height, width) / min(height, width))
    tall, wide = (short, longer) if height <= width else (longer, short)
    return (0, 0, tall, wide), (
        round((tall - size) / 2.0), round((wide - size) / 2.0), size, size)


def efficientnet_box(height: int, width: int, size: int) -> Box:
    """The central square of size / (size + round(size / 7)) of the short side.

    Source: tensorflow/tpu, models/official/efficientnet/preprocessing.py, in its float32.
    """
    _check_size(height, width)
    padding = round(size * (1 / 0.875 - 1))
    side = int(np.float32(size / (size + padding)) * np.float32(min(height, width)))
    side = max(side, 1)  # of a single pixel
    return (height - side + 1) // 2, (width - side + 1) // 2, side, side


def _check_size(height, width):
    check.require(
        height > 0 and width > 0, "image", "at least one pixel", f"{height} x {width}",
        "leave broken images out", check.DataError,
    )
