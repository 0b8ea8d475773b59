"""16.16 matrices of the geometric operations, made on the host in float64 as Pillow makes them.

A matrix is [6] int32 (A0, A1, X0, A3, A4, Y0): pixel (x, y) of the result is pixel
((A0 x + A1 y + X0) >> 16, (A3 x + A4 y + Y0) >> 16) of the image. Source: spec B2, engine.md 5.
"""

import math

import numpy as np

from augjax.augment import bilinear

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def fixed(a: float, b: float, c: float, d: float, e: float, f: float) -> np.ndarray:
    """The inverse map (x, y) -> (a x + b y + c, d x + e y + f) taken at pixel centres, in 16.16."""
    numbers = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return np.array([math.floor(number * 65536.0 + 0.5) for number in numbers], np.int32)


def shear_x(slope: float) -> np.ndarray:
    """out(x, y) = in(x + slope y, y)."""
    return fixed(1.0, slope, 0.0, 0.0, 1.0, 0.0)


def shear_y(slope: float) -> np.ndarray:
    """out(x, y) = in(x, y + slope x)."""
    return fixed(1.0, 0.0, 0.0, slope, 1.0, 0.0)


def translate_x(pixels: float) -> np.ndarray:
    """out(x, y) = in(x + pixels, y)."""
    return fixed(1.0, 0.0, pixels, 0.0, 1.0, 0.0)


def translate_y(pixels: float) -> np.ndarray:
    """out(x, y) = in(x, y + pixels)."""
    return fixed(1.0, 0.0, 0.0, 0.0, 1.0, pixels)


def rotation(degrees: float, height: int, width: int) -> np.ndarray:
    """Counter-clockwise about (width / 2, height / 2); cosine and sine rounded to 15 digits."""
    angle = -math.radians(degrees % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2.0, height / 2.0
    return fixed(
        cosine, sine, -x * cosine - y * sine + x,
        -sine, cosine, x * sine - y * cosine + y,
    )


def snapped(matrix: np.ndarray, height: int, width: int) -> tuple[float, ...]:
    """What bilinear sampling makes of a 16.16 matrix, in floats: the six that Pillow must be given.

    See `augjax.augment.bilinear`: entries in 2^-10, offsets in 2^-11.
    """
    a, b, c, d, e, f = np.asarray(bilinear.snap(np.asarray(matrix), height, width)).tolist()
    return a / 1024, b / 1024, c / 2048, d / 1024, e / 1024, f / 2048
