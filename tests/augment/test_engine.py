"""One meaning: the same bits by every lowering, under every transformation, on every mesh."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import numpy as np
import pillow_oracle as pillow
import pytest

from augjax import augment, check
from augjax.augment import maps, matrices, ops, tpu

augmented, applied = jax.jit(augment.augment), jax.jit(augment.apply)


def batch(size, height=32, width=32, channels=3):
    return np.concatenate([
        pillow.pictures(height, width, channels, seed) for seed in range(-(-size // 7))
    ])[:size]


def program(size, shape, magnitude=9.0, seed=0, **options):
    keys = augment.image_keys(jax.random.key(seed), size)
    return augment.draw(keys, augment.randaugment(magnitude, **options), shape)


def every_operation(size, layers, height, width, channels, seed=0, interpolation="nearest"):
    """A program of all of Pillow's operations, those of no map included."""
    rng, names = np.random.default_rng(seed), tuple(
        name for name in ops.OPS if not name.startswith("pix_"))  # floats: test_pix.py
    op = rng.integers(0, len(names), (size, layers))
    rows = np.zeros((*op.shape, ops.ROW), np.int32)
    for position in np.ndindex(op.shape):
        slope, pixels = rng.uniform(-1, 1), rng.integers(-20, 21)
        numbers = {
            "posterize": [rng.integers(0, 9)], "solarize": [rng.integers(0, 257)],
            "solarize_add": [rng.integers(0, 200)], "add_solarize": [rng.integers(0, 200)],
            "rotate": matrices.rotation(90 * slope, height, width),
            "shear_x": matrices.shear_x(slope), "shear_y": matrices.shear_y(slope),
            "translate_x": matrices.translate_x(pixels),
            "translate_y": matrices.translate_y(pixels),
            "cutout": [*rng.integers(-4, 20, 2), *rng.integers(10, 40, 2)],
        }.get(names[op[position]], [maps.float_pattern(rng.uniform(0, 3))])
        rows[position][: len(numbers)] = numbers
        rows[position][6] = ops.pack_fill(rng.integers(0, 256, channels), channels)
    return augment.Program(jnp.asarray(op, jnp.int32), jnp.asarray(rows), names, interpolation)


@pytest.mark.parametrize("interpolation", ops.INTERPOLATIONS)
@pytest.mark.parametrize("shape, layers", [
    ((32, 32, 3), 3), ((33, 47, 3), 2), ((9, 6, 1), 3), ((1, 2, 3), 1)], ids=str)
def test_lowerings_are_equal(shape, layers, interpolation):
    images = batch(70, *shape)
    wanted = every_operation(70, layers, *shape, interpolation=interpolation)
    expected = jax.jit(augment.per_image)(images, wanted)
    np.testing.assert_array_equal(jax.jit(augment.select)(images, wanted), expected)
    np.testing.assert_array_equal(jax.jit(augment.products)(images, wanted), expected)
    assert (np.asarray(expected) != images).any()


@pytest.mark.parametrize("size", [70, 7, 64])
def test_groups_do_not_change_the_bits(size, monkeypatch):
    """A TPU does bilinear sampling group after group where the whole batch is too large."""
    images = batch(size)
    wanted = every_operation(size, 1, 32, 32, 3, interpolation="bilinear")
    expected = jax.jit(augment.per_image)(images, wanted)
    monkeypatch.setattr(tpu, "PIXELS", 10 * 32 * 32)
    assert tpu.images_at_a_time(size, 32, 32) == {70: 10, 7: 7, 64: 8}[size]
    np.testing.assert_array_equal(
        jax.jit(lambda *of: augment.products(*of))(images, wanted), expected)


def test_layers_follow_each_other():
    """Two layers are the first, then the second, as the public operations do them one by one."""
    images, wanted = batch(40), every_operation(40, 2, 32, 32, 3)
    done = np.asarray(applied(images, wanted))
    branches = [jax.jit(ops.OPS[name]) for name in wanted.ops]
    for b, image in enumerate(images):
        for layer in range(2):
            image = branches[wanted.op[b, layer]](image, wanted.parameters[b, layer])
        np.testing.assert_array_equal(done[b], image)


def test_only_named_operations_are_compiled():
    images = jnp.asarray(batch(8))
    few = augment.Program(
        jnp.zeros((8, 1), jnp.int32), jnp.zeros((8, 1, ops.ROW), jnp.int32), ("invert",))
    np.testing.assert_array_equal(augment.apply(images, few), 255 - images)
    assert "scatter" not in jax.jit(augment.apply).lower(images, few).as_text()


# --- transformations -----------------------------------------------------------------------------


def test_jit_and_eager_are_equal():
    images, policy, key = jnp.asarray(batch(8)), augment.randaugment(14.0), jax.random.key(3)
    eager = augment.augment(key, policy, images)
    np.testing.assert_array_equal(augmented(key, policy, images), eager)


def test_vmap_equals_a_loop_and_still_branches():
    """A population: members differ in magnitude and key, and see the same or their own images."""
    images = jnp.asarray(batch(12))
    magnitudes, keys = jnp.array([0.0, 9.0, 30.0]), jax.random.split(jax.random.key(0), 3)

    def member(key, magnitude, images):
        return augment.augment(key, augment.randaugment(magnitude), images)

    together = jax.jit(jax.vmap(member, (0, 0, None)))(keys, magnitudes, images)
    own = jnp.stack([images, images[::-1], 255 - images])
    apart = jax.jit(jax.vmap(member))(keys, magnitudes, own)
    alone = jax.jit(member)
    for n in range(3):
        np.testing.assert_array_equal(together[n], alone(keys[n], magnitudes[n], images))
        np.testing.assert_array_equal(apart[n], alone(keys[n], magnitudes[n], own[n]))
    compiled = jax.jit(jax.vmap(member, (0, 0, None))).lower(keys, magnitudes, images).compile()
    assert "conditional" in compiled.as_text()  # vmap of a branch would have become a select


def test_a_new_magnitude_compiles_nothing():
    counted = []

    @jax.jit
    def step(key, policy, images):
        counted.append(1)
        return augment.augment(key, policy, images)

    images = jnp.asarray(batch(8))
    results = [
        step(jax.random.key(0), augment.randaugment(magnitude), images)
        for magnitude in (0, 9, 9.4, np.float64(21.5), np.float32(30))
    ]
    assert len(counted) == 1
    np.testing.assert_array_equal(results[1], results[2])  # rounds to 9
    assert (results[2] != results[3]).any()


def test_whole_levels_round_half_to_even():
    images, key = jnp.asarray(batch(64)), jax.random.key(5)
    done = [
        augmented(key, augment.randaugment(level), images)
        for level in (8.5, 8.0, 9.5, 10.0)
    ]
    np.testing.assert_array_equal(done[0], done[1])
    np.testing.assert_array_equal(done[2], done[3])


# --- meshes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("devices, axes", [
    (2, ("data",)), (8, ("data",)), (8, ("population", "data"))], ids=str)
def test_bits_do_not_depend_on_the_number_of_devices(devices, axes):
    images, policy, key = batch(64), augment.randaugment(9.0), jax.random.key(1)
    expected = augmented(key, policy, images)
    sizes = (1,) * (len(axes) - 1) + (devices,)
    mesh = jax.make_mesh(
        sizes, axes, axis_types=(AxisType.Auto,) * len(axes), devices=jax.devices()[:devices])
    placed = jax.device_put(images, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        step = jax.jit(augment.augment).lower(key, policy, placed).compile()
        done = step(key, policy, placed)
    np.testing.assert_array_equal(done, expected)
    assert done.sharding.is_equivalent_to(placed.sharding, 4)
    assert "all-gather" not in step.as_text() and "all-reduce" not in step.as_text()


def test_a_batch_that_does_not_divide_is_done_whole():
    images, policy, key = batch(30), augment.randaugment(9.0), jax.random.key(1)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    expected = augmented(key, policy, images)
    with jax.set_mesh(mesh):
        np.testing.assert_array_equal(augmented(key, policy, images), expected)


def test_inside_somebodys_shard_map():
    images, wanted = batch(16), program(16, (32, 32, 3))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        done = jax.jit(jax.shard_map(
            augment.apply, in_specs=P("data"), out_specs=P("data"), check_vma=False,
        ))(images, wanted)
    np.testing.assert_array_equal(done, applied(images, wanted))


def test_a_population_on_a_mesh():
    images, keys = batch(16), jax.random.split(jax.random.key(0), 2)
    magnitudes = jnp.array([3.0, 20.0])

    def members(keys, magnitudes, images):
        return jax.vmap(
            lambda key, m: augment.augment(key, augment.randaugment(m), images))(keys, magnitudes)

    expected = jax.jit(members)(keys, magnitudes, images)
    mesh = jax.make_mesh((1, 8), ("population", "data"), axis_types=(AxisType.Auto,) * 2)
    placed = jax.device_put(images, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        step = jax.jit(members).lower(keys, magnitudes, placed).compile()
        np.testing.assert_array_equal(step(keys, magnitudes, placed), expected)
    assert "all-gather" not in step.as_text()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("images, says", [
    (np.zeros((4, 8, 8, 3), np.float32), "expected uint8"),
    (np.zeros((4, 8, 8, 4), np.uint8), "C of 1 or 3"),
    (np.zeros((8, 8, 3), np.uint8), "add the batch axis"),
    (np.zeros((1, 9000, 1, 3), np.uint8), "8192 pixels"),
    (np.zeros((0, 8, 8, 3), np.uint8), "at least one"),
    (np.zeros((2, 0, 8, 3), np.uint8), "at least one"),
    (np.zeros((2, 8, 0, 3), np.uint8), "at least one"),
])
def test_wrong_images_are_refused_before_compilation(images, says):
    with pytest.raises(check.ConfigError, match=f"(?i){says}"):
        jax.eval_shape(
            augment.augment, jax.random.key(0), augment.randaugment(1.0), jnp.asarray(images))


def test_wrong_programs_are_refused():
    images, wanted = jnp.asarray(batch(8)), program(8, (32, 32, 3))
    with pytest.raises(check.ConfigError, match="one key per image"):
        augment.apply(images[:4], wanted)
    unknown = augment.Program(wanted.op, wanted.parameters, ("rotat",))
    with pytest.raises(check.ConfigError, match="Did you mean 'rotate'"):
        augment.apply(images, unknown)


@pytest.mark.parametrize("platform, scatters, gathers", [
    ("cpu", True, True), ("cuda", False, True), ("tpu", False, False)])
def test_each_backend_has_its_lowering(platform, scatters, gathers):
    """Only the loop over images counts by scattering; no pixel is gathered on a TPU."""
    images, wanted = jnp.asarray(batch(8)), program(8, (32, 32, 3))
    text = jax.jit(augment.apply).trace(images, wanted).lower(
        lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.scatter" in text) == scatters
    of_pixels = [line for line in text.splitlines() if "stablehlo.gather" in line and "ui8" in line]
    assert bool(of_pixels) == gathers
