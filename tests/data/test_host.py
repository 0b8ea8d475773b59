"""Fed by the host or taken from memory, a step sees the same batch, wherever a run resumes."""

import itertools

import jax
import numpy as np
import pytest

from augjax import check, data

SEED, B = 7, 10


@pytest.fixture(scope="module")
def source():
    """35 images: three batches of 10 an epoch, 5 images dropped."""
    images = np.random.default_rng(0).integers(0, 256, (35, 4, 4, 3), np.uint8)
    return data.from_arrays("toy", images, np.arange(35) % 5, "abcde")


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_batches_equal_those_indexed_from_resident_data(source):
    images, labels = data.resident(source)
    batches = list(data.feed(source, SEED, B, 0, 7))
    assert len(batches) == 7
    for step, batch in enumerate(batches):
        epoch, place = divmod(step, 3)
        indices = data.order(SEED, epoch, 35)[place * B : (place + 1) * B]
        np.testing.assert_array_equal(batch.index, indices)
        np.testing.assert_array_equal(batch.index, data.batch_indices(source, SEED, B, step))
        np.testing.assert_array_equal(batch.image, images[indices])
        np.testing.assert_array_equal(batch.label, labels[indices])
        assert (batch.image.dtype, batch.label.dtype, batch.index.dtype) == (
            np.uint8, np.int32, np.int32,
        )


def test_no_image_comes_twice_in_an_epoch(source):
    batches = data.feed(source, SEED, B, 3, 3)
    assert len(set(np.concatenate([batch.index for batch in batches]))) == 30


def test_starting_at_every_step_equals_the_rest(source):
    steps = 8
    whole = list(data.feed(source, SEED, B, 0, steps))
    for first in range(steps + 1):
        rest = list(data.feed(source, SEED, B, first, steps - first, threads=1 + first % 3))
        assert len(rest) == steps - first
        same(rest, whole[first:])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_parts_together_are_the_whole(source, count):
    parts = [data.feed(source, SEED, B, 2, 3, part=(index, count)) for index in range(count)]
    for batch, *shares in zip(data.feed(source, SEED, B, 2, 3), *parts, strict=True):
        assert all(len(share.index) == B // count for share in shares)
        same(batch, jax.tree.map(lambda *leaves: np.concatenate(leaves), *shares))


def test_child_processes_change_nothing(source):
    one, other = data.feed(source, SEED, B, 1, 5), data.feed(source, SEED, B, 1, 5, workers=1)
    for batch, worked in itertools.zip_longest(one, other):
        same(batch, worked)


@pytest.mark.parametrize("change, sentence", [
    ({"batch_size": 36}, "a batch size from 1 to 35, got 36"),
    ({"batch_size": 0}, "a batch size from 1 to 35, got 0"),
    ({"part": (0, 3)}, "a count that divides 10"),
    ({"part": (2, 2)}, "index below count"),
    ({"first_step": -1}, "from 0 on"),
    ({"threads": 0}, "at least 1 thread"),
])
def test_feed_refuses_with_a_sentence(source, change, sentence):
    arguments = {"seed": SEED, "batch_size": B, "first_step": 0, "steps": 1} | change
    with pytest.raises(check.ConfigError, match=sentence):
        data.feed(source, **arguments)
