"""PBA's explore and exploit against their distributions, and decisions as a function."""

import json
import random

import numpy as np
import pytest
from scipy import stats

from augjax import augment, check, search
from augjax.search import pba

MANY = 3000


def stream(seed):
    return np.random.Philox(seed)


def policy_of(probabilities, levels):
    return search.Policy(tuple(probabilities), tuple(levels))


def some_policies(count, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(policy_of(rng.integers(0, 11, 30).tolist(), rng.integers(0, 10, 30).tolist())
                 for _ in range(count))


def plain(decision):
    return decision.donors.tolist(), search.to_json(decision.policies, decision.logs)


# --- explore -------------------------------------------------------------------------------------


def chances(value, highest):
    """[highest + 1] where spec P3 sends a number, told branch by branch."""
    chance = np.full(highest + 1, 0.2 / (highest + 1))
    for amount in range(4):
        chance[max(0, value - amount)] += 0.8 / 4 / 2
        chance[min(highest, value + amount)] += 0.8 / 4 / 2
    return chance


@pytest.fixture(scope="module")
def explored():
    """A policy with every value of both kinds, and [MANY, 60] what explore makes of it."""
    before = policy_of((n % 11 for n in range(30)), (n % 10 for n in range(30)))
    after = [search.explore(stream(seed), before) for seed in range(MANY)]
    return before, np.array([policy.probabilities + policy.levels for policy in after])


def test_every_number_moves_as_the_paper_says(explored):
    before, after = explored
    for kind, (values, highest) in enumerate(((before.probabilities, 10), (before.levels, 9))):
        for value in range(highest + 1):
            entries = np.flatnonzero(np.array(values) == value) + 30 * kind
            counts = np.bincount(after[:, entries].ravel(), minlength=highest + 1)
            expected = chances(value, highest) * counts.sum()
            assert len(counts) == highest + 1
            assert stats.chisquare(counts, expected).pvalue > 1e-4, (kind, value, counts, expected)


def test_numbers_move_by_themselves(explored):
    """No pair of the 60 numbers goes together, neither in direction nor in having changed."""
    before, after = explored
    moved = after - np.array(before.probabilities + before.levels)
    for sample in (moved, moved != 0, np.abs(moved) > 3):
        together = np.corrcoef(sample.T)
        assert np.abs(together - np.eye(60)).max() < 5 / np.sqrt(MANY)


def test_the_tests_of_explore_can_fail():
    """A step of 0..2, as one slip would have it, is no match."""
    slip = np.full(11, 0.2 / 11)
    for amount in range(3):
        slip[5 - amount] += 0.8 / 6
        slip[5 + amount] += 0.8 / 6
    assert stats.chisquare(slip * MANY * 3, chances(5, 10) * MANY * 3).pvalue < 1e-4


def test_a_population_starts_without_augmentation():
    policies = search.start_policies(3)
    assert policies == (policy_of((0,) * 30, (0,) * 30),) * 3
    for size in (1, 0, -2, 2.0):
        with pytest.raises(check.ConfigError, match="at least 2 members"):
            search.start_policies(size)


def test_knobs_are_what_a_replay_turns():
    """Bit for bit: a replayed schedule trains with the very numbers of the search."""
    policies = some_policies(2)
    probabilities, levels = search.knobs(policies)
    assert probabilities.shape == levels.shape == (2, 30)
    assert probabilities.dtype == levels.dtype == np.float32
    schedule = search.schedule_of_lineage((), policies[1], 4)
    np.testing.assert_array_equal(
        probabilities[1], np.float32(schedule["segments"][0]["probabilities"]))
    made = augment.pba(probabilities[1], levels[1])
    np.testing.assert_array_equal(made.probabilities, probabilities[1])
    np.testing.assert_array_equal(made.levels, policies[1].levels)


# --- exploit -------------------------------------------------------------------------------------


def moves(donors):
    return {target: donor for target, donor in enumerate(donors.tolist()) if donor != target}


def test_the_lowest_quarter_takes_from_the_highest():
    scores = np.random.default_rng(0).permutation(16) / 16
    order = np.argsort(scores)
    lowest, highest = set(order[:4].tolist()), set(order[-4:].tolist())
    counts = np.zeros((16, 16), int)
    for seed in range(400):
        moved = moves(search.exploit(scores, stream(seed)))
        assert set(moved) == lowest and set(moved.values()) <= highest
        for target, donor in moved.items():
            counts[target, donor] += 1
    taken = counts[np.ix_(sorted(lowest), sorted(highest))]
    assert stats.chisquare(taken.ravel()).pvalue > 1e-3  # uniform for every target
    assert stats.chi2_contingency(taken).pvalue > 1e-3
    assert len({tuple(moves(search.exploit(scores, stream(s))).values()) for s in range(9)}) > 1


@pytest.mark.parametrize("size, quantile, moving", [
    (0, 0.25, 0), (1, 0.25, 0), (2, 0.25, 1), (3, 0.25, 1), (4, 0.25, 1), (5, 0.25, 2),
    (3, 0.5, 1), (5, 0.5, 2), (16, 0.25, 4), (17, 0.25, 5), (8, 0.5, 4),
])
def test_how_many_move(size, quantile, moving):  # ceil(quantile n), at most floor(n / 2)
    donors = search.exploit(np.arange(size, dtype=float), stream(1), quantile)
    assert donors.shape == (size,)
    moved = moves(donors)
    assert set(moved) == set(range(moving))
    assert set(moved.values()) <= set(range(size - moving, size))


def test_of_equals_the_lower_member_ranks_higher():
    taken = [moves(search.exploit([0.5] * 8, stream(seed))) for seed in range(30)]
    assert {target for moved in taken for target in moved} == {6, 7}
    assert {donor for moved in taken for donor in moved.values()} == {0, 1}
    assert search.winner([0.5] * 8) == 0 and search.winner([0.1, 0.7, 0.2, 0.7]) == 1


def test_no_number_ranks_lowest():
    scores = [0.1, np.nan, 0.9, -np.inf, 0.5, 0.6, np.nan, 0.4]
    moved = moves(search.exploit(scores, stream(0)))
    assert set(moved) == {1, 6} and set(moved.values()) <= {2, 5}
    assert search.winner(scores) == 2
    with pytest.raises(check.NumericsError, match="scores of a search"):
        search.winner([np.nan, np.nan])


@pytest.mark.parametrize("numbers, best", [({5: 0.1}, {5}), ({5: 0.1, 2: 0.7}, {2, 5}), ({}, {})])
def test_nobody_follows_who_has_no_number(numbers, best):
    """Where fewer have one than are to be followed."""
    scores = [numbers.get(member, np.nan) for member in range(16)]
    taken = [moves(search.exploit(scores, stream(seed))) for seed in range(30)]
    assert {donor for moved in taken for donor in moved.values()} == set(best)
    assert {target for moved in taken for target in moved} == (
        {12, 13, 14, 15} if best else set())


@pytest.mark.parametrize("quantile", [0, -0.1, 0.6, np.nan])
def test_wrong_quantiles_are_refused(quantile):
    with pytest.raises(check.ConfigError, match="quantile"):
        search.exploit([1.0, 2.0], stream(0), quantile)


# --- decisions -----------------------------------------------------------------------------------

SCORES = [0.3, 0.9, 0.1, 0.8, 0.5, 0.6, 0.4, 0.7]  # lowest 2 and 0, highest 1 and 3


def decided(policies=None, scores=SCORES, logs=None, epoch=3, seed=7, decision=0):
    policies = some_policies(8) if policies is None else policies
    return search.decide(policies, ((),) * 8 if logs is None else logs, scores, epoch, seed,
                         decision)


def test_a_decision_is_a_function_of_its_arguments():
    first = plain(decided())
    random.seed(1)
    np.random.seed(1)
    np.random.default_rng().random(5)
    assert plain(decided()) == first
    assert plain(decided(scores=np.array(SCORES))) == first
    for other in (decided(seed=8), decided(decision=1)):
        assert plain(other)[1]["policies"] != first[1]["policies"]
    assert plain(decided(epoch=6))[1]["policies"] == first[1]["policies"]


def test_targets_get_an_explored_policy_and_others_keep_theirs():
    policies, made = some_policies(8), decided()
    moved = moves(made.donors)
    assert set(moved) == {0, 2} and set(moved.values()) <= {1, 3}
    for member in range(8):
        if member not in moved:
            assert made.policies[member] == policies[member] and made.logs[member] == ()
            continue
        donor = moved[member]
        (one,) = made.logs[member]
        assert (one.target, one.donor, one.epoch, one.donor_epoch) == (member, donor, 3, 3)
        assert one.before == policies[donor] and one.after == made.policies[member]
        far = np.abs(np.subtract(one.after.levels, one.before.levels)) > 3
        assert one.after != one.before and far.mean() < 0.4


def test_members_do_not_depend_on_each_other():
    """What member 2 explores from its donor is the same whatever stands in the other places."""
    made = decided()
    donor = made.donors[2]
    policies = tuple(policy if member == donor else policy_of((5,) * 30, (5,) * 30)
                     for member, policy in enumerate(some_policies(8)))
    again = decided(policies)
    assert again.donors[2] == donor and again.policies[2] == made.policies[2]
    # two targets of one donor explore it differently
    same = decided((policies[donor],) * 8)
    assert same.policies[0] != same.policies[2]


def test_a_resumed_search_goes_on_as_if_never_stopped():
    """Every decision made from a file's text equals the one made from memory."""
    policies, logs = search.start_policies(8), ((),) * 8
    for decision in range(12):
        scores = np.random.default_rng(decision).random(8)
        state = search.to_json(policies, logs)
        text = json.dumps(state)
        assert json.loads(text) == state
        here = search.decide(policies, logs, scores, 3 * decision + 3, 0, decision)
        there = search.decide(*search.from_json(json.loads(text)), scores, 3 * decision + 3, 0,
                              decision)
        assert plain(here) == plain(there) and here.logs == there.logs
        policies, logs = here.policies, here.logs
    assert max(map(len, logs)) > 2


@pytest.mark.parametrize("call, says", [
    (lambda: decided(logs=((),) * 7), "7 logs and 8 scores"),
    (lambda: decided(scores=SCORES[:5]), "5 scores"),
    (lambda: decided(some_policies(1)), "at least 2 members, got 1"),
    (lambda: decided(seed=-1), "a seed from 0"),
    (lambda: decided(decision=-1), "decision from 0"),
])
def test_wrong_decisions_are_refused(call, says):
    with pytest.raises(check.ConfigError, match=says):
        call()


def change(path, value):
    def changed(state):
        *way, last = path
        for step in way:
            state = state[step]
        state[last] = value
    return changed


@pytest.mark.parametrize("change, says", [
    (lambda state: state.pop("logs"), "logs"),
    (change(["policies", 0, "levels", 3], 10), "levels: expected whole numbers from 0 to 9"),
    (change(["policies", 1, "probabilities", 0], 0.5), "probabilities: expected whole numbers"),
    (change(["policies", 1], 5), "policies and logs"),
    (change(["policies", 1], {"levels": [1]}), "policies and logs"),
    (lambda state: state["logs"].pop(), "2 policies and 1 logs"),
    (lambda state: state["logs"][1].append({"target": 1}), "policies and logs"),
])
def test_broken_files_are_refused(change, says):
    state = search.to_json(some_policies(2), ((), ()))
    change(state)
    with pytest.raises(check.CheckpointError, match=says):
        search.from_json(state)


def test_streams_are_keyed_by_everything():
    words = {pba._stream(*key).random_raw() for key in (
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0, 1), (2**64 - 1, 0, 0))}
    assert len(words) == 6
