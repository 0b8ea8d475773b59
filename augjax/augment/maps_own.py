"""The maps of ildoonet's RandAugment and of the outliers' self-designed space.

Source: spec B3 (iv); circumventing_outliers 4.1 and spec B5.
"""

import functools
import math

from augjax.augment.levels import FINE, from_a_corner, inside, magnitude_map

# --- ildoonet: value = M / 30 (top - bottom) + bottom --------------------------------------------

ILDOONET_OPS = (
    "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "add_solarize",
    "color", "contrast", "brightness", "sharpness", "shear_x", "shear_y", "cutout", "translate_x",
    "translate_y",
)
TOPS = {
    "rotate": 30, "posterize": 4, "solarize": 256, "add_solarize": 110, "shear_x": 0.3,
    "shear_y": 0.3, "translate_x": 100.0, "translate_y": 100.0, "cutout": 40,
}
BLENDS = ("color", "contrast", "brightness", "sharpness")
SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
REFERENCE = 331  # pixels a side of the images that its 100 and 40 pixels were meant for


def _ildoonet(operation, level, sign, height, width, sized):
    """A cutout's sides are v pixels, placed by `from_a_corner`."""
    if operation in BLENDS:
        return level / 30 * (1.9 - 0.1) + 0.1
    if operation not in TOPS:
        return None
    value = level / 30 * float(TOPS[operation])
    if sized:
        side = {"translate_x": width, "translate_y": height, "cutout": min(height, width)}
        value *= side.get(operation, REFERENCE) / REFERENCE
    if operation == "cutout":
        half, covered = round(value / 2 * 65536), int(value) + 1  # Pillow draws both its edges
        return half, half, covered, covered
    if operation == "posterize":
        return int(value)
    return sign * value if operation in SIGNED else value


ILDOONET = magnitude_map(
    "ildoonet", functools.partial(_ildoonet, sized=False), ILDOONET_OPS, highest=30,
    keeps_at_zero=SIGNED, place=from_a_corner,
    size_rule="translations and cutouts are in pixels whatever the image's size",
)
ILDOONET_SIZED = magnitude_map(
    "ildoonet_sized", functools.partial(_ildoonet, sized=True), ILDOONET_OPS, highest=30,
    keeps_at_zero=SIGNED, place=from_a_corner,
    size_rule=f"ildoonet's pixels times width, height or (cutout) shorter side / {REFERENCE}",
)

# --- the outliers' space: M = 10 of any operation leaves nothing of the image --------------------

OUTLIERS_OPS = ("shear_x", "shear_y", "translate_x", "translate_y", "cutout")


def _outliers(operation, level, sign, height, width):
    share = level / 10  # of the image that is lost
    match operation:
        case "translate_x":
            return sign * share * width
        case "translate_y":
            return sign * share * height
        case "shear_x":
            return sign * _slope(share, height, width)
        case "shear_y":
            return sign * _slope(share, width, height)
        case "cutout":
            return 0, 0, round(share * width), round(share * height)


def _slope(share, along, across):
    """The slope at which 1 - `share` of the pixels stay, pivot at a corner; infinite at 1.

    Between levels 9 and 10 it stops where 16.16 coordinates would leave int32.
    """
    if share >= 1:
        return math.inf
    slope = 2 * share if share <= 0.5 else 1 / (2 * (1 - share))
    return min(slope * across / along, (32767 - across) / along - 1)


OUTLIERS = magnitude_map(
    "outliers", _outliers, OUTLIERS_OPS, highest=10, steps=FINE, keeps_at_zero=OUTLIERS_OPS,
    place=inside, size_rule="a level is tenths of the image that are lost, whatever its size",
)
