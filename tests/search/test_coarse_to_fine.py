"""Coarse to fine against the whole grid: exact on every curve with one top, bounded, resumable."""

from collections import Counter
import math
import random

import pytest

from augjax import check, search
from augjax.search import magnitude


def curve(rng, last, first_top, last_top, flat=1):
    """[last + 1] up to a plateau and down after it; below it at most `flat` places are equal."""
    def side(count):
        values, shift = sorted(rng.sample(range(10**6), count)), rng.randrange(flat)
        return [values[max(0, place - (place + shift) % flat)] for place in range(count)]

    top = [10**6] * (last_top - first_top + 1)
    return dict(enumerate([*side(first_top), *top, *reversed(side(last - last_top))]))


def test_every_curve_with_one_top_over_0_to_30():
    rng, runs = random.Random(0), Counter()
    for first in range(31):
        for last in range(first, 31):
            table = curve(rng, 30, first, last)
            found = search.replayed(table)
            assert (found.magnitude, found.lost) == (first, 0), table
            runs[found.runs] += 1
    assert (min(runs), max(runs)) == (8, 11)


def test_two_equal_neighbours_below_the_top_hide_nothing():
    rng = random.Random(1)
    for _ in range(600):
        first = rng.randrange(31)
        table = curve(rng, 30, first, rng.randrange(first, 31), flat=2)
        assert search.replayed(table).magnitude == first, table


@pytest.mark.parametrize("points", [2, 3, 4, 7, 40])
@pytest.mark.parametrize("last", [0, 1, 2, 9, 14])
def test_other_ranges_and_coarse_grids(points, last):
    rng = random.Random(points)
    for first in range(last + 1):
        for end in range(first, last + 1):
            found = search.replayed(curve(rng, last, first, end), points)
            assert (found.magnitude, found.lost) == (first, 0)


def test_a_needle_is_lost_and_said_to_be():
    table = {place: 1.0 if place == 11 else 0.0 for place in range(31)}
    found = search.replayed(table)
    assert found.magnitude == 0 and found.lost == 1.0


def test_any_curve_ends_on_a_local_best():
    rng = random.Random(2)
    for _ in range(300):
        table = {place: rng.choice([rng.random(), 0.5, math.nan]) for place in range(31)}
        measured = {}
        while wanted := search.next_magnitudes(measured, 0, 30):
            assert not set(wanted) & set(measured) and list(wanted) == sorted(set(wanted))
            measured |= {place: table[place] for place in wanted}
        choice = search.best(measured)
        assert {place for place in (choice - 1, choice + 1) if 0 <= place <= 30} <= set(measured)
        assert len(measured) <= 16


def test_the_steps_one_by_one():
    table = {place: -abs(place - 13) for place in range(31)}
    asked, measured = [], {}
    while wanted := search.next_magnitudes(measured, 0, 30):
        asked.append(wanted)
        measured |= {place: table[place] for place in wanted}
    assert asked == [(0, 8, 15, 23, 30), (11, 19), (9, 13), (12, 14)]
    assert all(isinstance(place, int) for wanted in asked for place in wanted)
    assert search.best(measured) == 13
    assert search.runs_saved(measured, 0, 30) == 20
    assert search.runs_saved(measured, 0, 30, seeds=3) == 60


def test_interrupted_anywhere_it_asks_for_the_rest():
    """Measured one at a time in any order, it asks for the same as when never stopped."""
    rng = random.Random(3)
    for _ in range(100):
        table = {place: rng.random() for place in range(31)}
        whole, pieces = {}, {}
        while wanted := search.next_magnitudes(whole, 0, 30):
            whole |= {place: table[place] for place in wanted}
        while wanted := search.next_magnitudes(pieces, 0, 30):
            one = rng.choice(wanted)
            pieces[one] = table[one]
        assert pieces == whole


def test_what_was_measured_before_is_not_asked_again_and_counts():
    table = {place: -abs(place - 26) for place in range(31)}
    measured = {place: table[place] for place in (0, 15, 26)}
    assert search.next_magnitudes(measured, 0, 30) == (8, 23, 30)
    two_tops = {0: 1, 8: 3, 15: 1, 23: 1, 30: 1, 19: 9}  # 19 is nothing that it asks for itself
    while wanted := search.next_magnitudes(two_tops, 0, 30):
        two_tops |= dict.fromkeys(wanted, 0)
    assert search.best(two_tops) == 19 and {18, 20} <= set(two_tops)


@pytest.mark.parametrize("peak", [0.0, 0.3, 0.7, 1.2])
def test_finer_steps_than_whole_numbers(peak):
    table = {0.1 * place: -abs(0.1 * place - peak) for place in range(13)}
    found = search.replayed(table, finest=0.1)
    assert found.magnitude == pytest.approx(peak) and found.lost == 0 and found.runs < 13


def test_best_is_the_lowest_of_equals_and_a_failed_run_the_last():
    assert search.best({7: 0.5, 3: 0.5, 9: 0.4}) == 3
    assert search.best({1: math.nan, 4: -5.0}) == 4
    assert search.best({1: math.nan, 0: math.nan}) == 0


@pytest.mark.parametrize("call, says", [
    (lambda: search.best({}), "at least one"),
    (lambda: search.next_magnitudes({}, 0, 30, points=1), "whole number from 2 on"),
    (lambda: search.next_magnitudes({}, 0, 30, finest=4), "whole number of the finest steps"),
    (lambda: search.next_magnitudes({}, 0, 30, finest=0), "steps above 0"),
    (lambda: search.next_magnitudes({}, 3, 0), "low to high"),
    (lambda: search.next_magnitudes({31: 1}, 0, 30), "got 31"),
    (lambda: search.next_magnitudes({2.5: 1}, 0, 30), "got 2.5"),
    (lambda: search.replayed({0: 1, 2: 3}), "every magnitude from 0 to 2"),
    (lambda: search.replayed({}), "every magnitude"),
])
def test_wrong_searches_are_refused(call, says):
    with pytest.raises(check.ConfigError, match=says):
        call()


def test_coarse_places():
    assert magnitude._coarse(30, 5) == [0, 8, 15, 23, 30]
    assert magnitude._coarse(2, 5) == [0, 1, 2] and magnitude._coarse(0, 5) == [0]


def test_odd_spacings_are_halved_upwards():
    """6, 3, 2, 1: so that what lies between two measured places is never left out."""
    table = {place: -abs(place - 5) for place in range(13)}
    asked, measured = [], {}
    while wanted := search.next_magnitudes(measured, 0, 12, points=3):
        asked.append(wanted)
        measured |= {place: table[place] for place in wanted}
    assert asked == [(0, 6, 12), (3, 9), (4, 8), (5,)]
