"""Boxes that are filled, and the base pipelines around a policy."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import numpy as np
import pytest

from augjax import augment, check

FILL = augment.mean_fill((0.49139968, 0.48215841, 0.44653091))  # CIFAR-10


def noise(batch, height=32, width=32, channels=3):
    """Images without pixels of the fill's colour."""
    random = np.random.default_rng(0)
    return jnp.asarray(random.integers(1, 100, (batch, height, width, channels), np.uint8))


def changed(layer, images, seed=0):
    """(images after the layer, [B, H, W] bool where they changed)."""
    done = jax.jit(layer)(augment.image_keys(jax.random.key(seed), images.shape[0]), images)
    return np.asarray(done), np.asarray((done != images).any(-1))


def boxes(changed):
    """[(height, width) or None] of what changed in every image; fails unless it is a full box."""
    found = []
    for one in changed:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        assert one.sum() == len(rows) * len(columns)
        found.append((len(rows), len(columns)) if one.any() else None)
    return found


def reference_boxes(height, width, count, seed=0):
    """(height, width) of timm's boxes, by the rule of timm/data/random_erasing.py."""
    random, found = np.random.default_rng(seed), []
    while len(found) < count:
        area = random.uniform(0.02, 1 / 3) * height * width
        aspect = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if wide < width and tall < height:
            found.append((tall, wide))
    return np.array(found)


def test_the_mean_is_the_rounded_pixel():
    assert FILL == (125, 123, 114)  # spec B2


@pytest.mark.parametrize("height, width", [(32, 32), (24, 40)])
def test_erased_boxes_are_distributed_as_timms(height, width):
    images = noise(3000, height, width)
    done, where = changed(augment.random_erasing(1.0, FILL), images)
    ours = np.array([box for box in boxes(where) if box])
    assert len(ours) == 3000 and (done[where] == FILL).all()
    theirs = reference_boxes(height, width, 30_000)
    for measure in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 0] * b[:, 1]):
        one, other = measure(ours), measure(theirs)
        error = np.sqrt(one.var() / len(one) + other.var() / len(other))
        assert abs(one.mean() - other.mean()) < 5 * error
        assert abs(one.std() / other.std() - 1) < 0.06
    assert where.any(0).all()  # every pixel can be reached


@pytest.mark.parametrize("layer", [augment.random_erasing, augment.random_noise_erasing])
def test_probability_is_the_share_of_images(layer):
    images = noise(2000)
    _, where = changed(layer(0.25), images)
    assert abs(where.any((1, 2)).mean() - 0.25) < 5 * np.sqrt(0.1875 / 2000)  # 1 in 1.7 million
    assert not changed(layer(0.0), images)[1].any()


def test_noise_is_uniform_over_pixel_values():
    images = jnp.zeros((400, 32, 32, 3), jnp.uint8)
    done = np.asarray(jax.jit(augment.random_noise_erasing(1.0))(
        augment.image_keys(jax.random.key(0), 400), images))
    values = done[(done != 0).any(-1)].ravel()
    assert abs(values.mean() - 127.5) < 0.5 and abs(values.std() - 73.9) < 0.5
    assert set(np.unique(values)) == set(range(256))


def test_an_image_too_narrow_for_any_box_stays_whole():
    assert not changed(augment.random_erasing(1.0, 255), noise(50, 1, 64))[1].any()


def test_cutout_square_is_clipped_about_a_pixel_of_the_image():
    done, where = changed(augment.cutout_square(16, FILL), noise(3000))
    found = np.array(boxes(where))
    assert found.min() == 8 and found.max() == 16 and (done[where] == FILL).all()
    # mean side: 16 less what leaves at the borders, (8 + 7 + ... + 1 + 7 + ... + 1) / 32
    assert abs(found.mean() - (16 - (36 + 28) / 32)) < 0.1


@pytest.mark.parametrize("layer", [
    augment.random_erasing(0.5, FILL), augment.random_noise_erasing(0.5),
    augment.cutout_square(16, FILL), augment.pad_crop_pba(4, FILL)], ids=range(4))
def test_layers_draw_the_same_on_any_number_of_devices(layer):
    images, keys = noise(16), augment.image_keys(jax.random.key(1), 16)
    expected = jax.jit(layer)(keys, images)
    for count in (2, 8):
        mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,),
                             devices=jax.devices()[:count])
        cut = NamedSharding(mesh, P("data"))
        with jax.set_mesh(mesh):
            done = jax.jit(layer)(keys, jax.device_put(images, cut))
        np.testing.assert_array_equal(done, expected)


def test_one_channel_images_are_erased_too():
    done, where = changed(augment.random_erasing(1.0, 200), noise(20, 16, 16, 1))
    assert where.any((1, 2)).all() and (done[where] == 200).all()


# --- base pipelines ------------------------------------------------------------------------------


def test_the_crop_of_autoaugment_has_eight_offsets_and_the_means_border():
    image = np.random.default_rng(0).integers(1, 100, (8, 9, 3)).astype(np.uint8)
    keys = augment.image_keys(jax.random.key(0), 3000)
    done = np.asarray(jax.jit(augment.pad_crop_pba(4, FILL))(keys, jnp.asarray([image] * 3000)))
    padded = np.empty((16, 17, 3), np.uint8)
    padded[:] = FILL
    padded[4:12, 4:13] = image
    windows = {padded[y : y + 8, x : x + 9].tobytes(): (y, x) for y in range(9) for x in range(9)}
    found = np.array([windows[crop.tobytes()] for crop in done])
    assert found.min(0).tolist() == [0, 0] and found.max(0).tolist() == [7, 7]
    assert len({tuple(place) for place in found}) == 64


@pytest.mark.parametrize("name", augment.BASES)
def test_bases_place_the_policy(name):
    """Every base keeps the image's shape, and the policy is one of its layers."""
    layers = augment.BASES[name](4, FILL, (augment.apply_policy,))
    assert layers.count(augment.apply_policy) == 1
    assert len(augment.BASES[name](4, FILL, ())) == len(layers) - 1
    first = name == "none" or name.startswith("autoaugment_cifar")
    assert (layers[0] is augment.apply_policy) == first
    images = noise(4)
    done = jax.jit(augment.pipeline(*augment.BASES[name](4, FILL, ())))(
        augment.image_keys(jax.random.key(0), 4), images)
    assert done.shape == images.shape and done.dtype == jnp.uint8


@pytest.mark.parametrize("name, side", [
    ("autoaugment_cifar", 16), ("autoaugment_cifar_cutout8", 8), ("autoaugment_cifar_uncut", 0)])
def test_the_side_of_a_base_s_cutout(name, side):
    """Spec P5: the largest hole that any of many images has where no padding comes."""
    images = jnp.full((256, 32, 32, 3), 200, jnp.uint8)
    done = jax.jit(augment.pipeline(*augment.BASES[name](4, (7, 7, 7), ())))(
        augment.image_keys(jax.random.key(0), 256), images)
    filled = (np.asarray(done)[:, 4:28, 4:28] == 7).all(-1).sum((1, 2))
    assert filled.max() == side * side


FILLED = {
    "pad_crop": lambda fill: augment.pad_crop(4, fill),
    "pad_crop_pba": lambda fill: augment.pad_crop_pba(4, fill),
    "cutout_square": lambda fill: augment.cutout_square(4, fill),
    "random_erasing": lambda fill: augment.random_erasing(1.0, fill),
}


@pytest.mark.parametrize("layer", FILLED)
@pytest.mark.parametrize("fill", [
    300, -1, 0.49, (0.49, 0.48, 0.45), (1, 2), (1, 2, 3, 4), math.nan, "black", True], ids=str)
def test_a_fill_that_is_no_pixel_is_refused_when_the_layer_is_made(layer, fill):
    with pytest.raises(check.ConfigError, match="^fill: expected a value 0..255 or 3 of them, got"):
        FILLED[layer](fill)


@pytest.mark.parametrize("layer", FILLED)
def test_a_colour_is_none_of_grey_images(layer):
    keys = augment.image_keys(jax.random.key(0), 2)
    with pytest.raises(check.ConfigError, match="^fill: expected a value 0..255, got"):
        FILLED[layer](FILL)(keys, noise(2, channels=1))


def test_a_whole_number_is_a_pixel_whatever_its_type():
    keys, images = augment.image_keys(jax.random.key(0), 8), noise(8)
    done = augment.pad_crop(4, (7.0, np.uint8(8), np.float32(9)))(keys, images)
    np.testing.assert_array_equal(done, augment.pad_crop(4, (7, 8, 9))(keys, images))
    assert augment.randaugment(9.0, fill=128.0).fill == 128


def test_what_cannot_be_erased_is_refused():
    with pytest.raises(check.ConfigError, match=r"in \[0, 1\], got 2"):
        augment.random_erasing(2)
    with pytest.raises(check.ConfigError, match="0 < low <= high <= 1"):
        augment.random_noise_erasing(0.5, (0.5, 0.1))
    with pytest.raises(check.ConfigError, match="even number"):
        augment.cutout_square(15)
    with pytest.raises(check.ConfigError, match="pad_crop_pba: .*pixels from 1 on, got 0"):
        augment.pad_crop_pba(0)
