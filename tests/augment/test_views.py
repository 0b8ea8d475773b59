"""Views, pipelines, crops: example-major rows, keys by global position."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import numpy as np
import pillow_oracle as pillow
import pytest

from augjax import augment, check
from augjax.types import Batch, View

WEAK = augment.pipeline(augment.pad_crop(4), augment.flip)
STRONG = augment.pipeline(augment.pad_crop(4), augment.flip, augment.apply_policy)


def a_batch(size=16):
    images = np.concatenate([pillow.pictures(32, 32, 3, seed) for seed in range(-(-size // 7))])
    return Batch(
        image=jnp.asarray(images[:size]), label=jnp.arange(size) % 10, index=jnp.arange(size) + 100)


def test_crop_is_a_window_of_the_padded_image_anywhere():
    image = np.random.default_rng(0).integers(1, 256, (6, 7, 3)).astype(np.uint8)
    keys = augment.image_keys(jax.random.key(0), 600)
    done = np.asarray(jax.jit(augment.pad_crop(2))(keys, jnp.asarray(np.stack([image] * 600))))
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = {
        padded[y : y + 6, x : x + 7].tobytes(): (y, x) for y in range(5) for x in range(5)
    }
    found = [windows[crop.tobytes()] for crop in done]  # KeyError: not a window
    assert len(set(found)) == 25  # a missing offset has probability 25 (24/25)^600 < 10^-9
    assert done.dtype == np.uint8


def test_flip_mirrors_half_of_them():
    batch = a_batch(1000)
    keys = augment.image_keys(jax.random.key(0), 1000)
    done, images = np.asarray(jax.jit(augment.flip)(keys, batch.image)), np.asarray(batch.image)
    mirrored = (done == images[:, :, ::-1]).all((1, 2, 3))
    assert ((done == images).all((1, 2, 3)) | mirrored).all()
    constant = (images == images[:, :, ::-1]).all((1, 2, 3))
    share = mirrored[~constant].mean()  # 5 standard deviations: 1 in 1.7 million
    assert abs(share - 0.5) < 5 * 0.5 / np.sqrt((~constant).sum())


def test_rows_are_example_major():
    batch = a_batch()
    views = augment.make(
        {"weak": WEAK, "strong": STRONG}, domains={"strong": 1}, rows={"strong": 2})
    rows = jax.jit(views)(jax.random.key(0), batch, {"strong": augment.randaugment(20.0)})
    assert rows.views == (View("weak"), View("strong", rows=2, domain=1)) and rows.groups == 16
    assert rows.image.shape == (48, 32, 32, 3) and rows.image.dtype == jnp.uint8
    np.testing.assert_array_equal(rows.label, np.repeat(batch.label, 3))
    np.testing.assert_array_equal(rows.index, np.repeat(batch.index, 3))
    np.testing.assert_array_equal(rows.mix_label, rows.label)
    np.testing.assert_array_equal(rows.lam, np.ones(48, np.float32))
    only_weak = jax.jit(augment.make({"weak": WEAK}))(jax.random.key(0), batch, {})
    np.testing.assert_array_equal(rows.image[::3], only_weak.image)
    assert (rows.image[1::3] != rows.image[2::3]).any()


def test_views_are_pipelines_with_keys_folded_by_view_image_and_layer():
    batch, key, policy = a_batch(), jax.random.key(7), augment.randaugment(9.0)
    rows = jax.jit(augment.make({"a": WEAK, "b": STRONG}))(key, batch, {"b": policy})
    b = 5  # one image by hand, alone
    image_key = jax.random.fold_in(jax.random.fold_in(key, 1), b)
    image = batch.image[b : b + 1]
    for number, layer in enumerate((augment.pad_crop(4), augment.flip, augment.apply_policy)):
        image = jax.jit(layer)(jax.random.fold_in(image_key, number)[None], image, policy)
    np.testing.assert_array_equal(rows.image[2 * b + 1], image[0])


def test_rows_do_not_depend_on_the_number_of_devices():
    batch, key = a_batch(), jax.random.key(0)
    policies = {"strong": augment.randaugment(9.0)}
    views = augment.make({"weak": WEAK, "strong": STRONG})
    expected = jax.jit(views)(key, batch, policies)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(batch, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        step = jax.jit(views).lower(key, placed, policies).compile()
        rows = step(key, placed, policies)
    jax.tree.map(np.testing.assert_array_equal, rows, expected)
    assert "all-gather" not in step.as_text()
    assert not rows.image.sharding.is_fully_replicated


def test_plain_rows_are_the_batch():
    batch = a_batch(8)
    rows = augment.plain(batch)
    assert rows.views == (View("test"),)
    np.testing.assert_array_equal(rows.image, batch.image)
    np.testing.assert_array_equal(rows.index, batch.index)


def test_names_of_no_view_are_refused():
    with pytest.raises(check.ConfigError, match="Did you mean 'train'"):
        augment.make({"train": WEAK}, domains={"trian": 1})
    views = augment.make({"train": STRONG})
    with pytest.raises(check.ConfigError, match="Did you mean 'train'"):
        views(jax.random.key(0), a_batch(2), {"trial": augment.randaugment(1.0)})
    with pytest.raises(check.ConfigError, match="got NoneType"):
        views(jax.random.key(0), a_batch(2), {})
    with pytest.raises(check.ConfigError, match="whole pixels from 0 on, got -1"):
        augment.pad_crop(-1)
