"""Order is a law: a permutation, the same everywhere, another one every epoch."""

import numpy as np
import pytest

from augjax import check, data


@pytest.mark.parametrize("size", [0, 1, 2, 97, 50_000])
def test_order_is_a_permutation(size):
    order = data.order(3, 5, size)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_order_is_a_function_of_seed_and_epoch():
    first = data.order(0, 0, 1000)
    np.testing.assert_array_equal(first, data.order(0, 0, 1000))
    orders = [first, data.order(0, 1, 1000), data.order(1, 0, 1000), data.order(1, 1, 1000)]
    for i, one in enumerate(orders):  # random permutations agree in about 1 place
        for other in orders[:i]:
            assert (one == other).sum() < 10


def test_order_never_changes():
    """Literals of this code's first run: a change here changes what every run sees."""
    assert data.order(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert data.order(0, 1, 8).tolist() == [5, 3, 7, 2, 4, 1, 0, 6]


def test_places_are_even_over_seeds():
    firsts = [data.order(seed, 0, 10)[0] for seed in range(2000)]
    assert np.abs(np.bincount(firsts, minlength=10) - 200).max() < 60  # 4.5 standard deviations


@pytest.mark.parametrize("seed, epoch", [(-1, 0), (0, -1), (2**64, 0)])
def test_order_refuses_what_is_not_a_seed_or_epoch(seed, epoch):
    with pytest.raises(check.ConfigError, match="order: expected"):
        data.order(seed, epoch, 8)


@pytest.mark.parametrize("count", [0, 1, 7, 10, 100, 123, 300])
def test_stratified_keeps_the_shares(count):
    labels = np.repeat([0, 1, 2], [150, 100, 50])
    picked = data.stratified(labels, count)
    assert len(np.unique(picked)) == len(picked) == count
    assert np.all(np.diff(picked) > 0)
    shares = np.bincount(labels[picked], minlength=3)
    assert np.all(np.abs(shares - count * np.array([1 / 2, 1 / 3, 1 / 6])) < 1)


def test_stratified_is_drawn_by_its_seed():
    labels = np.arange(1000) % 10
    np.testing.assert_array_equal(data.stratified(labels, 100), data.stratified(labels, 100, 0))
    assert set(data.stratified(labels, 100, 0)) != set(data.stratified(labels, 100, 1))
    with pytest.raises(check.ConfigError, match="0 to 1000, got 1001"):
        data.stratified(labels, 1001)
