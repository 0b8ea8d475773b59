"""dm-pix's operations as entries of the one table: uint8 in and out, floats between.

Pixels are divided by 255, given to dm-pix, clipped to 0..1, multiplied by 255 and rounded half up
(see HALF). They mean something else than Pillow's of similar names:

    pix_brightness   adds `delta`                           Pillow multiplies
    pix_contrast     pivots on every channel's own mean     Pillow on the rounded mean grey
    pix_saturation   scales S of HSV, up to 1               Pillow blends with the greys
    pix_hue          turns H of HSV by `turns`              Pillow has none
    pix_gamma        v ^ gamma                              Pillow has none
    pix_solarize     inverts from a share of 1 on           Pillow from a pixel value on
    pix_rotate       about ((W-1)/2, (H-1)/2), radians,     Pillow truncates and takes the nearest
                     neighbours outside are the fill        inside for what is half outside
    pix_affine       matrix on (row, column) indices        Pillow's on (x, y) of pixel centres

Being floats, they may differ between lowerings by 1 where a value lies at the edge of a half: fewer
than 1 in 1,000 values in the tests. Geometry takes dm-pix's order 0 under nearest sampling and
order 1 under bilinear; the latter is 50 times slower than Pillow's forms on a CPU (engine.md 4). A
grey image (one channel) has no hue or saturation and keeps its values. Source: dm_pix 0.4.5.
"""

import dm_pix
import jax
from jax import lax
import jax.numpy as jnp

from augjax.augment.rows import Branch, colour, Fill, floats, GREY, plain, real, unpack_fill

HALF = 1 / 1024  # exact halves are common (a delta of 0.1 is 25.5): they must not hang on an ulp
BLUR_PIXELS = 13  # the blur's kernel: three standard deviations of 2 pixels, and the middle


def to_float(image: jax.Array) -> jax.Array:
    """uint8 -> float32 in 0..1."""
    return image.astype(jnp.float32) / 255.0


def to_pixels(image: jax.Array) -> jax.Array:
    """float32 -> uint8: clipped to 0..1, rounded half up, as is what lies within HALF below."""
    return (jnp.clip(image, 0.0, 1.0) * 255.0 + (0.5 + HALF)).astype(jnp.uint8)


def pix_flip_left_right(image: jax.Array) -> jax.Array:
    """Mirrors [H, W, C] uint8 left to right; exact."""
    return dm_pix.flip_left_right(image)


def pix_flip_up_down(image: jax.Array) -> jax.Array:
    """Mirrors [H, W, C] uint8 upside down; exact."""
    return dm_pix.flip_up_down(image)


def pix_brightness(image: jax.Array, delta: jax.Array) -> jax.Array:
    """v + delta, v in 0..1."""
    return to_pixels(dm_pix.adjust_brightness(to_float(image), delta))


def pix_contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """mean + factor (v - mean), the mean being each channel's own."""
    return to_pixels(dm_pix.adjust_contrast(to_float(image), factor))


def pix_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """S of HSV times factor, at most 1."""
    if image.shape[-1] == 1:
        return image
    return to_pixels(dm_pix.adjust_saturation(to_float(image), factor))


def pix_hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """H of HSV plus `turns`, 1 being the whole circle."""
    if image.shape[-1] == 1:
        return image
    return to_pixels(dm_pix.adjust_hue(to_float(image), turns))


def pix_gamma(image: jax.Array, gamma: jax.Array) -> jax.Array:
    """v ^ gamma, v in 0..1."""
    return to_pixels(dm_pix.adjust_gamma(to_float(image), gamma))


def pix_solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """1 - v from `threshold` (a share of 1) on; above 1 the identity."""
    return to_pixels(dm_pix.solarize(to_float(image), threshold))


def pix_gaussian_blur(image: jax.Array, sigma: jax.Array) -> jax.Array:
    """Blurs by a Gaussian of `sigma` pixels cut at BLUR_PIXELS; black comes in from outside.

    dm-pix's convolution written as two banded matrix products: a convolution inside a loop over
    images is 20 times slower on a CPU. `sigma` 0 is the identity.
    """
    height, width, _ = image.shape
    reach = jnp.arange(-(BLUR_PIXELS // 2), BLUR_PIXELS // 2 + 1, dtype=jnp.float32)
    weights = jnp.exp(-(reach**2) / (2.0 * jnp.maximum(sigma, 1e-3) ** 2))
    weights = weights / weights.sum()

    def band(size):
        distance = jnp.abs(jnp.arange(size)[:, None] - jnp.arange(size)) + BLUR_PIXELS // 2
        return jnp.where(distance < BLUR_PIXELS, weights[jnp.minimum(distance, BLUR_PIXELS - 1)], 0)

    blurred = jnp.einsum(
        "yv,vuc,xu->yxc", band(height), to_float(image), band(width),
        precision=lax.Precision.HIGHEST,
    )
    return to_pixels(blurred)


def pix_rotate(
    image: jax.Array, radians: jax.Array, fill: Fill = GREY, order: int = 0
) -> jax.Array:
    """Turns counter-clockwise; `order` 0 samples the nearest pixel, 1 four of them."""

    def turn(image):
        return dm_pix.rotate(image, radians, order=order, mode="constant")

    return _about_fill(turn, image, fill)


def pix_affine(
    image: jax.Array, matrix: jax.Array, fill: Fill = GREY, order: int = 0
) -> jax.Array:
    """out(y, x) = in(m0 y + m1 x + m2, m3 y + m4 x + m5), indices of rows and columns.

    `matrix` is [6] float32; `order` 0 samples the nearest pixel, 1 four of them.
    """
    rest = jnp.array([[0.0, 0.0, 1.0]])
    pairs = matrix.reshape(2, 3)
    linear = jnp.concatenate([jnp.pad(pairs[:, :2], ((0, 0), (0, 1))), rest])
    offset = jnp.append(pairs[:, 2], 0.0)

    def move(image):
        return dm_pix.affine_transform(image, linear, offset=offset, order=order, mode="constant")

    return _about_fill(move, image, fill)


def _about_fill(move, image, fill):
    """Moves differences from the fill, so that 0 comes in: dm-pix takes one static colour."""
    value = to_float(colour(fill, image.shape[-1]))
    return to_pixels(move(to_float(image) - value) + value)


def _rotate(order: int) -> Branch:
    return lambda image, row: pix_rotate(
        image, floats(row, 1)[0], unpack_fill(row, image.shape[-1]), order)


def _affine(order: int) -> Branch:
    return lambda image, row: pix_affine(
        image, floats(row, 6), unpack_fill(row, image.shape[-1]), order)


PIX: dict[str, Branch] = {
    "pix_flip_left_right": plain(pix_flip_left_right),
    "pix_flip_up_down": plain(pix_flip_up_down),
    "pix_brightness": real(pix_brightness),
    "pix_contrast": real(pix_contrast),
    "pix_saturation": real(pix_saturation),
    "pix_hue": real(pix_hue),
    "pix_gamma": real(pix_gamma),
    "pix_solarize": real(pix_solarize),
    "pix_gaussian_blur": real(pix_gaussian_blur),
    "pix_rotate": _rotate(order=0),
    "pix_affine": _affine(order=0),
}
PIX_BILINEAR: dict[str, Branch] = {"pix_rotate": _rotate(order=1), "pix_affine": _affine(order=1)}
