"""Bilinear geometry against Pillow, bit for bit, given the snapped matrix."""

import jax
import numpy as np
from PIL import Image
import pillow_oracle as pillow
import pytest

from augjax.augment import bilinear, maps, matrices

NAMES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
VALUES = {
    "rotate": (-135.0, -60.3, 0.0, 17.0, 45.5, 90.0, 180.0, 270.0, 359.0),
    "shear_x": (-3.1, -0.99, 0.0, 0.84, 2.0), "shear_y": (-3.1, -0.99, 0.0, 0.84, 2.0),
    "translate_x": (-90, -46, -5.3, 0, 0.5, 31, 47, 100.25),
    "translate_y": (-90, -32, -5.3, 0, 0.5, 31, 47, 100.25),
}


def matrix_of(name, value, height, width):
    if name == "rotate":
        return matrices.rotation(value, height, width)
    return getattr(matrices, name)(value)


def by_pillow(image, matrix, fill=(3, 130, 255)):
    picture, channels = pillow.as_pillow(image), image.shape[-1]
    done = picture.transform(
        picture.size, Image.Transform.AFFINE, matrices.snapped(matrix, *image.shape[:2]),
        Image.Resampling.BILINEAR, fillcolor=fill if channels == 3 else fill[0])
    return pillow.as_array(done, channels)


def compare(images, name, found):
    operation = jax.jit(jax.vmap(getattr(bilinear, name), (0, None, None)))
    fill = np.array([3, 130, 255], np.uint8)[: images.shape[-1]]
    for matrix in found:
        done = np.asarray(operation(images, matrix, fill))
        for image, ours in zip(images, done):
            np.testing.assert_array_equal(
                ours, by_pillow(image, matrix), err_msg=f"{name} {matrix}")


@pytest.mark.parametrize("shape", [(32, 32, 3), (33, 47, 3), (33, 47, 1), (2, 5, 3), (1, 1, 1)],
                         ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_pillow_given_the_snapped_matrix(name, shape):
    compare(pillow.pictures(*shape)[:5], name, [
        matrix_of(name, value, *shape[:2]) for value in VALUES[name]])


@pytest.mark.parametrize("name", NAMES)
def test_pillow_at_every_level_of_a_map(name, cifar_dir):
    images = pillow.cifar(cifar_dir, 6)
    chosen = maps.map_named("timm")
    compare(images, name, [
        matrix_of(name, chosen.value(name, level, sign, 32, 32), 32, 32)
        for level in range(11) for sign in (-1.0, 1.0)])


@pytest.mark.parametrize("name", NAMES)
def test_pillow_at_imagenet_size(name):
    compare(pillow.pictures(224, 224, 3)[[0, 3]], name, [
        matrix_of(name, value, 224, 224) for value in VALUES[name][1:6:2]])


@pytest.mark.parametrize("size", [32, 224, 8192])
def test_snapping_moves_no_point_by_more_than_it_says(size):
    corner = np.array([0.5, size - 0.5])
    x, y = np.meshgrid(corner, corner)
    for degrees in np.linspace(-180, 180, 97):
        given = matrices.rotation(degrees, size, size).astype(float) / 65536
        a, b, c, d, e, f = matrices.snapped(matrices.rotation(degrees, size, size), size, size)
        for (p, q, r), (across, down, offset) in (((a, b, c), given[:3]), ((d, e, f), given[3:])):
            moved = p * x + q * y + r - (across * (x - 0.5) + down * (y - 0.5) + offset)
            assert np.abs(moved).max() <= 2 * size / 4096 + 2**-11


def test_quarter_turns_and_whole_translations_are_nearest():
    image = pillow.pictures(32, 32, 3)[0]
    for degrees in (0, 90, 180, 270):
        done = bilinear.rotate(image, matrices.rotation(degrees, 32, 32))
        np.testing.assert_array_equal(done, np.rot90(image, degrees // 90))
    moved = np.asarray(bilinear.translate_x(image, matrices.translate_x(5)))
    np.testing.assert_array_equal(moved[:, :-5], image[:, 5:])
