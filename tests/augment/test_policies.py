"""RandAugment: what is drawn, how often, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import augment, check, schedule
from augjax.augment import maps, ops

SHAPE = (32, 32, 3)
draw_jitted = jax.jit(augment.draw, static_argnums=2)


def drawn(images, seed=0, magnitude=9.0, **options):
    keys = augment.image_keys(jax.random.key(seed), images)
    return draw_jitted(keys, augment.randaugment(magnitude, **options), SHAPE)


def chi_square(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum()


# The seed is fixed, so these never flicker; for a random seed each bound below is the 1 - 10^-6
# quantile of its chi-square distribution (13, 195 and 1 degrees of freedom): a right engine fails
# one time in a million.


def test_operations_are_uniform_in_every_layer_and_in_pairs():
    op = np.asarray(drawn(28000).op)
    assert op.shape == (28000, 2)
    for layer in range(2):
        assert chi_square(np.bincount(op[:, layer], minlength=14)) < 54.0
    assert chi_square(np.bincount(op[:, 0] * 14 + op[:, 1], minlength=196)) < 301.3


def test_signs_are_even_and_independent_of_the_operation():
    program, names = drawn(28000), maps.TORCHVISION.ops
    factor = np.asarray(program.parameters[..., 0]).view(np.float32)
    for name in ("color", "brightness", "sharpness", "contrast"):
        stronger = factor[np.asarray(program.op) == names.index(name)] > 1
        assert chi_square(np.array([stronger.sum(), (~stronger).sum()])) < 23.9


def test_images_and_layers_draw_for_themselves():
    program = drawn(4000)
    op = np.asarray(program.op)
    same = (op[:, 0] == op[:, 1]).mean()  # 1 in 14; 5.5 standard deviations either side
    assert abs(same - 1 / 14) < 5.5 * np.sqrt(13 / 14 / 14 / 4000)
    assert (np.asarray(drawn(4000, seed=1).op) != op).any()
    # a key per image: the first images of a longer batch draw what they drew before
    np.testing.assert_array_equal(drawn(8000).op[:4000], op)


def test_level_is_what_the_map_says():
    program = drawn(2000, magnitude=12.0)
    parameters = np.asarray(program.parameters)
    op = np.asarray(program.op)
    names = maps.TORCHVISION.ops
    shift = parameters[op == names.index("translate_x")][:, 2] >> 16
    assert set(shift) == {-5, 5}  # spec B3: at 32 pixels M 12 is 5 pixels
    assert set(parameters[op == names.index("posterize")][:, 0]) == {6}
    assert set(parameters[op == names.index("solarize")][:, 0]) == {153}  # 255 - 8.5 * 12


def test_posterize_bins():  # spec B3
    bits = [maps.TORCHVISION.value("posterize", m, 1.0, 32, 32) for m in range(31)]
    assert bits == [8] * 4 + [7] * 8 + [6] * 7 + [5] * 8 + [4] * 4


def test_translation_at_32_pixels():  # spec B3
    for level, pixels in {4: 1, 8: 3, 12: 5, 14: 6, 22: 10, 30: 14}.items():
        assert maps.TORCHVISION.value("translate_x", level, 1.0, 32, 32) == pixels


def test_fill_comes_in_from_outside():
    for fill, color in (((10, 20, 30), [10, 20, 30]), (128, [128] * 3)):
        rows = drawn(100, fill=fill).parameters
        assert (np.asarray(ops.unpack_fill(rows, 3)) == color).all()
    white = np.full((60, 32, 32, 1), 255, np.uint8)
    grey = augment.randaugment(30.0, num_layers=1)
    assert (np.asarray(jax.jit(augment.augment)(jax.random.key(0), grey, white)) == 128).any()


def test_cutout_boxes_are_drawn_over_the_image():
    rows = maps.tabulated(lambda *_: [-2, -2, 3, 3], ("cutout",), 3)(10, 20)
    bits = jax.random.bits(jax.random.key(0), (3, 500))
    box = np.asarray(rows(jnp.zeros(500, jnp.int32), jnp.ones(500), maps.Draws(*bits)))
    assert box.shape == (500, ops.ROW)
    assert set(box[:, 0]) == set(range(-2, 18)) and set(box[:, 1]) == set(range(-2, 8))
    assert (box[:, 2] - box[:, 0] == 5).all() and (box[:, 4:] == 0).all()


def test_a_policy_is_a_tree_of_its_magnitude():
    three, scheduled = augment.randaugment(3), augment.randaugment(schedule.linear(0, 9))
    assert len(jax.tree.leaves(three)) == 3  # magnitude, probability, noise
    assert jax.tree.structure(three) == jax.tree.structure(augment.randaugment(4.5))
    assert jax.tree.structure(three) == jax.tree.structure(scheduled)
    assert callable(jax.tree.leaves(scheduled)[0])


@pytest.mark.parametrize("arguments, says", [
    ({"magnitude": 31}, "0 to 30, got 31"),
    ({"magnitude": -0.5}, "0 to 30"),
    ({"magnitude": float("nan")}, "0 to 30"),
    ({"magnitude": 9, "map": "torchvison"}, "Did you mean 'torchvision'"),
    ({"magnitude": 9, "num_layers": 0}, "from 1 on"),
    ({"magnitude": 9, "fill": 256}, "0..255"),
    ({"magnitude": 9, "fill": (1, 2)}, "0..255 or 3 of them, got"),
    ({"magnitude": 9, "fill": 0.49}, "0.49. Give pixels, not normalised values"),
    ({"magnitude": 9, "fill": (0.4914, 0.4822, 0.4465)}, "not normalised values"),
    ({"magnitude": 9, "fill": "mean"}, "got mean. Give pixels"),
])
def test_wrong_policies_are_refused_when_made(arguments, says):
    with pytest.raises(check.ConfigError, match=says):
        augment.randaugment(**arguments)


def test_wrong_draws_are_refused():
    policy, keys = augment.randaugment(9.0), augment.image_keys(jax.random.key(0), 4)
    with pytest.raises(check.ConfigError, match="got RandAugment|got NoneType"):
        augment.draw(keys, None, SHAPE)
    with pytest.raises(check.ConfigError, match="one per image"):
        augment.draw(jax.random.key(0), policy, SHAPE)
    with pytest.raises(check.ConfigError, match="a value 0..255, got"):
        augment.draw(keys, augment.randaugment(9.0, fill=(1, 2, 3)), (8, 8, 1))
