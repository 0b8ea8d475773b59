"""Pillow's pixel arithmetic in integers and FMA-proof float32: the same bits on every backend.

Every function takes any leading shape, so that one image [H, W, C] and a batch [B, H, W, C] share
the rule. Values are 0..255 throughout; `uint8` goes in and out where an image is meant.
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

Pick = Callable[[jax.Array, jax.Array], jax.Array]
SIGN = np.int32(-(2**31))
GREY_WEIGHTS = (19595, 38470, 7471)  # ITU-R 601 luma in 16.16


def grey(image: jax.Array) -> jax.Array:
    """[..., C] uint8 -> [...] int32, Pillow's "L" of an RGB image; one channel is grey already."""
    channels = image.astype(jnp.int32)  # then sliced: on a CPU three times faster than before
    return luma([channels[..., c] for c in range(image.shape[-1])])


def luma(channels: Sequence[jax.Array]) -> jax.Array:
    """One or three channels, int32 -> their grey, int32."""
    if len(channels) == 1:
        return channels[0]
    weighted = sum(w * channel for w, channel in zip(GREY_WEIGHTS, channels, strict=True))
    return (weighted + 0x8000) >> 16


def mean_grey(image: jax.Array) -> jax.Array:
    """[..., H, W, C] uint8 -> [...] int32, the pivot of contrast."""
    return rounded_mean(grey(image))


def rounded_mean(plane: jax.Array) -> jax.Array:
    """[..., H, W] int32 of 0..255 -> [...] int32, floor(mean + 1/2)."""
    return mean_of_rows(plane.sum(-1, dtype=jnp.int32), plane.shape[-1])


def mean_of_rows(sums: jax.Array, width: int) -> jax.Array:
    """floor(mean + 1/2) of rows of `width` values 0..255: their sums [..., H] int32 -> [...] int32.

    Quotients and remainders are summed apart: the sum of all values leaves int32 above 8.4 million
    of them, while nothing here reaches 2^29 up to 8192 x 8192.
    """
    height, pixels = sums.shape[-1], sums.shape[-1] * width
    whole, rest = (part.sum(-1, dtype=jnp.int32) for part in jnp.divmod(sums, width))
    mean, left = jnp.divmod(whole, height)  # all values sum to mean * pixels + left * width + rest
    return mean + (2 * (left * width + rest) + pixels) // (2 * pixels)


def blend(image: jax.Array, start: jax.Array, factor_bits: jax.Array) -> jax.Array:
    """clip(trunc(d + f (x - d))) in float32 with the product rounded first, as Pillow's C does.

    `factor_bits` is the int32 bit pattern of a float32 f >= 0. The product f |x - d| takes its sign
    as an integer's bit, so that no compiler can contract the multiply and the add into one rounding
    (which would change up to 1 in 1,000 values at round factors: engine.md 5).
    """
    difference = image.astype(jnp.int32) - start.astype(jnp.int32)
    factor = lax.bitcast_convert_type(factor_bits, jnp.float32)
    product = factor * jnp.abs(difference).astype(jnp.float32)
    signed = lax.bitcast_convert_type(product, jnp.int32) ^ (difference & SIGN)
    mixed = start.astype(jnp.float32) + lax.bitcast_convert_type(signed, jnp.float32)
    return jnp.clip(mixed.astype(jnp.int32), 0, 255).astype(jnp.uint8)  # cheaper than of floats


def smooth(image: jax.Array) -> jax.Array:
    """Pillow's SMOOTH filter: 3x3 ones with centre 5 over 13; border pixels are copied.

    [..., H, W, C] uint8 -> same. An image narrower than three pixels is all border.
    """
    return _inside_the_border(image, lambda inner, smoothed: smoothed.astype(jnp.uint8))


def sharpen(image: jax.Array, factor_bits: jax.Array) -> jax.Array:
    """Blends [H, W, C] uint8 with its `smooth`; a border pixel is both, so it stays."""
    if image.shape[-2] < 64:  # what is left of short rows is done value by value: slower than twice
        return blend(image, smooth(image), factor_bits)
    return _inside_the_border(image, lambda inner, smoothed: blend(inner, smoothed, factor_bits))


def _inside_the_border(image, change):
    """Puts change(pixels [..., H - 2, (W - 2) * C] uint8, smoothed int32) inside the border."""
    *lead, height, width, channels = image.shape
    if height < 3 or width < 3:
        return image
    flat = image.reshape(*lead, height, width * channels)  # slices of long rows are fast on a CPU
    wide = flat.astype(jnp.int16)
    column = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    inner = slice(channels, -channels)
    box = column[..., : -2 * channels] + column[..., inner] + column[..., 2 * channels :]
    total = (box + 4 * wide[..., 1:-1, inner]).astype(jnp.int32)
    smoothed = ((2 * total + 13) * 20165) >> 19  # = (2 total + 13) // 26 over the whole range
    start = (0,) * len(lead) + (1, channels)
    changed = change(flat[..., 1:-1, inner], smoothed)
    return lax.dynamic_update_slice(flat, changed, start).reshape(image.shape)


# --- look-up tables, one per channel -------------------------------------------------------------


def darkest_and_brightest(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[..., H, W, C] uint8 -> ([..., C], [..., C]) int32; rows first, since XLA's CPU likes it."""
    *lead, height, width, channels = image.shape
    rows = image.reshape(*lead, height, width * channels)
    low = _over_columns(rows.min(-2), channels, jnp.minimum)
    high = _over_columns(rows.max(-2), channels, jnp.maximum)
    return low.astype(jnp.int32), high.astype(jnp.int32)


def _over_columns(row, channels, smaller):
    """[..., W * C] -> [..., C], by halves while even: seven times faster than by threes."""
    while row.shape[-1] % (2 * channels) == 0:
        half = row.shape[-1] // 2
        row = smaller(row[..., :half], row[..., half:])
    return smaller.reduce(row.reshape(*row.shape[:-1], -1, channels), axis=-2)


class Stretch(NamedTuple):
    """What autocontrast does to a channel whose values lie between low and high, each [...]."""

    low: jax.Array  # int32
    span: jax.Array  # int32, high - low
    reciprocal: jax.Array  # float32, 1 / span
    share: jax.Array  # float32, gcd(255, span) / 255
    lower: tuple[jax.Array, ...]  # 3 of uint32: bit j - 1 says that Pillow's j-th integer is 1 less


def gathered(table: jax.Array, index: jax.Array) -> jax.Array:
    """table[index]."""
    return table[index]


def stretch_of(low: jax.Array, high: jax.Array, pick: Pick = gathered) -> Stretch:
    """[...] int32 twice -> Stretch of [...]; the identity where high <= low.

    `pick` is how the backend finds single numbers in a table.
    """
    bits, offset_of, common_of = (jnp.asarray(part) for part in _autocontrast_bits())
    span = jnp.where(high > low, high - low, 255)
    low = jnp.where(high > low, low, 0)
    common = pick(common_of, span)
    first = pick(offset_of, span) + low * common
    shift = (first & 31).astype(jnp.uint32)
    words = [pick(bits, (first >> 5) + k) for k in range(4)]
    lower = []
    for k in range(3):  # bits `first` to `first + common` of the table, 85 at most
        kept = jnp.clip(common - 32 * k, 0, 32).astype(jnp.uint32)
        word = (words[k] >> shift) | ((words[k + 1] << 1) << (31 - shift))
        lower.append(jnp.where(kept > 0, word & (~jnp.uint32(0) >> (32 - jnp.maximum(kept, 1))), 0))
    lower = tuple(jnp.where(span < 255, word, 0) for word in lower)
    common = common.astype(jnp.float32)
    return Stretch(low, span, 1.0 / span.astype(jnp.float32), common / 255.0, lower)


def stretch_quickly(value: jax.Array, by: Stretch) -> jax.Array:
    """floor((v - low) 255 / span), int32: Pillow's value wherever no bit of `by.lower` is set."""
    scaled = (value.astype(jnp.int32) - by.low) * 255
    return ((scaled.astype(jnp.float32) + 0.5) * by.reciprocal).astype(jnp.int32)


def stretch(value: jax.Array, by: Stretch) -> jax.Array:
    """Pillow's autocontrast of values low..high: uint8 -> int32, `by` broadcast against them.

    Pillow computes int(v * (255.0 / d) - low * (255.0 / d)), d = high - low, in float64. Where the
    quotient (v - low) * 255 / d is no integer, its floor agrees; where it is one, rounding decides,
    and a bit computed in float64 on the host says so. The j-th such integer of d's gcd(255, d)
    takes the j-th bit; d = 255 has none set.
    """
    quotient = stretch_quickly(value, by)
    step = value.astype(jnp.int32) - by.low
    which = ((quotient.astype(jnp.float32) + 0.5) * by.share).astype(jnp.int32) - 1
    at = jnp.maximum(which, 0).astype(jnp.uint32)
    word = jnp.where(at < 32, by.lower[0], jnp.where(at < 64, by.lower[1], by.lower[2]))
    lower = ((word >> (at & 31)) & 1).astype(jnp.int32)
    exact = (quotient * by.span == step * 255) & (step > 0)
    return quotient - jnp.where(exact, lower, 0)


def autocontrast_table(low: jax.Array, high: jax.Array, pick: Pick = gathered) -> jax.Array:
    """Look-up table of autocontrast for channels of values low..high: [...] -> [..., 256] int32."""
    by = jax.tree.map(lambda number: number[..., None], stretch_of(low, high, pick))
    return stretch(jnp.arange(256, dtype=jnp.int32), by)


@functools.cache
def _autocontrast_bits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bits packed in uint32, first bit of each span [256], gcd(255, span) [256])."""
    bits, offsets, commons = [], np.zeros(256, np.int32), np.ones(256, np.int32)
    for span in range(1, 256):
        common = math.gcd(255, span)
        offsets[span], commons[span] = sum(map(len, bits)), common
        low = np.arange(256 - span)[:, None]
        which = np.arange(1, common + 1)[None]
        scale = 255.0 / span
        pillow = ((low + which * (span // common)) * scale + -low * scale).astype(np.int64)
        bits.append((which * (255 // common) - pillow).astype(np.uint8).ravel())
    flat = np.concatenate(bits)
    packed = np.packbits(np.pad(flat, (0, -len(flat) % 32 + 128)), bitorder="little")
    return packed.view("<u4").astype(np.uint32), offsets, commons


def equalized(value: jax.Array, darker: jax.Array, below: jax.Array) -> jax.Array:
    """Where equalize sends `value`, int32, all shapes broadcast. Exact up to 2^24 pixels.

    `darker` counts the channel's pixels below `value`, `below` those below its brightest value.
    step = below // 255; identity where step is 0, else min(255, (step // 2 + darker) // step).
    """
    step = below // 255
    divisor = jnp.maximum(step, 1)
    dividend = step // 2 + darker
    guess = (dividend.astype(jnp.float32) * (1.0 / divisor.astype(jnp.float32))).astype(jnp.int32)
    guess = guess - (guess * divisor > dividend)
    guess = guess + ((guess + 1) * divisor <= dividend)
    return jnp.where(step > 0, jnp.minimum(guess, 255), value)


def equalize_table(darker: jax.Array, pixels: int) -> jax.Array:
    """Look-up table of equalize: [..., 256] int32, how many of a channel's pixels lie below."""
    below = jnp.where(darker < pixels, darker, 0).max(-1, keepdims=True)
    return equalized(jnp.arange(256, dtype=jnp.int32), darker, below)
