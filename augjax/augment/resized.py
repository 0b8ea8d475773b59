"""Crops of decoded images on the host, so that only the crop travels. Source: spec B1.

A box is (top, left, height, width) in pixels. Pictures are Pillow's, whose resampling shrinks with
a filter as wide as the step; what the papers' TensorFlow code does without it cannot be matched
bit by bit. What is drawn is a function of (seed, epoch, index), never of the order of calls.
"""

from collections.abc import Sequence
import math

import numpy as np
from PIL import Image

from augjax import check

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
TRIES = 10
AREA = (0.08, 1.0)  # share of the picture
ASPECT = (3 / 4, 4 / 3)  # width over height
_CROPS = 1  # last counter word of Philox; epochs' orders use 0

Box = tuple[int, int, int, int]


# --- training ------------------------------------------------------------------------------------


def crop_bits(seed: int, epoch: int, index: int) -> np.ndarray:
    """What image `index` of a data set draws in an epoch: [22] uint64 from Philox's raw stream."""
    check.require(
        0 <= seed < 2**64 and epoch >= 0 and index >= 0, "random crop",
        "seed, epoch and index from 0 on", (seed, epoch, index), "count from 0",
    )
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, index, 0, _CROPS], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(2 * TRIES + 2)


def random_resized_crop_box(bits: np.ndarray, height: int, width: int) -> Box:
    """torchvision's random-resized crop of a picture: [22] uint64 random bits -> a box.

    A share of the area from 0.08 to 1, width over height log-uniformly from 3/4 to 4/3, up to ten
    tries; then the centre at the nearest allowed shape. TensorFlow's EfficientNet has the same
    ranges, but draws the aspect and then the height uniformly.
    Source: torchvision.transforms.RandomResizedCrop.get_params.
    """
    _check_picture(height, width)
    uniform = (np.asarray(bits, np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
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


def random_resized_crop(
    picture: Image.Image, size: int, seed: int, epoch: int, index: int, resample: int = BILINEAR
) -> np.ndarray:
    """The training crop of a picture: [size, size, 3] uint8, a function of (seed, epoch, index).

    ResNet's recipe resamples bilinear, EfficientNet's bicubic; the flip is the device's.
    """
    box = random_resized_crop_box(crop_bits(seed, epoch, index), picture.height, picture.width)
    return cropped(picture, box, size, resample)


# --- evaluation ----------------------------------------------------------------------------------


def resnet_boxes(height: int, width: int, size: int = 224, short: int = 256) -> tuple[Box, Box]:
    """((0, 0, height, width) after resizing the short side, the central box of `size` in it).

    Source: torchvision's Resize(256), which truncates the long side, and CenterCrop(224).
    """
    _check_picture(height, width)
    check.require(
        0 < size <= short, "evaluation crop", f"at most the short side {short}", size,
        "enlarge the short side, 8/7 of the crop is common",
    )
    longer = int(short * max(height, width) / min(height, width))
    tall, wide = (short, longer) if height <= width else (longer, short)
    box = round((tall - size) / 2.0), round((wide - size) / 2.0), size, size
    return (0, 0, tall, wide), box


def evaluation_crop_resnet(picture: Image.Image, size: int = 224, short: int = 256) -> np.ndarray:
    """Short side to `short`, bilinear, then the centre: [size, size, 3] uint8."""
    (_, _, tall, wide), (top, left, _, _) = resnet_boxes(
        picture.height, picture.width, size, short)
    whole = picture.convert("RGB").resize((wide, tall), BILINEAR)
    return np.asarray(whole.crop((left, top, left + size, top + size)))


def efficientnet_box(height: int, width: int, size: int) -> Box:
    """The central square of size / (size + round(size / 7)) of the short side.

    Source: tensorflow/tpu, models/official/efficientnet/preprocessing.py, in its float32.
    """
    _check_picture(height, width)
    check.require(size > 0, "evaluation crop", "a size above 0", size, "224 is common")
    padding = round(size * (1 / 0.875 - 1))
    side = int(np.float32(size / (size + padding)) * np.float32(min(height, width)))
    return (height - side + 1) // 2, (width - side + 1) // 2, side, side


def evaluation_crop_efficientnet(picture: Image.Image, size: int) -> np.ndarray:
    """`efficientnet_box`, resized bicubic: [size, size, 3] uint8."""
    box = efficientnet_box(picture.height, picture.width, size)
    return cropped(picture, box, size, BICUBIC)


def cropped(picture: Image.Image, box: Sequence[int], size: int, resample: int) -> np.ndarray:
    """Cuts a box out, then resizes it: [size, size, 3] uint8; nothing outside the box is seen."""
    top, left, tall, wide = box
    piece = picture.convert("RGB").crop((left, top, left + wide, top + tall))
    return np.asarray(piece.resize((size, size), resample))


def _check_picture(height, width):
    check.require(
        height > 0 and width > 0, "picture", "at least one pixel", f"{height} x {width}",
        "leave broken pictures out", check.DataError,
    )
