"""A2-Aug's candidates: different, drawn once, the same everywhere."""

import pytest

from augjax import augment, check


def test_drawn_without_replacement_and_by_their_seed():
    for space, size, layers, magnitudes in (
        ("1-3x1-30", 90, set(range(1, 4)), set(range(1, 31))),
        ("10x10", 100, set(range(1, 11)), set(range(3, 31, 3))),
    ):
        whole = augment.sample_augmentations(size, 7, space)
        assert len(set(whole)) == size
        assert ({n for n, _ in whole}, {m for _, m in whole}) == (layers, magnitudes)
        assert augment.sample_augmentations(4, 7, space) == whole[:4]
    assert len({augment.sample_augmentations(4, seed) for seed in range(10)}) == 10


def test_the_draw_of_a_seed_never_changes():
    """Philox's raw bits are NumPy's promise; configs name draws by these seeds."""
    assert augment.sample_augmentations(4, 0) == ((3, 7.0), (1, 1.0), (2, 25.0), (2, 14.0))


def test_what_cannot_be_drawn_is_refused():
    for arguments, words in (
        ((4, 0, "10x1"), "Did you mean '10x10'"), ((0, 0), "1 to 90"), ((91, 0), "got 91"),
        ((4, -1), "seed of augmentations"),
    ):
        with pytest.raises(check.ConfigError, match=words):
            augment.sample_augmentations(*arguments)
