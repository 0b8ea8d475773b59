"""PBA's policy against a walk through shuffled entries; the replay of a schedule; bad files."""

import copy
import json

import jax
import numpy as np
import pytest

from augjax import augment, check
from augjax.augment import maps, pba_policies
from augjax.types import Clock

SHAPE, MANY = (32, 32, 3), 20000
draw_jitted = jax.jit(augment.draw, static_argnums=2)


def drawn(policy, count=MANY, seed=0):
    keys = augment.image_keys(jax.random.key(seed), count)
    program = draw_jitted(keys, policy, SHAPE)
    return np.array(program.ops)[np.asarray(program.op)], np.asarray(program.parameters)


def near(count, trials, probability):
    """Within 5 standard deviations: fails 6 times in 10^7 for a random seed."""
    deviation = np.sqrt(trials * probability * (1 - probability))
    return abs(count - trials * probability) <= 5 * deviation + 1e-9


def walked(probabilities, counts, trials, seed=0):
    """Spec P2 as a loop: [trials, L] entries done, -1 for none."""
    rng, layers = np.random.default_rng(seed), len(counts) - 1
    done = np.full((trials, layers), -1)
    for trial in range(trials):
        count, layer = rng.choice(len(counts), p=counts), 0
        for entry in rng.permutation(len(probabilities)):
            if layer == count:
                break
            if rng.random() < probabilities[entry]:
                done[trial, layer] = entry
                layer += 1
    return done


def test_operations_stand_in_the_published_order():  # spec P1
    assert maps.PBA_OPS == (
        "rotate", "translate_x", "translate_y", "brightness", "color", "invert", "sharpness",
        "posterize", "shear_x", "solarize", "shear_y", "equalize", "autocontrast", "cutout",
        "contrast")


def test_number_of_operations_follows_the_counts():
    names, _ = drawn(augment.pba(np.ones(30), np.full(30, 5)))
    assert names.shape == (MANY, 2)  # the count of 3 has no chance: no layer for it
    number = (names != "identity").sum(1)
    for count, chance in enumerate((0.2, 0.3, 0.5)):
        assert near((number == count).sum(), MANY, chance)
    assert not ((names[:, 0] == "identity") & (names[:, 1] != "identity")).any()
    for operation in maps.PBA_OPS:
        assert near((names[:, 0] == operation).sum(), MANY, 0.8 / 15)
    # both copies of an operation, of 29 entries left one is the other copy
    assert near((names[:, 0] == names[:, 1])[number == 2].sum(), (number == 2).sum(), 1 / 29)


def test_three_operations_if_asked_for():
    names, _ = drawn(augment.pba(np.ones(30), np.zeros(30), counts=(0.0, 0.0, 0.0, 1.0)))
    assert names.shape == (MANY, 3) and (names != "identity").all()


def test_draws_are_those_of_the_walk():
    """Entries of a few operations, some sure, some rare: the two samples of pairs agree."""
    rng = np.random.default_rng(3)
    probabilities = np.where(np.arange(30) % 7 == 0, 1.0, rng.integers(0, 4, 30) / 10)
    names, _ = drawn(augment.pba(probabilities, np.zeros(30)))
    expected = walked(probabilities, (0.2, 0.3, 0.5), MANY)
    theirs = np.where(expected < 0, "identity", np.array(maps.PBA_OPS)[expected % 15])
    for layer in range(2):
        for operation in (*maps.PBA_OPS, "identity"):
            mine, other = (np.sum(sample[:, layer] == operation) for sample in (names, theirs))
            # two samples: the variance of the difference is twice that of one
            share = (mine + other) / (2 * MANY)
            assert abs(mine - other) <= 5 * np.sqrt(2 * MANY * share * (1 - share)) + 1e-9
    same, other = ((s[:, 0] == s[:, 1]).mean() for s in (names, theirs))
    assert abs(same - other) < 5 * np.sqrt(2 * same * (1 - same) / MANY)


def test_levels_belong_to_their_entry():
    """Two copies of colour at levels 2 and 9, nothing else."""
    color = maps.PBA_OPS.index("color")
    probabilities, levels = np.zeros(30), np.zeros(30)
    probabilities[[color, color + 15]] = 1.0, 0.5
    levels[[color, color + 15]] = 2, 9
    names, parameters = drawn(augment.pba(probabilities, levels, counts=(0.0, 1.0)))
    assert set(names.ravel()) == {"color"}
    factor = parameters[:, 0, 0].view(np.float32)
    first = np.isclose(factor, 0.46).sum()
    assert first + np.isclose(factor, 1.72).sum() == MANY
    assert near(first, MANY, 0.75)  # alone half of the time, first of two the other half


def test_nothing_fires_nothing_is_done():
    names, _ = drawn(augment.pba(np.zeros(30), np.full(30, 9)), 200)
    assert (names == "identity").all()


# --- schedules -----------------------------------------------------------------------------------


def a_schedule():
    rng = np.random.default_rng(0)
    return {
        "version": 1, "map": "autoaugment", "ops": list(maps.PBA_OPS), "epochs": 20,
        "segments": [
            {"epochs": length, "probabilities": (rng.integers(0, 11, 30) / 10).tolist(),
             "levels": rng.integers(0, 10, 30).tolist()}
            for length in (3, 7, 0, 10)
        ],
        "lineage": [],
    }


def at(policy, epoch):
    clock = Clock(np.int32([0]), np.float32([epoch]), np.float32([0]))
    return policy.probabilities(clock)[0], policy.levels(clock)[0]


def test_a_replayed_schedule_is_its_segments():
    schedule = a_schedule()
    policy = augment.replay(schedule, 20)
    for epoch, segment in ((0, 0), (2.99, 0), (3, 1), (9.9, 1), (10, 3), (19.99, 3), (20, 3)):
        for mine, field in zip(at(policy, epoch), ("probabilities", "levels"), strict=True):
            np.testing.assert_array_equal(mine, np.float32(schedule["segments"][segment][field]))


def test_stretching():  # spec P6
    lengths = [12, 22, 20, 20, 1, 6, 3, 27, 6, 21, 6, 9, 7, 17, 6, 12, 5]  # its fixture, T = 200
    assert pba_policies.stretched(lengths, 200) == lengths
    assert pba_policies.stretched(lengths, 400) == [2 * length for length in lengths]
    short = pba_policies.stretched(lengths, 50)
    assert short[:5] == [3, 5, 5, 5, 0] and sum(short) == 50
    assert short[-1] == 50 - sum(length // 4 for length in lengths[:-1])
    policy = augment.replay(a_schedule(), 7)  # 1, 2, 0, then the rest
    levels = [np.float32(segment["levels"]) for segment in a_schedule()["segments"]]
    for epoch, segment in ((0.5, 0), (2.5, 1), (3, 3), (6.9, 3)):
        np.testing.assert_array_equal(at(policy, epoch)[1], levels[segment])


def test_a_replay_is_knobs_of_one_update():
    """What the host makes of a replayed schedule are leaves of the same structure and shape."""
    policy = augment.replay(a_schedule(), 20)
    clock = Clock(np.int32(0), np.float32(4), np.float32(0))
    now = jax.tree.map(
        lambda leaf: leaf(clock) if callable(leaf) else leaf, policy, is_leaf=callable)
    fixed = augment.pba(np.zeros(30), np.zeros(30))
    assert jax.tree.structure(now) == jax.tree.structure(fixed)
    assert jax.tree.map(np.shape, now) == jax.tree.map(np.shape, fixed)
    names, _ = drawn(now, 500)
    assert set(names.ravel()) - {"identity"}


def test_a_schedule_survives_its_file():
    text = json.dumps(a_schedule())
    assert augment.parse_schedule(text) == json.loads(text)


def broken(change):
    schedule = copy.deepcopy(a_schedule())
    change(schedule)
    return schedule


@pytest.mark.parametrize("change, says", [
    (lambda s: s.pop("map"), "schedule: expected the fields .*got no map"),
    (lambda s: s.update(version=2), "version: expected 1, got 2"),
    (lambda s: s.update(map="pba"), "magnitude map"),
    (lambda s: s["ops"].__setitem__(0, "rotat"), "Did you mean 'rotate'"),
    (lambda s: s.update(ops=[]), "ops: expected a list"),
    (lambda s: s.update(segments=[]), "segments: expected at least one"),
    (lambda s: s.update(epochs=21), "sum of 21.*got 20"),
    (lambda s: s["segments"][1].update(epochs=-1), r"segments\[1\].epochs.*got -1"),
    (lambda s: s["segments"][1].update(epochs=2.5), r"segments\[1\].epochs"),
    (lambda s: s["segments"][2].pop("levels"), r"segments\[2\].*no levels"),
    (lambda s: s["segments"][0]["levels"].pop(), r"segments\[0\].levels.*\[30\] numbers"),
    (lambda s: s["segments"][0]["levels"].__setitem__(4, 11), r"levels\[4\].*0 to 10, got 11"),
    (lambda s: s["segments"][0]["probabilities"].__setitem__(7, 1.5),
     r"segments\[0\].probabilities\[7\].*0 to 1, got 1.5"),
    (lambda s: s["segments"][0].update(probabilities="much"), "probabilities"),
    (lambda s: s["segments"].__setitem__(0, 3), r"segments\[0\].*got int"),
])
def test_malformed_schedules_are_refused(change, says):
    with pytest.raises(check.ConfigError, match=f"(?s){says}"):
        augment.replay(broken(change), 20)


@pytest.mark.parametrize("build, says", [
    (lambda: augment.parse_schedule("{,"), "JSON"),
    (lambda: augment.replay(a_schedule(), 0), "whole number from 1 on"),
    (lambda: augment.pba(np.zeros(29), np.zeros(30)), r"\[30\] numbers"),
    (lambda: augment.pba(np.full(30, 2.0), np.zeros(30)), "0 to 1, got 2"),
    (lambda: augment.pba(np.zeros(30), np.full(30, 11)), "0 to 10"),
    (lambda: augment.pba(np.zeros(30), np.zeros(30), counts=(0.5, 0.4)), "sum to 1"),
    (lambda: augment.pba(np.zeros(30), np.zeros(30), map="tf_"), "magnitude map"),
])
def test_wrong_pba_policies_are_refused(build, says):
    with pytest.raises(check.ConfigError, match=f"(?s){says}"):
        build()
