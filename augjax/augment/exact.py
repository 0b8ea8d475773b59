"""Pillow's pixel arithmetic in integers and FMA-proof float32: the same bits on every backend.

Every function takes any leading shape, so that one image [H, W, C] and a batch [B, H, W, C] share
the rule. Values are 0..255 throughout; `uint8` goes in and out where an image is meant.
"""

import functools
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

GREY_WEIGHTS = (19595, 38470, 7471)  # ITU-R 601 luma in 16.16


def grey(image: jax.Array) -> jax.Array:
    """[..., C] uint8 -> [...] int32, Pillow's "L" of an RGB image; one channel is grey already."""
    channels = image.astype(jnp.int32)
    if image.shape[-1] == 1:
        return channels[..., 0]
    weighted = sum(w * channels[..., c] for c, w in enumerate(GREY_WEIGHTS))
    return (weighted + 0x8000) >> 16


def mean_grey(image: jax.Array) -> jax.Array:
    """[..., H, W, C] uint8 -> [...] int32, floor(mean + 1/2): the pivot of contrast.

    Written as floor(sum / n) and its remainder, since 2 * sum overflows above 4.2 million pixels.
    """
    pixels = image.shape[-3] * image.shape[-2]
    total = grey(image).sum((-2, -1), dtype=jnp.int32)
    whole = total // pixels
    return whole + (2 * (total - whole * pixels) >= pixels)


def blend(image: jax.Array, start: jax.Array, factor_bits: jax.Array) -> jax.Array:
    """clip(trunc(d + f (x - d))) in float32 with the product rounded first, as Pillow's C does.

    `factor_bits` is the int32 bit pattern of a float32 f >= 0. The rounded product is made of an
    exact 24-bit mantissa times |x - d| < 2^8, which fits uint32, and a power of two, which rounds
    nothing: no compiler can change the result by contracting the multiply and the add
    (engine.md 5, form b).
    """
    difference = image.astype(jnp.int32) - start.astype(jnp.int32)
    mantissa = ((factor_bits & 0x7FFFFF) | 0x800000).astype(jnp.uint32)
    exponent = jnp.maximum((factor_bits >> 23) - 23, 0)  # of 2^(e - 150); f < 2^-103 counts as 0
    scale = lax.bitcast_convert_type(exponent << 23, jnp.float32)
    product = (mantissa * jnp.abs(difference).astype(jnp.uint32)).astype(jnp.float32) * scale
    mixed = start.astype(jnp.float32) + jnp.where(difference < 0, -product, product)
    return jnp.clip(mixed, 0.0, 255.0).astype(jnp.uint8)


def smooth(image: jax.Array) -> jax.Array:
    """Pillow's SMOOTH filter: 3x3 ones with centre 5 over 13; border pixels are copied.

    [..., H, W, C] uint8 -> same. An image narrower than three pixels is all border.
    """
    *lead, height, width, channels = image.shape
    if height < 3 or width < 3:
        return image
    flat = image.reshape(*lead, height, width * channels)  # slices of long rows are fast on a CPU
    wide = flat.astype(jnp.int16)
    column = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    inner = slice(channels, -channels)
    box = column[..., : -2 * channels] + column[..., inner] + column[..., 2 * channels :]
    total = (box + 4 * wide[..., 1:-1, inner]).astype(jnp.int32)
    rounded = ((2 * total + 13) * 20165) >> 19  # = (2 total + 13) // 26 over the whole range
    start = (0,) * len(lead) + (1, channels)
    return lax.dynamic_update_slice(flat, rounded.astype(jnp.uint8), start).reshape(image.shape)


# --- look-up tables, one per channel ---------------------------------------------------------------


def darkest_and_brightest(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[..., H, W, C] uint8 -> ([..., C], [..., C]) int32; rows first, since XLA's CPU likes it."""
    *lead, height, width, channels = image.shape
    rows = image.reshape(*lead, height, width * channels)
    low = rows.min(-2).reshape(*lead, width, channels).min(-2)
    high = rows.max(-2).reshape(*lead, width, channels).max(-2)
    return low.astype(jnp.int32), high.astype(jnp.int32)


def autocontrast_table(low: jax.Array, high: jax.Array) -> jax.Array:
    """Look-up table of autocontrast for values low..high: [...] int32 twice -> [..., 256] int32.

    Pillow computes int(v * (255.0 / d) - low * (255.0 / d)), d = high - low, in float64. Where the
    quotient (v - low) * 255 / d is no integer, its floor agrees; where it is one, rounding decides,
    and a bit computed in float64 on the host says so. Identity where high <= low.
    """
    bits, offset_of, common_of = (jnp.asarray(part) for part in _autocontrast_bits())
    low, high = low[..., None], high[..., None]
    value = jnp.arange(256, dtype=jnp.int32)
    span = jnp.clip(high - low, 1, 255)
    step = jnp.clip(value - low, 0, span)
    scaled = step * 255
    quotient = ((scaled.astype(jnp.float32) + 0.5) * (1.0 / span.astype(jnp.float32))).astype(jnp.int32)
    common = common_of[span]  # gcd(255, span): the quotient is an integer that many times
    which = quotient * common // 255  # 1..common where it is
    position = jnp.clip(offset_of[span] + low * common + which - 1, 0, 32 * bits.shape[0] - 1)
    rounds_down = (bits[position >> 5] >> (position & 31)) & 1
    exact = (quotient * span == scaled) & (step > 0)
    return jnp.where(high > low, quotient - jnp.where(exact, rounds_down, 0), value)


@functools.cache
def _autocontrast_bits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bits packed in int32, first bit of each span [256], gcd(255, span) [256])."""
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
    packed = np.packbits(np.pad(flat, (0, -len(flat) % 32)), bitorder="little")
    return packed.view("<i4").astype(np.int32), offsets, commons


def equalize_table(histogram: jax.Array) -> jax.Array:
    """Look-up table of equalize: counts [..., 256] int32 -> [..., 256] int32.

    step = (n - count of the brightest value present) // 255; identity where step is 0, else
    min(255, (step // 2 + count of darker pixels) // step). Exact up to 2^24 pixels.
    """
    darker = _exclusive_sum(histogram)
    step = jnp.where(histogram > 0, darker, 0).max(-1, keepdims=True) // 255
    divisor = jnp.maximum(step, 1)
    dividend = step // 2 + darker
    guess = (dividend.astype(jnp.float32) * (1.0 / divisor.astype(jnp.float32))).astype(jnp.int32)
    guess = guess - (guess * divisor > dividend)
    guess = guess + ((guess + 1) * divisor <= dividend)
    value = jnp.arange(256, dtype=jnp.int32)
    return jnp.where(step > 0, jnp.minimum(guess, 255), value)


def _exclusive_sum(counts: jax.Array) -> jax.Array:
    """Exclusive prefix sum over 256 values, as two triangular products of 16 x 16 blocks.

    Whole numbers below 2^24 are exact in float32 at the highest precision.
    """
    triangle = jnp.asarray(np.triu(np.ones((16, 16), np.float32), 1))  # [j, i] = 1 where j < i
    blocks = counts.reshape(*counts.shape[:-1], 16, 16).astype(jnp.float32)
    product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    within = product(blocks, triangle)
    before = product(blocks.sum(-1)[..., None, :], triangle)[..., 0, :]
    return (within + before[..., None]).reshape(counts.shape).astype(jnp.int32)


def histogram(image: jax.Array) -> jax.Array:
    """[H, W, C] uint8 -> [C, 256] int32 counts, by scatter-add (fast on a CPU)."""
    channels = image.shape[-1]
    bins = image.reshape(-1, channels).astype(jnp.int32) + 256 * jnp.arange(channels, dtype=jnp.int32)
    counts = jnp.zeros(256 * channels, jnp.int32).at[bins].add(1, mode="promise_in_bounds")
    return counts.reshape(channels, 256)
