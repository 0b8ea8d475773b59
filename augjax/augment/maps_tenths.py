"""The maps of TensorFlow's, timm's and the AutoAugment and PBA authors' code: a level is m / 10.

Each map is a table from an operation to its value, written in the order in which the peer computes
it, since int() of a product shows the last bit. `m` is the level, `s` the sign, `h` and `w` the
image's size. Source: spec B3 (i), (ii), (v), B4.
"""

from collections.abc import Callable, Mapping

from augjax.augment.levels import FINE, magnitude_map, Value

BLENDS = ("color", "contrast", "brightness", "sharpness")
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TIMM_OPS = (
    "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add",
    *BLENDS, *MOVES[:4],
)
TF_OPS = (*TIMM_OPS, "cutout")
PBA_OPS = (  # spec P1: this order is the order of a policy's entries
    "rotate", "translate_x", "translate_y", "brightness", "color", "invert", "sharpness",
    "posterize", "shear_x", "solarize", "shear_y", "equalize", "autocontrast", "cutout", "contrast",
)
PIXELS = "translations and cutouts are in pixels whatever the image's size"

Formula = Callable[[float, float, int, int], object]


def _values(table: Mapping[str, Formula]) -> Value:
    """A map's `value` from {operation: (m, s, h, w) -> value}; an operation may be missing."""

    def value(operation, m, s, h, w):
        return table[operation](m, s, h, w) if operation in table else None

    return value


def _all(names: tuple[str, ...], formula: Formula) -> dict[str, Formula]:
    return dict.fromkeys(names, formula)


def _square(half: int) -> tuple[int, int, int, int]:
    return -half, -half, half, half


# --- what the peers share ------------------------------------------------------------------------

TURNED = {
    "rotate": lambda m, s, h, w: s * (m / 10 * 30),
    **_all(("shear_x", "shear_y"), lambda m, s, h, w: s * (m / 10 * 0.3)),
}
WEAKER = {  # posterize and solarize grow weaker with the level; blends cross the identity at 5
    "posterize": lambda m, s, h, w: min(8, int(m / 10 * 4)),
    "solarize": lambda m, s, h, w: min(256, int(m / 10 * 256)),
    **_all(BLENDS, lambda m, s, h, w: m / 10 * 1.8 + 0.1),
}
STRONGER = {  # timm's inc1
    "posterize": lambda m, s, h, w: max(0, 4 - int(m / 10 * 4)),
    "solarize": lambda m, s, h, w: 256 - min(256, int(m / 10 * 256)),
    **_all(BLENDS, lambda m, s, h, w: max(0.1, 1.0 + s * (m / 10 * 0.9))),
}


def _tf(translate: float, cutout: float) -> dict[str, Formula]:
    """TensorFlow's constants of pixels: TPU models' `translate_const` and `cutout_const`."""
    return {
        **TURNED,
        "solarize_add": lambda m, s, h, w: int(m / 10 * 110),
        **_all(("translate_x", "translate_y"), lambda m, s, h, w: s * (m / 10 * translate)),
        "cutout": lambda m, s, h, w: _square(int(m / 10 * cutout)),
    }


TIMM_MOVED = {
    **TURNED,
    "solarize_add": lambda m, s, h, w: min(128, int(m / 10 * 110)),
    "translate_x": lambda m, s, h, w: s * (m / 10 * 0.45) * w,
    "translate_y": lambda m, s, h, w: s * (m / 10 * 0.45) * h,
}

# --- the maps ------------------------------------------------------------------------------------

KEPT = (*MOVES, "solarize_add")

TF = magnitude_map(  # past 10 every formula but bits and thresholds goes on
    "tf", _values(_tf(100, 40) | WEAKER), TF_OPS, highest=40,
    keeps_at_zero=(*KEPT, "cutout"), size_rule=PIXELS,
)
TF_MONOTONE = magnitude_map(  # posterize, solarize and blends as timm's inc1, past 10 too
    "tf_monotone", _values(_tf(100, 40) | STRONGER), TF_OPS, highest=40,
    keeps_at_zero=(*KEPT, "cutout", "solarize", *BLENDS), size_rule=PIXELS,
)
TF_AUTOAUGMENT = magnitude_map(  # the same file's constants for AutoAugment's v0
    "tf_autoaugment", _values(_tf(250, 100) | WEAKER), TF_OPS, highest=10,
    keeps_at_zero=(*KEPT, "cutout"), size_rule=PIXELS,
)

# timm resamples each geometric operation bilinear or bicubic at random; the engine's own
# sampling takes that place here, nearest unless asked otherwise.
SHARES = "translations are shares of the image's own width and height"
TIMM = magnitude_map(
    "timm", _values(TIMM_MOVED | WEAKER), TIMM_OPS, highest=10, steps=FINE,
    keeps_at_zero=KEPT, size_rule=SHARES,
)
TIMM_INC = magnitude_map(
    "timm_inc", _values(TIMM_MOVED | STRONGER), TIMM_OPS, highest=10, steps=FINE,
    keeps_at_zero=(*KEPT, "solarize", *BLENDS), size_rule=SHARES,
)
TIMM_ORIGINAL = magnitude_map(  # timm's AutoAugment "original"
    "timm_original",
    _values(TIMM_MOVED | WEAKER | {
        "posterize": lambda m, s, h, w: int(m / 10 * 4) + 4,
        **_all(("translate_x", "translate_y"), lambda m, s, h, w: s * (m / 10 * 250.0)),
    }),
    TIMM_OPS, highest=10, steps=FINE, keeps_at_zero=KEPT,
    size_rule="translations are in pixels whatever the image's size",
)

AUTOAUGMENT = magnitude_map(  # the searching authors' own, and PBA's
    "autoaugment",
    _values({
        "rotate": lambda m, s, h, w: s * int(m * 30 / 10),
        **_all(("shear_x", "shear_y"), lambda m, s, h, w: s * (m * 0.3 / 10)),
        **_all(("translate_x", "translate_y"), lambda m, s, h, w: s * int(m * 10 / 10)),
        "posterize": lambda m, s, h, w: 4 - int(m * 4 / 10),
        "solarize": lambda m, s, h, w: 256 - int(m * 256 / 10),
        **_all(BLENDS, lambda m, s, h, w: m * 1.8 / 10 + 0.1),
        "cutout": lambda m, s, h, w: _square(int(m * 20 / 10) // 2),
    }),
    PBA_OPS, highest=10, keeps_at_zero=(*MOVES, "solarize", "cutout"), size_rule=PIXELS,
)
