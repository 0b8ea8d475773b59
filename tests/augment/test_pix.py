"""dm-pix's operations as rows of the table: their pixels, their level 0, every lowering."""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pillow_oracle as pillow
import pytest

from augjax import augment
from augjax.augment import maps, ops, pix

IMAGE = pillow.pictures(33, 47, 3)[3]
PIX = maps.MAPS["pix"]
FLOAT = jnp.asarray(IMAGE, jnp.float32) / 255


def in_pixels(image):
    return np.floor(np.clip(np.asarray(image, np.float64), 0, 1) * 255 + 0.5 + pix.HALF).astype(int)


def off(ours, theirs):
    """(largest difference, share of values that differ)."""
    difference = np.abs(np.asarray(ours).astype(int) - theirs)
    return difference.max(), (difference > 0).mean()


@pytest.mark.parametrize("ours, theirs", [
    (pix.pix_flip_left_right(IMAGE), dm_pix.flip_left_right(FLOAT)),
    (pix.pix_flip_up_down(IMAGE), dm_pix.flip_up_down(FLOAT)),
    (pix.pix_brightness(IMAGE, -0.3), dm_pix.adjust_brightness(FLOAT, -0.3)),
    (pix.pix_contrast(IMAGE, 1.7), dm_pix.adjust_contrast(FLOAT, 1.7)),
    (pix.pix_saturation(IMAGE, 0.4), dm_pix.adjust_saturation(FLOAT, 0.4)),
    (pix.pix_hue(IMAGE, 0.1), dm_pix.adjust_hue(FLOAT, 0.1)),
    (pix.pix_gamma(IMAGE, 1.8), dm_pix.adjust_gamma(FLOAT, 1.8)),
    (pix.pix_solarize(IMAGE, 0.4), dm_pix.solarize(FLOAT, 0.4)),
    (pix.pix_gaussian_blur(IMAGE, 1.3), dm_pix.gaussian_blur(FLOAT, 1.3, pix.BLUR_PIXELS)),
], ids=[name for name in pix.PIX if name not in pix.PIX_BILINEAR])
def test_the_pixels_are_dm_pix_own(ours, theirs):
    largest, share = off(ours, in_pixels(theirs))
    assert largest <= 1 and share < 1e-3  # a float at a half may fall to either side


@pytest.mark.parametrize("order", [0, 1])
def test_geometry_brings_in_the_fill(order):
    fill = np.array([3, 130, 255], np.uint8)
    matrix = np.array([1.0, 0.1, -2.0, 0.2, 0.9, 3.0], np.float32)
    turned = pix.pix_rotate(IMAGE, 0.4, fill, order)
    moved = pix.pix_affine(IMAGE, matrix, fill, order)
    whole = jnp.zeros((3, 4)).at[:2, jnp.array([0, 1, 3])].set(matrix.reshape(2, 3)).at[2, 2].set(1)
    for channel, value in enumerate(fill):
        options = {"order": order, "mode": "constant", "cval": float(value) / 255}
        one = FLOAT[..., channel : channel + 1]
        for ours, theirs in ((turned, dm_pix.rotate(one, 0.4, **options)),
                             (moved, dm_pix.affine_transform(one, whole, **options))):
            largest, share = off(ours[..., channel], in_pixels(theirs)[..., 0])
            assert largest <= 1 and share < 1e-2


@pytest.mark.parametrize("shape", [(32, 32, 3), (33, 47, 3), (9, 6, 1)], ids=str)
def test_level_zero_is_the_identity(shape):
    images = np.concatenate([pillow.pictures(*shape)] * 2)
    for name in PIX.keeps_at_zero:
        op = jnp.full((len(images), 1), PIX.ops.index(name), jnp.int32)
        sign = (jnp.arange(len(images), dtype=jnp.uint32) << 31)[:, None]
        rows = PIX.rows(*shape[:2])(op, jnp.zeros(op.shape), maps.Draws(sign, sign, sign))
        done = jax.jit(augment.per_image)(images, augment.Program(op, rows, PIX.ops))
        np.testing.assert_array_equal(done, images, err_msg=name)


@pytest.mark.parametrize("interpolation", ops.INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(32, 32, 3), (9, 6, 1)], ids=str)
def test_lowerings_differ_by_rounding_alone(shape, interpolation):
    images = np.concatenate([pillow.pictures(*shape, seed) for seed in range(8)])
    policy = augment.randaugment(7.0, num_layers=1, map="pix", interpolation=interpolation)
    program = augment.draw(augment.image_keys(jax.random.key(0), len(images)), policy, shape)
    expected = np.asarray(jax.jit(augment.per_image)(images, program)).astype(int)
    for lowering in (augment.select, augment.products):
        largest, share = off(jax.jit(lowering)(images, program), expected)
        assert largest <= 1 and share < 1e-3
    assert (expected != images).any()


def test_any_policy_may_mix_them_with_pillows():
    images = jnp.asarray(pillow.pictures(8, 8, 3))
    rows = jnp.zeros((7, 2, ops.ROW), jnp.int32)
    op = jnp.tile(jnp.array([0, 1]), (7, 1))
    both = augment.Program(op, rows, ("pix_flip_left_right", "invert"))
    np.testing.assert_array_equal(augment.apply(images, both), 255 - images[:, :, ::-1])
