"""Operations against spec B10's numbers and against Pillow, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pillow_oracle as pillow
import pytest

from augjax import augment
from augjax.augment import exact, maps, matrices, ops

SHAPES = [(32, 32, 3), (33, 47, 3), (33, 47, 1), (2, 5, 3), (1, 1, 1)]
MAP = maps.TORCHVISION
per_image = jax.jit(augment.per_image)


def image_a():  # spec B10
    y, x, c = np.meshgrid(np.arange(8), np.arange(8), np.arange(3), indexing="ij")
    return ((37 * y + 11 * x + 53 * c + 5 * x * y) % 256).astype(np.uint8)


def image_b():  # spec B10
    y, x, c = np.meshgrid(np.arange(32), np.arange(32), np.arange(3), indexing="ij")
    return ((7 * y + 3 * x + 53 * c + x * y // 3) % 200 + 20).astype(np.uint8)


REFERENCE_A = [  # spec B10: operation, its argument, sum, pixel (3, 5), pixel (6, 1)
    ("identity", None, 24240, (241, 38, 91), (7, 60, 113)),
    ("equalize", None, 24240, (241, 38, 91), (7, 60, 113)),
    ("autocontrast", None, 23797, (242, 32, 85), (7, 54, 108)),
    ("invert", None, 24720, (14, 217, 164), (248, 195, 142)),
    ("posterize", 3, 21184, (224, 32, 64), (0, 32, 96)),
    ("solarize", 100, 13355, (14, 38, 91), (7, 60, 142)),
    ("color", 0.3, 23812, (145, 84, 100), (37, 53, 68)),
    ("color", 1.7, 24736, (255, 0, 81), (0, 67, 157)),
    ("contrast", 0.3, 23849, (159, 98, 114), (88, 104, 120)),
    ("contrast", 1.7, 24332, (255, 0, 67), (0, 15, 105)),
    ("brightness", 0.3, 7185, (72, 11, 27), (2, 18, 33)),
    ("brightness", 1.7, 34538, (255, 64, 154), (11, 102, 192)),
    ("sharpness", 0.3, 24121, (185, 79, 91), (48, 74, 113)),
    ("sharpness", 1.7, 24400, (255, 0, 91), (0, 46, 113)),
    ("shear_x", matrices.shear_x(0.3), 24485, (11, 64, 117), (89, 142, 195)),
    ("shear_y", matrices.shear_y(-0.3), 24161, (117, 170, 223), (7, 60, 113)),
    ("translate_x", matrices.translate_x(3), 25176, (128, 128, 128), (130, 183, 236)),
    ("translate_y", matrices.translate_y(-2), 24604, (117, 170, 223), (179, 232, 29)),
    ("rotate", matrices.rotation(30, 8, 8), 24634, (47, 100, 153), (148, 201, 254)),
]


@pytest.mark.parametrize("name, value, total, pixel, other", REFERENCE_A)
def test_reference_values(name, value, total, pixel, other):
    operation = jax.jit(getattr(ops, name))
    result = np.asarray(operation(image_a(), *([] if value is None else [value])))
    assert result.sum(dtype=int) == total
    assert tuple(result[3, 5]) == pixel and tuple(result[6, 1]) == other


def test_reference_values_of_histogram_operations():  # spec B10, image B
    image = image_b()
    assert image.sum(dtype=int) == 369371 and tuple(image[3, 5]) == (61, 114, 167)
    flat, stretched = np.asarray(ops.equalize(image)), np.asarray(ops.autocontrast(image))
    assert flat.sum(dtype=int) == 423304 and tuple(flat[3, 5]) == (51, 112, 242)
    assert stretched.sum(dtype=int) == 393017 and tuple(stretched[3, 5]) == (52, 120, 188)


def every_level(name, images, levels):
    """[levels, 2 signs, images, H, W, C]: the operation by the engine, from the map's own rows."""
    count, shape = len(images), images.shape[1:]
    level, negative, which = (
        part.ravel() for part in np.meshgrid(levels, (0, 1), range(count), indexing="ij")
    )
    op = jnp.full((len(which), 1), MAP.ops.index(name), jnp.int32)
    sign = jnp.asarray(negative, jnp.uint32)[:, None] << 31
    level = jnp.asarray(level, jnp.float32)[:, None]
    rows = MAP.rows(*shape[:2])(op, level, maps.Draws(sign, sign, sign))
    rows = rows.at[..., 6].set(ops.pack_fill(128, shape[-1]))
    done = per_image(images[which], augment.Program(op, rows, MAP.ops))
    return np.asarray(done).reshape(len(levels), 2, count, *shape)


def by_pillow(name, images, levels):
    return np.stack([
        np.stack([
            np.stack([
                pillow.one_operation(
                    name, image,
                    pillow.torchvision_value(name, level, negative, *images.shape[1:3]),
                )
                for image in images
            ])
            for negative in (False, True)
        ])
        for level in levels
    ])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", MAP.ops)
def test_pillow_at_every_level(name, shape):
    images = pillow.pictures(*shape)
    np.testing.assert_array_equal(
        every_level(name, images, range(31)), by_pillow(name, images, range(31)))


@pytest.mark.parametrize("name", MAP.ops)
def test_pillow_at_every_level_on_cifar(name, cifar_dir):
    images = pillow.cifar(cifar_dir, 12)
    np.testing.assert_array_equal(
        every_level(name, images, range(31)), by_pillow(name, images, range(31)))


@pytest.mark.parametrize("name", MAP.ops)
def test_pillow_at_imagenet_size(name):
    images, levels = pillow.pictures(224, 224, 3)[[0, 1, 3]], (9, 21)
    np.testing.assert_array_equal(
        every_level(name, images, levels), by_pillow(name, images, levels))


@pytest.mark.parametrize("name", MAP.keeps_at_zero)
def test_level_zero_is_the_identity(name):
    images = pillow.pictures(33, 47, 3)
    done = every_level(name, images, (0,))
    np.testing.assert_array_equal(done, np.broadcast_to(images, done.shape))


# --- operations that this map does not reach, and ranges beyond it -------------------------------


@pytest.mark.parametrize("value", [0, 1, 64, 110, 128, 255, 308])
def test_solarize_add_and_invert(value):
    image = pillow.pictures(33, 47, 3)[0]
    expected = pillow.one_operation("solarize_add", image, value)
    np.testing.assert_array_equal(ops.solarize_add(image, jnp.int32(value)), expected)
    np.testing.assert_array_equal(ops.invert(image), pillow.one_operation("invert", image))


def test_posterize_and_solarize_at_their_ends():
    image = pillow.pictures(9, 9, 3)[0]
    for bits in range(1, 9):
        np.testing.assert_array_equal(
            ops.posterize(image, jnp.int32(bits)), pillow.one_operation("posterize", image, bits))
    assert (np.asarray(ops.posterize(image, jnp.int32(0))) == 0).all()
    np.testing.assert_array_equal(ops.posterize(image, jnp.int32(11)), image)
    for threshold in (0, 1, 128, 256):
        np.testing.assert_array_equal(
            ops.solarize(image, jnp.int32(threshold)),
            pillow.one_operation("solarize", image, threshold))


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
@pytest.mark.parametrize("shape", [(33, 47, 3), (32, 32, 3)], ids=str)
def test_wide_geometry_with_a_colour(name, shape):
    image, color = pillow.pictures(*shape)[0], (3, 130, 255)
    values = {
        "rotate": (-135.0, -90.0, 45.5, 90.0, 135.0, 180.0, 359.0),
        "shear_x": (-3.1, -0.99, 0.84, 2.0), "shear_y": (-3.1, -0.99, 0.84, 2.0),
        "translate_x": (-90, -46, -5, 31, 47, 100), "translate_y": (-90, -32, -5, 31, 47, 100),
    }[name]
    operation = jax.jit(getattr(ops, name))
    for value in values:
        matrix = matrices.rotation(value, *shape[:2]) if name == "rotate" else getattr(
            matrices, name)(value)
        np.testing.assert_array_equal(
            operation(image, matrix, np.array(color)),
            pillow.one_operation(name, image, value, color), err_msg=f"{name} {value}")


def test_cutout_fills_its_box():
    image = pillow.pictures(9, 12, 3)[0]
    expected = image.copy()
    expected[2:9, 0:5] = (1, 2, 3)
    done = ops.cutout(image, jnp.array([-3, 2, 5, 40]), np.array([1, 2, 3]))
    np.testing.assert_array_equal(done, expected)


# --- the arithmetic beneath, over its whole range ------------------------------------------------


def test_autocontrast_over_all_ranges():
    low, high = (part.ravel() for part in np.meshgrid(range(256), range(256), indexing="ij"))
    by = jax.tree.map(lambda number: number[:, None], exact.stretch_of(low, high))
    value = np.arange(256)
    table = np.asarray(jax.jit(exact.stretch)(np.tile(value.astype(np.uint8), (65536, 1)), by))
    for start, stop, row in zip(low, high, table):
        if stop > start:
            scale = 255.0 / (stop - start)
            inside = slice(start, stop + 1)
            expected = (value[inside] * scale + -start * scale).astype(int)
            np.testing.assert_array_equal(row[inside], expected)
        else:
            np.testing.assert_array_equal(row, value)


def test_blend_rounds_the_product_first():
    """All 65,536 pairs, at round factors (where a contracted multiply-add differs) and others."""
    start, value = (part.astype(np.uint8) for part in np.meshgrid(range(256), range(256)))
    factors = [0.0, 0.1, 0.6, 0.8, 0.85, 1.0, 1.1, 1.2, 1.35, 1.45, 1.6, 1.7, 1.85, 1.95, 5.14]
    factors += list(np.random.default_rng(0).uniform(0, 2, 25))
    blend = jax.jit(exact.blend)
    for factor in np.float32(factors):
        difference = value.astype(np.float32) - start.astype(np.float32)
        mixed = start.astype(np.float32) + (factor * difference).astype(np.float32)
        expected = np.clip(np.trunc(mixed), 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(
            blend(value, start, factor.view(np.int32)), expected, err_msg=str(factor))


@pytest.mark.parametrize("height, width", [
    (8192, 8192), (8191, 8192), (1, 8192), (8192, 1), (5, 3), (1, 1)])
def test_the_mean_of_rows_is_rounded_exactly(height, width):
    """Totals at a half and just below it, spread evenly or in the first rows, or of any rows."""
    pixels, most = height * width, 255 * width
    halves = [-(-(2 * mean + 1) * pixels // 2) for mean in (0, 1, 127, 253, 254)]
    rows, number = [np.random.default_rng(0).integers(0, most + 1, height)], np.arange(height)
    for total in (0, *(half - less for half in halves for less in (0, 1)), 255 * pixels):
        rows.append(total // height + (number < total % height))
        rows.append(np.clip(total - most * number, 0, most))
    expected = [(2 * int(sums.sum()) + pixels) // (2 * pixels) for sums in rows]
    found = jax.jit(exact.mean_of_rows, static_argnums=1)(np.int32(rows), width)
    assert np.asarray(found).tolist() == expected


def test_contrast_where_the_sum_of_all_pixels_leaves_int32():
    image = np.full((3000, 3000, 1), 255, np.uint8)
    image[:200] = 90
    np.testing.assert_array_equal(
        jax.jit(ops.contrast)(image, 0.5), pillow.one_operation("contrast", image, 0.5))


def test_equalize_where_sums_are_large():
    """Many pixels, few values: quotients up to 509 and steps up to thousands."""
    rng = np.random.default_rng(1)
    for share in (0.001, 0.3, 0.999):
        shape = (300, 400, 3)
        image = np.where(rng.random(shape) < share, rng.integers(0, 200, shape), 250)
        image = image.astype(np.uint8)
        np.testing.assert_array_equal(ops.equalize(image), pillow.one_operation("equalize", image))
