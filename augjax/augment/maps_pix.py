"""The map `pix`: RandAugment of dm-pix's operations alone.

The ranges are augjax's own choice, in the manner of timm's increasing set: every operation is the
identity at level 0 and grows with the level. What the operations mean, and how they differ from
Pillow's of similar names, stands in `augjax.augment.pix`; flips belong to the base pipelines.
"""

import math

from augjax.augment.levels import FINE, magnitude_map

PIX_OPS = (
    "pix_brightness", "pix_contrast", "pix_saturation", "pix_hue", "pix_gamma", "pix_solarize",
    "pix_gaussian_blur", "pix_rotate", "pix_affine",
)


def _pix(operation, level, sign, height, width):
    share = level / 10
    match operation:
        case "pix_brightness":  # added, of 0..1
            return sign * 0.5 * share
        case "pix_contrast" | "pix_saturation":
            return 1.0 + sign * 0.9 * share
        case "pix_hue":  # of a turn
            return sign * 0.1 * share
        case "pix_gamma":
            return 2.0 ** (sign * share)
        case "pix_solarize":  # just above 1, so that level 0 leaves white alone
            return 1.0 + 1 / 512 - share
        case "pix_gaussian_blur":  # pixels; the kernel is made for 2 of them
            return 2.0 * share
        case "pix_rotate":
            return math.radians(sign * 30.0 * share)
        case "pix_affine":  # a shear along x about the centre, on (row, column) indices
            slope = sign * 0.3 * share
            return 1.0, 0.0, 0.0, slope, 1.0, -slope * (height - 1) / 2
    raise AssertionError(operation)


PIX = magnitude_map(
    "pix", _pix, PIX_OPS, highest=10, steps=FINE, keeps_at_zero=PIX_OPS,
    size_rule="the blur is in pixels; nothing else depends on the size",
)
