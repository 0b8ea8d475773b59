"""What every policy draws, and how often. Bounds have a stated error rate; seeds are fixed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import augment, check, schedule
from augjax.augment import maps, policy_tables

SHAPE = (32, 32, 3)
MANY = 20000
draw_jitted = jax.jit(augment.draw, static_argnums=2)


@functools.cache
def keys(count=MANY, seed=0):
    return augment.image_keys(jax.random.key(seed), count)


def drawn(policy, count=MANY):
    """(names [B, L], parameters [B, L, ROW])."""
    program = draw_jitted(keys(count), policy, SHAPE)
    return np.array(program.ops)[np.asarray(program.op)], np.asarray(program.parameters)


def as_expected(count, trials, probability):
    """Within 5 standard deviations: a right engine fails 6 times in 10^7 for a random seed."""
    deviation = np.sqrt(trials * probability * (1 - probability))
    return abs(count - trials * probability) <= 5 * deviation + 1e-9


def factors(names, parameters, name="color"):
    return parameters[..., 0].view(np.float32)[names == name]


# --- RandAugment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_every_operation_is_applied_with_its_probability(probability):
    policy = augment.randaugment(9, map="timm_inc", probability=probability)
    names, _ = drawn(policy)
    assert as_expected((names != "identity").sum(), 2 * MANY, probability)
    for name in maps.map_named("timm_inc").ops:
        assert as_expected((names == name).sum(), 2 * MANY, probability / 15), name
    both = (names != "identity").all(1).sum()
    assert as_expected(both, MANY, probability**2)


@pytest.mark.parametrize("name", ["tf", "timm", "ildoonet", "autoaugment", "outliers"])
def test_operations_and_signs_are_even_in_every_map(name):
    chosen = maps.map_named(name)
    names, parameters = drawn(augment.randaugment(4, map=name))
    for operation in chosen.ops:
        assert as_expected((names == operation).sum(), 2 * MANY, 1 / len(chosen.ops))
    shift = parameters[names == "translate_x"][:, 2] >> 16
    assert as_expected((shift > 0).sum(), shift.size, 0.5) and (shift != 0).all()


def test_noise_is_normal_and_clipped():
    """timm_inc's colour factor is 1 +- 0.09 M: the level can be read off it."""
    names, parameters = drawn(augment.randaugment(5, map="timm_inc", noise=0.5))
    levels = np.abs(factors(names, parameters) - 1) / 0.09
    assert abs(levels.mean() - 5) < 5 * 0.5 / np.sqrt(levels.size)
    # the standard error of a deviation is s / sqrt(2 n)
    assert abs(levels.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * levels.size)
    for bound, share in ((5.5, 0.8413447), (4.5, 0.1586553), (6, 0.9772499)):
        below = (levels < bound - 1 / 64).sum() + (np.abs(levels - bound) < 1 / 64).sum() / 2
        assert abs(below - share * levels.size) < 5 * np.sqrt(share * (1 - share) * levels.size) + 1
    names, parameters = drawn(augment.randaugment(9.5, map="timm_inc", noise=2.0))
    levels = np.abs(factors(names, parameters) - 1) / 0.09
    assert levels.max() < 10.0001
    assert as_expected((levels > 9.9999).sum(), levels.size, 0.4051)  # P(z > 0.2422), to a step


def test_large_noise_is_uniform_up_to_the_magnitude():
    for policy in (
        augment.randaugment(8, map="timm_inc", noise=float("inf")),
        augment.randaugment(8, map="timm_inc", noise=101),
    ):
        names, parameters = drawn(policy)
        levels = np.abs(factors(names, parameters) - 1) / 0.09
        counts = np.histogram(levels, np.arange(9) + 1 / 64)[0]  # between steps; 0 falls out
        assert all(as_expected(count, levels.size, 1 / 8) for count in counts[:-1])
        assert levels.min() < 0.05 and 7.95 < levels.max() < 8.0001


@pytest.mark.parametrize("per", ["image", "operation"])
def test_a_range_of_magnitudes(per):
    """The teacher filter: whole levels 0..30, ends included, one per image or per operation."""
    names, parameters = drawn(augment.ranged_randaugment(0, 30, per=per))
    levels = np.rint(np.abs(parameters[..., 0].view(np.float32) - 1) / 0.03).astype(int)
    blends = np.isin(names, ("color", "contrast", "brightness", "sharpness"))
    counts = np.bincount(levels[blends], minlength=31)
    assert len(counts) == 31
    assert all(as_expected(count, blends.sum(), 1 / 31) for count in counts)
    both = blends.all(1)
    same = (levels[both, 0] == levels[both, 1]).sum()
    assert same == both.sum() if per == "image" else as_expected(same, both.sum(), 1 / 31)


def test_a_range_may_be_narrow_and_traced():
    names, parameters = drawn(augment.ranged_randaugment(jnp.float32(6), 8, map="tf"))
    levels = (factors(names, parameters) - 0.1) / 0.18
    assert set(np.rint(levels)) == {6, 7, 8}
    names, parameters = drawn(augment.ranged_randaugment(2, 4, map="timm"))
    levels = (factors(names, parameters) - 0.1) / 0.18
    assert levels.min() >= 2 - 1e-5 and levels.max() <= 4 + 1e-5 and len(np.unique(levels)) == 65


def test_trivial_augment_is_uniform_over_operations_and_bins():
    names, parameters = drawn(augment.trivial_augment())
    assert names.shape == (MANY, 1)
    for operation in maps.map_named("trivial_wide").ops:
        assert as_expected((names == operation).sum(), MANY, 1 / 14)
    levels = np.rint(np.abs(factors(names, parameters) - 1) / 0.033).astype(int)
    assert all(as_expected(count, levels.size, 1 / 31) for count in np.bincount(levels))


def test_outliers_move_by_the_level_or_up_to_it():
    names, parameters = drawn(augment.outliers(5))
    shift = (parameters[names == "translate_x"][:, 2] - 32768) / 65536
    assert set(shift) == {-16.0, 16.0}
    names, parameters = drawn(augment.outliers(5, sample="uniform"))
    shift = np.abs((parameters[names == "translate_x"][:, 2] - 32768) / 65536)
    assert shift.max() <= 16 and as_expected((shift < 8).sum(), shift.size, 80 / 160.5)


# --- AutoAugment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", policy_tables.TABLES)
def test_sub_policies_are_chosen_and_applied_as_written(name):
    """Frequencies of every pair of operations done, against the table's own probabilities."""
    names, _ = drawn(augment.autoaugment(name))
    expected = {}
    for (first, p, _), (second, q, _) in policy_tables.TABLES[name]:
        for one, chance in ((first, p), ("identity", 1 - p)):
            for two, other in ((second, q), ("identity", 1 - q)):
                expected[one, two] = expected.get((one, two), 0) + chance * other / 25
    assert abs(sum(expected.values()) - 1) < 1e-9
    seen, counts = np.unique(names, axis=0, return_counts=True)
    counted = {tuple(pair): count for pair, count in zip(seen.tolist(), counts, strict=True)}
    assert set(counted) <= {pair for pair, chance in expected.items() if chance > 0}
    for pair, chance in expected.items():
        assert as_expected(counted.get(pair, 0), MANY, chance), pair


@pytest.mark.parametrize("name, map, value", [
    ("cifar10", "own", 9 * 0.18 + 0.1), ("cifar10", "torchvision_aa", None)])
def test_levels_of_autoaugment_are_its_maps(name, map, value):
    names, parameters = drawn(augment.autoaugment(name, map))
    strongest = factors(names, parameters, "sharpness")  # levels 1, 3, 5, 6, 9
    if value:
        expected = {np.float32(m * 1.8 / 10 + 0.1) for m in (1, 3, 5, 6, 9)}
    else:
        expected = {np.float32(1 + s * m / 9 * 0.9) for m in (1, 3, 5, 6, 9) for s in (-1, 1)}
    np.testing.assert_allclose(sorted(set(strongest)), sorted(expected), rtol=2e-6)


def test_rows_of_the_tables():  # as spec B4 numbers them
    tables = policy_tables.TABLES
    assert {name: len(table) for name, table in tables.items()} == dict.fromkeys(tables, 25)
    assert all(len(pair) == 2 for table in tables.values() for pair in table)
    assert tables["cifar10"][2] == (("sharpness", 0.8, 1.0), ("sharpness", 0.9, 3.0))
    assert tables["cifar10"][14] == (("solarize", 0.5, 2.0), ("invert", 0.0, 0.0))
    assert [tables["imagenet"][n - 1] for n in range(21, 26)] == [
        tables["imagenet"][n - 1] for n in (5, 2, 14, 15, 3)]
    assert tables["svhn"][24] == (("shear_x", 0.7, 2.0), ("invert", 0.1, 0.0))
    assert tables["v0"][22] == (("posterize", 0.8, 2.0), ("solarize", 0.6, 10.0))


def test_own_sub_policies():
    policy = augment.sub_policies([[("invert", 1.0, 0)], [("rotate", 0.0, 3)]], map="tf")
    names, _ = drawn(policy)
    assert names.shape == (MANY, 1) and set(names.ravel()) == {"invert", "identity"}
    assert as_expected((names == "invert").sum(), MANY, 0.5)


# --- numbers are knobs ---------------------------------------------------------------------------

MEMBERS = {
    "randaugment": lambda n: augment.randaugment(3 + n, map="tf", probability=0.9 - n / 10),
    "ranged": lambda n: augment.ranged_randaugment(n, 5 + n),
    "outliers": lambda n: augment.outliers(n + 1),
    "autoaugment": lambda n: jax.tree.map(
        lambda leaf: leaf * np.float32(0.5 + n / 10), augment.autoaugment("svhn")),
    "pba": lambda n: augment.pba(np.full(30, 0.1 + n / 10), np.full(30, float(n))),
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_new_numbers_compile_nothing_and_members_are_stacked(kind):
    images = np.random.default_rng(0).integers(0, 256, (12, *SHAPE)).astype(np.uint8)
    members, traced = [MEMBERS[kind](n) for n in range(3)], []

    @jax.jit
    def step(key, policy):
        traced.append(kind)
        return augment.augment(key, policy, images)

    alone = [np.asarray(step(jax.random.key(7), member)) for member in members]
    assert len(traced) == 1
    assert (alone[0] != alone[1]).any() and (alone[1] != alone[2]).any()
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(lambda policy: augment.augment(
        jax.random.key(7), policy, images)))(stacked)
    np.testing.assert_array_equal(together, np.stack(alone))


def test_schedules_may_stand_for_numbers():
    policy = augment.randaugment(schedule.linear(0, 10), map="timm", noise=schedule.constant(0.5))
    kinds = [callable(leaf) for leaf in jax.tree.leaves(policy)]
    assert kinds == [True, False, True]


# --- refusals ------------------------------------------------------------------------------------

PAIR = [[("invert", 1.0, 0), ("rotate", 0.5, 3)]]


@pytest.mark.parametrize("build, says", [
    (lambda: augment.randaugment(9, probability=1.1), r"probability.*0 to 1, got 1.1"),
    (lambda: augment.randaugment(9, probability=-0.1), "0 to 1"),
    (lambda: augment.randaugment(9, noise=-1.0), "noise.*got -1"),
    (lambda: augment.randaugment(9, interpolation="cubic"), "interpolation"),
    (lambda: augment.randaugment(11, map="timm"), "'timm'.*0 to 10, got 11"),
    (lambda: augment.randaugment(9, map="timm-inc"), "Did you mean 'timm_inc'"),
    (lambda: augment.ranged_randaugment(0, 31), "0 to 30, got 31"),
    (lambda: augment.ranged_randaugment(8, 6), "lowest <= highest, got 8 to 6"),
    (lambda: augment.ranged_randaugment(0, 30, per="batch"), "per of"),
    (lambda: augment.outliers(5, sample="normal"), "sample of outliers"),
    (lambda: augment.outliers(11), "0 to 10"),
    (lambda: augment.autoaugment("cifar100"), "Did you mean 'cifar10'"),
    (lambda: augment.autoaugment("v0", map="torchvision_aa"), "solarize_add|0 to 9"),
    (lambda: augment.sub_policies([[("invrt", 1.0, 0)]], "tf"), "sub-policy 1.*Did you mean"),
    (lambda: augment.sub_policies([[("invert", 2.0, 0)]], "tf"), "sub-policy 1.*got 2"),
    (lambda: augment.sub_policies([*PAIR, [("invert", 1.0, 0)]], "tf"), "all of one length"),
    (lambda: augment.sub_policies([], "tf"), "at least one"),
])
def test_wrong_policies_are_refused_when_made(build, says):
    with pytest.raises(check.ConfigError, match=f"(?s){says}"):
        build()
