"""Crops on the host: boxes, resampling, and what they depend on."""

import math

import numpy as np
from PIL import Image
import pytest
import torchvision_oracle

from augjax import check
from augjax.augment import resized


def a_picture(height=120, width=160):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def random_boxes(count, height, width):
    return np.array([
        resized.random_resized_crop_box(resized.crop_bits(0, 0, index), height, width)
        for index in range(count)
    ])


def test_boxes_lie_inside_and_keep_area_and_aspect():
    boxes = random_boxes(3000, 375, 500)
    top, left, tall, wide = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + tall <= 375).all() and (left + wide <= 500).all()
    share, aspect = tall * wide / (375 * 500), wide / tall
    assert share.min() > 0.078 and share.max() > 0.95
    assert aspect.min() > 0.74 and aspect.max() < 1.35


def test_a_crop_is_a_function_of_seed_epoch_and_index():
    picture = a_picture()
    one = resized.random_resized_crop(picture, 32, 1, 2, 3)
    assert one.shape == (32, 32, 3) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, resized.random_resized_crop(picture, 32, 1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (one != resized.random_resized_crop(picture, 32, *other)).any()


def test_a_crop_is_cut_before_it_is_resized():
    picture = a_picture()
    top, left, tall, wide = resized.random_resized_crop_box(
        resized.crop_bits(0, 0, 0), picture.height, picture.width)
    alone = Image.fromarray(np.asarray(picture)[top : top + tall, left : left + wide])
    for resample in (resized.BILINEAR, resized.BICUBIC):
        np.testing.assert_array_equal(
            resized.random_resized_crop(picture, 24, 0, 0, 0, resample),
            np.asarray(alone.resize((24, 24), resample)))


@pytest.mark.parametrize("height, width, box", [
    (10, 400, (0, 193, 10, 13)), (400, 10, (193, 0, 13, 10)), (1, 1, (0, 0, 1, 1))])
def test_a_picture_too_long_gives_its_centre(height, width, box):
    tried = {resized.random_resized_crop_box(np.full(22, 2**64 - 1, np.uint64), height, width)}
    assert tried == {box}


@pytest.mark.parametrize("height, width", [(375, 500), (500, 375), (256, 256), (300, 301)])
def test_evaluation_boxes(height, width):
    (_, _, tall, wide), (top, left, side, _) = resized.resnet_boxes(height, width)
    assert min(tall, wide) == 256 and side == 224
    assert max(tall, wide) == int(256 * max(height, width) / min(height, width))
    assert abs(2 * top + 224 - tall) <= 1 and abs(2 * left + 224 - wide) <= 1
    top, left, side, _ = resized.efficientnet_box(height, width, 224)
    assert side == math.floor(224 / 256 * min(height, width))
    assert 0 <= 2 * top + side - height <= 1 and 0 <= 2 * left + side - width <= 1


def test_the_efficientnet_crop_grows_with_its_own_resolution():
    """R / (R + round(R / 7)) of the short side (spec B1): 380 pixels leave 54 around them."""
    assert resized.efficientnet_box(434, 500, 380)[2] in (379, 380)  # in TensorFlow's float32
    assert resized.evaluation_crop_efficientnet(a_picture(), 56).shape == (56, 56, 3)


def test_evaluation_of_resnets_is_pillows_resize_and_the_centre():
    picture = a_picture(100, 150)
    done = resized.evaluation_crop_resnet(picture, 28, 32)
    whole = np.asarray(picture.resize((48, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(done, whole[2:30, 10:38])


def test_grey_and_transparent_pictures_become_rgb():
    for mode in ("L", "RGBA", "CMYK"):
        assert resized.random_resized_crop(a_picture().convert(mode), 8, 0, 0, 0).shape == (8, 8, 3)


def test_wrong_numbers_are_refused():
    with pytest.raises(check.ConfigError, match="from 0 on"):
        resized.crop_bits(-1, 0, 0)
    with pytest.raises(check.ConfigError, match="at most the short side 256"):
        resized.resnet_boxes(300, 300, 288)
    with pytest.raises(check.DataError, match="one pixel"):
        resized.random_resized_crop_box(np.zeros(22, np.uint64), 0, 4)


# --- torchvision's own ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transforms():
    return torchvision_oracle.load("torchvision.transforms")


@pytest.mark.parity
@pytest.mark.parametrize("height, width", [(375, 500), (64, 64), (100, 300), (300, 90)])
def test_random_boxes_are_distributed_as_torchvisions(transforms, height, width):
    ours = random_boxes(3000, height, width)
    picture = Image.new("RGB", (width, height))
    theirs = np.array([
        transforms.RandomResizedCrop.get_params(picture, list(resized.AREA), list(resized.ASPECT))
        for _ in range(3000)
    ])
    for column in range(4):
        one, other = ours[:, column], theirs[:, column]
        values = np.union1d(one, other)
        rank = [np.searchsorted(np.sort(side), values, "right") / 3000 for side in (one, other)]
        # Kolmogorov-Smirnov at 1 in a million: sqrt(ln(2 / 1e-6) / 2 * 2 / 3000)
        assert np.abs(rank[0] - rank[1]).max() < 0.07


@pytest.mark.parity
@pytest.mark.parametrize("height, width", [(375, 500), (500, 375), (333, 257), (240, 240)])
def test_evaluation_pixels_are_torchvisions(transforms, height, width):
    picture = a_picture(height, width)
    theirs = transforms.CenterCrop(224)(transforms.Resize(256)(picture))
    np.testing.assert_array_equal(resized.evaluation_crop_resnet(picture), np.asarray(theirs))


@pytest.mark.parity
def test_training_pixels_are_torchvisions_for_the_same_box(transforms):
    picture = a_picture(200, 300)
    for index in range(5):
        box = resized.random_resized_crop_box(resized.crop_bits(0, 0, index), 200, 300)
        theirs = transforms.functional.resized_crop(picture, *box, [64, 64])
        np.testing.assert_array_equal(
            resized.random_resized_crop(picture, 64, 0, 0, index), np.asarray(theirs))
