"""Sources, their subsets and the data sets that come by name."""

import numpy as np
import pytest

from augjax import check, data


@pytest.fixture(scope="module")
def source():
    """60 images whose first pixel is their number, classes of 30, 20 and 10."""
    images = np.zeros((60, 4, 5, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(60)
    return data.from_arrays("toy", images, np.repeat([0, 1, 2], [30, 20, 10]), "abc")


def numbers(source):
    return data.resident(source)[0][:, 0, 0, 0].tolist()


def test_source_says_what_it_holds(source):
    assert (len(source), source.classes, source.image_shape) == (60, 3, (4, 5, 3))
    assert source.class_names == ("a", "b", "c") and source.labels.dtype == np.int32
    assert source.read([7, 3])[:, 0, 0, 0].tolist() == [7, 3]


def test_a_subset_of_a_subset_counts_its_own_places(source):
    part = data.subset(data.subset(source, [50, 40, 30, 20]), [2, 0])
    assert numbers(part) == [30, 50] and part.labels.tolist() == [1, 2]
    assert part.read([1])[0, 0, 0, 0] == 50


def test_resident_images_are_shared_and_cannot_be_written_to(source):
    images, labels = data.resident(source)
    assert np.shares_memory(images, data.resident(source)[0])
    assert not images.flags.writeable and not labels.flags.writeable


@pytest.mark.parametrize("indices", [[60], [-1], [[0]]])
def test_indices_outside_are_refused(source, indices):
    with pytest.raises(check.ConfigError, match=r"toy: expected a list of indices in 0..59"):
        source.read(indices)
    with pytest.raises(check.ConfigError, match="0..59"):
        data.subset(source, indices)


def test_holdout_is_stratified_disjoint_and_complete(source):
    train, held = data.holdout(source, 12)
    assert np.bincount(held.labels).tolist() == [6, 4, 2]
    assert sorted(numbers(train) + numbers(held)) == list(range(60))
    assert numbers(held) == numbers(data.holdout(source, 12)[1])
    assert numbers(held) != numbers(data.holdout(source, 12, seed=1)[1])


@pytest.mark.parametrize("count", [-1, 0, 1, 59, 60, 61])
def test_holdout_refuses_counts_that_do_not_fit(source, count):
    with pytest.raises(check.ConfigError, match=f"both sides, got {count} of 60 images"):
        data.holdout(source, count)


def test_from_arrays_names_the_wrong_record():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    with pytest.raises(check.DataError, match=r"toy record 1: expected a label in 0..1, got 2"):
        data.from_arrays("toy", images, [0, 2, 1], "ab")
    with pytest.raises(check.DataError, match="uint8"):
        data.from_arrays("toy", images.astype(np.float32), [0, 0, 1], "ab")
    with pytest.raises(check.DataError, match="3 integer labels"):
        data.from_arrays("toy", images, [0, 1], "ab")


@pytest.mark.parametrize("image_size, channels", [(8, 3), (16, 1), (32, 3)])
def test_digits(image_size, channels):
    digits = data.digits(image_size, channels)
    assert (len(digits.train), len(digits.test), digits.classes) == (1437, 360, 10)
    images, labels = data.resident(digits.train)
    assert images.shape == (1437, image_size, image_size, channels) and images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    np.testing.assert_array_equal(images, np.repeat(images[..., :1], channels, axis=-1))
    small = data.resident(data.digits(8, 1).train)[0]
    times = image_size // 8
    np.testing.assert_array_equal(images[:, ::times, ::times, :1], small)
    np.testing.assert_array_equal(images[:, times - 1 :: times, times - 1 :: times, :1], small)
    shares = np.bincount(digits.test.labels) / np.bincount(labels)
    assert np.all(np.abs(shares - 360 / 1437) < 0.01)


def test_digits_pixels_are_the_scans():
    from sklearn.datasets import load_digits

    digits = data.digits(8, 1)
    ours = np.concatenate([data.resident(digits.train)[0], data.resident(digits.test)[0]])
    scans = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, scans))
    with pytest.raises(check.ConfigError, match="multiple of 8, got 20"):
        data.digits(20)


def test_load_carves_the_holdout_before_the_limit():
    whole = data.load("digits", holdout=100)
    small = data.load("digits", holdout=100, limit=50, image_size=16)
    assert (len(whole.train), len(whole.holdout), len(small.train)) == (1337, 100, 50)
    assert len(small.test) == 360 and data.load("digits").holdout is None
    np.testing.assert_array_equal(*(data.resident(d.holdout)[0] for d in (whole, small)))
    assert np.bincount(small.train.labels).min() >= 4
    kept = {bytes(image) for image in data.resident(small.train)[0]}
    assert kept <= {bytes(image) for image in data.resident(whole.train)[0]}


@pytest.mark.parametrize("arguments, sentence", [
    ({"name": "cifar"}, "Did you mean 'cifar10' or 'cifar100'?"),
    ({"name": "cifar10"}, "expected a data_dir, got none"),
    ({"name": "cifar10", "image_size": 64, "data_dir": "."}, "expected image_size=32 or none"),
    ({"name": "digits", "limit": 0}, "expected 1 to 1437 images, got 0"),
    ({"name": "digits", "holdout": -5}, "expected a number of images from 0 on, got -5"),
])
def test_load_refuses_with_a_sentence(arguments, sentence):
    with pytest.raises(check.ConfigError) as caught:
        data.load(**arguments)
    assert sentence in str(caught.value)


def test_peoples_own_data_have_imagenets_statistics():
    """Of grey images their average; those of known sets are their own."""
    own = data.statistics_of("flowers")
    assert own == data.statistics_of("imagenet2012") != data.statistics_of("cifar10")
    mean, std = data.statistics_of("scans", channels=1)
    assert mean == (pytest.approx(sum(own[0]) / 3),) and std == (pytest.approx(sum(own[1]) / 3),)
