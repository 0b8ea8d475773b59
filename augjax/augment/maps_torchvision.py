"""The maps of torchvision's RandAugment, AutoAugment and TrivialAugment-Wide.

All three read bins that torch.linspace makes. Source: spec B3 (iii), B4, B6.
"""

import numpy as np

from augjax.augment.levels import magnitude_map, Value

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDS = ("brightness", "color", "contrast", "sharpness")
OPS = ("identity", *MOVES, *BLENDS, "posterize", "solarize", "autocontrast", "equalize")
# Solarize at level 0 has threshold 255: it turns pure white black, as torchvision does.
KEPT = (*MOVES, *BLENDS, "posterize")


def linspace(start: float, stop: float, count: int) -> np.ndarray:
    """[count] float32 as torch.linspace makes it: float32 steps from both ends to the middle.

    Its multiply and add are one instruction, rounded once; float64 holds both exactly.
    """
    step = np.float64((np.float32(stop) - np.float32(start)) / np.float32(count - 1))
    index = np.arange(count)
    rising = np.float32(start) + step * index
    falling = np.float32(stop) - step * (count - 1 - index)
    return np.where(index < count // 2, rising, falling).astype(np.float32)


def _binned(bins: int, degrees: float, slope: float, blend: float, bits: int, pixels) -> Value:
    """Values of `bins` bins whose last means `degrees`, `slope`, ...; `pixels(side)` for shifts."""

    def value(operation, level, sign, height, width):
        def bin_of(stop, start=0.0):  # torchvision keeps float32 bins and computes on in float64
            return float(linspace(start, stop, bins)[level])

        match operation:
            case "rotate":
                return sign * bin_of(degrees)
            case "shear_x" | "shear_y":
                return sign * bin_of(slope)
            case "translate_x":
                return int(sign * bin_of(pixels(width)))
            case "translate_y":
                return int(sign * bin_of(pixels(height)))
            case "brightness" | "color" | "contrast" | "sharpness":
                return 1.0 + sign * bin_of(blend)
            case "posterize":
                return 8 - round(level / ((bins - 1) / bits))
            case "solarize":
                return bin_of(0.0, start=255.0)
        return None

    return value


def _share(side):
    return 150.0 / 331.0 * side


TORCHVISION = magnitude_map(
    "torchvision", _binned(31, 30.0, 0.3, 0.9, 4, _share), OPS, highest=30,
    keeps_at_zero=("identity", *KEPT),
    size_rule="translations are shares of the image's own width and height",
)

TORCHVISION_AA = magnitude_map(
    "torchvision_aa", _binned(10, 30.0, 0.3, 0.9, 4, _share), (*OPS[1:], "invert"), highest=9,
    keeps_at_zero=KEPT, size_rule=TORCHVISION.size_rule,
)

TRIVIAL_WIDE = magnitude_map(
    "trivial_wide", _binned(31, 135.0, 0.99, 0.99, 6, lambda side: 32.0), OPS, highest=30,
    keeps_at_zero=("identity", *KEPT),
    size_rule="translations are up to 32 pixels whatever the image's size",
)
