"""From encoded images of any size to squares of one, on the host, so that only these travel.

Pixels are those of the papers' PyTorch pipelines: Pillow's decoding, then the box cut out, then
Pillow's resampling, whose filter is as wide as the step. TensorFlow's resizing, which has no such
filter, is not imitated. `draft` is the fast way of those who have photographs far larger than
what they train on; its pixels differ.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
import io
import math
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from augjax import check
from augjax.data.random_resized_crop import (
    Box, crop_bits, efficientnet_box, random_box, resnet_boxes,
)
from augjax.data.source import Source

RULES = {"resnet": Image.Resampling.BILINEAR, "efficientnet": Image.Resampling.BICUBIC}
_BASELINE = (0xC0, 0xC1)  # JPEG markers of frames
_OTHERS = (*range(0xC2, 0xC4), *range(0xC5, 0xD0), 0xDA, 0xFF)  # progressive, lossless, no frame
_MARGIN = 8  # rows: what the chroma of a row is interpolated from lies no further below it


@dataclass(frozen=True)
class Cut:
    """How images of any size become [size, size, 3].

    rule   resnet: a random-resized crop, bilinear; evaluated on the centre of the image whose
           short side was resized to 8/7 of `size` (torchvision's 256 for 224). efficientnet: the
           same crop, bicubic; evaluated on a central square of size / (size + round(size / 7)) of
           the short side, resized
    draft  JPEGs are decoded at 1/2, 1/4 or 1/8 where the box keeps `size` pixels a side: faster,
           with other pixels, for boxes at least twice as large as what they become
    """

    size: int
    rule: str = "resnet"
    draft: bool = False


def cut_to(source: Source, cut: Cut) -> Source:
    """The same images, of any size until now, cut to one.

    Raises ConfigError for an unknown rule or no size.
    """
    check.one_of("data.crop", cut.rule, RULES)
    check.require(cut.size > 0, "data.image_size", "pixels a side", cut.size, "224 is common")
    return replace(source, image_shape=(cut.size, cut.size, 3), reader=Cropped(source.reader, cut))


class Encoded(Protocol):
    """What a Cropped reads from."""

    def each(self, positions: np.ndarray, decode: Callable[[int, bytes], np.ndarray]) -> list:
        """What `decode(place, encoded)` makes of every image, or the DataError that names it."""


@dataclass(frozen=True)
class Cropped:
    """A `source.Reader` of squares cut from images of any size."""

    records: Encoded
    how: Cut

    def read(self, positions: np.ndarray) -> np.ndarray:
        """[n] int -> what evaluation sees of them, [n, size, size, 3] uint8.

        Raises DataError that names the first image that cannot be read.
        """
        images, wrong = self.cut(positions)
        if wrong:
            raise check.DataError(next(iter(wrong.values())))
        return images

    def keep(self, positions: np.ndarray) -> np.ndarray:
        raise check.ConfigError(check.sentence(
            "data.resident", "False for images of any size, whose crops change every epoch", True,
            "set data.resident=False"))

    def cut(
        self, positions: np.ndarray, draw: Callable[[int], tuple[int, int, int]] | None = None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """(images [n, size, size, 3] uint8, {place: why it could not be read}).

        `draw` says the (seed, epoch, index) by which the training crop of place 0..n-1 is drawn;
        none asks for what evaluation sees. Places that could not be read are zero.
        """
        images = np.zeros((len(positions), self.how.size, self.how.size, 3), np.uint8)
        wrong = {}

        def decode(place, encoded):
            if draw is None:
                return evaluation_crop(encoded, self.how)
            return training_crop(encoded, self.how, *draw(place))

        for place, found in enumerate(self.records.each(positions, decode)):
            if isinstance(found, check.DataError):
                wrong[place] = str(found)
            else:
                images[place] = found
        return images, wrong


# --- one image -----------------------------------------------------------------------------------


def training_crop(encoded: bytes, cut: Cut, seed: int, epoch: int, index: int) -> np.ndarray:
    """The random-resized crop of an image in an epoch: [size, size, 3] uint8.

    Of a baseline JPEG the rows below the box are not decoded, which changes no pixel of it; so an
    image that is cut off there is not noticed. The flip is the device's.
    """
    bits, at = crop_bits(seed, epoch, index), baseline_height(encoded)
    if at is None:
        picture = opened(encoded)
        return _resized(picture, random_box(bits, picture.height, picture.width), cut)
    height, width = (int.from_bytes(encoded[at + i : at + i + 2]) for i in (0, 2))
    box = random_box(bits, height, width)
    rows = height if _draft_helps(box, cut) else min(height, box[0] + box[2] + _MARGIN)
    shorter = b"".join((encoded[:at], rows.to_bytes(2), memoryview(encoded)[at + 2 :]))
    return _resized(opened(shorter), box, cut)


def evaluation_crop(encoded: bytes, cut: Cut) -> np.ndarray:
    """The centre of an image by the rule's own measure: [size, size, 3] uint8."""
    picture = opened(encoded)
    if cut.rule == "efficientnet":
        return _resized(
            picture, efficientnet_box(picture.height, picture.width, cut.size), cut)
    (_, _, tall, wide), (top, left, _, _) = resnet_boxes(picture.height, picture.width, cut.size)
    if cut.draft:
        picture.draft(None, (wide, tall))
    whole = _rgb(picture).resize((wide, tall), RULES[cut.rule])
    return np.asarray(whole.crop((left, top, left + cut.size, top + cut.size)))


def baseline_height(encoded: bytes) -> int | None:
    """Where the height stands in a baseline JPEG; None in all else.

    Two bytes, the width's behind them. Source: ITU-T T.81, B.2.2.
    """
    at = 2 if encoded[:2] == b"\xff\xd8" else len(encoded)
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker in _BASELINE and any(encoded[at + 5 : at + 7]):
            return at + 5
        if marker in _OTHERS:
            return None
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4])
    return None


def opened(encoded: bytes) -> Image.Image:
    """The image, not yet decoded. Raises what Pillow raises, in words that a person can read."""
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError as error:  # whose own words are an address in memory
        raise ValueError(f"{len(encoded)} bytes of no known kind") from error


def _draft_helps(box: Box, cut: Cut) -> bool:
    return cut.draft and min(box[2:]) >= 2 * cut.size


def _resized(picture: Image.Image, box: Box, cut: Cut) -> np.ndarray:
    """The box is cut out before it is resized, so nothing outside it is seen."""
    top, left, tall, wide = box
    if _draft_helps(box, cut):
        return _drafted(picture, box, cut)
    piece = _rgb(picture.crop((left, top, left + wide, top + tall)))
    return np.asarray(piece.resize((cut.size, cut.size), RULES[cut.rule]))


def _drafted(picture: Image.Image, box: Box, cut: Cut) -> np.ndarray:
    """The box resized from the smallest image that the decoder makes while the box keeps `size`."""
    (height, width), (top, left, tall, wide) = (picture.height, picture.width), box
    least = math.ceil(width * cut.size / wide), math.ceil(height * cut.size / tall)
    _, (_, _, across, down) = picture.draft(None, least) or (None, (0, 0, width, height))
    across, down = across / width, down / height
    return np.asarray(_rgb(picture).resize((cut.size, cut.size), RULES[cut.rule], (
        left * across, top * down, (left + wide) * across, (top + tall) * down)))


def _rgb(picture: Image.Image) -> Image.Image:
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # which copies
